"""From which confidence on a model's answers reach an accuracy, with a guarantee from labeled items of a random sample.

Thresholds are tested from the highest down, each by the exact binomial bound of Clopper and Pearson (1934), until one fails; the
last that passed is the answer. An order that was fixed before the labels were seen needs no correction for the number of tests
(fixed-sequence testing; Angelopoulos, Bates, Candès, Jordan and Lei 2021, arXiv:2110.01052, "Learn then Test").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

from common.stats.metrics import Numbers

THRESHOLDS = 20  # one for each twentieth of the file


@dataclass(frozen=True)
class Guarantee:
    """A confidence from which answers are right often enough, or that there is none."""

    target: float  # accuracy, 0 to 1
    confidence: float  # that it is reached, 0 to 1
    threshold: float | None  # None if no threshold passed
    share: float  # of the file's items whose answer is at least so certain
    labels: int  # labeled items among these; without a threshold, those of the first test
    right: int  # of these labels, those that agree with the answer
    bound: float  # the accuracy that is exceeded with that confidence
    first: int  # labels that the first test needs


def lower_bound(right: int, labels: int, confidence: float) -> float:
    """Return Clopper and Pearson's one-sided lower bound of a share."""
    return float(betaincinv(right, labels - right + 1, 1 - confidence)) if right else 0.0


def first_labels(target: float, confidence: float) -> int:
    """Return the fewest labels of which one may be wrong: with fewer, a single error would end the tests at once."""
    few, many = 1, 2
    while lower_bound(many - 1, many, confidence) < target:
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (middle, many) if lower_bound(middle - 1, middle, confidence) < target else (few, middle)
    return many


def guarantee(
    confidences: Numbers, right: Numbers, everywhere: Numbers, target: float, confidence: float = 0.95
) -> Guarantee:
    """Find the lowest confidence from which answers reach an accuracy.

    Args:
        confidences: The model's confidence in its answers to labeled items, a simple random sample of the file; shape (n,).
        right: Whether each of these answers is right; shape (n,).
        everywhere: Its confidence in its answers to all items of the file; shape (m,).
        target: The accuracy, above 0 and below 1.
        confidence: The probability with which a threshold that is found has it.
    """
    sure, correct = np.asarray(confidences, dtype=float), np.asarray(right, dtype=bool)
    of_file, first = np.asarray(everywhere, dtype=float), first_labels(target, confidence)
    result = Guarantee(target, confidence, None, 0.0, 0, 0, 0.0, first)
    for threshold in np.quantile(of_file, np.arange(THRESHOLDS - 1, -1, -1) / THRESHOLDS, method="lower"):
        chosen = sure >= threshold
        labels, agreeing = int(chosen.sum()), int(correct[chosen].sum())
        if labels < first:
            continue
        bound = lower_bound(agreeing, labels, confidence)
        if bound < target:
            failed = Guarantee(target, confidence, None, 0.0, labels, agreeing, bound, first)
            return failed if result.threshold is None else result
        share = float((of_file >= threshold).mean())
        result = Guarantee(target, confidence, float(threshold), share, labels, agreeing, bound, first)
    return result
