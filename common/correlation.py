"""How far two numbers of the same items go together, with 95 % intervals: Pearson's and Spearman's correlation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from common import bootstrap
from common.bootstrap import Measure


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
    return bootstrap.measure(correlation, len(first), seed)
