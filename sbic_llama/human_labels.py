"""A file of what people said of some posts, one row a person: one label a post."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from common.errors import shown
from common.tables import read_rows
from sbic_llama.features import Feature, Label

FEWEST = 30  # human labels under which an interval says next to nothing


def human_labels(path: Path, key: str, declared: Feature) -> dict[str, Label]:
    """Key → what people said of the post; several of them are counted, and the commonest label taken (the first of equals).

    Raises:
        UserError: A row whose label is none of the feature's.
    """
    said: dict[str, list[Label]] = {}
    names = {label.casefold(): index for index, label in enumerate(declared.labels)}
    for row in read_rows(path, (key, declared.name)):
        value = row.values[declared.name]
        if value is None or not str(value).strip():
            continue  # nobody said anything of this feature
        label = names.get(str(value).strip().casefold()) if declared.classifies else declared.parse(str(value))
        if label is None:
            raise row.error(f"{shown(value)} is no label", declared.name, expected=", ".join(declared.labels))
        said.setdefault(str(row.values[key]), []).append(label)
    return {name: Counter(labels).most_common(1)[0][0] for name, labels in said.items()}
