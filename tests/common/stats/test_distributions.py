"""Distances of distributions and correlations, against their formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from common.stats import metrics


def formula_jsd(p: list[float], q: list[float]) -> float:
    """The root of the mean divergence from the middle, in nats."""
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return math.sqrt(sum(formula_kl(one, middle) for one in (p, q)) / 2)


def formula_kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def test_jensen_shannon_is_the_distance_in_nats():
    people = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
    model = np.array([[0.0, 0.5, 0.5], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5]])
    # By hand: the middle of the first two is (.25, .5, .25), each diverges from it by .5 ln 2.
    expected = [math.sqrt(0.5 * math.log(2)), math.sqrt(math.log(2)), 0.0]
    assert metrics.jensen_shannon(people, model) == pytest.approx(expected, abs=1e-9)
    assert pytest.approx(math.sqrt(math.log(2))) == metrics.FURTHEST


def test_distances_are_those_of_the_formulas():
    rng = np.random.default_rng(0)
    people, model = rng.dirichlet([0.5] * 3, size=200), rng.dirichlet([0.5] * 3, size=200)
    people[:20, 0] = 0
    people /= people.sum(1, keepdims=True)
    result = metrics.jensen_shannon(people, model)
    assert result == pytest.approx([formula_jsd(p, q) for p, q in zip(people.tolist(), model.tolist(), strict=True)])
    assert result == pytest.approx(metrics.jensen_shannon(model, people))
    assert not np.isnan(metrics.jensen_shannon(people, people * (1 + 1e-16))).any()
    result = metrics.kl_divergence(people, model)
    assert result == pytest.approx([formula_kl(p, q) for p, q in zip(people.tolist(), model.tolist(), strict=True)])


def test_kl_is_of_the_model_from_people_and_never_infinite():
    people, model = np.array([[0.5, 0.5, 0.0]]), np.array([[0.25, 0.25, 0.5]])
    assert metrics.kl_divergence(people, model) == pytest.approx([math.log(2)])
    blind = np.array([[1.0, 0.0, 0.0]])
    assert metrics.kl_divergence(people, blind) == pytest.approx([0.5 * math.log(0.5) + 0.5 * math.log(0.5e15)])


def test_entropy_is_in_bits():
    result = metrics.entropy(np.array([[1 / 3] * 3, [0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]))
    assert result == pytest.approx([math.log2(3), 1.0, 0.0])


def test_correlations_are_scipys_and_have_intervals():
    rng = np.random.default_rng(1)
    first = np.round(rng.random(80), 1)  # with ties
    second = first**3 + 0.2 * rng.random(80)
    for ours, theirs in ((metrics.pearson, stats.pearsonr), (metrics.spearman, stats.spearmanr)):
        result = ours(first, second, 0)
        assert result["value"] == pytest.approx(theirs(first, second).statistic)
        assert result["n"] == 80
        low, high = result["ci95"]
        assert low < result["value"] < high <= 1
        assert high - low < 0.3
        assert ours(first, -second, 0)["value"] == pytest.approx(-result["value"])
        assert ours(first, np.ones(80), 0) is None
        with pytest.raises(ValueError, match="80 numbers against 79"):
            ours(first, second[1:], 0)
