"""The share of items of a class, from a machine's labels of all and people's labels of a few: prediction-powered inference.

The share of the machine's labels is moved by what people's labels show of its error (Angelopoulos, Bates, Fannjiang, Jordan and
Zrnic 2023, Science 382, 669–674), and the machine's weight in that, lambda, is the one of least variance (PPI++: Angelopoulos,
Duchi and Zrnic 2023, arXiv:2311.01453). A machine that is wrong in a systematic way does not spoil the interval; a useless one
gets the weight 0, and what remains is the share among people's labels.

The normal interval of these papers fails where labels are few: a machine that happened to agree with people on all of 50 items
leaves no variance, and an interval of no width. So four made-up items join the labelled ones when the interval is computed, one
of each kind: in the class or not, predicted to be or not; and the quantile is Student's. With the weight 0 this is "add two
successes and two failures" (Agresti and Coull 1998), else its counterpart for pairs (as Agresti and Min 2005 and Bonett and Price
2012 have it, who add two). tests/common/stats/test_prediction_powered.py simulates both intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from common.stats.metrics import Measure

Target = Literal["file", "population"]
_ADDED = 4  # made-up items, one of each kind


@dataclass(frozen=True)
class Estimate:
    """A share with its 95 % interval.

    Attributes:
        value: The share, 0 to 1.
        low: Lower end of the interval.
        high: Upper end.
        labelled: Items that it has labels of.
        items: Items in all.
        weight: Lambda, the weight of the machine's predictions, 0 to the share of items without a label.
        standard_error: Of the value, without the made-up items: as the papers have it for the target ``population``.
    """

    value: float
    low: float
    high: float
    labelled: int
    items: int
    weight: float
    standard_error: float

    def measure(self) -> Measure:
        """As findings show it; n is the number of labels."""
        return {"value": self.value, "n": self.labelled, "ci95": [self.low, self.high]}

    def holds(self, share: float) -> bool:
        """Whether a share lies in the interval."""
        return self.low <= share <= self.high


def share(
    labels: Sequence[float] | np.ndarray,
    predictions: Sequence[float] | np.ndarray,
    rest: Sequence[float] | np.ndarray,
    target: Target = "file",
) -> Estimate:
    """The share of items in a class.

    Args:
        labels: 1 where people put a labelled item into the class, else 0; shape (n,). The items were drawn at random.
        predictions: What the machine says of the same items, 0 to 1: a probability or a label; shape (n,).
        rest: What it says of the items without a label, shape (m,).
        target: Whose share: of these n + m items, which is known exactly once all are labelled, or of the population that they
            all were drawn from at random, which is the target of the papers. The value is the same, the interval is not.

    Raises:
        ValueError: No labels, other shapes, or a number outside 0 to 1.
    """
    seen = _moments(labels, predictions, rest)
    low, high = _interval(seen, seen.labelled, target)
    weight, slope = _weights(seen, seen.labelled, target)
    variance = max(0.0, seen.residual_variance(slope)) / seen.labelled
    unlabelled = seen.items - seen.labelled
    if target == "file":
        variance *= unlabelled / seen.items
    elif unlabelled:
        variance += weight**2 * seen.rest_variance / unlabelled
    low, value, high = (min(1.0, max(0.0, number)) for number in (low, seen.value(weight), high))
    return Estimate(value, low, high, seen.labelled, seen.items, weight, math.sqrt(variance))


def labelled_only(labels: Sequence[float] | np.ndarray, items: int, target: Target = "file") -> Estimate:
    """The share from the labelled items alone: :func:`share` without a machine."""
    known = np.asarray(labels, dtype=float)
    return share(known, np.zeros(len(known)), np.zeros(items - len(known)), target)


def labels_needed(
    labels: Sequence[float] | np.ndarray,
    predictions: Sequence[float] | np.ndarray,
    rest: Sequence[float] | np.ndarray,
    width: float,
    target: Target = "file",
) -> int | None:
    """The least number of labels whose 95 % interval would be at most ``width`` wide in all, as far as these labels tell.

    Arguments and errors are as for :func:`share`. None where even labels of all items would not do, as can be for a population.
    """
    seen = _moments(labels, predictions, rest)

    def wide(count: int) -> bool:
        low, high = _interval(seen, count, target)
        return high - low > width

    few, many = 0, seen.items
    if wide(many):
        return None
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (middle, many) if wide(middle) else (few, middle)
    return many


@dataclass(frozen=True)
class _Moments:
    labelled: int
    items: int
    label_mean: float
    prediction_mean: float  # of the labelled items
    rest_mean: float
    label_variance: float
    covariance: float
    prediction_variance: float  # of the labelled items
    rest_variance: float

    def value(self, weight: float) -> float:
        return self.label_mean + weight * (self.rest_mean - self.prediction_mean)

    def residual_variance(self, slope: float) -> float:
        """Of label − slope · prediction."""
        return self.label_variance - 2 * slope * self.covariance + slope**2 * self.prediction_variance


def _moments(labels: Sequence[float] | np.ndarray, predictions: Sequence[float] | np.ndarray, rest) -> _Moments:
    known, said, others = (np.asarray(values, dtype=float) for values in (labels, predictions, rest))
    if not len(known) or known.shape != said.shape or not (known.ndim == others.ndim == 1):
        raise ValueError(f"labels of shape {known.shape}, predictions {said.shape} and {others.shape}")
    everything = np.concatenate([said, others])
    if not all(((values >= 0) & (values <= 1)).all() for values in (known, everything)):
        raise ValueError("a number outside 0 to 1")
    return _Moments(
        labelled=len(known),
        items=len(everything),
        label_mean=float(known.mean()),
        prediction_mean=float(said.mean()),
        rest_mean=float(others.mean()) if len(others) else 0.0,
        label_variance=float(known.var()),
        covariance=float(((known - known.mean()) * (said - said.mean())).mean()),
        prediction_variance=float(said.var()),
        rest_variance=float(others.var()) if len(others) else 0.0,
    )


def _weights(seen: _Moments, labelled: int, target: Target) -> tuple[float, float]:
    """Lambda if so many items had labels, and by how much a prediction counts in the error of the target's share."""
    unlabelled = 1 - labelled / seen.items
    # A variance as small as rounding leaves it is that of a machine that says the same of every item.
    if not unlabelled or seen.prediction_variance < 1e-12:
        return 0.0, 0.0
    # The papers divide by the variance of all predictions. That of the labelled ones errs together with the covariance: with 30
    # labels, and a machine that errs in one direction, this held the share in about one draw in a hundred more.
    # Lambda is the slope times the unlabelled share: cutting the slope at 1 cuts lambda a little below the papers' 1, and keeps the
    # made-up items from outweighing real ones where nearly all items have labels.
    slope = min(1.0, max(0.0, seen.covariance / seen.prediction_variance))
    weight = unlabelled * slope
    # Of a file, the labelled part is known: only the unlabelled part has an error, and lambda is for the whole.
    return weight, slope if target == "file" else weight


def _interval(seen: _Moments, labelled: int, target: Target) -> tuple[float, float]:
    """The interval if so many items had labels that look like those that have, not yet cut to 0 to 1."""
    weight, slope = _weights(seen, labelled, target)
    unlabelled = 1 - labelled / seen.items
    # The made-up items' label − slope · prediction: 0, 1, −slope, 1 − slope.
    apart = (1 - slope) / 2 - (seen.label_mean - slope * seen.prediction_mean)
    count = labelled + _ADDED
    spread = (labelled * max(0.0, seen.residual_variance(slope)) + _ADDED * (1 + slope**2) / 4) / count
    spread += labelled * _ADDED * apart**2 / count**2
    shift, variance = _ADDED * apart / count, spread / (count - 1)
    if target == "file":
        shift, variance = unlabelled * shift, unlabelled * variance
    elif unlabelled:
        variance += weight**2 * seen.rest_variance / (seen.items - labelled)
    centre, half = seen.value(weight) + shift, float(stdtrit(count - 1, 0.975)) * math.sqrt(variance)
    return centre - half, centre + half
