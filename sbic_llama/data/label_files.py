"""Read files with labels of posts: those that ``sbic_llama.annotate`` wrote, and those that people labeled."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli.console import log, warn
from common.cli.errors import UserError, counted, shown
from common.stats.votes import ANNOTATOR, Votes, examples, folded, read_votes
from common.tables.label_exports import label_columns, read_label_rows
from common.tables.reading import columns_of, probability_of, read_rows, text_of
from sbic_llama.data.codebook import NAME, Codebook
from sbic_llama.data.features import (
    FEATURES,
    HAS_BIASED_IMPLICATION,
    OF_CHOICES,
    OFFENSIVE_POLICIES,
    OFFENSIVE_YN,
    STUDY_WORDING,
    TARGET_MINORITY,
    Feature,
    Label,
    feature_of,
)
from sbic_llama.data.groups import NONE, split_groups

if TYPE_CHECKING:
    import numpy as np

PREFIX = "model_"  # of an annotation's columns
OF_LISTS = "_mean_log_probability"  # ends the name of the column beside answers that are lists
NOTHING = "(empty)"  # value of a column in rows that leave it empty
STRATUM, PROBABILITY = "sampling_stratum", "sampling_probability"  # columns that say how a row was drawn
MIN_HUMAN_LABELS = 30  # intervals from fewer are too wide to tell anything


@dataclass(frozen=True)
class Annotated:
    """A model's answers to one feature, per post and in the file's order."""

    feature: Feature
    keys: dict[str, int]  # key of a post → its position
    answers: list[Label]
    probabilities: np.ndarray | None  # shape (posts, labels); None if the file has none
    # Column → the values of each post as text: a single one, or every group of an answer that lists groups.
    columns: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    unanswered: int = 0  # rows without an answer, which are left out


def read_annotated(
    path: Path, feature: Feature, *, key: str, columns: Sequence[str] = (), prefix: str = PREFIX
) -> Annotated:
    """Read a feature's answers from an annotated file.

    Args:
        path: The file.
        feature: The feature, with the labels of the file's adapter.
        key: Column that identifies a post.
        columns: Further columns to keep.
        prefix: Prefix of the annotation's columns.
    """
    import numpy as np

    answer = f"{prefix}{feature.name}"
    numbers = [f"{answer}_probability_{label}" for label in feature.labels]
    numbers += [f"{answer}_{OF_CHOICES}{label}" for label in feature.choices]
    keys: dict[str, int] = {}
    answers: list[Label] = []
    probabilities: list[list[float]] = []
    kept: dict[str, list[tuple[str, ...]]] = {column: [] for column in columns}
    unanswered = 0
    for row in read_rows(path, (key, answer, *columns)):
        text = text_of(row, answer)
        if text is None:
            unanswered += 1
            continue
        name = text_of(row, key)
        if name in keys:
            fix = "choose a column of unique ids as --key"
            raise row.error(f"duplicate key {shown(name)}", key, expected="a unique key for each post", fix=fix)
        label = feature.parse(text)
        if label is None:
            expected = ", ".join(feature.labels or feature.choices)
            raise row.error(f"unknown label {shown(text)}", answer, expected=expected)
        if name is not None:  # a post without a key counts, but no human label belongs to it
            keys[name] = len(answers)
        answers.append(label)
        if numbers and numbers[0] in row.values:
            probabilities.append([probability_of(row, column) for column in numbers])
        for column, values in kept.items():
            lists = column == f"{prefix}{TARGET_MINORITY.name}" or f"{column}{OF_LISTS}" in row.values
            lists |= any(name.startswith(f"{column}_{OF_CHOICES}") for name in row.values)
            values.append(_values(text_of(row, column), lists=lists))
    if 0 < len(probabilities) < len(answers):  # possible in JSON Lines
        raise UserError("some rows have probabilities and others do not", file=path, fix="annotate the file again")
    return Annotated(feature, keys, answers, np.array(probabilities) if probabilities else None, kept, unanswered)


def shared_feature(path: Path, human_labels: Path, wanted: str | None = None, prefix: str = PREFIX) -> Feature:
    """Return the feature that an annotated file and a file of human labels share, with the annotation's labels.

    Args:
        path: The annotated file.
        human_labels: The file of human labels.
        wanted: Name of the feature; None if the files share a single one.
        prefix: Prefix of the annotation's columns.
    """
    columns = columns_of(path)
    if wanted is None:
        people = label_columns(human_labels)
        annotated = annotated_features(columns, prefix)
        shared = [name for name in annotated if name in people]
        if not annotated:
            raise UserError(
                "no annotation",
                file=path,
                expected=f"a column named {prefix} and a feature among {shown(columns, 200)}",
                fix="annotate it with sbic_llama.annotate, or give the --prefix of its columns",
            )
        if not shared:
            expected = f"a column {' or '.join(annotated)} among {shown(people, 200)}"
            raise UserError("no human labels of an annotated feature", file=human_labels, expected=expected)
        if len(shared) > 1:
            raise UserError(f"both files have {', '.join(shared)}", key="--feature", expected="one of them")
        wanted = shared[0]
    if f"{prefix}{wanted}" not in columns:
        raise UserError(f"missing column {prefix + wanted!r}", file=path, expected=f"it among {shown(columns, 200)}")
    return feature_in(path, columns, wanted, prefix)


def annotated_features(columns: Sequence[str], prefix: str) -> list[str]:
    """Return the features that an annotated file has answers of, by its columns: those of SBIC, then those of codebooks."""
    names = [column.removeprefix(prefix) for column in columns if column.startswith(prefix)]
    known = [name for name in FEATURES if name in names]
    own = (name for name in names if name not in FEATURES and NAME.fullmatch(name))  # a name becomes part of paths
    return known + [name for name in own if _is_answered(columns, f"{prefix}{name}")]


def _is_answered(columns: Iterable[str], column: str) -> bool:
    """Return whether a column holds answers to a codebook's question: their numbers are in columns beside it."""
    numbers = (f"{column}_probability_", f"{column}_{OF_CHOICES}", f"{column}{OF_LISTS}")
    return any(each.startswith(numbers) for each in columns)


