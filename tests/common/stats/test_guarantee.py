"""Test the guarantee: against a textbook's bounds, and by simulating how often a threshold keeps what it promises."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from common.stats.guarantee import first_labels, guarantee, lower_bound
from tests.common.stats.glide_mapie_values import answers

OTHERS = Path(__file__).with_name("glide_mapie_values.json")


@pytest.mark.parametrize(("right", "labels"), [(0, 10), (7, 10), (59, 59), (180, 200)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_bounds_are_clopper_and_pearsons(right, labels, confidence):
    interval = binomtest(right, labels, alternative="greater").proportion_ci(confidence, method="exact")
    assert lower_bound(right, labels, confidence) == pytest.approx(interval.low, abs=1e-12)


def test_the_first_test_allows_one_error():
    first = first_labels(0.95, 0.95)
    assert first == 93  # tables of acceptance sampling have 93 for one failure at 95 % and 95 %
    assert lower_bound(92, 93, 0.95) >= 0.95 > lower_bound(91, 92, 0.95)


def test_the_first_test_of_a_very_high_target_is_found_at_once():
    first = first_labels(1 - 1e-9, 0.95)
    assert lower_bound(first - 1, first, 0.95) >= 1 - 1e-9 > lower_bound(first - 2, first - 1, 0.95)


def test_a_model_that_is_always_right_needs_no_review_and_one_that_guesses_needs_all():
    sure = np.linspace(0.5, 1, 400)
    always = guarantee(sure, np.ones(400), sure, 0.95)
    assert (always.threshold, always.share, always.labels, always.right) == (0.5, 1.0, 400, 400)
    never = guarantee(sure, np.arange(400) % 2, sure, 0.95)
    assert never.threshold is None and never.labels >= never.first
    few = guarantee(sure[:50], np.ones(50), sure, 0.95)
    assert few.threshold is None and few.labels == 0


@pytest.mark.parametrize("case", json.loads(OTHERS.read_text(encoding="utf-8"))["guarantees"], ids=lambda c: c["seed"])
def test_thresholds_are_those_of_another_packages_fixed_sequence_testing(case):
    sure, right = answers(case["seed"], case["items"], case["power"])
    assert guarantee(sure, right, sure, case["target"]).threshold == case["threshold"]


def test_tests_end_with_the_first_that_fails():
    """Half of the answers are certain and right, a tenth less certain and wrong, and the rest right again."""
    sure = np.concatenate([np.linspace(0.9, 1, 500), np.linspace(0.8, 0.89, 100), np.linspace(0.5, 0.79, 400)])
    right = np.concatenate([np.ones(500), np.zeros(100), np.ones(400)])
    found = guarantee(sure, right, sure, 0.95)
    assert 0.88 < found.threshold <= 0.9
    assert found.share == pytest.approx(0.5, abs=0.03)


RUNS = 1500


@pytest.mark.slow
@pytest.mark.parametrize("target", [0.8, 0.9])
@pytest.mark.parametrize("labels", [120, 400])
def test_what_is_guaranteed_holds_in_as_many_draws_as_promised(target, labels):
    draw, broken, found = np.random.default_rng(0), 0, 0
    for _ in range(RUNS):
        sure = draw.uniform(0.5, 1, 3000)
        right = draw.random(3000) < 0.5 + 0.5 * np.sqrt(2 * sure - 1)
        chosen = draw.choice(3000, labels, replace=False)
        result = guarantee(sure[chosen], right[chosen], sure, target)
        if result.threshold is not None:
            found += 1
            broken += right[sure >= result.threshold].mean() < target
    assert found > RUNS / 5
    assert broken / RUNS <= 0.05
