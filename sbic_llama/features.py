"""The features that a model annotates, each declared once: everything else reads these objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sbic_llama.corpus import Post, nearest_level


@dataclass(frozen=True)
class Feature:
    """A classification feature.

    Attributes:
        name: The corpus column's name.
        question: What it asks, in words.
        labels: Its label texts.
        label_of: Post → index into ``labels``, or None where the annotators left it blank.
    """

    name: str
    question: str
    labels: tuple[str, ...]
    label_of: Callable[[Post], int | None]


def _bias_label(post: Post) -> int:
    return 0 if post.biased else 1


def _offensive_label(post: Post) -> int | None:
    return None if post.offensive is None else {1.0: 0, 0.5: 1, 0.0: 2}[nearest_level(post.offensive)]


HAS_BIASED_IMPLICATION = Feature(
    "hasBiasedImplication",
    "Does the post imply something biased about a group of people?",
    ("Biased", "Not biased"),
    _bias_label,
)
OFFENSIVE_YN = Feature(
    "offensiveYN",
    "Could the post be considered offensive to anyone?",
    ("Offensive", "Maybe offensive", "Not offensive"),
    _offensive_label,
)
CLASSIFICATION = (HAS_BIASED_IMPLICATION, OFFENSIVE_YN)
