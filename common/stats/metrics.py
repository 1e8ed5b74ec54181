"""Metrics with 95 % intervals from resampling items: the percentile bootstrap (Efron and Tibshirani 1993, ch. 13)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from common.stats.design import Design, Numbers

RESAMPLES = 2000
_CHUNK = 2**20  # drawn indices in memory at a time, but at least those of one draw
RARE = 20  # items of a kind below which it is faster to draw these items than how many are drawn
Z = 1.959964  # 97.5th percentile of the standard normal distribution

Measure = dict[str, Any]  # {"value": float, "n": int, "ci95": [low, high]}


def draws(n: int, seed: int, resamples: int = RESAMPLES) -> Iterator[np.ndarray]:
    """Yield indices of resampled items, each of shape (n,)."""
    rng, rows = (
        np.random.default_rng(seed),
        max(1, _CHUNK // n),
    )  # the numbers drawn do not depend on how many at a time
    for start in range(0, resamples, rows):
        yield from rng.integers(n, size=(min(rows, resamples - start), n))


def drawn_counts(counts: np.ndarray, seed: int, resamples: int = RESAMPLES) -> Iterator[np.ndarray]:
    """Yield how many of the resampled items are of each kind, shape (kinds,), given how many items are.

    The numbers have the distribution that counting the kinds of :func:`draws` would give, a multinomial one. Drawing them costs as
    much for a million items as for ten, if there are as many kinds. Of rare kinds, the items are drawn.
    """
    rng, n = np.random.default_rng(seed), int(counts.sum())
    rare, often = np.flatnonzero(counts < RARE), np.flatnonzero(counts >= RARE)
    members = np.repeat(np.arange(len(rare)), counts[rare])  # the kind of each item of a rare kind
    shares = np.array([len(members), *counts[often]]) / n
    for _ in range(resamples):
        drawn, times = np.zeros(len(counts)), rng.multinomial(n, shares)
        drawn[often] = times[1:]
        if times[0]:
            chosen = members[rng.integers(len(members), size=times[0])]
            drawn[rare] = np.bincount(chosen, minlength=len(rare))
        yield drawn


def measure_kinds(
    statistic: Callable[[np.ndarray], float], counts: np.ndarray, seed: int, resamples: int = RESAMPLES
) -> Measure:
    """Compute a statistic of items that are of few kinds with its interval, as :func:`measure` does.

    It maps how many items each kind has, shape (kinds,), to a value, or to NaN if undefined.
    """
    values = [statistic(drawn) for drawn in drawn_counts(counts, seed, resamples)]
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return {"value": float(statistic(counts)), "n": int(counts.sum()), "ci95": [float(low), float(high)]}


def measure(statistic: Callable[[np.ndarray], float], n: int, seed: int, resamples: int = RESAMPLES) -> Measure:
    """Compute a statistic of n items with its interval.

    It maps indices of items, shape (n,), to a value, or to NaN if undefined; undefined draws are left out of the interval.
    """
    value = float(statistic(np.arange(n))) if n else math.nan
    if np.isnan(value):
        raise ValueError(f"no value on {n} items")
    low, high = np.nanpercentile([statistic(chosen) for chosen in draws(n, seed, resamples)], (2.5, 97.5))
    return {"value": value, "n": n, "ci95": [float(low), float(high)]}


def weighted(
    statistic: Callable[[np.ndarray], float], design: Design, seed: int, resamples: int = RESAMPLES
) -> Measure:
    """Compute a statistic of items that were drawn with unequal probabilities, with its interval.

    It maps the items' weights, shape (n,), to a value, or to NaN if undefined; undefined draws are left out of the interval.
    """
    value = float(statistic(design.weights))
    if np.isnan(value):
        raise ValueError(f"no value on {len(design.strata)} items")
    low, high = np.nanpercentile([statistic(each) for each in design.resampled(seed, resamples)], (2.5, 97.5))
    return {"value": value, "n": len(design.strata), "ci95": [float(low), float(high)]}


def mean(
    values: Numbers,
    seed: int,
    design: Design | None = None,
    ends: tuple[float, float] = (0.0, 1.0),
    resamples: int = RESAMPLES,
) -> Measure:
    """Average one number per item.

    With a design, items count by their weights, and its artificial items have the lowest and the highest possible value.
    """
    known = np.asarray(values, dtype=float)
    if design is None:
        return measure(lambda chosen: known[chosen].mean(), len(known), seed, resamples)
    all_values, value = np.append(known, ends), float(np.average(known, weights=design.weights))
    drawn = design.resampled(seed, resamples, (0.5, 0.5))
    low, high = np.percentile([weights @ all_values / weights.sum() for weights in drawn], (2.5, 97.5))
    return {"value": value, "n": len(known), "ci95": [min(value, float(low)), max(value, float(high))]}


def share(values: Numbers, seed: int, design: Design | None = None) -> Measure:
    """Average one number from 0 to 1 per item, such as whether the answer was right.

    If all are equal, resampling would give an interval of zero width, however few items there are: see :func:`with_width`. 12 right
    answers of 12 give [0.757, 1].
    """
    known = np.asarray(values, dtype=float)
    if known.size and (known.min() < 0 or known.max() > 1):
        raise ValueError(f"values from {known.min()} to {known.max()}, expected 0 to 1")
    return with_width(mean(known, seed, design))


def with_width(proportion: Measure) -> Measure:
    """Replace an interval of zero width by the score interval (Wilson 1927)."""
    low, high = proportion["ci95"]
    if high > low:
        return proportion
    # scipy's binomtest has this interval too, but only for whole numbers of successes; means of shares have others.
    p, n = proportion["value"], proportion["n"]
    center = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2)) / (1 + Z**2 / n)
    return proportion | {"ci95": [max(0.0, center - half), min(1.0, center + half)]}


def with_proportions(measures: dict[str, Measure], sizes: Mapping[str, Mapping[str, int]]) -> dict[str, Measure]:
    """Apply :func:`with_width` to the proportions among measures.

    Args:
        measures: Metric → measure.
        sizes: ``precision`` and ``recall`` → class → how many items it is the share of: those with that answer or label.
    """
    widened = dict(measures)
    if "accuracy" in measures:
        widened["accuracy"] = with_width(measures["accuracy"])
    for kind, classes in sizes.items():
        for name, count in classes.items():
            if count:
                each = measures[f"{kind}/{name}"]
                widened[f"{kind}/{name}"] = with_width(each | {"n": int(count)}) | {"n": each["n"]}
    if len(set(measures.get("balanced_accuracy", {}).get("ci95", (0, 1)))) == 1:  # no recall varies
        ends = [widened[f"recall/{name}"]["ci95"] for name, count in sizes["recall"].items() if count]
        widened["balanced_accuracy"] = measures["balanced_accuracy"] | {"ci95": np.mean(ends, axis=0).tolist()}
    return widened


def confusion_matrix(
    labels: Sequence[int], predictions: Sequence[int], classes: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Return counts, or sums of weights, of shape (classes, classes): row = label, column = prediction."""
    labels, predictions = np.asarray(labels, dtype=int), np.asarray(predictions, dtype=int)
    if labels.shape != predictions.shape or labels.ndim != 1 or labels.size == 0:
        raise ValueError(f"{labels.shape} labels against {predictions.shape} predictions")
    both = np.concatenate([labels, predictions])
    if both.min() < 0 or both.max() >= classes:
        raise ValueError(f"classes run from 0 to {classes - 1}; got {both.min()} to {both.max()}")
    cells = labels * classes + predictions
    return np.bincount(cells, weights, minlength=classes * classes).reshape(classes, classes)


