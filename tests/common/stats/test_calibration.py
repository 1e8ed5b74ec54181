"""Calibration and selective prediction, against hand calculations, scikit-learn and models with known calibration."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sklearn.metrics import log_loss

from common.results.checks import calibration_finding, risk_coverage_finding
from common.stats.calibration import (
    HOTTEST,
    area,
    expected_by_chance,
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    reliability,
    risks,
    tempered,
)

ABOUT = {"task": "t", "model": "m", "data": {"name": "d", "split": "test", "fingerprint": "0"}}


@pytest.fixture(scope="module")
def honest() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and labels drawn by them."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3)) * 2
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (probabilities.cumsum(1) > rng.random((4000, 1))).argmax(1)
    return probabilities, labels


def test_calibration_error_by_hand():
    # Bins of a fifteenth: .61 and .65 share (.6, .667], .95 is alone, .3 is alone.
    confidence = np.array([0.61, 0.65, 0.95, 0.3])
    right = np.array([1, 0, 1, 0])
    assert reliability(confidence, right) == [(0.3, 0.0, 1), (pytest.approx(0.63), 0.5, 2), (0.95, 1.0, 1)]
    by_hand = (1 * 0.3 + 2 * abs(0.63 - 0.5) + 1 * 0.05) / 4
    assert expected_calibration_error(confidence, right) == pytest.approx(by_hand)
    # An edge belongs to the bin below it, as in the paper's (m - 1, m]; 0 and 1 have bins too.
    assert [n for _, _, n in reliability(np.array([1 / 15, 1 / 15 + 1e-9, 0.0, 1.0]), np.ones(4))] == [2, 1, 1]


def test_the_temperature_that_was_applied_is_found_again(honest):
    probabilities, labels = honest
    assert fit_temperature(probabilities, labels) == pytest.approx(1, abs=0.05)
    for applied in (0.4, 2.5):
        distorted = tempered(probabilities, 1 / applied)
        fitted = fit_temperature(distorted, labels)
        assert fitted == pytest.approx(applied, rel=0.06)
        np.testing.assert_allclose(tempered(distorted, applied), probabilities, atol=1e-9)
        assert (distorted.argmax(1) == probabilities.argmax(1)).all(), "a temperature changes no answer"
        restored = negative_log_likelihood(tempered(distorted, fitted), labels)
        assert restored <= negative_log_likelihood(tempered(distorted, fitted * 1.05), labels)
        assert restored <= negative_log_likelihood(tempered(distorted, fitted / 1.05), labels)


def test_the_likelihood_is_that_of_scikit_learn(honest):
    probabilities, labels = honest
    assert negative_log_likelihood(probabilities, labels) == pytest.approx(log_loss(labels, probabilities))
    assert np.isfinite(negative_log_likelihood(np.array([[0.0, 1.0]]), [0]))


def test_a_model_that_is_always_right_gets_as_sure_as_its_items_allow():
    """Not as sure as can be: 50 right answers do not show that the next is right, and ties would leave nothing to order."""
    rng = np.random.default_rng(0)
    first = rng.uniform(0.6, 0.99, 50)
    probabilities = np.stack([first, 1 - first], axis=1)
    sure = tempered(probabilities, fit_temperature(probabilities, [0] * 50)).max(1)
    assert 0.95 < sure.mean() < 0.999
    assert len(set(sure.round(6))) == 50
    wrong = tempered(probabilities, fit_temperature(probabilities, [1] * 50)).max(1)
    assert wrong.max() < 0.65, "one that is always wrong is as good as unsure"
    assert 1 / HOTTEST < fit_temperature(probabilities, [0] * 50) < 1
    assert np.isfinite(tempered(np.array([[1.0, 0.0]]), 0.05)).all()


def test_what_calibration_error_chance_would_show():
    rng = np.random.default_rng(0)
    mean, most = expected_by_chance(np.full(100, 0.8), seed=0)
    # One bin: the error is the distance of a mean of 100 draws from .8, whose standard deviation is .04.
    assert mean == pytest.approx(0.04 * np.sqrt(2 / np.pi), abs=0.002)
    assert most == pytest.approx(0.04 * 1.96, abs=0.011)
    under = 0
    for seed in range(40):
        confidence = rng.uniform(0.4, 1, 300)
        right = rng.random(300) < confidence
        under += expected_calibration_error(confidence, right) <= expected_by_chance(confidence, seed)[1]
    assert 34 <= under <= 40, "a calibrated model stays below in 95 % of cases"


def test_the_finding_distinguishes_calibrated_from_overconfident_models(honest):
    probabilities, labels = honest
    finding = calibration_finding(probabilities, labels, temperature=1.0, seed=0, **ABOUT)
    assert finding.summary[0].startswith("No miscalibration is shown on average: confidence minus accuracy is ")
    assert "within what chance would show" in finding.summary[2]
    assert "No temperature was fitted" in finding.summary[2]
    finding = calibration_finding(tempered(probabilities, 0.5), labels, temperature=2.0, seed=0, **ABOUT)
    assert finding.summary[0].startswith("It is overconfident by ")
    assert "more than chance would show" in finding.summary[2]
    hesitant = calibration_finding(tempered(probabilities, 2), labels, temperature=1.0, seed=0, **ABOUT)
    assert re.match(r"It is underconfident by 0\.\d+ \[0\.", hesitant.summary[0])
    as_given, without = finding.facts["errors"].values()
    # Without the temperature it is even more overconfident.
    assert without["ece"] > as_given["ece"] > 0.1
    assert without["ece"] == pytest.approx(
        expected_calibration_error((p := tempered(probabilities, 0.25)).max(1), p.argmax(1) == labels)
    )
    assert [row[:2] for row in finding.parts[1].rows] == [
        ["as given", round(as_given["ece"], 4)],
        ["without the temperature", round(without["ece"], 4)],
    ]


def test_risk_and_coverage_by_hand():
    # Most certain first: right, wrong, right, wrong. Risks 0, 1/2, 1/3, 1/2.
    confidence, losses = [0.6, 0.9, 0.7, 0.8], [1, 0, 0, 1]
    np.testing.assert_allclose(risks(confidence, losses), [0, 1 / 2, 1 / 3, 1 / 2])
    assert area(np.array(confidence), np.array(losses)) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    # Ties: their order in the file must not matter.
    for order in ([0, 0, 1, 1], [1, 0, 1, 0]):
        np.testing.assert_allclose(risks([0.5] * 4, order), [0.5] * 4)


def test_the_most_certain_half_remains(honest):
    probabilities, labels = honest
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels
    finding = risk_coverage_finding(sure, right, metric="accuracy", seed=0, **ABOUT)
    rows = finding.parts[1].rows
    everything, *_, half = rows.values()
    assert everything["value"] == pytest.approx(right.mean())
    assert everything["n"] == 4000
    assert half["n"] == 2000
    assert half["value"] == pytest.approx(right[np.argsort(-sure)[:2000]].mean())
    assert f"{half['value']:.3f} [" in finding.summary[0]
    shuffled = np.random.default_rng(1).permutation(4000)
    again = risk_coverage_finding(sure[shuffled].round(1), right[shuffled], metric="accuracy", seed=0, **ABOUT)
    other = risk_coverage_finding(sure.round(1), right, metric="accuracy", seed=0, **ABOUT)
    values = [[row["value"] for row in each.parts[1].rows.values()] for each in (again, other)]
    assert values[0] == pytest.approx(values[1]), "ties have no order"
    facts = finding.facts
    assert facts["aurc_best"] < facts["aurc"]["value"] < facts["mean_loss"]
    assert facts["aurc"]["ci95"][0] < facts["aurc"]["value"] < facts["aurc"]["ci95"][1]
    curve = finding.parts[0].series["by its own certainty"]
    assert curve[-1] == [1.0, pytest.approx(right.mean())]
