"""Declare the features that a model annotates, each once; everything else reads these objects."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from common.cli.errors import UserError
from common.models.prompt import STUDY, Template
from common.tables.report import fingerprint
from sbic_llama.data.codebook import CHOSEN, RULES, UNITED, Codebook, names_of
from sbic_llama.data.corpus import Annotation, Post, nearest_level
from sbic_llama.data.groups import joined_groups, normalized_groups, split_groups
from sbic_llama.data.texts import POST, TextColumns

YES_NO = ("yes", "no")  # whether one of several labels holds
OF_CHOICES = "label_probability_"  # begins the name of the number beside such a label
MANY = 20  # posts from which one answer to all of them is worth a warning
Label = int | tuple[str, ...]
Policy = Literal["levels", "at_least_half", "above_half"]
Wording = Literal["ours", "study"]


@dataclass(frozen=True)
class Feature:
    """A question about a post and its possible answers."""

    name: str  # the corpus column's name
    question: str  # for a reader
    instruction: str  # for the model
    labels: tuple[str, ...]  # the answers to choose from; empty where the answer is a list
    policy: str  # how annotations become a label, in words
    # Returns an index into `labels`, or the sorted groups; None where annotators left it blank.
    label_of: Callable[[Post], Label | None]
    # Returns one annotator's opinion; None where it is blank or known per post only.
    opinion_of: Callable[[Annotation], Any] = lambda annotation: None
    variant: str = ""  # label policy or wording, if not the usual one; used in headings and file names
    template: Template = STUDY  # of the prompts in which a model is asked
    order: tuple[str, ...] = ()  # the labels from lowest to highest, if they have an order
    codebook: Codebook | None = None  # that declares it; None for the features of SBIC
    choices: tuple[
        str, ...
    ] = ()  # labels of which any number may hold; empty where one of `labels` does, or names are listed
    thresholds: tuple[float, ...] = ()  # the probability from which each of `choices` holds; empty: one half

    @property
    def classifies(self) -> bool:
        return bool(self.labels)

    @property
    def branches(self) -> tuple[str, ...]:
        """Return the texts that a model scores: each label or, of each of ``choices``, that it holds and that it does not."""
        return self.labels or tuple(f"{choice}: {word}" for choice in self.choices for word in YES_NO)

    @property
    def texts(self) -> TextColumns:
        """Return in which columns of a table its texts are."""
        return self.codebook.columns.texts if self.codebook else POST

    @property
    def title(self) -> str:
        return f"{self.name}, {self.variant}" if self.variant else self.name

    @property
    def task(self) -> str:
        """Return the name of the task in tables: the title, with its corpus if that is SBIC."""
        return self.title if self.codebook else f"SBIC {self.title}"

    @property
    def slug(self) -> str:
        """Return the title as a part of a file name."""
        return self.name if self.codebook else re.sub(r"[^A-Za-z]+", "-", self.title)

    @property
    def stem(self) -> str:
        """Return what the names of its records and findings start with."""
        return self.slug if self.codebook else f"sbic-{self.slug}"

    @property
    def opening(self) -> str:
        """Return the prompt up to the post."""
        return self.template.opening(self.instruction)

    def prompt(self, post: str) -> str:
        """Return the prompt for a post's text; :func:`sbic_llama.data.encoding.encode` returns its tokens."""
        return f"{self.opening}{post}{self.template.tail}"

    def target(self, post: Post) -> str | None:
        """Return the answer to learn; None where annotators left it blank."""
        label = self.label_of(post)
        return None if label is None else self.answer(label)

    def answer(self, label: Label) -> str:
        """Return a label as text; :meth:`parse` is the inverse."""
        return self.labels[label] if isinstance(label, int) else joined_groups(label)

    def learned(self, label: Label) -> tuple[str, ...]:
        """Return the texts that a model learns for a label: its answer or, of each of ``choices``, whether it holds."""
        if not self.choices:
            return (self.answer(label),)
        chosen = set() if isinstance(label, int) else set(label)
        return tuple(f"{choice}: {YES_NO[choice not in chosen]}" for choice in self.choices)

    def chosen(self, probabilities: Sequence[float]) -> tuple[str, ...]:
        """Return those of ``choices`` that hold, given the probability of each."""
        thresholds = self.thresholds or [0.5] * len(self.choices)
        pairs = zip(self.choices, probabilities, thresholds, strict=True)
        return tuple(sorted(choice for choice, probability, least in pairs if probability >= least))

    def parse(self, text: str) -> Label | None:
        """Return a text as a label; None for a text that is not one of ``labels``, or a list of ``choices``."""
        if self.choices:
            known, names = names_of(self.choices), split_groups(text)
            return tuple(sorted(known[name] for name in names)) if known.keys() >= set(names) else None
        if not self.classifies:
            return split_groups(text)
        return self.labels.index(text.strip()) if text.strip() in self.labels else None

    def prompt_hash(self) -> str:
        """Return the first 16 hex digits of SHA-256 over the prompt without the post, the end of answers, and the labels."""
        end = [self.template.end] if self.template.end else []  # as before there were others than EOS
        parts = [self.opening, self.template.tail, *end, *self.branches]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()[:16]


def _offensive_level(post: Post) -> int | None:
    return None if post.offensive is None else {1.0: 0, 0.5: 1, 0.0: 2}[nearest_level(post.offensive)]


