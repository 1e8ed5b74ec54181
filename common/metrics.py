"""Classification metrics with confidence intervals, all computed from the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.bootstrap import RESAMPLES, with_width


def confusion_matrix(labels: Sequence[int], predictions: Sequence[int], classes: int) -> np.ndarray:
    """Counts of shape (classes, classes): row = label, column = prediction.

    Raises:
        ValueError: The two differ in length, are empty, or hold a number outside 0 … classes − 1.
    """
    labels, predictions = np.asarray(labels, dtype=int), np.asarray(predictions, dtype=int)
    if labels.shape != predictions.shape or labels.ndim != 1 or labels.size == 0:
        raise ValueError(f"{labels.shape} labels against {predictions.shape} predictions")
    both = np.concatenate([labels, predictions])
    if both.min() < 0 or both.max() >= classes:
        raise ValueError(f"classes run from 0 to {classes - 1}; found {both.min()} to {both.max()}")
    return np.bincount(labels * classes + predictions, minlength=classes * classes).reshape(classes, classes)


def scores(confusion: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Every metric of one confusion matrix or of a stack of them.

    Args:
        confusion: Counts of shape (…, classes, classes), rows = labels.
        names: The classes' names, for the per-class metrics (``precision/NAME`` and so on).

    Returns:
        Metric → array of shape (…). Precision, recall and F1 of a class are 0 where undefined, as in scikit-learn with
        ``zero_division=0``; balanced accuracy leaves out a class without labels, as scikit-learn does.
    """
    confusion = np.asarray(confusion, dtype=float)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    support, predicted = confusion.sum(-1), confusion.sum(-2)
    total = support.sum(-1)
    per_class = {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, support),
        "f1": _ratio(2 * hits, support + predicted),
    }
    present = support > 0
    result = {
        "accuracy": hits.sum(-1) / total,
        "balanced_accuracy": (per_class["recall"] * present).sum(-1) / present.sum(-1),
    }
    # scikit-learn's macro average runs over the classes that occur as a label or as a prediction.
    occurs = support + predicted > 0
    for metric, values in per_class.items():
        result[f"{metric}/macro"] = (values * occurs).sum(-1) / occurs.sum(-1)
        result[f"{metric}/weighted"] = (values * support).sum(-1) / total
    for metric, values in per_class.items():
        result |= {f"{metric}/{name}": values[..., i] for i, name in enumerate(names)}
    return result


def evaluate(
    labels: Sequence[int], predictions: Sequence[int], names: Sequence[str], *, seed: int = 0
) -> dict[str, dict[str, object]]:
    """Every metric of :func:`scores` with n and a 95 % percentile bootstrap interval (Efron & Tibshirani 1993, ch. 13).

    Resampling n items with replacement is drawing the confusion matrix's cells from a multinomial, so the interval costs the same
    for ten items and for a million. An accuracy or recall without variation has its score interval instead (Wilson 1927).

    Returns:
        Metric → ``{"value", "n", "ci95": [low, high]}``. n is the number of items; of a class's recall, precision and F1 it
        is the number of items with that label.
    """
    counts = confusion_matrix(labels, predictions, len(names))
    n = int(counts.sum())
    draws = np.random.default_rng(seed).multinomial(n, counts.ravel() / n, size=RESAMPLES)
    values, resampled = scores(counts, names), scores(draws.reshape(-1, *counts.shape), names)
    support = dict(zip(names, counts.sum(1).tolist(), strict=True))
    found: dict[str, dict[str, object]] = {
        metric: {
            "value": float(value),
            "n": support.get(metric.partition("/")[2], n),
            "ci95": np.percentile(resampled[metric], (2.5, 97.5)).tolist(),
        }
        for metric, value in values.items()
    }
    # Of all right answers, or none, resampling would say that there can't be others.
    proportions = ["accuracy", *(f"recall/{name}" for name, count in support.items() if count)]
    return found | {name: with_width(found[name]) for name in proportions}


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
