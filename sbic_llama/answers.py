"""What a model answers to posts, and how sure each answer is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sbic_llama.features import Feature, Label


@dataclass(frozen=True)
class Answers:
    """A model's labels of some posts, with what it thought of each: a row of numbers by name.

    The numbers are ``probability_<label>``; of a list of groups ``mean_log_probability``, over its tokens, and ``margin``, how
    near to a tie it was. ``cut`` is how many posts were longer than the model reads.
    """

    labels: list[Label]
    details: list[dict[str, float]]
    cut: int


def confidence(declared: Feature, details: dict[str, float]) -> float:
    """How sure an answer is, 0 to 1: the label's probability, or the geometric mean of the probabilities of a list's tokens."""
    return max(details.values()) if declared.classifies else math.exp(details["mean_log_probability"])