def _intended(post: Post) -> int | None:
    # The corpus rounds thirds to .33 and .66, so evenly split opinions have a mean of .495 to .5.
    return None if post.intended is None else 0 if round(post.intended, 3) >= 0.495 else 1


HAS_BIASED_IMPLICATION = Feature(
    "hasBiasedImplication",
    "Does the post imply something biased about a group of people?",
    "Decide whether the post implies something biased about a group of people.",
    ("Biased", "Not biased"),
    "biased where any annotator gave a stereotype",
    lambda post: 0 if post.biased else 1,
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
    order=("Not offensive", "Maybe offensive", "Offensive"),
)
TARGET_MINORITY = Feature(
    "targetMinority",
    "Which groups of people does the post target?",
    "Name the groups of people that the post targets, separated by commas, or say none.",
    (),
    "every group that any annotator named, in lower case, sorted",
    lambda post: normalized_groups(post.groups),
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
FEATURES = {feature.name: feature for feature in (HAS_BIASED_IMPLICATION, OFFENSIVE_YN, TARGET_MINORITY, INTENT_YN)}
Name: TypeAlias = Literal[tuple(FEATURES)]  # type: ignore[valid-type]


def _two_classes(variant: str, rule: str, offensive: Callable[[float], bool]) -> Feature:
    return replace(
        OFFENSIVE_YN,
        labels=("Offensive", "Not offensive"),
        policy=f"offensive where the annotators' mean is {rule}",
        label_of=lambda post: None if post.offensive is None else 0 if offensive(post.offensive) else 1,
        variant=variant,
        order=(),
    )


OFFENSIVE_POLICIES: dict[Policy, Feature] = {
    "levels": OFFENSIVE_YN,
    "at_least_half": _two_classes("at least half", "at least .5", lambda mean: mean >= 0.5),
    "above_half": _two_classes("above half", "above .5", lambda mean: mean > 0.5),
}
# The wording of the study that this project started from, which covered this feature only.
STUDY_WORDING = replace(
    HAS_BIASED_IMPLICATION,
    instruction="Categorize the given post into one of the 2 categories: Having Biased Implications / No biased Implications",
    labels=("Having Biased Implications", "No biased Implications"),
    variant="the study's wording",
)


def get_feature(name: str, policy: Policy = "levels", wording: Wording = "ours") -> Feature:
    """Return a feature under a label policy and in a wording."""
    if policy != "levels" and name != OFFENSIVE_YN.name:
        raise UserError(f"{name} has a single label policy", key="label_policy", expected="levels")
    if wording != "ours" and name != HAS_BIASED_IMPLICATION.name:
        raise UserError(f"the study has no wording for {name}", key="wording", expected="ours")
    if wording == "study":
        return STUDY_WORDING
    return OFFENSIVE_POLICIES[policy] if name == OFFENSIVE_YN.name else FEATURES[name]


@dataclass(frozen=True)
class Answers:
    """A model's labels of some posts, with the numbers behind each."""

    labels: list[Label]
    # probability_<label>; where several labels may hold, label_probability_<label>; for a list of groups, mean_log_probability
    # over its tokens and margin (see `Generated`)
    details: list[dict[str, float]]
    cut: int  # posts that were truncated


def feature_of(codebook: Codebook) -> Feature:
    """Return the feature that a codebook declares."""
    labels, choices = tuple(codebook.labels), ()
    rule = UNITED if codebook.text else RULES[codebook.several]
    if codebook.multi_label:
        labels, choices, rule = (), labels, CHOSEN[codebook.several]
    return Feature(
        codebook.name,
        codebook.question,
        codebook.whole_instruction,
        labels,
        rule,
        lambda item: item.label,
        lambda vote: vote.label,
        order=labels if codebook.ordered else (),
        codebook=codebook,
        choices=choices,
    )


def training_fingerprint(feature: Feature, posts: Sequence[Post], dev_posts: Sequence[Post]) -> str:
    """Return what identifies the posts and answers that an adapter is trained on and validated with."""
    rows: list[Any] = [[feature.prompt_hash(), post.text, feature.target(post)] for post in [*posts, *dev_posts]]
    if feature.codebook is not None and feature.codebook.several == "soft":
        rows += [[feature.answer(feature.opinion_of(vote)) for vote in post.annotations] for post in posts]
    return fingerprint(rows)


def only_answer(feature: Feature, counts: Counter[Label]) -> str | None:
    """Return a sentence if a model gave many posts one and the same answer, else None; lists of names may well be equal."""
    if not feature.branches or len(counts) != 1 or counts.total() < MANY:
        return None
    return f"{feature.title}: the model answers {feature.answer(*counts)!r} to all of {counts.total():,} posts"


def confidence(feature: Feature, details: dict[str, float]) -> float:
    """Return the confidence of an answer, 0 to 1.

    This is the label's probability; of several labels, the probability that the least certain one is as given; or the geometric
    mean of the probabilities of a list's tokens.
    """
    if feature.choices:
        thresholds = feature.thresholds or [0.5] * len(feature.choices)
        pairs = zip(details.values(), thresholds, strict=True)
        return min(value if value >= least else 1 - value for value, least in pairs)
    return max(details.values()) if feature.classifies else math.exp(details["mean_log_probability"])
