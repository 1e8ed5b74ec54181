"""Comparison of two training methods on the same items, each with several seeds: scores, difference and non-inferiority.

Intervals resample items and seeds together (multi-bootstrap; Sellam et al. 2022): each draw takes the same items for both methods,
and draws seeds separately for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from common.stats import metrics
from common.stats.metrics import RESAMPLES, Measure

MARGIN = 0.005  # half a percentage point of accuracy
Verdict = Literal["non-inferior", "inferior", "undecided"]


@dataclass(frozen=True)
class McNemar:
    """Numbers of items by which models got them right, and the p-value of the hypothesis that both are equally good."""

    both: int
    only_first: int
    only_second: int
    neither: int
    p: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """Run McNemar's exact test (two-sided binomial; McNemar 1947) on which items each model got right, shape (n,)."""
    from scipy.stats import binomtest

    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0
    return McNemar(int((a & b).sum()), only_a, only_b, int((~a & ~b).sum()), p)


def over_seeds(
    labels: Sequence[int], predictions: np.ndarray, names: Sequence[str], *, seed: int
) -> dict[str, dict[str, object]]:
    """Average every metric of :func:`common.stats.metrics.scores` over seeds; predictions have shape (seeds, n).

    Returns metric → ``{"value", "n", "ci95", "sd", "seeds"}``; ``sd`` is the standard deviation between seeds (None for one seed).
    """
    known, given = np.asarray(labels, dtype=int), np.asarray(predictions, dtype=int)
    count, n, classes = len(given), len(known), len(names)
    cells = known * classes + given  # where each item counts in the confusion matrix

    def scored(weights: np.ndarray) -> dict[str, np.ndarray]:
        confusions = [np.bincount(row, weights=weights, minlength=classes**2) for row in cells]
        return metrics.scores(np.reshape(confusions, (count, classes, classes)), names)

    values = scored(np.ones(n))
    drawn: dict[str, list[float]] = {metric: [] for metric in values}
    for items, (seeds,) in _draws(n, (count,), seed):
        for metric, of_seeds in scored(items).items():
            drawn[metric].append(float(of_seeds[seeds].mean()))
    support = {name: int((known == index).sum()) for index, name in enumerate(names)}
    measures: dict[str, dict[str, object]] = {}
    for metric, of_seeds in values.items():
        measures[metric] = {
            "value": float(of_seeds.mean()),
            "n": support.get(metric.partition("/")[2], n),
            "ci95": np.percentile(drawn[metric], (2.5, 97.5)).tolist(),
            "sd": float(of_seeds.std(ddof=1)) if count > 1 else None,
            "seeds": count,
        }
    return metrics.with_proportions(measures, {"recall": support})


def difference(first: np.ndarray, second: np.ndarray, *, seed: int) -> Measure:
    """Return mean accuracy of the second minus that of the first.

    Each is whether every seed's model was right on every item, shape (seeds, n); numbers of seeds may differ.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    n = a.shape[1]
    drawn = [
        ((b @ items)[seeds_b].mean() - (a @ items)[seeds_a].mean()) / n
        for items, (seeds_a, seeds_b) in _draws(n, (len(a), len(b)), seed)
    ]
    return {"value": float(b.mean() - a.mean()), "n": n, "ci95": np.percentile(drawn, (2.5, 97.5)).tolist()}


def balanced_difference(first: np.ndarray, second: np.ndarray, labels: Sequence[int], *, seed: int) -> Measure:
    """Return mean balanced accuracy of the second minus that of the first, from the same as :func:`difference`.

    Draws leave out a class of which they have no item, as balanced accuracy does.
    """
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    known = np.asarray(labels)
    classes = (known == np.unique(known)[:, None]).astype(float)  # (classes, n)

    def balanced(right: np.ndarray, items: np.ndarray) -> np.ndarray:
        weights = classes * items
        weights = weights[weights.any(1)]
        return (right @ weights.T / weights.sum(1)).mean(1)  # (seeds,)

    n = len(known)
    drawn = [
        balanced(b, items)[seeds_b].mean() - balanced(a, items)[seeds_a].mean()
        for items, (seeds_a, seeds_b) in _draws(n, (len(a), len(b)), seed)
    ]
    value = balanced(b, np.ones(n)).mean() - balanced(a, np.ones(n)).mean()
    return {"value": float(value), "n": n, "ci95": np.percentile(drawn, (2.5, 97.5)).tolist()}


def verdict(difference: Measure, margin: float = MARGIN) -> Verdict:
    """Decide whether the second is worse by less than ``margin``: non-inferior if the whole interval is above −margin.

    An interval of zero width decides nothing: if no item and no seed differs, resampling cannot tell how easily one could.
    """
    low, high = difference["ci95"]
    if low == high:
        return "undecided"
    return "non-inferior" if low > -margin else "inferior" if high < -margin else "undecided"


def _draws(n: int, seeds: Sequence[int], seed: int) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Yield how often each item is drawn, shape (n,), and the drawn seeds of each model."""
    rng = np.random.default_rng(seed)
    for chosen in metrics.draws(n, seed, RESAMPLES):
        yield np.bincount(chosen, minlength=n).astype(float), [rng.integers(count, size=count) for count in seeds]
