"""Fit score = a − b·n^−c to scores by the number of training items n, and extrapolate it.

An inverse power law describes most learning curves of classifiers well (Figueroa et al. 2012; Viering and Loog 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from common.stats.metrics import draws

FEWEST = 4  # sizes: with three parameters, a curve through three points says nothing of how well it fits
RESAMPLES = 1000  # each is a fit, which takes some milliseconds
STEEPEST = 5.0  # of c; a steeper curve has ended at the second size


@dataclass(frozen=True)
class PowerLaw:
    """A curve of scores that never falls as n grows."""

    a: float  # the score that it approaches, at most 1
    b: float
    c: float

    def at(self, sizes: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return the scores at these sizes."""
        return self.a - self.b * np.asarray(sizes, dtype=float) ** -self.c


@dataclass(frozen=True)
class Fit:
    """A fitted curve, and the curves fitted to resampled items."""

    law: PowerLaw
    drawn: tuple[PowerLaw, ...]

    def at(self, sizes: Sequence[float] | np.ndarray) -> np.ndarray:
        """Return score, lower and upper end of its 95 % interval at each size, shape (sizes, 3)."""
        ends = np.percentile([law.at(sizes) for law in self.drawn], (2.5, 97.5), axis=0)
        return np.column_stack([self.law.at(sizes), *ends])

    def gain(self, start: int, end: int) -> tuple[float, float, float]:
        """Return how much the score grows between two sizes, with the ends of its 95 % interval."""
        grown = [float(np.diff(law.at([start, end]))[0]) for law in self.drawn]
        low, high = np.percentile(grown, (2.5, 97.5))
        return float(np.diff(self.law.at([start, end]))[0]), float(low), float(high)


def fit(sizes: Sequence[int], scores: Sequence[float] | np.ndarray, start: PowerLaw | None = None) -> PowerLaw:
    """Fit a curve by least squares, from the parameters of another one if given."""
    from scipy.optimize import curve_fit

    # Relative to the smallest size: b is then the distance from a at that size, of the same magnitude as the scores.
    first = float(min(sizes))
    relative = np.asarray(sizes, dtype=float) / first

    def law(n: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
        return a - b * n**-c

    def slopes(n: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
        return np.column_stack([np.ones_like(n), -(n**-c), b * n**-c * np.log(n)])

    low, high = (0.0, 0.0, 0.01), (1.0, 1.0, STEEPEST)
    guess = (max(scores), max(scores) - min(scores), 0.5)
    if start is not None:
        guess = (start.a, start.b * first**-start.c, start.c)
    inside = np.clip(guess, np.add(low, 1e-6), np.subtract(high, 1e-6))
    (a, b, c), _ = curve_fit(law, relative, scores, p0=inside, jac=slopes, bounds=(low, high), max_nfev=10_000)
    return PowerLaw(float(a), float(b * first**c), float(c))


def fit_items(sizes: Sequence[int], statistic: Callable[[np.ndarray], np.ndarray], n: int, seed: int) -> Fit | None:
    """Fit a curve to scores on n items, and to those on resampled items; None with fewer than :data:`FEWEST` sizes.

    ``statistic`` maps indices of items, shape (n,), to the score of each size, or to NaN if it is undefined.
    """
    if len(sizes) < FEWEST:
        return None
    law = fit(sizes, statistic(np.arange(n)))
    scores = (statistic(chosen) for chosen in draws(n, seed, RESAMPLES))
    return Fit(law, tuple(fit(sizes, each, law) for each in scores if np.isfinite(each).all()))
