"""A file of what people said of some posts, one row a person: one label a post."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from common.cli.errors import shown
from common.tables.reading import Row, read_rows, text_of
from sbic_llama.data.features import Feature, Label

ANNOTATOR = "annotator"  # column of who said it
FEWEST = 30  # human labels under which an interval says next to nothing


def human_labels(path: Path, key: str, declared: Feature) -> dict[str, Label]:
    """Key → what people said of the post. Several of them are counted, and the commonest label taken (the first of equals); of
    lists of groups, every group that any of them named, as the adapter learnt it.

    Raises:
        UserError: A row whose label is none of the feature's.
    """
    said: dict[str, list[Label]] = {}
    for row, label in _labelled_rows(path, key, declared):
        said.setdefault(text_of(row, key) or "", []).append(label)
    return {name: _together(labels) for name, labels in said.items()}


def _together(labels: list[Label]) -> Label:
    lists = [label for label in labels if not isinstance(label, int)]
    if lists:
        return tuple(sorted({group for groups in lists for group in groups}))
    return Counter(labels).most_common(1)[0][0]


def opinions(path: Path, key: str, declared: Feature) -> dict[str, dict[str, Label]]:
    """Key → annotator → label, of a file with a column :data:`ANNOTATOR`; nothing of one without.

    A person's first row of a post counts.

    Raises:
        UserError: As of :func:`human_labels`.
    """
    said: dict[str, dict[str, Label]] = {}
    for row, label in _labelled_rows(path, key, declared):
        if ANNOTATOR in row.values and (person := text_of(row, ANNOTATOR)):
            said.setdefault(text_of(row, key) or "", {}).setdefault(person, label)
    return said


def _labelled_rows(path: Path, key: str, declared: Feature) -> Iterator[tuple[Row, Label]]:
    names = {label.casefold(): index for index, label in enumerate(declared.labels)}
    for row in read_rows(path, (key, declared.name)):
        value = text_of(row, declared.name)
        if value is None:
            continue  # nobody said anything of this feature
        label = names.get(value.casefold()) if declared.classifies else declared.parse(value)
        if label is None:
            raise row.error(f"{shown(value)} is no label", declared.name, expected=", ".join(declared.labels))
        yield row, label
