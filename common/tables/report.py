"""What a loader read, dropped and kept, and why: printed for the user and kept in the run record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from common.tables.reading import Row


@dataclass
class DataReport:
    """Counts of one split while it is loaded.

    Attributes:
        name: What was loaded, as ``SNLI dev``.
        read: Rows read.
        kept: Rows (or items made of rows) handed on.
        dropped: Reason → rows dropped for it.
        first_dropped: Reason → place of the first such row, for looking it up.
        notes: Further counts that a reader should know of, as label shares.
    """

    name: str
    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    first_dropped: dict[str, str] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)

    def drop(self, row: Row, reason: str) -> None:
        """Counts a dropped row."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        place = f"line {row.line}" if row.line is not None else f"row {row.number}"
        self.first_dropped.setdefault(reason, f"{row.source.rsplit('/', 1)[-1]}, {place}")

    def lines(self) -> list[str]:
        """The report as lines to print: rows, then a reason a line with its share."""
        lines = [f"{self.name}: {self.read:,} rows read, {self.kept:,} kept"]
        for reason, count in self.dropped.items():
            lines.append(
                f"  {count:,} dropped ({count / self.read:.2%}): {reason} (first: {self.first_dropped[reason]})"
            )
        return lines + [f"  {note}: {count:,}" for note, count in self.notes.items()]

    def as_dict(self) -> dict[str, Any]:
        """The report for a run record; places of single rows stay out of it."""
        return {"name": self.name, "read": self.read, "kept": self.kept, "dropped": self.dropped, "notes": self.notes}


def fingerprint(items: Iterable[Any]) -> str:
    """SHA-256 (first 16 hex digits) of JSON-like items in their order: equal data, equal fingerprint, on any machine."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps(item, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()[:16]
