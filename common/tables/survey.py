"""Read the files of SPSS (.sav) and Stata (.dta) in steps, with the labels of their values."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.cli.console import warn
from common.cli.errors import UserError, file_name, shown
from common.tables import spreadsheet

READABLE = (".sav", ".dta")
ROWS, BYTES = 50_000, 32 * 2**20  # of a step, at most


def read(path: Path, check: Callable[[Sequence[str]], None]) -> Iterator[dict[str, Any]]:
    """Yield rows; ``check`` gets the names of the columns before.

    A value with a label is the label's text. Other whole numbers are integers, and dates are text as in ISO 8601. A missing value,
    also one that the file's author declared missing, is ``""``, as in a CSV file.

    Raises:
        UserError: Not a file of that program, text that is not in the file's encoding, or a date that has no year of four digits.
    """
    import pyreadstat

    reader = pyreadstat.read_sav if path.suffix.lower() == ".sav" else pyreadstat.read_dta
    try:
        _, about = reader(path, metadataonly=True, output_format="dict")
        check(about.column_names)
        labels = {name: _labels(path, name, each) for name, each in about.variable_value_labels.items()}
        single = {name for name, kind in about.readstat_variable_types.items() if kind == "float"}
        width = sum(about.variable_storage_width.values())
        rows = max(1, min(ROWS, BYTES // max(1, width)))
        for start in itertools.count(0, rows):
            columns, _ = reader(path, output_format="dict", row_offset=start, row_limit=rows)
            texts = [
                [_value(cell, labels.get(name, {}), name in single) for cell in cells]
                for name, cells in columns.items()
            ]
            for values in zip(*texts, strict=True):
                yield dict(zip(columns, values, strict=True))
            if not texts or len(texts[0]) < rows:
                return
    except (pyreadstat.ReadstatError, pyreadstat.PyreadstatError, UnicodeDecodeError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        fix = "save it again, with Unicode text, or as CSV UTF-8"
        raise UserError(f"can't be read as {_program(path)}: {reason}", file=path, fix=fix) from None


def _program(path: Path) -> str:
    return "SPSS data" if path.suffix.lower() == ".sav" else "Stata data"


def _labels(path: Path, column: str, labels: Mapping[Any, str]) -> dict[Any, str]:
    labels = {value: text for value, text in labels.items() if text.strip()}
    texts = list(labels.values())
    if twice := [text for text in dict.fromkeys(texts) if texts.count(text) > 1]:
        warn(f"{file_name(path)}, column {shown(column)}: several values have the label {shown(twice[0])}")
    return labels


def _value(cell: Any, labels: Mapping[Any, str], single: bool) -> Any:
    """Return a cell as a CSV file would hold it; ``single`` numbers have about seven digits, and no more are shown."""
    if cell is None or cell != cell:
        return ""
    if cell in labels:
        return labels[cell]
    if isinstance(cell, datetime.datetime):
        return cell.isoformat()
    if single and isinstance(cell, float):
        import numpy as np

        cell = float(str(np.float32(cell)))
    return spreadsheet.value(cell)
