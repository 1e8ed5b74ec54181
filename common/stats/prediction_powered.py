"""Prediction-powered inference: the share of items in a class, from a machine's labels of all items and people's labels of a few.

The share of the machine's labels is corrected by the error that people's labels reveal (Angelopoulos, Bates, Fannjiang, Jordan and
Zrnic 2023, Science 382, 669–674). The machine's weight, lambda, minimizes the variance (PPI++: Angelopoulos, Duchi and Zrnic 2023,
arXiv:2311.01453). A systematically wrong machine does not bias the interval; a useless one gets weight 0, which leaves the share
among people's labels.

The normal interval of these papers fails if labels are few: a machine that happens to agree with people on all of 50 items leaves
no variance and an interval of zero width. So four artificial items join the labeled ones for the interval, one of each kind: in the
class or not, predicted to be or not; and the quantile is Student's. With weight 0 this is "add two successes and two failures"
(Agresti and Coull 1998), else its counterpart for pairs (like Agresti and Min 2005 and Bonett and Price 2012, who add two).
tests/common/stats/test_prediction_powered.py simulates both intervals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from common.stats.metrics import Measure, Numbers

Target = Literal["file", "population"]
ADDED = 4  # artificial items, one of each kind


@dataclass(frozen=True)
class Estimate:
    """A share with its 95 % interval."""

    value: float  # 0 to 1
    low: float
    high: float
    labelled: int  # items with a human label
    items: int  # all items
    weight: float  # lambda, from 0 to the share of items without a label
    standard_error: float  # of the value, without artificial items; for a population it is the papers'

    def measure(self) -> Measure:
        """Return the share as findings show it; n is the number of labels."""
        return {"value": self.value, "n": self.labelled, "ci95": [self.low, self.high]}

    def holds(self, share: float) -> bool:
        """Return whether a share lies in the interval."""
        return self.low <= share <= self.high


def share(labels: Numbers, predictions: Numbers, rest: Numbers, target: Target = "file") -> Estimate:
    """Estimate the share of items in a class.

    Args:
        labels: 1 if people put a labeled item into the class, else 0; shape (n,). The items must be a random sample.
        predictions: The machine's output for the same items, 0 to 1: a probability or a label; shape (n,).
        rest: Its output for the items without a label, shape (m,).
        target: Share of what: of these n + m items, which is certain once all are labeled, or of the population that they are a
            random sample of, as in the papers. The value is the same, the interval is not.
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


def labelled_only(labels: Numbers, items: int, target: Target = "file") -> Estimate:
    """Estimate the share from the labeled items alone: :func:`share` without a machine."""
    known = np.asarray(labels, dtype=float)
    return share(known, np.zeros(len(known)), np.zeros(items - len(known)), target)


def labels_needed(
    labels: Numbers, predictions: Numbers, rest: Numbers, width: float, target: Target = "file"
) -> int | None:
    """Return the smallest number of labels for a 95 % interval at most ``width`` wide, as far as these labels tell.

    Arguments are those of :func:`share`. None if even labels of all items would not be enough, as a population may need.
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
    prediction_mean: float  # of the labeled items
    rest_mean: float
    label_variance: float
    covariance: float
    prediction_variance: float  # of the labeled items
    rest_variance: float

    def value(self, weight: float) -> float:
        return self.label_mean + weight * (self.rest_mean - self.prediction_mean)

    def residual_variance(self, slope: float) -> float:
        """Return the variance of label − slope · prediction."""
        return self.label_variance - 2 * slope * self.covariance + slope**2 * self.prediction_variance


def _moments(labels: Numbers, predictions: Numbers, rest: Numbers) -> _Moments:
    known, predicted, others = (np.asarray(values, dtype=float) for values in (labels, predictions, rest))
    if not len(known) or known.shape != predicted.shape or not (known.ndim == others.ndim == 1):
        raise ValueError(f"labels of shape {known.shape}, predictions {predicted.shape} and {others.shape}")
    everything = np.concatenate([predicted, others])
    if not all(((values >= 0) & (values <= 1)).all() for values in (known, everything)):
        raise ValueError("a number outside 0 to 1")
    return _Moments(
        labelled=len(known),
        items=len(everything),
        label_mean=float(known.mean()),
        prediction_mean=float(predicted.mean()),
        rest_mean=float(others.mean()) if len(others) else 0.0,
        label_variance=float(known.var()),
        covariance=float(((known - known.mean()) * (predicted - predicted.mean())).mean()),
        prediction_variance=float(predicted.var()),
        rest_variance=float(others.var()) if len(others) else 0.0,
    )


def _weights(seen: _Moments, labelled: int, target: Target) -> tuple[float, float]:
    """Return lambda for that many labels, and the factor of a prediction in the error of the target's share."""
    unlabelled = 1 - labelled / seen.items
    # A machine that gives every item the same answer has a variance that is 0 up to rounding.
    if not unlabelled or seen.prediction_variance < 1e-12:
        return 0.0, 0.0
    # The papers divide by the variance of all predictions. That of the labeled ones errs together with the covariance: with 30
    # labels and a machine that errs in one direction, this covered the share in about one draw in a hundred more.
    # Lambda is the slope times the unlabeled share. Capping the slope at 1 caps lambda slightly below the papers' 1 and keeps the
    # artificial items from outweighing real ones if nearly all items have labels.
    slope = min(1.0, max(0.0, seen.covariance / seen.prediction_variance))
    weight = unlabelled * slope
    # The labeled part of a file is known: only the unlabeled part has an error, and lambda covers the whole.
    return weight, slope if target == "file" else weight


def _interval(seen: _Moments, labelled: int, target: Target) -> tuple[float, float]:
    """Return the interval for that many labels of the same kind, not yet clipped to 0 to 1."""
    weight, slope = _weights(seen, labelled, target)
    unlabelled = 1 - labelled / seen.items
    # The artificial items' label − slope · prediction: 0, 1, −slope, 1 − slope.
    apart = (1 - slope) / 2 - (seen.label_mean - slope * seen.prediction_mean)
    count = labelled + ADDED
    spread = (labelled * max(0.0, seen.residual_variance(slope)) + ADDED * (1 + slope**2) / 4) / count
    spread += labelled * ADDED * apart**2 / count**2
    shift, variance = ADDED * apart / count, spread / (count - 1)
    if target == "file":
        shift, variance = unlabelled * shift, unlabelled * variance
    elif unlabelled:
        variance += weight**2 * seen.rest_variance / (seen.items - labelled)
    center, half = seen.value(weight) + shift, float(stdtrit(count - 1, 0.975)) * math.sqrt(variance)
    return center - half, center + half