def _own_feature(columns: Sequence[str], name: str, prefix: str) -> Feature:
    """Return a codebook's feature with the labels that an annotated file has probabilities of."""

    def labels(start: str) -> dict[str, str]:
        return {column.removeprefix(start): "" for column in columns if column.startswith(start)}

    # One label first: beside a feature "a", the columns of another one called "a_label" look like several labels of "a".
    one = labels(f"{prefix}{name}_probability_")
    several = {} if one or f"{prefix}{name}{OF_LISTS}" in columns else labels(f"{prefix}{name}_{OF_CHOICES}")
    return feature_of(
        Codebook(name, name, name, one or several, multi_label=bool(several), text=not one and not several)
    )


def feature_in(path: Path, columns: Sequence[str], name: str, prefix: str) -> Feature:
    """Return the variant of a feature (label policy or wording) that has the file's labels."""
    feature = FEATURES.get(name)
    if feature is None:
        if name not in annotated_features(columns, prefix):
            expected = " or ".join(annotated_features(columns, prefix)) or "an annotated feature"
            raise UserError(f"no answers to {shown(name)} with their numbers", file=path, expected=expected)
        return _own_feature(columns, name, prefix)
    if not feature.classifies:
        return feature
    others = {OFFENSIVE_YN.name: list(OFFENSIVE_POLICIES.values()), HAS_BIASED_IMPLICATION.name: [STUDY_WORDING]}
    variants = [feature, *others.get(name, [])]
    column, start = f"{prefix}{name}", f"{prefix}{name}_probability_"
    labels = {other.removeprefix(start) for other in columns if other.startswith(start)}
    if labels:
        fitting = [variant for variant in variants if set(variant.labels) == labels]
    else:
        labels = {text_of(row, column) for row in read_rows(path, (column,))} - {None}
        fitting = [variant for variant in variants if labels <= set(variant.labels)]
    if not fitting:
        expected = " or ".join(dict.fromkeys(", ".join(variant.labels) for variant in variants))
        raise UserError(f"unknown labels {shown(sorted(labels), 200)}", file=path, column=column, expected=expected)
    # Two policies of offensiveYN have the same labels, and the file does not tell which it was.
    first, *more = fitting
    return replace(first, variant="") if more and first is not feature else first


def _values(value: str | None, *, lists: bool) -> tuple[str, ...]:
    if value is None:
        return (NOTHING,)
    return (split_groups(value) or (NONE,)) if lists else (value,)


