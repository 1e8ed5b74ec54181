"""Tables out: CSV, TSV, JSONL and Parquet files (also gzipped), row by row, whole or not at all."""

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

PARQUET_ROWS = 8192  # rows that are written, and compressed, together


def write_rows(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> None:
    """Writes rows to a .csv, .tsv, .jsonl or .parquet file (text formats also with .gz), whole or not at all.

    ``columns`` come first, then further ones in order of appearance; a value that a row lacks is left empty.

    Raises:
        UserError: An unknown ending, a path that can't be written to, or a Parquet column of mixed types or huge numbers.
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
    """The type of each column of some rows, which come window by window, in order of appearance.

    Raises:
        UserError: A column of mixed types or huge numbers; ``path`` is where it would be written.
    """
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
    """Gives a function that writes one row after another, so that a table of any length fits into memory.

    The file is there, whole, when the block ends well. Equal rows give equal bytes, in gzip files too.

    Args:
        path: As for :func:`write_rows`.
        columns: Its columns, in order; what else a row holds is not written.
        types: Their types, which a Parquet file must know before its first row.

    Raises:
        UserError: An unknown ending, or a path that can't be written to.
    """
    path = Path(path)
    suffix = table_format(path)
    with atomic_write(path) as part, open(part, "wb") as raw:
        if suffix == ".parquet":
            with _parquet_writer(path, raw, {column: (types or {})[column] for column in columns}) as write:
                yield write
            return
        # No name and no time of writing in the header: they would make equal tables differ.
        zipped = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if path.name.endswith(".gz") else None
        with zipped or contextlib.nullcontext(raw) as stream:
            file = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
            if suffix == ".jsonl":
                # Dates and such, which JSON lacks, as text.
                yield lambda row: file.write(
                    json.dumps({c: row[c] for c in columns if c in row}, ensure_ascii=False, default=str) + "\n"
                )
            else:
                write = _delimited_writer(file, "\t" if suffix == ".tsv" else ",")
                write(columns)
                yield lambda row: write([row.get(column) for column in columns])
            file.flush()
            file.detach()


def _delimited_writer(file: IO[str], delimiter: str) -> Callable[[Sequence[Any]], Any]:
    """Gives a function that writes one record whose reader gets the same texts, but for a NUL: no such file may hold one."""
    plain = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    # Python quotes no carriage return by itself, which readers take for the end of a line; a byte-order mark that opens the file
    # is none of its first field.
    quoted = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(values: Sequence[Any]) -> None:
        cells = [_cell(value) for value in values]
        delicate = any(isinstance(cell, str) and ("\r" in cell or "\ufeff" in cell) for cell in cells)
        (quoted if delicate else plain).writerow(cells)

    return write


def _cell(value: Any) -> Any:
    """A value for a CSV field: what is nested as JSON, nothing as an empty field."""
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
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
