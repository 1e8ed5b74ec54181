"""95 % intervals by resampling items with replacement: the percentile bootstrap (Efron and Tibshirani 1993, ch. 13)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

RESAMPLES = 2000
_TOGETHER = 100  # draws that are held at a time, so that memory does not grow with their number
Z = 1.959964  # 97.5 % of a standard normal distribution lie below

Measure = dict[str, Any]  # {"value": float, "n": int, "ci95": [low, high]}


def draws(n: int, seed: int, resamples: int = RESAMPLES) -> Iterator[np.ndarray]:
    """Indices of resampled items, each of shape (n,)."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _TOGETHER):
        yield from rng.integers(n, size=(min(_TOGETHER, resamples - start), n))


def measure(statistic: Callable[[np.ndarray], float], n: int, seed: int, resamples: int = RESAMPLES) -> Measure:
    """A statistic of n items with its interval.

    Args:
        statistic: From indices of items, shape (n,), to its value; NaN where these items have none.
        n: How many items there are.
        seed: Seed of the draws.
        resamples: How many draws.

    Returns:
        ``{"value", "n", "ci95": [low, high]}``; draws without a value are left out of the interval.

    Raises:
        ValueError: No items, or no value on all of them.
    """
    value = float(statistic(np.arange(n))) if n else float("nan")
    if np.isnan(value):
        raise ValueError(f"no value on {n} items")
    found = [statistic(chosen) for chosen in draws(n, seed, resamples)]
    low, high = np.nanpercentile(found, (2.5, 97.5))
    return {"value": value, "n": n, "ci95": [float(low), float(high)]}


def mean(values: Sequence[float] | np.ndarray, seed: int) -> Measure:
    """The mean of one number an item.

    Raises:
        ValueError: No values.
    """
    known = np.asarray(values, dtype=float)
    return measure(lambda chosen: known[chosen].mean(), len(known), seed)


def share(values: Sequence[float] | np.ndarray, seed: int) -> Measure:
    """The mean of one number from 0 to 1 an item, as whether it was right.

    Where all are the same, resampling would give an interval without width, of however few items: see :func:`with_width`. Of
    12 right answers in 12 it is [0.757, 1].

    Raises:
        ValueError: No values, or one outside 0 to 1.
    """
    known = np.asarray(values, dtype=float)
    if known.size and (known.min() < 0 or known.max() > 1):
        raise ValueError(f"values from {known.min()} to {known.max()}")
    found = mean(known, seed)
    return with_width(found)


def with_width(proportion: Measure) -> Measure:
    """A proportion with its score interval (Wilson 1927) in place of one without width; any other as it is."""
    low, high = proportion["ci95"]
    if high > low:
        return proportion
    p, n = proportion["value"], proportion["n"]
    centre, half = (
        (p + Z**2 / (2 * n)) / (1 + Z**2 / n),
        Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n),
    )
    return proportion | {"ci95": [max(0.0, centre - half), min(1.0, centre + half)]}


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


def pearson(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, seed: int) -> Measure | None:
    """Pearson's product-moment correlation, −1 to 1; None where one of the two is the same for all items."""
    return _measured(np.asarray(first, dtype=float), np.asarray(second, dtype=float), lambda values: values, seed)


def spearman(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray, seed: int) -> Measure | None:
    """Spearman's rank correlation, −1 to 1, equal values sharing their mean rank; None as for :func:`pearson`."""
    from scipy.stats import rankdata

    # Ranks are taken anew in each draw: an item that is drawn twice ties with itself.
    return _measured(np.asarray(first, dtype=float), np.asarray(second, dtype=float), rankdata, seed)


def _measured(
    first: np.ndarray, second: np.ndarray, of: Callable[[np.ndarray], np.ndarray], seed: int
) -> Measure | None:
    if len(first) != len(second):
        raise ValueError(f"{len(first)} numbers against {len(second)}")

    def correlation(chosen: np.ndarray) -> float:
        x, y = of(first[chosen]), of(second[chosen])
        x, y = x - x.mean(), y - y.mean()
        scale = np.sqrt((x**2).sum() * (y**2).sum())
        return float((x * y).sum() / scale) if scale > 0 else float("nan")

    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return measure(correlation, len(first), seed)


FURTHEST = float(np.sqrt(np.log(2)))  # Jensen-Shannon distance of distributions that share no class, .8326
FLOOR = 1e-15  # a smaller probability counts as this one, or one answer could make the mean divergence infinite


def jensen_shannon(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Jensen-Shannon distance, shape (n,), of distributions of shape (n, classes); 0 to :data:`FURTHEST`.

    It is the square root of the divergence, in nats (Endres and Schindelin 2003).
    """
    from scipy.spatial.distance import jensenshannon

    with np.errstate(invalid="ignore"):
        found = jensenshannon(first, second, axis=1)
    return np.nan_to_num(found, nan=0.0)  # the root of a 0 that rounding took below 0


def kl_divergence(people: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence of a model's distributions from people's, KL(people || model), shape (n,), in nats."""
    from scipy.stats import entropy

    return entropy(people, np.maximum(model, FLOOR), axis=1)


def entropy(distributions: np.ndarray) -> np.ndarray:
    """Shannon entropy, shape (n,), in bits: 0 where all is one class, 1.585 where three are equal."""
    from scipy.stats import entropy

    return entropy(distributions, base=2, axis=1)
