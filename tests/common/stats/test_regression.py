"""Regressions with both kinds of labels: against the papers' package and closed forms, and by simulation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from common.stats import regression
from common.stats.design import Design
from common.stats.regression import NoSolution, Table, by_both, by_machine, by_people
from tests.common.stats.ppi_py_values import regression as sample

CASES = json.loads(Path(__file__).with_name("ppi_py_regressions.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}-{case['weight']}")
def test_coefficients_are_those_of_the_papers_package(case):
    """Its linear regression solves other equations, which agree as labels grow in number."""
    covariates, labels, predictions = sample(case["seed"], n := case["labelled"], case["items"])
    tables = Table(labels[:n], covariates[:n]), Table(predictions[:n], covariates[:n]), Table(predictions, covariates)
    design = Design(np.zeros(n, dtype=int), np.array([float(case["items"])]))
    fit = regression._fit(*tables, np.eye(covariates.shape[1]), design, case["kind"], case["weight"])
    equal = case["kind"] == "logistic" or not case["weight"]
    assert fit.coefficients == pytest.approx(case["value"], abs=1e-6 if equal else 0.01)
    widths = [each["ci95"][1] - each["ci95"][0] for each in fit.measures()]
    assert widths == pytest.approx(np.subtract(case["high"], case["low"]), rel=0.04)


def test_a_weight_counts_as_so_many_items_and_a_perfect_machine_replaces_people():
    covariates, labels, _ = sample(5, 0, 400)
    strata = (np.arange(400) % 4 == 0).astype(int)
    chosen = np.concatenate([np.flatnonzero(strata == 0)[:60], np.flatnonzero(strata == 1)[:50]])
    design = Design(strata[chosen], np.array([300.0, 100.0]))
    known = Table(labels[chosen], covariates[chosen])
    # 60 of 300 items stand for 5 each, 50 of 100 for 2.
    times = np.where(strata[chosen], 2, 5)
    repeated = by_machine(Table(np.repeat(known.outcome, times), np.repeat(known.covariates, times, axis=0)), "linear")
    assert by_people(known, design, 400, "linear").coefficients == pytest.approx(repeated.coefficients)
    everything = Table(labels, covariates)
    perfect = by_both(known, known, everything, design, "logistic")
    assert perfect.weight == pytest.approx(1.0)
    assert perfect.coefficients == pytest.approx(by_machine(everything, "logistic").coefficients)


def test_a_useless_machine_gets_hardly_any_weight():
    covariates, labels, _ = sample(6, 0, 1000)
    guesses = np.random.default_rng(0).random(1000)
    design = Design(np.zeros(300, dtype=int), np.array([1000.0]))
    known, guessed = Table(labels[:300], covariates[:300]), Table(guesses[:300], covariates[:300])
    assert by_both(known, guessed, Table(guesses, covariates), design, "linear").weight < 0.15


@pytest.mark.parametrize("kind", ["linear", "logistic"])
def test_years_and_large_numbers_give_the_coefficients_of_small_ones(kind):
    covariates, labels, predictions = sample(9, 100, 500)
    design = Design(np.arange(100) % 2, np.array([400.0, 100.0]))

    def fits(covariates: np.ndarray, unit: float) -> list[regression.Fit]:
        people, machine = (Table(each * unit, covariates) for each in (labels, predictions))
        known, labeled = (Table(each.outcome[:100], each.covariates[:100]) for each in (people, machine))
        return [
            by_both(known, labeled, machine, design, kind),
            by_people(known, design, 500, kind),
            by_machine(machine, kind),
        ]

    covariates = np.column_stack([np.ones(500), np.arange(500) % 10, covariates[:, 1]])
    large = covariates * [1, 1, 1e9] + [0, 2015, 0]
    unit = 1e8 if kind == "linear" else 1.0  # of the outcome
    for small, other in zip(fits(covariates, 1.0), fits(large, unit), strict=True):
        assert other.coefficients[1:] * [1, 1e9] / unit == pytest.approx(small.coefficients[1:], rel=1e-6)
        assert other.errors[1:] * [1, 1e9] / unit == pytest.approx(small.errors[1:], rel=1e-6)
        before = other.coefficients[0] + 2015 * other.coefficients[1]
        assert before / unit == pytest.approx(small.coefficients[0], rel=1e-5)


def test_labels_stand_for_all_items_however_many_they_were_drawn_from():
    covariates, labels, predictions = sample(10, 200, 8000)
    known, labeled = (Table(each[:200], covariates[:200]) for each in (labels, predictions))
    machine, strata = Table(predictions, covariates), np.zeros(200, dtype=int)
    few, all_items = (
        by_both(known, labeled, machine, Design(strata, np.array([n])), "linear") for n in (1000.0, 8000.0)
    )
    assert few.coefficients == pytest.approx(all_items.coefficients)
    assert few.errors == pytest.approx(all_items.errors)


@pytest.mark.parametrize("kind", ["linear", "logistic"])
def test_covariates_that_repeat_each_other_have_no_coefficients(kind):
    covariates, labels, _ = sample(7, 0, 200)
    with pytest.raises((NoSolution, np.linalg.LinAlgError)):
        by_machine(Table(labels, covariates[:, [0, 1, 1]]), kind)


def test_labels_that_a_covariate_tells_have_no_log_odds():
    covariates, _, _ = sample(8, 0, 200)
    with pytest.raises(NoSolution):
        by_machine(Table(covariates[:, 1], covariates), "logistic")


RUNS = 300


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linear", "logistic"])
@pytest.mark.parametrize("as_covariate", [False, True])
@pytest.mark.parametrize("labels", [120, 300])
def test_intervals_hold_where_those_of_the_machine_fail(kind, as_covariate, labels):
    """The machine errs four times as often in one group; labels are drawn with unequal probabilities in four strata."""
    draw, held, by_chance = np.random.default_rng(0), np.zeros(3), np.zeros(3)
    for _ in range(RUNS):
        people, machine, hard, strata, truth = _made_up(draw, kind, as_covariate)
        chosen = np.concatenate(
            [draw.choice(np.flatnonzero(strata == s), labels // 4, replace=False) for s in range(4)]
        )
        design = Design(strata[chosen], np.bincount(strata).astype(float))
        known, labeled = (Table(each.outcome[chosen], each.covariates[chosen]) for each in (people, machine))
        for counts, fit in (
            (held, by_both(known, labeled, machine, design, kind)),
            (by_chance, by_machine(hard, kind)),
        ):
            counts += [
                low <= true <= high
                for (low, high), true in zip((m["ci95"] for m in fit.measures()), truth, strict=True)
            ]
    assert (held >= 0.92 * RUNS).all(), held / RUNS
    assert held.mean() >= 0.94 * RUNS
    assert by_chance[1] < 0.8 * RUNS


def _made_up(
    draw: np.random.Generator, kind: str, as_covariate: bool
) -> tuple[Table, Table, Table, np.ndarray, tuple[float, ...]]:
    """Return 3,000 items with the true labels, the machine's probabilities and its labels, their strata and the coefficients."""
    items = 3000
    group, time, one = (draw.random(items) < 0.3).astype(float), draw.random(items), np.ones(items)
    truth = (-0.5, 1.0, -0.8) if kind == "logistic" else (0.3, 0.25, -0.15)
    fitted = np.stack([one, group, time], axis=1) @ truth
    label = (draw.random(items) < (expit(fitted) if kind == "logistic" else fitted)).astype(float)
    hard = np.where(draw.random(items) < np.where(group == 1, 0.3, 0.075), 1 - label, label)
    soft = np.clip(0.15 + 0.7 * hard + draw.normal(0, 0.08, items), 0, 1)
    strata = (soft > 0.3).astype(int) + 2 * group.astype(int)
    if not as_covariate:
        return *(Table(each, np.stack([one, group, time], axis=1)) for each in (label, soft, hard)), strata, truth
    if kind == "logistic":
        truth = (-0.3, 0.9, 0.5)
        outcome = (draw.random(items) < expit(np.stack([one, label, time], axis=1) @ truth)).astype(float)
    else:
        truth = (1.0, 0.5, 0.7)
        outcome = np.stack([one, label, time], axis=1) @ truth + draw.normal(0, 1, items) * (1 + label)
    return *(Table(outcome, np.stack([one, each, time], axis=1)) for each in (label, soft, hard)), strata, truth
