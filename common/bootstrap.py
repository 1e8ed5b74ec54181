"""95 % intervals by resampling items with replacement: the percentile bootstrap (Efron and Tibshirani 1993, ch. 13)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

RESAMPLES = 2000
_TOGETHER = 100  # draws that are held at a time, so that memory does not grow with their number

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
