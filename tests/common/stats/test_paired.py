"""Two methods on the same items with several seeds: scores, differences, McNemar's test, and verdicts."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, precision_recall_fscore_support

from common.stats.paired import balanced_difference, difference, mcnemar, over_seeds, verdict

NAMES = ("a", "b", "c")


def answers(rng: np.random.Generator, labels: np.ndarray, right: float) -> np.ndarray:
    wrong = (labels + rng.integers(1, 3, len(labels))) % 3
    return np.where(rng.random(len(labels)) < right, labels, wrong)


def test_mcnemars_test_is_the_exact_binomial_one():
    first = np.array([1] * 50 + [1] * 3 + [0] * 12 + [0] * 9, dtype=bool)
    second = np.array([1] * 50 + [0] * 3 + [1] * 12 + [0] * 9, dtype=bool)
    result = mcnemar(first, second)
    assert (result.both, result.only_first, result.only_second, result.neither) == (50, 3, 12, 9)
    assert result.p == pytest.approx(2 * sum(comb(15, k) for k in range(4)) / 2**15)
    assert mcnemar(first, first).p == 1.0


def test_scores_over_seeds_are_the_means_of_the_seeds_scores():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    given = np.stack([answers(rng, labels, right) for right in (0.7, 0.8, 0.75)])
    result = over_seeds(labels, given, NAMES, seed=1)
    each = [accuracy_score(labels, one) for one in given]
    assert result["accuracy"]["value"] == pytest.approx(np.mean(each))
    assert result["accuracy"]["sd"] == pytest.approx(np.std(each, ddof=1))
    low, high = result["accuracy"]["ci95"]
    assert low < np.mean(each) < high
    for average in ("weighted", "macro"):
        scores = [precision_recall_fscore_support(labels, one, average=average)[:3] for one in given]
        shown = [result[f"{name}/{average}"]["value"] for name in ("precision", "recall", "f1")]
        assert shown == pytest.approx(np.mean(scores, axis=0))
    assert (result["recall/b"]["n"], result["accuracy"]["n"]) == ((labels == 1).sum(), 400)
    assert over_seeds(labels, given[:1], NAMES, seed=1)["accuracy"]["sd"] is None


def test_seeds_that_differ_widen_the_interval():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 2000)
    same = answers(rng, labels, 0.8)
    alike = over_seeds(labels, np.stack([same] * 3), NAMES, seed=0)["accuracy"]
    apart = over_seeds(labels, np.stack([answers(rng, labels, right) for right in (0.74, 0.8, 0.86)]), NAMES, seed=0)[
        "accuracy"
    ]
    assert np.ptp(apart["ci95"]) > 1.5 * np.ptp(alike["ci95"])


def test_what_all_get_right_is_no_certainty():
    result = over_seeds([0, 1, 2] * 4, np.array([[0, 1, 2] * 4] * 3), NAMES, seed=0)["accuracy"]
    assert result["ci95"] == pytest.approx([0.757, 1], abs=1e-3)


def test_a_difference_is_paired_by_items():
    """Two models that are right on nearly the same items differ by little more than where they part."""
    rng = np.random.default_rng(0)
    hard = rng.random(3000) < 0.3
    first = np.stack([~hard] * 2)
    second = first.copy()
    second[:, :30] = ~second[:, :30]
    result = difference(first, second, seed=0)
    assert result["value"] == pytest.approx(second.mean() - first.mean())
    assert np.ptp(result["ci95"]) < 0.01
    unpaired = difference(first, second[:, rng.permutation(3000)], seed=0)
    assert np.ptp(unpaired["ci95"]) > 3 * np.ptp(result["ci95"])


def test_a_balanced_difference_weighs_the_classes_equally():
    rng = np.random.default_rng(0)
    labels = np.array([0] * 3 + [1] * 300)  # some draws have no item of the rare class
    first, second = (np.stack([rng.integers(0, 2, 303) for _ in range(seeds)]) for seeds in (2, 3))
    result = balanced_difference(first == labels, second == labels, labels, seed=0)
    means = [np.mean([balanced_accuracy_score(labels, one) for one in given]) for given in (first, second)]
    assert result["value"] == pytest.approx(means[1] - means[0])
    assert result["ci95"][0] < result["value"] < result["ci95"][1]
    even = rng.integers(0, 2, 400)
    right = [rng.random((1, 400)) < share for share in (0.6, 0.9)]
    plain, balanced = difference(*right, seed=0), balanced_difference(*right, even, seed=0)
    np.testing.assert_allclose(balanced["ci95"], plain["ci95"], atol=0.02)


def test_seeds_that_differ_widen_the_interval_of_a_difference():
    """Each seed moves its model by far more than 3,000 items leave open."""
    rng = np.random.default_rng(0)
    ease = rng.beta(4, 1, 3000)
    first, second = (np.stack([rng.random(3000) < ease + moved for moved in (-0.05, 0, 0.05)]) for _ in range(2))
    over_both = np.ptp(difference(first, second, seed=0)["ci95"])
    over_items = np.ptp(difference(first[1:2], second[1:2], seed=0)["ci95"])
    assert over_both > 2 * over_items


def test_intervals_of_differences_hold_the_true_one():
    """Items of one difficulty each, seeds that move a model as a whole: most 95 % intervals hold the truth, here 9 of 10."""
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(60):
        ease = rng.beta(4, 1, 300)

        def right(seeds: int, ease: np.ndarray = ease) -> np.ndarray:
            return rng.random((seeds, 300)) < np.clip(ease + rng.normal(0, 0.02, (seeds, 1)), 0, 1)

        low, high = difference(right(6), right(6), seed=trial)["ci95"]
        held += low <= 0 <= high
    assert held >= 54


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ([-0.004, 0.02], "non-inferior"),
        ([-0.005, 0.02], "undecided"),
        ([-0.02, 0.02], "undecided"),
        ([-0.02, -0.005], "undecided"),
        ([-0.02, -0.006], "inferior"),
        ([0.0, 0.0], "undecided"),
    ],
)
def test_the_verdict_is_that_of_the_whole_interval(interval, expected):
    assert verdict({"value": 0.0, "n": 10, "ci95": interval}) == expected
