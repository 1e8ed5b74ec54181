"""TODO docstring."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from common.cli.errors import UserError, shown
from common.tables.reading import Row, probability_of, read_rows, text_of
from sbic_llama.data.features import (
    FEATURES,
    HAS_BIASED_IMPLICATION,
    OFFENSIVE_POLICIES,
    OFFENSIVE_YN,
    STUDY_WORDING,
    TARGET_MINORITY,
    Feature,
    Label,
)
from sbic_llama.data.groups import NONE, split_groups

PREFIX = "model_"

NOTHING = "(empty)"  # the value of a column in rows where it has none


@dataclass(frozen=True)
class Annotated:
    """One feature's answers, a post each, in the file's order.

    Attributes:
        declared: The feature.
        keys: Key of a post → its place.
        answers: The machine's labels.
        probabilities: Of each label, shape (posts, labels); None where the file has none.
        columns: Column → the values of each post, as text: one, or every group of an answer that lists groups.
        unanswered: Rows of the file that have no answer, and are left out.
    """

    declared: Feature
    keys: dict[str, int]
    answers: list[Label]
    probabilities: np.ndarray | None
    columns: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    unanswered: int = 0


def read_annotated(
    path: Path, declared: Feature, *, key: str, columns: Sequence[str] = (), prefix: str = PREFIX
) -> Annotated:
    """Reads the answers of a feature from an annotated file.

    Args:
        path: The file.
        declared: The feature, with the labels that the file's adapter has.
        key: Column that names a post.
        columns: Further columns to keep.
        prefix: What the names of the annotation's columns begin with.

    Raises:
        UserError: A missing column, a key that stands twice, an answer that is no label, or a probability that is none.
    """
    answer = f"{prefix}{declared.name}"
    numbers = [f"{answer}_probability_{label}" for label in declared.labels]
    keys: dict[str, int] = {}
    answers: list[Label] = []
    probabilities: list[list[float]] = []
    kept: dict[str, list[tuple[str, ...]]] = {column: [] for column in columns}
    unanswered = 0
    for row in read_rows(path, (key, answer, *columns)):
        said = text_of(row, answer)
        if said is None:
            unanswered += 1
            continue
        name = text_of(row, key) or ""
        if name in keys:
            raise row.error(
                f"{shown(name)} stands twice", key, expected="a name for each post", fix="give another column to --key"
            )
        label = declared.parse(said)
        if label is None:
            raise row.error(f"{shown(said)} is no label", answer, expected=", ".join(declared.labels))
        keys[name] = len(answers)
        answers.append(label)
        if numbers and numbers[0] in row.values:
            probabilities.append([probability_of(row, column) for column in numbers])
        for column, values in kept.items():
            values.append(_values(text_of(row, column), lists=column == f"{prefix}{TARGET_MINORITY.name}"))
    if 0 < len(probabilities) < len(answers):  # as JSON Lines can have it
        raise UserError("some rows have probabilities and some have none", file=path, fix="annotate the file again")
    found = np.array(probabilities) if probabilities else None
    return Annotated(declared, keys, answers, found, kept, unanswered)


def shared_feature(path: Path, labelled: Path, wanted: str | None = None, prefix: str = PREFIX) -> Feature:
    """The feature that an annotated file and a file of human labels share, with the labels that the annotation has.

    Args:
        path: The annotated file.
        labelled: The file of human labels.
        wanted: Name of the feature; None where there is only one that both have.
        prefix: What the names of the annotation's columns begin with.

    Raises:
        UserError: There is none, more than one, or the annotation is not of labels that a feature of this project has.
    """
    columns, people = _columns(path), _columns(labelled)
    if wanted is None:
        annotated = [name for name in FEATURES if f"{prefix}{name}" in columns]
        shared = [name for name in annotated if name in people]
        if not annotated:
            raise UserError(
                "no annotation",
                file=path,
                expected=f"a column {prefix} and a feature's name among {shown(columns, 200)}",
                fix="annotate it with sbic_llama.annotate, or give its --prefix",
            )
        if not shared:
            raise UserError(
                "no human labels of an annotated feature",
                file=labelled,
                expected=f"a column {' or '.join(annotated)} among {shown(people, 200)}",
            )
        if len(shared) > 1:
            raise UserError(f"both files have {', '.join(shared)}", key="--feature", expected="one of them")
        wanted = shared[0]
    if f"{prefix}{wanted}" not in columns:
        raise UserError(f"missing column {prefix + wanted!r}", file=path, expected=f"it among {shown(columns, 200)}")
    return _with_labels_of(path, columns, wanted, prefix)


def _with_labels_of(path: Path, columns: Sequence[str], name: str, prefix: str) -> Feature:
    """The feature in the variant (of policy or wording) whose labels are those of the file."""
    declared = FEATURES[name]
    if not declared.classifies:
        return declared
    others = {OFFENSIVE_YN.name: list(OFFENSIVE_POLICIES.values()), HAS_BIASED_IMPLICATION.name: [STUDY_WORDING]}
    variants = [declared, *others.get(name, [])]
    start = f"{prefix}{name}_probability_"
    labels = {column.removeprefix(start) for column in columns if column.startswith(start)}
    if labels:
        fitting = [variant for variant in variants if set(variant.labels) == labels]
    else:
        column = f"{prefix}{name}"
        labels = {text_of(row, column) for row in read_rows(path, (column,))} - {None}
        fitting = [variant for variant in variants if labels <= set(variant.labels)]
    if not fitting:
        expected = " or ".join(dict.fromkeys(", ".join(variant.labels) for variant in variants))
        raise UserError(
            f"annotated with the labels {shown(sorted(labels), 200)}",
            file=path,
            column=f"{prefix}{name}",
            expected=expected,
        )
    # Two policies of offensiveYN have the same labels; which of them it was, the file does not say.
    first, *more = fitting
    return replace(first, variant="") if more and first is not declared else first


def _values(value: str | None, *, lists: bool) -> tuple[str, ...]:
    if value is None:
        return (NOTHING,)
    return (split_groups(value) or (NONE,)) if lists else (value,)


def _columns(path: Path) -> list[str]:
    for row in read_rows(path):
        return list(row.values)
    raise UserError("no rows", file=path, expected="at least one")


ANNOTATOR = "annotator"  # column of who said it

MIN_HUMAN_LABELS = 30  # human labels under which an interval says next to nothing


def read_human_labels(path: Path, key: str, declared: Feature) -> dict[str, Label]:
    """Key → what people said of the post. Several of them are counted, and the commonest label taken (the first of equals); of
    lists of groups, every group that any of them named, as the adapter learnt it.

    Raises:
        UserError: A row whose label is none of the feature's.
    """
    said: dict[str, list[Label]] = {}
    for row, label in _labeled_rows(path, key, declared):
        said.setdefault(text_of(row, key) or "", []).append(label)
    return {name: _together(labels) for name, labels in said.items()}


def _together(labels: list[Label]) -> Label:
    lists = [label for label in labels if not isinstance(label, int)]
    if lists:
        return tuple(sorted({group for groups in lists for group in groups}))
    return Counter(labels).most_common(1)[0][0]


def read_opinions(path: Path, key: str, declared: Feature) -> dict[str, dict[str, Label]]:
    """Key → annotator → label, of a file with a column :data:`ANNOTATOR`; nothing of one without.

    A person's first row of a post counts.

    Raises:
        UserError: As of :func:`read_human_labels`.
    """
    said: dict[str, dict[str, Label]] = {}
    for row, label in _labeled_rows(path, key, declared):
        if ANNOTATOR in row.values and (person := text_of(row, ANNOTATOR)):
            said.setdefault(text_of(row, key) or "", {}).setdefault(person, label)
    return said


def _labeled_rows(path: Path, key: str, declared: Feature) -> Iterator[tuple[Row, Label]]:
    names = {label.casefold(): index for index, label in enumerate(declared.labels)}
    for row in read_rows(path, (key, declared.name)):
        value = text_of(row, declared.name)
        if value is None:
            continue  # nobody said anything of this feature
        label = names.get(value.casefold()) if declared.classifies else declared.parse(value)
        if label is None:
            raise row.error(f"{shown(value)} is no label", declared.name, expected=", ".join(declared.labels))
        yield row, label
