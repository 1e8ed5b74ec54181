"""Who said what of which item: tables in long form, a row a label, read into items."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import shown
from common.scale import Scale
from common.tables import Row, read_rows, text_of

Annotations = Mapping[Hashable, Mapping[Hashable, Any]]  # item → annotator → label
Predictions = Mapping[Hashable, Any]  # item → label


@dataclass
class AnnotationTable:
    """A file of annotations.

    Attributes:
        labels: Item → annotator → label, as text.
        rows: Rows read.
        blank: Rows without a label, which are skipped.
        repeated: Rows that say again what the same annotator said of the same item, which count once.
    """

    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    rows: int = 0
    blank: int = 0
    repeated: int = 0


@dataclass
class PredictionTable:
    """A file of a model's answers: item → label, as text; counts as in :class:`AnnotationTable`."""

    labels: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    blank: int = 0
    repeated: int = 0


def read_annotations(path: Path, scale: Scale, *, item: str, annotator: str, label: str) -> AnnotationTable:
    """Reads a table with a row a label; ``item``, ``annotator`` and ``label`` are its columns.

    Raises:
        UserError: A row without item or annotator, a label that is none of the scale's, or two different labels of one
            annotator for one item.
    """
    found = AnnotationTable()
    for row in read_rows(path, (item, annotator, label)):
        found.rows += 1
        said = _label(row, label, scale)
        if said is None:
            found.blank += 1
            continue
        who = _name(row, annotator)
        labels = found.labels.setdefault(_name(row, item), {})
        found.repeated += who in labels
        if labels.setdefault(who, said) != said:
            raise row.error(
                f"annotator {shown(who)} says {shown(said)} of item {shown(_name(row, item))} and said {shown(labels[who])} before",
                label,
                expected="one label an annotator and item",
            )
    return found


def read_predictions(path: Path, scale: Scale, *, item: str, label: str) -> PredictionTable:
    """Reads a table with a model's answer a row; ``item`` and ``label`` are its columns.

    Raises:
        UserError: A row without item, a label that is none of the scale's, or two different answers for one item.
    """
    found = PredictionTable()
    for row in read_rows(path, (item, label)):
        found.rows += 1
        said = _label(row, label, scale)
        if said is None:
            found.blank += 1
            continue
        name = _name(row, item)
        found.repeated += name in found.labels
        if found.labels.setdefault(name, said) != said:
            raise row.error(
                f"item {shown(name)} is predicted as {shown(said)} and was as {shown(found.labels[name])} before",
                label,
                expected="one answer an item",
            )
    return found


def by_item(annotations: Annotations | Iterable[tuple[Hashable, Hashable, Any]]) -> Annotations:
    """Annotations as item → annotator → label, also from (item, annotator, label) in any order.

    Raises:
        ValueError: Two different labels of one annotator for one item.
    """
    if isinstance(annotations, Mapping):
        return annotations
    found: dict[Hashable, dict[Hashable, Any]] = {}
    for item, annotator, label in annotations:
        if found.setdefault(item, {}).setdefault(annotator, label) != label:
            raise ValueError(f"annotator {annotator!r} gave item {item!r} two different labels")
    return found


def _name(row: Row, column: str) -> str:
    name = text_of(row, column)
    if name is None:
        raise row.error("empty", column, expected="a name or number")
    return name


def _label(row: Row, column: str, scale: Scale) -> str | None:
    label = text_of(row, column)
    if label is not None:
        try:
            scale.read(label)
        except ValueError:
            raise row.error(f"{shown(label)} is no label of this scale", column, expected=scale.expected) from None
    return label
