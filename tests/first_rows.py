"""Cut a corpus to its first rows, for tests that need the files of a corpus and not its size."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

SBIC_PARTS = {"train": "trn", "validation": "dev", "test": "tst"}
SNLI_PARTS = {"train": "train", "validation": "dev", "test": "test"}


def cut_sbic(source: Path, target: Path, **rows: int) -> None:
    """Write the first rows (annotations) of each split; ``source`` and ``target`` may be the same folder."""
    for split, count in rows.items():
        name = f"SBIC.v2.{SBIC_PARTS[split]}.csv"
        with open(source / name, encoding="utf-8", newline="") as file:
            kept = list(itertools.islice(csv.reader(file), count + 1))
        with open(target / name, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(kept)


def cut_snli(source: Path, target: Path, **rows: int) -> None:
    """Write the first pairs of each split; ``source`` and ``target`` may be the same folder."""
    for split, count in rows.items():
        name = f"snli_1.0_{SNLI_PARTS[split]}.jsonl"
        with open(source / name, encoding="utf-8") as file:
            kept = list(itertools.islice(file, count))
        (target / name).write_text("".join(kept), encoding="utf-8")
