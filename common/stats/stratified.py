"""Shares from labels of a stratified random sample, which were drawn with known and unequal probabilities.

Each labeled item stands for as many items as its stratum has per label. The machine's predictions of all items are corrected by
the weighted error that the labels reveal, as in :mod:`common.stats.prediction_powered`. With these weights it is the difference
estimator of survey sampling (Särndal, Swensson and Wretman 1992, chapter 6), which Egami, Hinck, Stewart and Wei 2023
(arXiv:2306.04746) call design-based supervised learning. The variance is that of stratified sampling without replacement. For a
part of the file it has a second term, because the part's size in a stratum is estimated too.

Few labels in a stratum may agree by chance and leave no variance. So the artificial items of ``prediction_powered`` join the
labeled ones, in proportion to the strata, and the quantile is Student's. tests/common/stats/test_stratified.py simulates the
intervals.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import stdtrit

from common.stats.design import Design
from common.stats.metrics import Numbers
from common.stats.prediction_powered import ADDED, Estimate, Target


def share(
    labels: Numbers,
    predictions: Numbers,
    design: Design,
    mean_prediction: float,
    items: int,
    target: Target = "file",
    within: np.ndarray | None = None,
) -> Estimate:
    """Estimate the share of items in a class.

    Args:
        labels: 1 if people put a labeled item into the class, else 0; shape (n,).
        predictions: The machine's output for the same items, 0 to 1; shape (n,).
        design: How these items were drawn.
        mean_prediction: The mean of its output for all items that the share is of.
        items: How many items these are.
        target: As in :func:`common.stats.prediction_powered.share`.
        within: Whether each labeled item is one of those that the share is of, shape (n,); by default all are.
    """
    known, predicted = np.asarray(labels, dtype=float), np.asarray(predictions, dtype=float)
    inside = np.ones(len(known), dtype=bool) if within is None else np.asarray(within)
    weights = design.weights * inside
    weights = weights / weights.sum()
    slope = _slope(known, predicted, weights)
    residuals = known - slope * predicted
    mean = float(weights @ residuals)
    value = mean + slope * mean_prediction
    variance = wide = shift = 0.0
    for stratum, (size, drawn) in enumerate(zip(design.sizes, design.counts, strict=True)):
        chosen = inside & (design.strata == stratum)
        count, part = int(chosen.sum()), float(weights[chosen].sum())
        if not count:
            continue
        # A labeled item stands for itself, too: only the others have an error.
        here, rest = residuals[chosen], max(0.0, 1 - drawn / size)
        # How many of the stratum's items the share is of is estimated as well.
        between = part**2 * rest * (1 - count / drawn) / count * (float(here.mean()) - mean) ** 2
        spread, added = float(here.var()), ADDED * part
        apart, of_artificial = (1 - slope) / 2 - float(here.mean()), (1 + slope**2) / 4
        shift += part * rest * added * apart / (count + added)
        joint = (count * spread + added * of_artificial + count * added * apart**2 / (count + added)) / (count + added)
        wide += part**2 * rest * joint / max(1e-9, count + added - 1) + between
        variance += part**2 * rest * spread / count + between
    if target == "population":
        of_file = float(weights @ known) * (1 - float(weights @ known)) / items
        wide, variance = wide + of_file, variance + of_file
    freedom = max(1.0, design.effective(inside) + ADDED - len(np.unique(design.strata[inside])))
    center, half = value + shift, float(stdtrit(freedom, 0.975)) * math.sqrt(wide)
    low, high, value = (min(1.0, max(0.0, number)) for number in (center - half, center + half, value))
    unlabeled = 1 - int(inside.sum()) / items
    return Estimate(value, low, high, int(inside.sum()), items, unlabeled * slope, math.sqrt(variance))


def _slope(known: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> float:
    from_mean = predicted - weights @ predicted
    variance = float(weights @ from_mean**2)
    return min(1.0, max(0.0, float(weights @ (from_mean * known)) / variance)) if variance > 1e-12 else 0.0
