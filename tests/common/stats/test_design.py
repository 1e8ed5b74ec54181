"""Statistics of items that were drawn with unequal probabilities: against repeated items, and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from common.results.checks import agreement_finding, risk_coverage_finding
from common.stats import calibration, metrics
from common.stats.alt_test import p_value
from common.stats.design import Design

NAMES = ("a", "b", "c")


@pytest.fixture
def sample():
    """Return labels, answers and confidences of 40 items, and a design in which each stands for 1 to 3 items."""
    draw = np.random.default_rng(0)
    strata = np.repeat([0, 1, 2], [20, 12, 8])
    labels, answers = draw.integers(3, size=40), draw.integers(3, size=40)
    answers = np.where(draw.random(40) < 0.5, labels, answers)
    return labels, answers, draw.random(40).round(1), Design(strata, np.array([20.0, 24.0, 24.0]))


def test_a_weight_counts_as_so_many_items(sample):
    labels, answers, sure, design = sample
    times = design.weights.astype(int)
    right, probabilities = labels == answers, np.random.default_rng(1).dirichlet((1, 1, 1), 40)
    weighted = metrics.evaluate(labels, answers, NAMES, design=design)
    repeated = metrics.evaluate(np.repeat(labels, times), np.repeat(answers, times), NAMES)
    assert {name: each["value"] for name, each in weighted.items()} == pytest.approx(
        {name: each["value"] for name, each in repeated.items()}
    )
    assert weighted["accuracy"]["n"] == 40 and weighted["recall/a"]["n"] == (labels == 0).sum()
    assert metrics.mean(sure, 0, design)["value"] == pytest.approx(np.repeat(sure, times).mean())
    many = [np.repeat(each, times, axis=0) for each in (sure, right, probabilities, labels)]
    error = calibration.expected_calibration_error(sure, right, weights=design.weights)
    assert error == pytest.approx(calibration.expected_calibration_error(*many[:2]))
    points = calibration.reliability(sure, right, weights=design.weights)
    assert [point[:2] for point in points] == [pytest.approx(point[:2]) for point in calibration.reliability(*many[:2])]
    loss = calibration.negative_log_likelihood(probabilities, labels, design.weights)
    assert loss == pytest.approx(calibration.negative_log_likelihood(*many[2:]))
    kept = calibration.risks(sure, ~right, design.weights)
    assert kept[[9, 19, 39]] == pytest.approx(calibration.risks(many[0], ~many[1])[[16, 33, 67]])


def test_a_few_certain_answers_that_are_right_do_not_prove_that_all_are():
    """Of 60 labels, the 10 that stand for the certain half are all right: as many of a simple draw prove little."""
    sure, right = np.r_[np.full(50, 0.6), np.full(10, 0.9)], np.r_[np.arange(50) % 2, np.ones(10)]
    design = Design(np.r_[np.zeros(50, int), np.ones(10, int)], np.array([500.0, 500.0]))
    about = {"task": "t", "model": "m", "data": {"name": "d", "split": "s", "fingerprint": "f"}}
    finding = risk_coverage_finding(sure, right, metric="accuracy", seed=0, design=design, **about)
    half = list(finding.parts[1].rows.values())[-1]
    assert (half["value"], half["n"]) == (1.0, 10)
    assert half["ci95"] == pytest.approx([0.722, 1.0], abs=0.001)  # Wilson's interval of 10 of 10


def test_a_part_keeps_its_weights(sample):
    *_, design = sample
    places = [1, 3, 25, 39]
    assert design.part(places).weights.tolist() == design.weights[places].tolist()


def test_agreement_counts_items_by_their_weights():
    """With each item repeated as often as its weight says, kappa and the winning shares are the same."""
    draw = np.random.default_rng(3)
    drawn = {n: ("a", 1.0) if n < 40 else ("b", 1 / 3) for n in range(80)}
    times = [round(1 / probability) for _, probability in drawn.values()]
    people = {n: {who: int(draw.integers(2)) for who in ("ann", "bob", "cyd")} for n in drawn}
    model = {n: int(draw.random() < 0.7) if n < 40 else people[n]["ann"] for n in drawn}
    each = [(n, copy) for n in drawn for copy in range(times[n])]
    about = {"task": "t", "model": "m", "data": {"name": "d", "split": "s", "fingerprint": "f"}}
    repeated = ({(n, copy): people[n] for n, copy in each}, {(n, copy): model[n] for n, copy in each})
    weighted, expected = (
        agreement_finding(people, model, drawn=drawn, **about).facts,
        agreement_finding(*repeated, **about).facts,
    )
    of, rho = "Cohen's kappa", lambda facts: facts["alternative_annotator_test"]["rho"]
    for name, coefficient in expected["coefficients"][of].items():
        assert weighted["coefficients"][of][name]["value"] == pytest.approx(coefficient["value"])
    assert rho(weighted) == pytest.approx(rho(expected))
    assert rho(weighted) != pytest.approx(rho(agreement_finding(people, model, **about).facts))


def uncertain_draw(draw: np.random.Generator, accuracy: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, Design]:
    """Return labels and answers of 4,000 items, and 200 of them: more where the model errs more often."""
    confidence = draw.beta(5, 1, 4000) / 2 + 0.5
    right = draw.random(4000) < np.clip(accuracy + confidence - confidence.mean(), 0.02, 0.999)
    labels = (draw.random(4000) < 0.8).astype(int)
    strata = np.searchsorted(np.quantile(confidence, (0.05, 0.15, 0.35, 0.65)), confidence)
    counts = (60, 50, 40, 30, 20)
    chosen = [draw.choice(np.flatnonzero(strata == n), count, replace=False) for n, count in enumerate(counts)]
    places = np.concatenate(chosen)
    return (
        labels,
        np.where(right, labels, 1 - labels),
        places,
        Design(strata[places], np.bincount(strata).astype(float)),
    )


@pytest.mark.slow
@pytest.mark.parametrize("accuracy", [0.9, 0.97])
def test_intervals_hold_where_those_of_unweighted_items_fail(accuracy, monkeypatch):
    monkeypatch.setattr(metrics, "RESAMPLES", 300)
    draw, runs, held, unweighted = np.random.default_rng(1), 200, {}, 0
    for _ in range(runs):
        labels, answers, places, design = uncertain_draw(draw, accuracy)
        truth = metrics.scores(metrics.confusion_matrix(labels, answers, 2), ("a", "b"))
        gain = (labels == answers).astype(float) - (labels == 1)
        own = metrics.evaluate(labels[places], answers[places], ("a", "b"), design=design)
        own["gain"], truth["gain"] = metrics.mean(gain[places], 0, design, (-1, 1), 300), gain.mean()
        for name in ("accuracy", "balanced_accuracy", "f1/macro", "gain"):
            low, high = own[name]["ci95"]
            held[name] = held.get(name, 0) + (low <= truth[name] <= high)
        low, high = metrics.evaluate(labels[places], answers[places], ("a", "b"))["accuracy"]["ci95"]
        unweighted += low <= truth["accuracy"] <= high
    assert all(count >= 0.93 * runs for count in held.values()), held
    assert unweighted < 0.5 * runs


@pytest.mark.slow
def test_the_weighted_test_against_an_annotator_keeps_its_level():
    """The model is worse by exactly ε, less so on rare items, of which more were drawn."""
    draw, runs, wins, unweighted = np.random.default_rng(2), 2000, 0, 0
    design = Design(np.repeat([0, 1], [80, 60]), np.array([160.0, 1200.0]))
    rare, frequent = (0.35, 0.6, 0.05), (0.05, 0.7467, 0.2033)  # shares of −1, 0 and 1; means −.3 and .1533
    for _ in range(runs):
        differences = np.append(draw.choice((-1, 0, 1), 80, p=rare), draw.choice((-1, 0, 1), 60, p=frequent))
        wins += p_value(differences, 0.1, design)[0] <= 0.05
        unweighted += p_value(differences, 0.1)[0] <= 0.05
    assert 0.02 * runs <= wins <= 0.065 * runs
    assert unweighted > 0.5 * runs


@pytest.mark.slow
def test_intervals_of_agreement_hold_where_those_of_unweighted_items_fail():
    """People and the model err more often on hard items, of which more were drawn."""
    draw, count, runs, pairs = np.random.default_rng(2), 2000, 200, ("model and people", "people among themselves")
    truth, hard = draw.random(count) < 0.3, draw.random(count) < 0.3
    people = [truth ^ (draw.random(count) < np.where(hard, 0.35, 0.05)) for _ in range(3)]
    model = truth ^ (draw.random(count) < np.where(hard, 0.4, 0.08))

    def alphas(places, drawn=None, resamples=2):
        labels = {n: {str(who): bool(each[n]) for who, each in enumerate(people)} for n in places}
        answers = {n: bool(model[n]) for n in places}
        finding = agreement_finding(labels, answers, drawn=drawn, resamples=resamples, **about)
        return finding.facts["coefficients"]["Krippendorff's alpha"]

    about = {"task": "t", "model": "m", "data": {"name": "d", "split": "s", "fingerprint": "0"}}
    of_all, held, unweighted = alphas(range(count)), dict.fromkeys(pairs, 0), 0
    for run in range(runs):
        drawn = {}
        for name, stratum, size in (("hard", hard, 100), ("easy", ~hard, 60)):
            among = np.flatnonzero(stratum)
            drawn |= {int(n): (name, size / len(among)) for n in draw.choice(among, size, replace=False)}
        found = alphas(list(drawn), drawn, 300)
        for pair in pairs:
            low, high = found[pair]["ci95"]
            held[pair] += low <= of_all[pair]["value"] <= high
        if run % 10 == 0:
            low, high = alphas(list(drawn), None, 300)[pairs[0]]["ci95"]
            unweighted += low <= of_all[pairs[0]]["value"] <= high
    assert all(count >= 0.93 * runs for count in held.values()), held
    assert unweighted < 0.25 * runs / 10
