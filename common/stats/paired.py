"""Two ways of training on the same items, each with several seeds: their scores, how they differ, and whether one is no worse.

Intervals resample items and seeds together (the multi-bootstrap of Sellam et al. 2022): the items are those of both, so each draw
takes the same of them for both, and seeds anew for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from common.stats import metrics
from common.stats.metrics import RESAMPLES, Measure

MARGIN = 0.005  # half a point of accuracy
Verdict = Literal["non-inferior", "inferior", "undecided"]


@dataclass(frozen=True)
class McNemar:
    """Items on which two models differ in being right, and how likely so uneven a split is where both are as good."""

    both: int
    only_first: int
    only_second: int
    neither: int
    p: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """McNemar's exact test (two-sided binomial; McNemar 1947) of which items two models got right, each of shape (n,)."""
    from scipy.stats import binomtest

    one, other = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
    differing = only_one + only_other
    p = float(binomtest(only_one, differing, 0.5).pvalue) if differing else 1.0
    return McNemar(int((one & other).sum()), only_one, only_other, int((~one & ~other).sum()), p)


def over_seeds(
    labels: Sequence[int], predictions: np.ndarray, names: Sequence[str], *, seed: int
) -> dict[str, dict[str, object]]:
    """Every metric of :func:`common.stats.metrics.scores` as the mean over seeds.

    Args:
        labels: One class an item.
        predictions: Shape (seeds, n).
        names: The classes' names.
        seed: Seed of the draws.

    Returns:
        Metric → ``{"value", "n", "ci95", "sd", "seeds"}``; ``sd`` is the standard deviation between the seeds (None of one).
    """
    known, given = np.asarray(labels, dtype=int), np.asarray(predictions, dtype=int)
    count, n, classes = len(given), len(known), len(names)
    cells = known * classes + given  # of each item's count in the confusion matrix

    def scored(weights: np.ndarray) -> dict[str, np.ndarray]:
        confusions = [np.bincount(one, weights=weights, minlength=classes**2) for one in cells]
        return metrics.scores(np.reshape(confusions, (count, classes, classes)), names)

    values = scored(np.ones(n))
    drawn: dict[str, list[float]] = {metric: [] for metric in values}
    for items, (seeds,) in _draws(n, (count,), seed):
        for metric, of_seeds in scored(items).items():
            drawn[metric].append(float(of_seeds[seeds].mean()))
    support = {name: int((known == index).sum()) for index, name in enumerate(names)}
    found: dict[str, dict[str, object]] = {}
    for metric, of_seeds in values.items():
        low, high = np.percentile(drawn[metric], (2.5, 97.5))
        found[metric] = {
            "value": float(of_seeds.mean()),
            "n": support.get(metric.partition("/")[2], n),
            "ci95": [float(low), float(high)],
            "sd": float(of_seeds.std(ddof=1)) if count > 1 else None,
            "seeds": count,
        }
    proportions = ["accuracy", *(f"recall/{name}" for name, items in support.items() if items)]
    return found | {name: metrics.with_width(found[name]) for name in proportions}


def difference(first: np.ndarray, second: np.ndarray, *, seed: int) -> Measure:
    """Mean accuracy of the second minus that of the first, with its interval.

    Args:
        first: Whether each seed's model was right on each item, shape (seeds, n).
        second: The same of the other, on the same items; it may have another number of seeds.
        seed: Seed of the draws.
    """
    one, other = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    n = one.shape[1]
    drawn = []
    for items, (seeds_of_one, seeds_of_other) in _draws(n, (len(one), len(other)), seed):
        drawn.append(((other @ items)[seeds_of_other].mean() - (one @ items)[seeds_of_one].mean()) / n)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return {"value": float(other.mean() - one.mean()), "n": n, "ci95": [float(low), float(high)]}


def verdict(found: Measure, margin: float = MARGIN) -> Verdict:
    """Whether the second may be taken to be no worse than the first by ``margin`` or more: its whole interval lies above that.

    An interval without width settles nothing: where no item and no seed differs, resampling can't say how easily one could.
    """
    low, high = found["ci95"]
    if low == high:
        return "undecided"
    return "non-inferior" if low > -margin else "inferior" if high < -margin else "undecided"


def _draws(n: int, seeds: Sequence[int], seed: int) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """How often each item is drawn, shape (n,), and for each model the seeds that are drawn."""
    rng = np.random.default_rng(seed)
    for chosen in metrics.draws(n, seed, RESAMPLES):
        yield np.bincount(chosen, minlength=n).astype(float), [rng.integers(count, size=count) for count in seeds]
