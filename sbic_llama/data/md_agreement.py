"""Read MD-Agreement (Leonardelli et al. 2021): tweets labeled offensive or not by five annotators, as in Le-Wi-Di 2023."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cli.errors import UserError, shown
from common.runtime.files import read_json
from sbic_llama.data.corpus import clean

NAMES = ("Offensive", "Not offensive")


@dataclass(frozen=True)
class Item:
    """A tweet and its annotations."""

    id: str
    text: str
    domain: str
    annotations: dict[str, int]  # annotator → index into NAMES

    @property
    def majority(self) -> int:
        """Return the most frequent label; "Offensive" on a tie."""
        counts = Counter(self.annotations.values())
        return 0 if counts[0] >= counts[1] else 1

    @property
    def agreeing(self) -> int:
        """Return how many annotators gave the majority label."""
        return Counter(self.annotations.values())[self.majority]


@dataclass
class _Entry:
    """An item as the file has it; annotations and annotators are comma-separated."""

    text: str
    annotations: str
    annotators: str
    other_info: Any = None


def read_items(path: Path) -> list[Item]:
    """Read ``MD-Agreement_{train,dev,test}.json``."""
    entries = read_json(dict[str, _Entry], Path(path), what="MD-Agreement's JSON file")
    if not entries:
        raise UserError("not MD-Agreement: no items", file=path, expected="an object of numbered items")
    return [_item(path, key, entry) for key, entry in entries.items()]


def _item(path: Path, key: str, entry: _Entry) -> Item:
    def invalid(problem: str, expected: str) -> UserError:
        return UserError(problem, file=path, key=f"item {shown(key)}", expected=expected)

    if not clean(entry.text):
        raise invalid("no text", "an object with text, annotations and annotators")
    labels, annotators = ([part.strip() for part in text.split(",")] for text in (entry.annotations, entry.annotators))
    if len(labels) != len(annotators) or not all(annotators):
        raise invalid(f"{len(labels)} annotations by {len(annotators)} annotators", "one annotation per annotator")
    if len(set(annotators)) < len(annotators):
        raise invalid("an annotator is listed twice", "each annotator once")
    if set(labels) - {"0", "1"}:
        raise invalid(f"annotations {shown(entry.annotations)}", "0 (not offensive) or 1 (offensive) each")
    domain = entry.other_info.get("domain") if isinstance(entry.other_info, dict) else None
    # The file's 1 is offensive; here offensive is the first label.
    annotations = {annotator: 1 - int(label) for annotator, label in zip(annotators, labels, strict=True)}
    return Item(key, clean(entry.text), str(domain or "?"), annotations)
