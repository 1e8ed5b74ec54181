"""Cut a corpus to its first rows, for tests that need a corpus in the official files and not its size."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path


def cut_sbic(source: Path, target: Path, **rows: int) -> None:
    """Write the first rows (annotations) of the files ``trn``, ``dev`` and ``tst``; the two folders may be one."""
    for part, count in rows.items():
        name = f"SBIC.v2.{part}.csv"
        with open(source / name, encoding="utf-8", newline="") as file:
            kept = list(itertools.islice(csv.reader(file), count + 1))
        with open(target / name, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(kept)


def cut_snli(source: Path, target: Path, **rows: int) -> None:
    """Write the first pairs of the files ``train``, ``dev`` and ``test``; the two folders may be one."""
    for part, count in rows.items():
        name = f"snli_1.0_{part}.jsonl"
        with open(source / name, encoding="utf-8") as file:
            kept = list(itertools.islice(file, count))
        (target / name).write_text("".join(kept), encoding="utf-8")
