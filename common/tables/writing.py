"""Write CSV, TSV, JSONL, Parquet, and Excel files row by row and atomically."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from common.cli.console import warn
from common.cli.errors import UserError, shown
from common.runtime.files import atomic_write
from common.tables import spreadsheet
from common.tables.reading import escaped, size_of, table_format

if TYPE_CHECKING:
    import pyarrow

PARQUET_ROWS, PARQUET_BYTES = 8192, 32 * 2**20  # written and compressed together, at most
# How a cell begins that a spreadsheet may run; signed numbers are harmless.
FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d.,\s]*(e[+-]?\d+)?%?\Z)", re.IGNORECASE)


def write_rows(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> None:
    """Write rows to a .csv, .tsv, .jsonl, .parquet, or .xlsx file (text formats also with .gz).

    ``columns`` come first, then other columns in order of appearance; missing values are left empty.

    Raises:
        UserError: An unknown suffix, an unwritable path, or a Parquet column of mixed types or huge numbers.
    """
    path = Path(path)
    columns = list(dict.fromkeys([*columns, *(column for row in rows for column in row)]))
    # The first window gives all columns a type, if only null.
    schema = parquet_schema(path, [[dict.fromkeys(columns)], rows]) if table_format(path) == ".parquet" else None
    with row_writer(path, columns, schema) as write:
        for row in rows:
            write(row)


def parquet_schema(path: Path, windows: Iterable[Sequence[Mapping[str, Any]]]) -> pyarrow.Schema:
    """Return the columns, in order of appearance, and types of rows that come window by window."""
    import pyarrow

    schema = pyarrow.schema([])
    try:
        for rows in windows:
            columns = dict.fromkeys(column for row in rows for column in row)
            types = [(column, pyarrow.array([row.get(column) for row in rows]).type) for column in columns]
            schema = pyarrow.unify_schemas([schema, pyarrow.schema(types)], promote_options="permissive")
    except (pyarrow.ArrowException, OverflowError) as error:
        raise _mixed(path, error) from None
    return schema


def _mixed(path: Path, error: Exception) -> UserError:
    what = "a number beyond 64 bits" if isinstance(error, OverflowError) else "a column of mixed types"
    return UserError(f"{what}: {str(error).splitlines()[0]}", file=path, fix="write .jsonl instead")


@contextlib.contextmanager
def row_writer(
    path: Path, columns: Sequence[str], schema: pyarrow.Schema | None = None
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield a function that writes one row, so that a table of any length fits into memory.

    Only ``columns`` are written; Parquet needs their ``schema`` before the first row. Equal rows give equal bytes, gzip included.
    """
    path = Path(path)
    suffix = table_format(path, writing=True)
    if suffix == ".xlsx":
        with atomic_write(path) as part, spreadsheet.writer(path, part, columns, lambda each: str(cell(each))) as write:
            yield lambda row: write([row.get(column) for column in columns])
        return
    with atomic_write(path) as part, open(part, "wb") as raw:
        if suffix == ".parquet":
            import pyarrow

            schema = pyarrow.schema([schema.field(column) for column in columns], schema.metadata)
            with _parquet_writer(path, raw, schema) as write:
                yield write
            return
        # No name or time in the header: they would make equal tables differ.
        zipped = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if path.name.endswith(".gz") else None
        with zipped or contextlib.nullcontext(raw) as stream:
            file = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
            if suffix == ".jsonl":
                yield lambda row: file.write(json_text({c: row[c] for c in columns if c in row}) + "\n")
            else:
                with _delimited_writer(path, columns, file, "\t" if suffix == ".tsv" else ",") as write:
                    yield write
            file.flush()
            file.detach()


def json_text(value: Any) -> str:
    """Return a value as JSON: NaN and infinity become null, dates and bytes text."""
    try:
        return json.dumps(value, ensure_ascii=False, default=_text, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), ensure_ascii=False, default=_text)


def _text(value: Any) -> str:
    return escaped(value) if isinstance(value, bytes) else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def _delimited_writer(
    path: Path, columns: Sequence[str], file: IO[str], delimiter: str
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield a function that writes a row and preserves all text but NUL, which no such file may contain.

    Warns, once, of cells that a spreadsheet may run as formulas.
    """
    plain = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    # Python does not quote a carriage return, which readers take for the end of a line, or a byte-order mark, which they drop at
    # the start of a file.
    quoted = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
    rows = formulas = 0
    first = ""

    def write(values: Sequence[Any]) -> None:
        cells = [cell(value) for value in values]
        delicate = any(isinstance(each, str) and ("\r" in each or "\ufeff" in each) for each in cells)
        # A header of one column, whose ; | or tab would look like a delimiter.
        delicate |= values is columns and len(columns) == 1 and not {";", "\t", "|"}.isdisjoint(columns[0])
        (quoted if delicate else plain).writerow(cells)

    def write_row(row: Mapping[str, Any]) -> None:
        nonlocal rows, formulas, first
        values, rows = [row.get(column) for column in columns], rows + 1
        for column, value in zip(columns, values, strict=True):
            if isinstance(value, str) and FORMULA.match(value):
                formulas += 1
                first = first or f"row {rows}, column {shown(column)}"
        write(values)

    write(columns)
    yield write_row
    if formulas:
        what = f"cells that a spreadsheet may run as formulas: {formulas:,} (first: {first})"
        warn(f"{path.name}: {what}; import the file as text")


def cell(value: Any) -> Any:
    """Return a value as a cell: lists and objects as JSON, bytes as text."""
    if isinstance(value, (list, dict)):
        return json_text(value)
    if isinstance(value, bytes):
        return _text(value)
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


@contextlib.contextmanager
def _parquet_writer(
    path: Path, raw: IO[bytes], schema: pyarrow.Schema
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    import pyarrow
    import pyarrow.parquet

    waiting: list[dict[str, Any]] = []
    size = 0
    with pyarrow.parquet.ParquetWriter(raw, schema) as file:

        def flush() -> None:
            nonlocal size
            if waiting:
                try:
                    file.write_table(pyarrow.Table.from_pylist(waiting, schema=schema))
                except (pyarrow.ArrowException, OverflowError) as error:
                    raise _mixed(path, error) from None
                waiting.clear()
                size = 0

        def write(row: Mapping[str, Any]) -> None:
            nonlocal size
            waiting.append({column: row.get(column) for column in schema.names})
            size += size_of(row)
            if len(waiting) == PARQUET_ROWS or size > PARQUET_BYTES:
                flush()

        yield write
        flush()
