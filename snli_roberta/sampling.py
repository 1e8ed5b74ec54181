"""Smaller training sets with the classes kept in proportion."""

from __future__ import annotations

import random

from common.errors import UserError
from snli_roberta.corpus import LABELS, Pair

SAMPLING = ("balance_classes", "train_fraction", "sample_seed")  # the arguments that choose the sample


def training_sample(pairs: list[Pair], *, balance_classes: bool, train_fraction: float, sample_seed: int) -> list[Pair]:
    """The training pairs that a run uses, of those that were loaded.

    Raises:
        UserError: A class would have no pair.
    """
    drawn = stratified(balanced(pairs, sample_seed) if balance_classes else pairs, train_fraction, sample_seed)
    absent = [name for label, name in enumerate(LABELS) if not any(pair.label == label for pair in drawn)]
    if absent:
        raise UserError(
            f"no training pair of {', '.join(absent)}", expected="some of each class", fix="use more training pairs"
        )
    return drawn


def balanced(pairs: list[Pair], seed: int) -> list[Pair]:
    """As many pairs of each class as the rarest has, drawn without replacement, in their original order."""
    smallest = min(sum(pair.label == label for pair in pairs) for label in range(len(LABELS)))
    return _draw(pairs, [smallest] * len(LABELS), seed)


def stratified(pairs: list[Pair], fraction: float, seed: int) -> list[Pair]:
    """``round(fraction * n)`` pairs whose class counts are as near to proportional as whole rows can be.

    Each class gets the whole part of its share; the rows left over go to the largest remainders (Hamilton's method).
    """
    shares = [fraction * sum(pair.label == label for pair in pairs) for label in range(len(LABELS))]
    counts = [int(share) for share in shares]
    left = round(fraction * len(pairs)) - sum(counts)
    for label in sorted(range(len(LABELS)), key=lambda label: counts[label] - shares[label])[:left]:
        counts[label] += 1
    return _draw(pairs, counts, seed)


def _draw(pairs: list[Pair], counts: list[int], seed: int) -> list[Pair]:
    rng = random.Random(f"sample {seed}")
    chosen: set[int] = set()
    for label, count in enumerate(counts):
        chosen.update(rng.sample([i for i, pair in enumerate(pairs) if pair.label == label], count))
    return [pair for i, pair in enumerate(pairs) if i in chosen]