def read_human_votes(path: Path, key: str, feature: Feature) -> Votes:
    """Read people's labels of posts, one row per person, and report what is unusual about the rows.

    Without a column of annotators, or where nobody is named in it, every row is another person's.
    """
    column, who = columns_of_labels(path, feature)
    rows = read_label_rows(path, column, (key,))
    named = any(text_of(row, who) is not None for row in rows if who in row.values)
    places = {folded(label): index for index, label in enumerate(feature.labels)}

    def chosen(text: str) -> tuple[str, ...]:
        label = feature.parse(text)
        if not isinstance(label, tuple):
            raise KeyError(text)
        return label

    votes = read_votes(
        path,
        item=key,
        label=column,
        annotator=who if named else None,
        anonymous=True,
        read=(lambda text: places[folded(text)]) if feature.classifies else chosen,
        known=feature.labels or (NONE, *feature.choices),
        expected=", ".join(feature.labels or feature.choices),
        unite=None if feature.classifies else _united,
        rows=functools.partial(read_label_rows, path, column, (key,)),
    )
    if feature.choices and not named and any(len(given) > 1 for given in votes.labels.values()):
        fix = f"put a person's labels into one cell, or add the column {who!r}"
        raise UserError("several rows of an item, and nothing says whose", file=path, expected="one row", fix=fix)
    ties = sum(_ties(feature, list(given.values())) for given in votes.labels.values())
    if ties:
        first = "the first in the codebook" if feature.codebook else "the first in the file"
        votes.remarks.append(
            f"{counted(ties, 'post')} {'has' if ties == 1 else 'have'} equally many of two labels, of which {first} counts."
        )
    for note in votes.notes():
        (warn if votes.is_odd else log)(f"{feature.name}: {note}")
    return votes


def _ties(feature: Feature, labels: list[Label]) -> bool:
    """Return whether it is no majority that decides between people's labels."""
    if feature.codebook is not None:
        return feature.codebook.ties(labels)
    counts = sorted(Counter(labels).values()) if feature.classifies else []
    return len(counts) > 1 and counts[-1] == counts[-2]


def columns_of_labels(path: Path, feature: Feature) -> tuple[str, str]:
    """Return the columns of labels and of annotators in a file of people's labels.

    They are named after the feature and :data:`ANNOTATOR`; where there is no such column, as in the codebook's own table.
    """
    given, codebook = label_columns(path), feature.codebook
    label = codebook.columns.label if codebook and feature.name not in given else feature.name
    who = codebook.columns.annotator if codebook and ANNOTATOR not in given else ANNOTATOR
    return label if label in given else feature.name, who if who in given else ANNOTATOR


def read_draw(path: Path, key: str, feature: Feature) -> dict[str, tuple[str, float]]:
    """Return how the rows of a file of people's labels were drawn, labeled or not: key → stratum and probability.

    Nothing is returned if the file does not say so, or if it was a simple draw.
    """
    drawn: dict[str, tuple[str, float]] = {}
    without = None
    column, _ = columns_of_labels(path, feature)
    for row in read_label_rows(path, column, (key,)):
        if PROBABILITY not in row.values:
            without = without or row
            continue
        name, probability = text_of(row, key), probability_of(row, PROBABILITY)
        stratum = text_of(row, STRATUM) if STRATUM in row.values else None
        # Every draw numbers its strata from 1, and a file may have several draws.
        here = (f"{stratum or 'probability'} {probability:.6g}", probability)
        if not probability:
            raise row.error("a probability of 0", PROBABILITY, expected="that with which the row was drawn")
        if name is not None and drawn.setdefault(name, here) != here:
            fix = "restore the columns that sbic_llama.sample wrote"
            raise row.error(f"{shown(name)} was drawn otherwise in an earlier row", PROBABILITY, fix=fix)
    if without is not None and drawn:
        fix = "restore the columns that sbic_llama.sample wrote, or leave out what it did not draw"
        raise without.error("missing", PROBABILITY, expected="it in every row, or in none", fix=fix)
    return drawn if len(set(drawn.values())) > 1 else {}


def _united(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...] | None:
    """Combine the groups in two rows of one person, who may use a row for each; "none" contradicts a group."""
    return tuple(sorted({*first, *second})) if bool(first) == bool(second) else None


def labels_of(votes: Votes, feature: Feature) -> dict[str, Label]:
    """Return key → label; of several people's labels the most frequent, or the first of those.

    Labels of a codebook are combined by its own rule, as in training. For lists of groups, every group that any annotator named
    counts.
    """
    if feature.codebook is not None:
        return {name: feature.codebook.combine(list(given.values())) for name, given in votes.labels.items()}
    if feature.classifies:
        return {name: Counter(given.values()).most_common(1)[0][0] for name, given in votes.labels.items()}
    return {name: tuple(sorted(set().union(*given.values()))) for name, given in votes.labels.items()}


def warn_unmatched(votes: Votes, labels: dict[str, Label], keys: Iterable[str], path: Path) -> int:
    """Return how many labeled posts are not among the annotated ones, after a warning if there are any."""
    keys = dict.fromkeys(keys)
    if unmatched := sum(name not in keys for name in labels):
        of = f"{unmatched:,} of {counted(len(labels), 'labeled post')}"
        ids = examples(labels, votes.path, keys, path)
        warn(f"{of} {'is' if unmatched == 1 else 'are'} not among the annotated posts and left out ({ids})")
    return unmatched
