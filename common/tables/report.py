"""What a loader read, dropped, and kept: printed for the user and stored in the run record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from common.cli.errors import counted
from common.tables.reading import Row


@dataclass
class DataReport:
    """Counts of one split while it is loaded."""

    name: str  # of what is loaded, as "SNLI dev"
    read: int = 0  # rows
    kept: int = 0  # rows, or items made of rows
    dropped: dict[str, int] = field(default_factory=dict)  # by reason
    first_dropped: dict[str, str] = field(default_factory=dict)  # reason → place of the first such row
    notes: dict[str, int] = field(default_factory=dict)  # further counts, as label shares

    def drop(self, row: Row, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        place = f"line {row.line}" if row.line is not None else f"row {row.number}"
        self.first_dropped.setdefault(reason, f"{row.source.rsplit('/', 1)[-1]}, {place}")

    def lines(self) -> list[str]:
        """Return the report as lines to print: the rows, then each reason with its share."""
        dropped = [
            f"  {count:,} dropped ({count / self.read:.2%}): {reason} (first: {self.first_dropped[reason]})"
            for reason, count in self.dropped.items()
        ]
        notes = [f"  {note}: {count:,}" for note, count in self.notes.items()]
        return [f"{self.name}: {counted(self.read, 'row')} read, {self.kept:,} kept", *dropped, *notes]

    def as_dict(self) -> dict[str, Any]:
        """Return the report for a run record, without the places of single rows."""
        return {"name": self.name, "read": self.read, "kept": self.kept, "dropped": self.dropped, "notes": self.notes}


def fingerprint(items: Iterable[Any]) -> str:
    """Return the first 16 hex digits of the SHA-256 of JSON-like items in their order, equal on any machine."""
    digest, encode = hashlib.sha256(), json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode
    for item in items:
        digest.update(f"{encode(item)}\n".encode())
    return digest.hexdigest()[:16]
