"""Test shares from labels that were drawn with unequal probabilities: against known values, and by simulation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from common.cli.errors import UserError
from common.stats import prediction_powered
from common.stats.design import Design, design_of
from common.stats.stratified import share
from tests.common.stats.glide_mapie_values import strata

OTHERS = Path(__file__).with_name("glide_mapie_values.json")


def test_one_stratum_is_a_simple_draw():
    draw = np.random.default_rng(0)
    truth = (draw.random(500) < 0.3).astype(float)
    machine = np.clip(truth * 0.6 + draw.random(500) * 0.4, 0, 1)
    known = slice(0, 80)
    mine = share(truth[known], machine[known], Design(np.zeros(80, int), np.array([500.0])), float(machine.mean()), 500)
    theirs = prediction_powered.share(truth[known], machine[known], machine[80:])
    assert mine.value == pytest.approx(theirs.value)
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert mine.standard_error == pytest.approx(theirs.standard_error)


def test_without_a_machine_it_is_the_textbooks_stratified_mean():
    """A stratum of 60 with 1 of 3 labels positive, and one of 40 with 3 of 4."""
    design = Design(np.array([0, 0, 0, 1, 1, 1, 1]), np.array([60.0, 40.0]))
    estimate = share([1, 0, 0, 1, 1, 1, 0], np.zeros(7), design, 0.0, 100)
    assert estimate.value == pytest.approx(0.6 / 3 + 0.4 * 0.75)
    variance = 0.36 * (1 - 3 / 60) * (2 / 9) / 3 + 0.16 * (1 - 4 / 40) * (3 / 16) / 4
    assert estimate.standard_error == pytest.approx(variance**0.5)
    assert design.effective() == pytest.approx(100**2 / (3 * 20**2 + 4 * 10**2))


def test_the_variance_of_a_part_is_that_of_a_ratio_of_totals():
    """The textbook's linearized variable: each label minus the part's mean within the part, and 0 outside of it."""
    draw = np.random.default_rng(2)
    strata, sizes = np.repeat([0, 1], [30, 20]), np.array([300.0, 60.0])
    labels, inside = (draw.random(50) < np.where(strata, 0.8, 0.2)).astype(float), draw.random(50) < 0.5
    weights = (sizes / [30, 20])[strata] * inside
    mean = weights @ labels / weights.sum()
    linearized = np.where(inside, labels - mean, 0)
    variance = sum(
        size**2 * (1 - count / size) * linearized[strata == s].var() / count
        for s, (size, count) in enumerate(zip(sizes, (30, 20), strict=True))
    )
    estimate = share(labels, np.zeros(50), Design(strata, sizes), 0.0, 180, within=inside)
    assert estimate.value == pytest.approx(mean)
    assert estimate.standard_error == pytest.approx(variance**0.5 / weights.sum())


@pytest.mark.parametrize(
    "case", json.loads(OTHERS.read_text(encoding="utf-8"))["shares"], ids=lambda case: case["seed"]
)
def test_means_are_those_of_another_package(case):
    """It divides by n − 1 and takes the strata to be endless."""
    places, labels = strata(case["seed"], tuple(case["sizes"]), n := case["labeled"])
    estimate = share(labels, np.zeros(len(labels)), Design(places, np.array(case["sizes"]) * 1e9), 0.0, len(labels))
    assert estimate.value == pytest.approx(case["mean"])
    assert estimate.standard_error == pytest.approx(case["standard_error"] * ((n - 1) / n) ** 0.5)


def test_all_of_a_file_labeled_leaves_no_error():
    design = Design(np.array([0, 0, 1]), np.array([2.0, 1.0]))
    estimate = share([1, 0, 1], [0.9, 0.1, 0.5], design, 0.5, 3)
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((2 / 3, 2 / 3, 2 / 3))


def test_a_part_in_one_stratum_has_the_interval_of_that_stratum_alone():
    """As of a source, where labels were drawn by source."""
    labels = np.tile([1.0, 0, 0], 10)
    alone = share(labels, np.zeros(30), Design(np.zeros(30, dtype=int), np.array([500.0])), 0.0, 500)
    strata = np.repeat(np.arange(40), 30)
    design = Design(strata, np.full(40, 500.0))
    part = share(np.tile(labels, 40), np.zeros(1200), design, 0.0, 500, within=strata == 7)
    assert (part.value, part.low, part.high) == pytest.approx((alone.value, alone.low, alone.high))


def test_the_design_counts_rows_without_a_label_and_leaves_out_strata_without_any():
    drawn = {"r": ("a", 0.1), "s": ("a", 0.1), "t": ("b", 0.5), "u": ("b", 0.5), "v": ("c", 1.0)}
    design = design_of(drawn, ["t", "r", "u"])
    assert design.strata.tolist() == [1, 0, 1]
    assert design.sizes.tolist() == [20, 4]
    with pytest.raises(ValueError, match="without a labeled item"):
        Design(np.array([0]), np.array([1.0, 2.0]))
    with pytest.raises(UserError, match="no sampling probability"):
        design_of(drawn, ["r", "other"])


RUNS = 400


@pytest.mark.slow
@pytest.mark.parametrize("rare", [0.03, 0.1, 0.4])
@pytest.mark.parametrize("missed", [0.1, 0.3])
def test_intervals_hold_where_those_of_unweighted_labels_fail(rare, missed):
    """People label as many rows of a small source as of the rest; in it, the class is frequent, and the model misses most."""
    draw, held, unweighted_held, part_held, parts = np.random.default_rng(1), 0, 0, 0, 0
    items, labels = 2000, 120
    for _ in range(RUNS):
        strata = (draw.random(items) < 0.1).astype(int)
        truth = draw.random(items) < np.where(strata, rare + 0.3, rare)
        named = np.where(truth, draw.random(items) > np.where(strata, 0.8, missed), draw.random(items) < 0.1)
        machine = np.where(named, draw.uniform(0.6, 1, items), draw.uniform(0, 0.3, items))
        sizes = np.bincount(strata, minlength=2)
        chosen = np.concatenate([draw.choice(np.flatnonzero(strata == s), labels // 2, replace=False) for s in (0, 1)])
        design = Design(strata[chosen], sizes.astype(float))
        known, predicted = truth[chosen].astype(float), machine[chosen]
        estimate = share(known, predicted, design, float(machine.mean()), items)
        held += estimate.holds(truth.mean())
        rest = np.setdiff1d(np.arange(items), chosen)
        unweighted = prediction_powered.share(known, predicted, machine[rest])
        unweighted_held += unweighted.holds(truth.mean())
        part = draw.random(items) < 0.5
        inside = part[chosen]
        of_part = share(known, predicted, design, float(machine[part].mean()), int(part.sum()), within=inside)
        part_held, parts = part_held + of_part.holds(truth[part].mean()), parts + 1
    assert held / RUNS >= 0.93
    assert part_held / parts >= 0.93
    assert unweighted_held / RUNS < 0.85