def scores(confusion: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Compute every metric of one confusion matrix or a stack of them.

    Args:
        confusion: Counts of shape (…, classes, classes), rows = labels.
        names: Names of the classes, for metrics of one class (``precision/NAME`` and so on).

    Returns:
        Metric → array of shape (…). Precision, recall and F1 of a class are 0 where undefined, as in scikit-learn with
        ``zero_division=0``; balanced accuracy leaves out classes without labels, as scikit-learn does.
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
    # scikit-learn's macro average covers the classes that occur as a label or as a prediction.
    occurs = support + predicted > 0
    for metric, values in per_class.items():
        result[f"{metric}/macro"] = (values * occurs).sum(-1) / occurs.sum(-1)
        result[f"{metric}/weighted"] = (values * support).sum(-1) / total
    for metric, values in per_class.items():
        result |= {f"{metric}/{name}": values[..., i] for i, name in enumerate(names)}
    return result


def evaluate(
    labels: Sequence[int],
    predictions: Sequence[int],
    names: Sequence[str],
    *,
    seed: int = 0,
    design: Design | None = None,
) -> dict[str, dict[str, object]]:
    """Compute every metric of :func:`scores` with its interval.

    Resampling n items equals drawing the cells of the confusion matrix from a multinomial, so an interval costs the same for ten
    items as for a million. n is the number of items, for a class the number with that label. See :func:`with_proportions` for
    scores without variation. With a design, items count by their weights, and n is still their number.
    """
    counts = confusion_matrix(labels, predictions, len(names))
    n, confusion = int(counts.sum()), counts
    support = dict(zip(names, counts.sum(1).tolist(), strict=True))
    if design is None:
        resampled = np.random.default_rng(seed).multinomial(n, counts.ravel() / n, size=RESAMPLES)
    else:
        confusion = confusion_matrix(labels, predictions, len(names), design.weights)
        # As artificial items, answers that do not depend on the labels.
        by_chance = np.outer(confusion.sum(1), confusion.sum(0)).ravel() / confusion.sum() ** 2
        cells = np.append(np.asarray(labels) * len(names) + np.asarray(predictions), np.arange(len(by_chance)))
        drawn_weights = design.resampled(seed, RESAMPLES, by_chance)
        resampled = np.array([np.bincount(cells, weights, len(by_chance)) for weights in drawn_weights])
    drawn = scores(resampled.reshape(-1, *counts.shape), names)
    measures: dict[str, dict[str, object]] = {}
    for metric, value in scores(confusion, names).items():
        low, high = np.percentile(drawn[metric], (2.5, 97.5)).tolist()
        if design is not None:
            low, high = min(low, float(value)), max(high, float(value))
        named = metric.partition("/")[2]
        measures[metric] = {"value": float(value), "n": support.get(named, n), "ci95": [low, high]}
    predicted = dict(zip(names, counts.sum(0).tolist(), strict=True))
    return with_proportions(measures, {"precision": predicted, "recall": support})


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)


