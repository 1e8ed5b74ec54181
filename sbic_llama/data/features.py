"""The features that a model annotates, each declared once: everything else reads these objects."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from common.cli.errors import UserError
from common.models.prompt import HEAD, TAIL
from sbic_llama.data.corpus import Annotation, Post, nearest_level
from sbic_llama.data.groups import NONE, normalized_groups, split_groups

Label = int | tuple[str, ...]
Policy = Literal["levels", "at_least_half", "above_half"]
Wording = Literal["ours", "study"]


@dataclass(frozen=True)
class Feature:
    """A feature: what is asked of a post, and which answers there are.

    Attributes:
        name: The corpus column's name.
        question: What it asks, in words for a reader.
        instruction: What it asks, in words for the model.
        labels: The answers to choose from; none where the answer is a list of groups.
        policy: How a label comes from what the annotators said, in words.
        label_of: Post → its label: an index into ``labels``, or the sorted groups. None where the annotators left it blank.
        opinion_of: One annotation → what that annotator said; None where it is blank, or known of whole posts only.
        variant: Name of another label policy or wording than the usual, for headings and file names.
    """

    name: str
    question: str
    instruction: str
    labels: tuple[str, ...]
    policy: str
    label_of: Callable[[Post], Label | None]
    opinion_of: Callable[[Annotation], Any] = lambda annotation: None
    variant: str = ""

    @property
    def classifies(self) -> bool:
        return bool(self.labels)

    @property
    def title(self) -> str:
        """Name and variant, as a heading."""
        return f"{self.name}, {self.variant}" if self.variant else self.name

    @property
    def slug(self) -> str:
        """Name and variant, as a part of a file name."""
        return re.sub(r"[^A-Za-z]+", "-", self.title)

    @property
    def opening(self) -> str:
        """The prompt before the post."""
        return HEAD.format(self.instruction)

    def prompt(self, post: Post) -> str:
        """The whole prompt as text. (Models get it in pieces, as :func:`sbic_llama.data.encoding.encode` gives them.)"""
        return f"{self.opening}{post.text}{TAIL}"

    def target(self, post: Post) -> str | None:
        """The answer to learn; None where the annotators gave none."""
        label = self.label_of(post)
        return None if label is None else self.answer(label)

    def answer(self, label: Label) -> str:
        """A label as text; ``parse`` is its inverse."""
        return self.labels[label] if isinstance(label, int) else ", ".join(label) or NONE

    def parse(self, text: str) -> Label | None:
        """A text as label; None where it is no label of a feature that classifies."""
        if not self.classifies:
            return split_groups(text)
        return self.labels.index(text.strip()) if text.strip() in self.labels else None

    def prompt_hash(self) -> str:
        """First 16 hex digits of SHA-256 over all that the model reads besides the post, and the answers."""
        parts = [self.opening, TAIL, *self.labels]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:16]


def _bias_label(post: Post) -> int:
    return 0 if post.biased else 1


def _offensive_level(post: Post) -> int | None:
    return None if post.offensive is None else {1.0: 0, 0.5: 1, 0.0: 2}[nearest_level(post.offensive)]


def _at_least_half(post: Post) -> int | None:
    return None if post.offensive is None else 0 if post.offensive >= 0.5 else 1


def _above_half(post: Post) -> int | None:
    return None if post.offensive is None else 0 if post.offensive > 0.5 else 1


def _intended(post: Post) -> int | None:
    # The corpus writes thirds as .33 and .66: opinions that balance have a mean of .495 to .5.
    return None if post.intended is None else 0 if round(post.intended, 3) >= 0.495 else 1


def _groups(post: Post) -> tuple[str, ...]:
    return normalized_groups(post.groups)


HAS_BIASED_IMPLICATION = Feature(
    "hasBiasedImplication",
    "Does the post imply something biased about a group of people?",
    "Decide whether the post implies something biased about a group of people.",
    ("Biased", "Not biased"),
    "biased where any annotator gave a stereotype",
    _bias_label,
    lambda annotation: annotation.biased,
)
OFFENSIVE_YN = Feature(
    "offensiveYN",
    "Could the post be considered offensive to anyone?",
    "Decide whether the post could be considered offensive to anyone.",
    ("Offensive", "Maybe offensive", "Not offensive"),
    "nearest of the three levels to the annotators' mean; 0.25 and 0.75 are maybe",
    _offensive_level,
    lambda annotation: annotation.offensive,
)
TARGET_MINORITY = Feature(
    "targetMinority",
    "Which groups of people does the post target?",
    "Name the groups of people that the post targets, separated by commas, or say none.",
    (),
    "every group that any annotator named, in lower case, sorted",
    _groups,
)
INTENT_YN = Feature(
    "intentYN",
    "Did the author of the post mean to offend?",
    "Decide whether the author of the post intended to offend.",
    ("Intended", "Not intended"),
    "intended where the annotators' mean of no, probably not, probably and yes is at least half way",
    _intended,
    lambda annotation: annotation.intended,
)
FEATURES = {
    get_feature.name: get_feature for get_feature in (HAS_BIASED_IMPLICATION, OFFENSIVE_YN, TARGET_MINORITY, INTENT_YN)
}
Name: TypeAlias = Literal[tuple(FEATURES)]  # type: ignore[valid-type]

# The binary view of offensiveYN; where annotators are split evenly, the two policies differ.
OFFENSIVE_POLICIES: dict[Policy, Feature] = {
    "levels": OFFENSIVE_YN,
    "at_least_half": replace(
        OFFENSIVE_YN,
        labels=("Offensive", "Not offensive"),
        policy="offensive where the annotators' mean is at least .5",
        label_of=_at_least_half,
        variant="at least half",
    ),
    "above_half": replace(
        OFFENSIVE_YN,
        labels=("Offensive", "Not offensive"),
        policy="offensive where the annotators' mean is above .5",
        label_of=_above_half,
        variant="above half",
    ),
}
# The wording of the study that this project began from; it covered this feature only.
STUDY_WORDING = replace(
    HAS_BIASED_IMPLICATION,
    instruction="Categorize the given post into one of the 2 categories: Having Biased Implications / No biased Implications",
    labels=("Having Biased Implications", "No biased Implications"),
    variant="the study's wording",
)


def get_feature(name: str, policy: Policy = "levels", wording: Wording = "ours") -> Feature:
    """A feature under a label policy and in a wording.

    Raises:
        UserError: The feature has no such policy or wording.
    """
    if policy != "levels" and name != OFFENSIVE_YN.name:
        raise UserError(f"{name} has no other label policy", key="label_policy", expected="levels")
    if wording != "ours" and name != HAS_BIASED_IMPLICATION.name:
        raise UserError(f"the study has no wording for {name}", key="wording", expected="ours")
    if wording == "study":
        return STUDY_WORDING
    return OFFENSIVE_POLICIES[policy] if name == OFFENSIVE_YN.name else FEATURES[name]


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
