"""Write CSV, TSV, JSONL, and Parquet files (also gzipped) row by row and atomically."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from common.cli.errors import UserError
from common.runtime.files import atomic_write
from common.tables.reading import table_format

if TYPE_CHECKING:
    import pyarrow

PARQUET_ROWS = 8192  # rows written and compressed together


def write_rows(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> None:
    """Write rows to a .csv, .tsv, .jsonl, or .parquet file (text formats also with .gz).

    ``columns`` come first, then other columns in order of appearance; missing values are left empty.

    Raises:
        UserError: An unknown suffix, an unwritable path, or a Parquet column of mixed types or huge numbers.
    """
    path = Path(path)
    columns = list(dict.fromkeys([*columns, *(column for row in rows for column in row)]))
    types = None
    if table_format(path) == ".parquet":
        import pyarrow

        types = dict.fromkeys(columns, pyarrow.null()) | parquet_types(path, [rows])
    with row_writer(path, columns, types) as write:
        for row in rows:
            write(row)


def parquet_types(path: Path, windows: Iterable[Sequence[Mapping[str, Any]]]) -> dict[str, pyarrow.DataType]:
    """Return the type of each column, in order of appearance, of rows that come window by window."""
    import pyarrow

    schema = pyarrow.schema([])
    try:
        for rows in windows:
            columns = dict.fromkeys(column for row in rows for column in row)
            types = [(column, pyarrow.array([row.get(column) for row in rows]).type) for column in columns]
            schema = pyarrow.unify_schemas([schema, pyarrow.schema(types)], promote_options="permissive")
    except (pyarrow.ArrowException, OverflowError) as error:
        raise _mixed(path, error) from None
    return dict(zip(schema.names, schema.types, strict=True))


def _mixed(path: Path, error: Exception) -> UserError:
    what = "a number beyond 64 bits" if isinstance(error, OverflowError) else "a column of mixed types"
    return UserError(f"{what}: {str(error).splitlines()[0]}", file=path, fix="write .jsonl instead")


@contextlib.contextmanager
def row_writer(
    path: Path, columns: Sequence[str], types: Mapping[str, pyarrow.DataType] | None = None
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield a function that writes one row, so that a table of any length fits into memory.

    Only ``columns`` are written; Parquet needs their ``types`` before the first row. Equal rows give equal bytes, gzip included.
    """
    path = Path(path)
    suffix = table_format(path)
    with atomic_write(path) as part, open(part, "wb") as raw:
        if suffix == ".parquet":
            with _parquet_writer(path, raw, {column: (types or {})[column] for column in columns}) as write:
                yield write
            return
        # No name or time in the header: they would make equal tables differ.
        zipped = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if path.name.endswith(".gz") else None
        with zipped or contextlib.nullcontext(raw) as stream:
            file = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
            if suffix == ".jsonl":
                yield lambda row: file.write(_json({c: row[c] for c in columns if c in row}) + "\n")
            else:
                write = _delimited_writer(file, "\t" if suffix == ".tsv" else ",")
                write(columns)
                yield lambda row: write([row.get(column) for column in columns])
            file.flush()
            file.detach()


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)  # dates and such, which JSON lacks, become text


def _delimited_writer(file: IO[str], delimiter: str) -> Callable[[Sequence[Any]], Any]:
    """Return a function that writes one record and preserves all text but NUL, which no such file may contain."""
    plain = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    # Python does not quote a carriage return, which readers take for the end of a line, or a byte-order mark, which they drop at
    # the start of a file.
    quoted = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(values: Sequence[Any]) -> None:
        cells = [_cell(value) for value in values]
        delicate = any(isinstance(cell, str) and ("\r" in cell or "\ufeff" in cell) for cell in cells)
        (quoted if delicate else plain).writerow(cells)

    return write


def _cell(value: Any) -> Any:
    if isinstance(value, (list, dict)):
        return _json(value)
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


@contextlib.contextmanager
def _parquet_writer(path: Path, raw: IO[bytes], types: dict[str, Any]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema(list(types.items()))
    waiting: list[dict[str, Any]] = []
    with pyarrow.parquet.ParquetWriter(raw, schema) as file:

        def flush() -> None:
            if waiting:
                try:
                    file.write_table(pyarrow.Table.from_pylist(waiting, schema=schema))
                except (pyarrow.ArrowException, OverflowError) as error:
                    raise _mixed(path, error) from None
                waiting.clear()

        def write(row: Mapping[str, Any]) -> None:
            waiting.append({column: row.get(column) for column in types})
            if len(waiting) == PARQUET_ROWS:
                flush()

        yield write
        flush()