def pearson(first: Numbers, second: Numbers, seed: int) -> Measure | None:
    """Return Pearson's correlation, −1 to 1; None if one of the two is constant."""
    return _correlation(first, second, lambda values: values, seed)


def spearman(first: Numbers, second: Numbers, seed: int) -> Measure | None:
    """Return Spearman's rank correlation, −1 to 1, with mean ranks for ties; None if one of the two is constant."""
    from scipy.stats import rankdata

    return _correlation(first, second, rankdata, seed)


def _correlation(
    first: Numbers, second: Numbers, scale: Callable[[np.ndarray], np.ndarray], seed: int
) -> Measure | None:
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if len(first) != len(second):
        raise ValueError(f"{len(first)} numbers against {len(second)}")

    def statistic(chosen: np.ndarray) -> float:
        with np.errstate(invalid="ignore", divide="ignore"):  # NaN if the drawn items are all equal
            return float(np.corrcoef(scale(first[chosen]), scale(second[chosen]))[0, 1])

    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return measure(statistic, len(first), seed)


FURTHEST = float(np.sqrt(np.log(2)))  # Jensen-Shannon distance of distributions without a common class, .8326
FLOOR = 1e-15  # minimum probability, so that one answer cannot make the mean divergence infinite


def jensen_shannon(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the Jensen-Shannon distance of distributions of shape (n, classes), shape (n,), 0 to :data:`FURTHEST`.

    It is the square root of the divergence in nats (Endres and Schindelin 2003).
    """
    from scipy.spatial.distance import jensenshannon

    with np.errstate(invalid="ignore"):
        distances = jensenshannon(first, second, axis=1)
    return np.nan_to_num(distances, nan=0.0)  # the root of a 0 that rounding made negative


def kl_divergence(people: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Return the Kullback-Leibler divergence KL(people || model) of distributions, shape (n,), in nats."""
    from scipy.stats import entropy

    return entropy(people, np.maximum(model, FLOOR), axis=1)


def entropy(distributions: np.ndarray) -> np.ndarray:
    """Return Shannon entropies, shape (n,), in bits: 0 for a single class, 1.585 for three equal ones."""
    from scipy.stats import entropy

    return entropy(distributions, base=2, axis=1)
