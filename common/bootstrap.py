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
