"""Labels of further rounds: they join the texts for training, and never those for validation or the test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.cli.errors import UserError
from common.tables.label_exports import label_columns
from common.tables.report import DataReport
from sbic_llama.data.codebook import Codebook
from sbic_llama.data.corpus import Split, SplitName, normalized
from sbic_llama.data.near_duplicates import clusters
from sbic_llama.data.table import Item, as_split, read_items

HELD_OUT = "equal or nearly equal to a text for validation or the test, or of its group"
KNOWN = "already among the training texts, whose label counts"


def with_more_labels(
    splits: dict[SplitName, Split], paths: Sequence[Path], codebook: Codebook
) -> tuple[dict[SplitName, Split], list[DataReport]]:
    """Add the labels of further files to the training texts, file by file.

    Returns:
        The splits, and what was read of each file.

    Raises:
        UserError: A file adds nothing, or is not a table of labels for the codebook.
    """
    held_out = [item for name in ("dev", "test") for item in splits[name].posts]
    train, reports = list(splits["train"].posts), []
    for path in paths:
        items, report = read_items(path, _columns_in(path, codebook), whole=False)
        everything = [*held_out, *items]
        together = clusters([item.text for item in everything], [item.group for item in everything])
        theirs, seen = set(together[: len(held_out)]), {normalized(item.text) for item in train}
        added: list[Item] = []
        for item, part in zip(items, together[len(held_out) :], strict=True):
            reason = HELD_OUT if part in theirs else KNOWN if normalized(item.text) in seen else None
            if reason is None:
                added.append(item)
            else:
                report.notes[f"texts left out: {reason}"] = report.notes.get(f"texts left out: {reason}", 0) + 1
        if not added:
            problem = "none of its labels are of new texts"
            raise UserError(problem, key="more_labels", file=path, fix="leave the file out, or label other texts")
        report.notes["texts added for training"] = len(added)
        train += added
        reports.append(report)
    larger = as_split("train", train, codebook, splits["train"].report.name)
    for path, report in zip(paths, reports, strict=True):
        larger.report.notes[f"of them from {path.name}"] = report.notes["texts added for training"]
    return splits | {"train": larger}, reports


def _columns_in(path: Path, codebook: Codebook) -> Codebook:
    """Return a codebook without the columns that only its own table needs: splits, and ids or groups if a file has none."""
    if not path.exists():
        raise UserError("no such file", key="more_labels", file=path, expected="a table or an export with labels")
    columns, given = codebook.columns, label_columns(path)
    kept = {name: getattr(columns, name) for name in ("item", "group", "annotator")}
    kept = {name: column if column in given else None for name, column in kept.items()}
    return replace(codebook, columns=replace(columns, split=None, **kept))
