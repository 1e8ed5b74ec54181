"""How far a classifier's probabilities can be believed: calibration error, reliability diagram, temperature scaling.

After Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks" (ICML).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from common import bootstrap
from common.findings import Curve, Finding, Listing

BINS = 15  # of equal width, as in the paper
HOTTEST = 20.0  # the temperature is looked for between 1 / HOTTEST and HOTTEST
LIMITS = (
    "Whether single answers are right, or how the probabilities fare on items of another kind: a probability that is right on "
    "average over these items may be wrong for each group of them. The calibration error is of the likeliest label only."
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

    Where every answer is right, the likelihood would grow for ever towards a certainty that n items do not show. So, as in Platt
    1999, the target of a label is not 1 but (n + 1) / (n + 2), and the other classes share the rest.

    Args:
        probabilities: Shape (n, classes), of items that the model was not trained on.
        labels: The class of each.

    Returns:
        Above 1 for an overconfident model; between 1 / :data:`HOTTEST` and :data:`HOTTEST`.
    """
    from scipy.optimize import minimize_scalar

    chosen = np.asarray(labels, dtype=int)
    ends = (-np.log(HOTTEST), np.log(HOTTEST))

    rest = 1 / (len(chosen) + 2)
    targets = np.full(np.shape(probabilities), rest / (np.shape(probabilities)[1] - 1))
    targets[np.arange(len(chosen)), chosen] = 1 - rest

    def loss(logarithm: float) -> float:
        given = tempered(probabilities, float(np.exp(logarithm)))
        return float(-(targets * np.log(np.maximum(given, np.finfo(float).tiny))).sum(1).mean())

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


def expected_by_chance(confidence: np.ndarray, seed: int) -> tuple[float, float]:
    """The calibration error that these confidences would show if they were right: its mean, and what 95 % of draws stay under.

    Answers are drawn to be right as often as the confidence says (consistency resampling; Bröcker and Smith 2007). The error is
    never below 0, so a sample of a calibrated model has one too, and a bootstrap interval of it would not hold the 0.
    """
    rng = np.random.default_rng(seed)
    found = [
        expected_calibration_error(confidence, rng.random(len(confidence)) < confidence)
        for _ in range(bootstrap.RESAMPLES)
    ]
    return float(np.mean(found)), float(np.quantile(found, 0.95))


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
    errors = {}
    for name, p in given.items():
        confidence, right = p.max(1), p.argmax(1) == known
        mean, most = expected_by_chance(confidence, seed)
        errors[name] = {
            "ece": expected_calibration_error(confidence, right),
            "by_chance": mean,
            "by_chance_95": most,
            "nll": negative_log_likelihood(p, known),
        }
    bins = {name: reliability(p.max(1), p.argmax(1) == known) for name, p in given.items()}
    confidence, right = probabilities.max(1), probabilities.argmax(1) == known
    gap = bootstrap.mean(confidence - right, seed)
    chance = ", which may be chance" if gap["ci95"][0] <= 0 <= gap["ci95"][1] else ""
    own = errors["as given"]
    more = "more than" if own["ece"] > own["by_chance_95"] else "within what"
    summary = [
        f"On average its answers are given a probability of {confidence.mean():.3f} and {right.mean():.3f} of them are right: "
        f"{abs(gap['value']):.3f} {'too' if gap['value'] > 0 else 'not'} sure{'' if gap['value'] > 0 else ' enough'} "
        f"(95 % interval of the difference [{gap['ci95'][0]:.3f}, {gap['ci95'][1]:.3f}]{chance}).",
        f"Expected calibration error {own['ece']:.3f} over {BINS} bins and {len(known):,} items, {more} chance would show if the "
        f"probabilities were right (under {own['by_chance_95']:.3f} in 95 % of draws)"
        + (
            f"; {errors['without the temperature']['ece']:.3f} without the temperature of {temperature:.3f} that was fitted on "
            "validation items."
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
        Listing(
            "Expected calibration error, and what chance would show if the probabilities were right",
            ["probabilities", "ECE", "by chance, mean", "by chance, 95 % below", "mean negative log-likelihood"],
            [[name, *(round(number, 4) for number in one.values())] for name, one in errors.items()],
        ),
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
            "errors": errors,
            "confidence_minus_accuracy": gap,
            "source": "Guo et al. 2017",
        },
        **about,
    )
