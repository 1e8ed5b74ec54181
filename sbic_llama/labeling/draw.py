"""Draw rows for people to label, each with a known probability."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import ndtri

LEVELS = 5  # strata of rows that are about equally uncertain
FEWEST = 5  # rows of a stratum, so that its labels say how they differ
LEAST_DEVIATION = 0.1  # of an answer from the truth, however certain the model is


@dataclass(frozen=True)
class Drawn:
    """A row that was drawn."""

    row: int  # its place in the file, from 0
    stratum: int  # from 1; people who label must not see the model's answer in its name
    name: str
    probability: float


def simple(rows: Sequence[int], size: int, seed: int) -> list[Drawn]:
    """Draw rows that all have the same probability."""
    return _draw({"all": list(rows)}, {"all": min(size, len(rows))}, seed)


def by_value(rows: Sequence[int], values: Sequence[str], size: int, seed: int) -> list[Drawn]:
    """Draw equally many rows of each of the rows' values, as far as there are so many."""
    strata: dict[str, list[int]] = {}
    for row, value in zip(rows, values, strict=True):
        strata.setdefault(value, []).append(row)
    return _draw(strata, allocated(dict.fromkeys(strata, 1.0), strata, size), seed)


def by_uncertainty(rows: Sequence[int], confidences: Sequence[float], size: int, seed: int) -> list[Drawn]:
    """Draw more rows of which a model is uncertain, but some of all.

    Rows are divided by confidence into :data:`LEVELS` strata of equal size. Each gets rows in proportion to the standard
    deviation of the answers from the truth that the model expects (Neyman 1934), at least :data:`LEAST_DEVIATION`.
    """
    order = sorted(range(len(rows)), key=lambda place: (confidences[place], place))
    strata: dict[str, list[int]] = {}
    weights: dict[str, float] = {}
    for level in range(LEVELS):
        places = order[len(order) * level // LEVELS : len(order) * (level + 1) // LEVELS]
        if places:
            name = f"{level + 1} of {LEVELS}, confidence {confidences[places[0]]:.3f} to {confidences[places[-1]]:.3f}"
            strata[name] = [rows[place] for place in places]
            mean = sum(confidences[place] * (1 - confidences[place]) for place in places) / len(places)
            weights[name] = len(places) * max(LEAST_DEVIATION, math.sqrt(max(0.0, mean)))
    return _draw(strata, allocated(weights, strata, size), seed)


def allocated(weights: dict[str, float], strata: dict[str, list[int]], size: int) -> dict[str, int]:
    """Return how many rows of each stratum to draw: in proportion to weights, at least :data:`FEWEST`, at most all."""
    sizes = {name: len(rows) for name, rows in strata.items()}
    counts = {name: min(FEWEST, sizes[name]) for name in strata}
    while (left := min(size, sum(sizes.values())) - sum(counts.values())) > 0:
        open_strata = [name for name in strata if counts[name] < sizes[name]]
        total = sum(weights[name] for name in open_strata)
        aims = {
            name: weights[name] * (sum(counts[each] for each in open_strata) + left) / total for name in open_strata
        }
        # One by one to the stratum that lacks most: sizes are small, and no rule for remainders is needed.
        name = max(open_strata, key=lambda name: (aims[name] - counts[name], name))
        counts[name] += 1
    return counts


def _draw(strata: dict[str, list[int]], counts: dict[str, int], seed: int) -> list[Drawn]:
    """Draw that many rows of each stratum at random, in random order."""
    draw = random.Random(seed)
    chosen = [
        Drawn(row, number, name, counts[name] / len(strata[name]))
        for number, name in enumerate(sorted(strata), 1)
        for row in draw.sample(strata[name], counts[name])
    ]
    draw.shuffle(chosen)
    return chosen


def divided(count: int, annotators: int, overlap: float) -> list[list[int]]:
    """Return for each annotator the places of drawn rows to label: all of the first ``overlap``, and a share of the others."""
    shared = math.ceil(overlap * count)
    return [
        [place for place in range(count) if place < shared or place % annotators == who] for who in range(annotators)
    ]


def size_for(width: float, share: float, items: int) -> int:
    """Return how many labels a 95 % interval of a share takes that is that wide, for a simple draw without a model."""
    needed = (2 * float(ndtri(0.975)) / width) ** 2 * share * (1 - share)
    return min(items, math.ceil(needed / (1 + (needed - 1) / items)))
