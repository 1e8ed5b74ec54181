"""How far a classifier's probabilities can be believed: calibration error, reliability diagram, temperature scaling.

After Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks" (ICML).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.stats import metrics

BINS = 15  # of equal width, as in the paper
HOTTEST = 20.0  # the temperature is looked for between 1 / HOTTEST and HOTTEST


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
        for _ in range(metrics.RESAMPLES)
    ]
    return float(np.mean(found)), float(np.quantile(found, 0.95))


def risks(confidence: Sequence[float] | np.ndarray, losses: Sequence[float] | np.ndarray) -> np.ndarray:
    """Mean loss of the k surest items, for k = 1 … n, shape (n,). Equally sure items count by their mean, in no order."""
    sure, lost = np.asarray(confidence, dtype=float), np.asarray(losses, dtype=float)
    _, inverse, counts = np.unique(-sure, return_inverse=True, return_counts=True)
    level = np.bincount(inverse, weights=lost) / counts
    return np.cumsum(np.repeat(level, counts)) / np.arange(1, len(sure) + 1)


def area(confidence: np.ndarray, losses: np.ndarray) -> float:
    """Area under the risk-coverage curve, the mean of :func:`risks` (AURC; Geifman, Uziel and El-Yaniv 2019). 0 is best; an
    order that knows nothing has the mean loss."""
    return float(risks(confidence, losses).mean())
