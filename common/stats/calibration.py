"""Calibration and selective prediction: can a classifier's probabilities be trusted?

Calibration error, reliability and temperature scaling follow Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural
Networks" (ICML); risk-coverage curves follow Geifman, Uziel and El-Yaniv 2019.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.stats import metrics

BINS = 15  # of equal width, as in the paper
HOTTEST = 20.0  # temperatures are searched between 1 / HOTTEST and HOTTEST


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Divide the logits of probabilities, shape (n, classes), by a temperature; the most likely class stays the same."""
    if temperature == 1.0:
        return probabilities
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities) / temperature
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, labels: Sequence[int]) -> float:
    """Return the temperature that minimizes the negative log-likelihood of the labels; above 1 for an overconfident model.

    If every answer is right, the likelihood would keep growing towards a certainty that n items do not justify. So the target
    of a label is not 1 but (n + 1) / (n + 2), and the other classes share the rest, as in Platt 1999.
    Probabilities, shape (n, classes), must be of items that the model was not trained on.
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

    best = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(min((best.x, *ends), key=loss)))


def best_threshold(probabilities: np.ndarray, holds: np.ndarray) -> float:
    """Return the probability from which to say yes for the highest F1; of equally good ones, the nearest to one half.

    Thresholds lie halfway between neighboring probabilities of the items, or at one half. Items must be ones that the model
    was not trained on. Without an item that holds, it is one half.
    """
    order = np.unique(probabilities)
    thresholds = np.array([0.5, *(order[1:] + order[:-1]) / 2])
    said = probabilities[:, None] >= thresholds
    right = (said & holds[:, None]).sum(0)
    f1 = 2 * right / np.maximum(1, said.sum(0) + holds.sum())
    best = thresholds[f1 >= f1.max() - 1e-12]
    return float(np.clip(best[np.abs(best - 0.5).argmin()], 1e-6, 1 - 1e-6))


def negative_log_likelihood(
    probabilities: np.ndarray, labels: Sequence[int] | np.ndarray, weights: np.ndarray | None = None
) -> float:
    """Return the mean over items, in nats. A probability of 0 counts as the smallest positive float."""
    own = np.asarray(probabilities)[np.arange(len(labels)), np.asarray(labels, dtype=int)]
    return float(np.average(-np.log(np.maximum(own, np.finfo(float).tiny)), weights=weights))


def reliability(
    confidence: np.ndarray, right: np.ndarray, bins: int = BINS, weights: np.ndarray | None = None
) -> list[tuple[float, float, int]]:
    """Return (mean confidence, accuracy, items) of each nonempty bin of equal width, starting with (0, 1/15]."""
    sure, correct = np.asarray(confidence, dtype=float), np.asarray(right, dtype=float)
    counted = np.ones(len(sure)) if weights is None else weights
    numbers = _bin_numbers(sure, bins)
    chosen = [numbers == number for number in np.unique(numbers)]
    means = [[float(np.average(each[here], weights=counted[here])) for each in (sure, correct)] for here in chosen]
    return [(x, y, int(here.sum())) for (x, y), here in zip(means, chosen, strict=True)]


def expected_calibration_error(
    confidence: np.ndarray, right: np.ndarray, bins: int = BINS, weights: np.ndarray | None = None
) -> float:
    """Return the mean distance between confidence and accuracy over bins, weighted by their items (ECE)."""
    sure, correct = np.asarray(confidence, dtype=float), np.asarray(right, dtype=float)
    counted = np.ones(len(sure)) if weights is None else weights
    # |sum of confidence - sum of right answers| of a bin is n times the distance of the two means.
    gaps = np.bincount(_bin_numbers(sure, bins), weights=counted * (sure - correct), minlength=bins)
    return float(np.abs(gaps).sum() / counted.sum())


def _bin_numbers(confidence: np.ndarray, bins: int) -> np.ndarray:
    return np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)


def expected_by_chance(confidence: np.ndarray, seed: int, weights: np.ndarray | None = None) -> tuple[float, float]:
    """Return mean and 95th percentile of the calibration error that perfectly calibrated confidences would show.

    Answers are drawn to be right as often as the confidence says (consistency resampling; Bröcker and Smith 2007). The error is
    never negative, so even a sample from a calibrated model has one, and a bootstrap interval would exclude 0.
    """
    rng = np.random.default_rng(seed)
    errors = [
        expected_calibration_error(confidence, rng.random(len(confidence)) < confidence, weights=weights)
        for _ in range(metrics.RESAMPLES)
    ]
    return float(np.mean(errors)), float(np.quantile(errors, 0.95))


def risks(
    confidence: Sequence[float] | np.ndarray,
    losses: Sequence[float] | np.ndarray,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Return the mean loss of the most certain 1/n, 2/n … n/n of the items, shape (n,); ties count by their mean, in no order."""
    sure, lost = np.asarray(confidence, dtype=float), np.asarray(losses, dtype=float)
    counted = np.ones(len(sure)) if weights is None else weights
    _, inverse = np.unique(-sure, return_inverse=True)
    size = np.bincount(inverse, counted)
    # Within a level of confidence, losses add up evenly.
    sizes, totals = (np.append(0.0, np.cumsum(each)) for each in (size, np.bincount(inverse, counted * lost)))
    kept = np.arange(1, len(sure) + 1) / len(sure) * sizes[-1]
    return np.interp(kept, sizes, totals) / kept


def area(confidence: np.ndarray, losses: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the area under the risk-coverage curve (AURC), the mean of :func:`risks`; 0 is best, chance has the mean loss."""
    return float(risks(confidence, losses, weights).mean())
