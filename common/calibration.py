"""How far a classifier's probabilities can be believed: calibration error, reliability diagram, temperature scaling.

After Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks" (ICML).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from common import bootstrap
from common.bootstrap import Measure
from common.findings import Curve, Finding, Listing, Measures

BINS = 15  # of equal width, as in the paper
HOTTEST = 20.0  # the temperature is looked for between 1 / HOTTEST and HOTTEST
LIMITS = (
    "Whether single answers are right, or how the probabilities fare on items of another kind: a probability that is right on "
    "average over these items may be wrong for each group of them. The calibration error is of the likeliest label only, and "
    "grows a little with few items even where the probabilities are right."
)


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities, shape (n, classes), as if their logits had been divided by the temperature. The likeliest class stays."""
    if temperature == 1.0:
        return probabilities
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities) / temperature
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, labels: Sequence[int]) -> float:
    """The temperature that makes the labels likeliest (least negative log-likelihood).

    Args:
        probabilities: Shape (n, classes), of items that the model was not trained on.
        labels: The class of each.

    Returns:
        Above 1 for an overconfident model; between 1 / :data:`HOTTEST` and :data:`HOTTEST`, also where every answer is right
        and the likelihood would grow for ever.
    """
    from scipy.optimize import minimize_scalar

    chosen = np.asarray(labels, dtype=int)
    ends = (-np.log(HOTTEST), np.log(HOTTEST))

    def loss(logarithm: float) -> float:
        return negative_log_likelihood(tempered(probabilities, float(np.exp(logarithm))), chosen)

    found = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(min((found.x, *ends), key=loss)))


def negative_log_likelihood(probabilities: np.ndarray, labels: Sequence[int] | np.ndarray) -> float:
    """Mean over items, in nats. A probability of 0 counts as the smallest positive float."""
    own = np.asarray(probabilities)[np.arange(len(labels)), np.asarray(labels, dtype=int)]
    return float(-np.log(np.maximum(own, np.finfo(float).tiny)).mean())


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> list[tuple[float, float, int]]:
    """Mean confidence, share of right answers and number of items of each bin of equal width that holds any; (0, 1/15] first."""
    sure, correct = np.asarray(confidence, dtype=float), np.asarray(right, dtype=float)
    numbers = _bin_numbers(sure, bins)
    return [
        (float(sure[numbers == b].mean()), float(correct[numbers == b].mean()), int((numbers == b).sum()))
        for b in np.unique(numbers)
    ]


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """Mean distance of confidence and share of right answers over bins, each weighed by its items (ECE)."""
    sure, correct = np.asarray(confidence, dtype=float), np.asarray(right, dtype=float)
    # |sum of confidence - sum of right answers| of each bin is n times the distance of their means.
    gaps = np.bincount(_bin_numbers(sure, bins), weights=sure - correct, minlength=bins)
    return float(np.abs(gaps).sum() / len(sure))


def _bin_numbers(confidence: np.ndarray, bins: int) -> np.ndarray:
    return np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)


def measure_calibration(probabilities: np.ndarray, labels: Sequence[int], seed: int) -> dict[str, Measure]:
    """Calibration error and negative log-likelihood with their intervals."""
    known = np.asarray(labels, dtype=int)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == known
    own = probabilities[np.arange(len(known)), known]
    return {
        "ece": bootstrap.measure(
            lambda chosen: expected_calibration_error(confidence[chosen], right[chosen]), len(known), seed
        ),
        "nll": bootstrap.mean(-np.log(np.maximum(own, np.finfo(float).tiny)), seed),
    }


def calibration_finding(
    probabilities: np.ndarray, labels: Sequence[int], *, temperature: float, seed: int, **about: Any
) -> Finding:
    """What a model's probabilities are worth, as they are given and without the temperature.

    Args:
        probabilities: Shape (n, classes), after the temperature.
        labels: The class of each item.
        temperature: What the logits were divided by; 1 where nothing was fitted.
        seed: Seed of the bootstrap.
        about: ``task``, ``model``, ``data``, ``miniature``, ``command`` of the finding.
    """
    known = np.asarray(labels, dtype=int)
    given = {"as given": probabilities}
    if temperature != 1.0:
        given["without the temperature"] = tempered(probabilities, 1 / temperature)
    found = {name: measure_calibration(p, labels, seed) for name, p in given.items()}
    bins = {name: reliability(p.max(1), p.argmax(1) == known) for name, p in given.items()}
    ece = found["as given"]["ece"]
    confidence, right = probabilities.max(1), probabilities.argmax(1) == known
    gap = bootstrap.mean(confidence - right, seed)
    chance = ", which may be chance" if gap["ci95"][0] <= 0 <= gap["ci95"][1] else ""
    summary = [
        f"On average its answers are given a probability of {confidence.mean():.3f} and {right.mean():.3f} of them are right: "
        f"{abs(gap['value']):.3f} {'too' if gap['value'] > 0 else 'not'} sure{'' if gap['value'] > 0 else ' enough'} "
        f"(95 % interval of the difference [{gap['ci95'][0]:.3f}, {gap['ci95'][1]:.3f}]{chance}).",
        f"Expected calibration error {ece['value']:.3f} [{ece['ci95'][0]:.3f}, {ece['ci95'][1]:.3f}] over {BINS} bins"
        + (
            f"; {found['without the temperature']['ece']['value']:.3f} without the temperature of {temperature:.3f} that was "
            "fitted on validation items."
            if temperature != 1.0
            else "; no temperature was fitted."
        ),
    ]
    parts = [
        Curve(
            "Reliability: share of right answers by confidence",
            "confidence",
            "share of right answers",
            {name: [[x, y] for x, y, _ in points] for name, points in bins.items()},
            diagonal=True,
        ),
        Measures("Expected calibration error", "probabilities", "ECE", {k: v["ece"] for k, v in found.items()}),
        Listing(
            "Reliability in bins, as given",
            ["mean confidence", "share of right answers", "n"],
            [[round(x, 4), round(y, 4), n] for x, y, n in bins["as given"]],
        ),
    ]
    return Finding(
        name="calibration",
        title="Can its probabilities be believed?",
        summary=summary,
        parts=parts,
        limits=LIMITS,
        facts={
            "temperature": temperature,
            "bins": BINS,
            "measures": found,
            "confidence_minus_accuracy": gap,
            "source": "Guo et al. 2017",
        },
        **about,
    )
