"""Read CSV, TSV, JSONL, and Parquet files (also gzipped) and Hub datasets row by row, each row with its place."""

from __future__ import annotations

import csv
import gzip
import itertools
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cli.errors import UserError, shown
from common.runtime import files

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Row:
    """One record and its place in the source."""

    values: dict[str, Any]
    source: str
    line: int | None  # None if the source has rows but no lines
    number: int
    problem: str | None = None  # what is wrong with a record that was read leniently

    def error(
        self, problem: str, column: str | None = None, expected: str | None = None, fix: str | None = None
    ) -> UserError:
        """Return an error that names this row."""
        row = None if self.line is not None else self.number
        return UserError(problem, file=self.source, line=self.line, row=row, column=column, expected=expected, fix=fix)


def read_rows(
    path: Path, columns: Sequence[str] = (), *, lenient: bool = False, suffix: str | None = None
) -> Iterator[Row]:
    """Yield a file's rows in order; ``columns`` must exist.

    Text formats are UTF-8, with or without a byte-order mark. CSV and TSV values are text, and an empty field is ``""``.
    ``lenient`` yields a malformed record (invalid UTF-8, a wrong number of fields, not a JSON object) with what could be read
    and its ``problem``; a file that is malformed as a whole is always an error. ``suffix`` gives the format of a file that is
    named otherwise.

    Raises:
        UserError: No such file, an unknown format, a missing column, or a malformed record (with its line).
    """
    path = Path(path)
    suffix = suffix or table_format(path)
    try:
        if not path.is_file():
            raise UserError("no such file", file=path, fix="check the path")
        if suffix == ".parquet":
            yield from _read_parquet(path, columns)
            return
        with gzip.open(path) if path.name.endswith(".gz") else open(path, "rb") as raw:
            read = _read_jsonl if suffix == ".jsonl" else _read_delimited
            problems: dict[int, str] | None = {} if lenient else None
            yield from read(path, _decoded(path, raw, problems), suffix, columns, problems)
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror or error}", file=path) from error
    except (EOFError, zlib.error) as error:
        raise UserError(f"broken gzip data: {error}", file=path, fix="download or compress it again") from error


def in_windows(items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """Yield successive tuples of ``size`` items; the last one may be shorter."""
    iterator = iter(items)
    while window := tuple(itertools.islice(iterator, size)):
        yield window


def read_hub_rows(
    dataset: str, split: str, columns: Sequence[str] = (), *, revision: str | None = None
) -> Iterator[Row]:
    """Yield the rows of a Hub dataset's split, as :func:`read_rows` does for a file.

    Datasets with a loading script need the revision ``refs/convert/parquet``.
    """
    import datasets

    # Otherwise load_dataset also asks a second server for a Parquet export, which private and offline hubs lack.
    datasets.config.USE_PARQUET_EXPORT = False
    source = f"{dataset} ({split})"
    try:
        table = datasets.load_dataset(dataset, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason, fix = _first_line(error), "check the id, the revision and the network"
        raise UserError(f"can't be loaded from the Hub: {reason}", file=source, fix=fix) from error
    _check_columns(source, table.column_names, columns)
    for number, values in enumerate(table, 1):
        yield Row(values, source, None, number)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _check_columns(source: str | Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    if missing := [column for column in wanted if column not in names]:
        raise UserError(
            f"missing column {', '.join(map(repr, missing))}",
            file=source,
            expected=f"it among {shown(list(names), 200)}",
            fix="rename the file's column, or give its name with the option for it (see --help)",
        )


def _duplicate(names: Sequence[str]) -> str | None:
    return next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None


def table_format(path: Path) -> str:
    """Return the suffix that names a file's format, without .gz; raise ``UserError`` if it is unknown."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in FORMATS or (suffix == ".parquet" and path.name.endswith(".gz")):
        raise UserError("unknown file format", file=path, expected=f"{', '.join(FORMATS)}; text formats also with .gz")
    return suffix


def _decoded(path: Path, raw: Iterable[bytes], problems: dict[int, str] | None) -> Iterator[str]:
    """Yield lines as text, where TextIOWrapper would name only the offset of a malformed byte.

    Malformed lines are errors, or, if there are ``problems``, are noted there with U+FFFD in place of malformed characters.
    """
    for line, data in enumerate(raw, 1):
        encoding, problem = "utf-8-sig" if line == 1 else "utf-8", None
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError as error:
            text, problem = data.decode(encoding, errors="replace"), f"byte 0x{data[error.start]:02x} is not UTF-8"
        if "\0" in text:
            text, problem = text.replace("\0", "\ufffd"), problem or "a NUL character"
        if problem and problems is None:
            raise UserError(problem, file=path, line=line, fix="save the file as UTF-8")
        if problem and problems is not None:
            problems[line] = problem
        yield text


def _problem(problems: dict[int, str] | None, first: int, last: int) -> str | None:
    """Remove and return the first problem of a record's lines."""
    noted = [problems.pop(line) for line in range(first, last + 1) if line in problems] if problems else []
    return noted[0] if noted else None


def _read_delimited(
    path: Path, lines: Iterator[str], suffix: str, columns: Sequence[str], problems: dict[int, str] | None
) -> Iterator[Row]:
    csv.field_size_limit(1 << 30)
    reader = csv.reader(lines, delimiter="\t" if suffix == ".tsv" else ",", strict=True)
    header: list[str] | None = None
    number = 0
    while True:
        line = reader.line_num + 1  # where the record starts: quoted fields may hold newlines
        try:
            fields = next(reader, None)
        except csv.Error as error:
            problem, fix = f"not {suffix[1:].upper()}: {error}", "check this record's quotes"
            if "new-line character" in str(error):
                problem, fix = "a carriage return outside quotes", "quote that field, or end lines with LF or CRLF"
            raise UserError(problem, file=path, line=line, fix=fix) from None
        if fields is None:
            break
        if not fields:  # a blank line
            continue
        problem = _problem(problems, line, reader.line_num)
        if header is None:
            header = fields
            _check_header(path, line, header, problem, suffix)
            _check_columns(path, header, columns)
            continue
        number += 1
        if len(fields) != len(header):
            if problems is None:
                expected, fix = f"{len(header)}, as in the header", "quote fields that contain the delimiter"
                raise UserError(f"{len(fields)} fields", file=path, line=line, expected=expected, fix=fix)
            problem = problem or f"{len(fields)} fields, where the header has {len(header)}"
        yield Row(dict(zip(header, fields, strict=False)), str(path), line, number, problem)
    if header is None:
        raise UserError("empty file", file=path, expected="a header line")


def _check_header(path: Path, line: int, header: list[str], problem: str | None, suffix: str) -> None:
    expected, fix = None, "save the file as UTF-8"
    if problem is None and (name := _duplicate(header)) is not None:
        problem, fix = f"duplicate column {shown(name)} in the header", "rename one of them"
    elif problem is None and len(header) == 1 and re.fullmatch(r"[\w .-]+([;,\t][\w .-]+)+", header[0]):
        problem, expected = (
            f"one column, {shown(header[0])}",
            f"columns separated by {'tabs' if suffix == '.tsv' else 'commas'}",
        )
        fix = "save the table that way (a spreadsheet's CSV may use semicolons)"
    if problem is not None:
        raise UserError(problem, file=path, line=line, expected=expected, fix=fix)


def _read_jsonl(
    path: Path, lines: Iterator[str], suffix: str, columns: Sequence[str], problems: dict[int, str] | None
) -> Iterator[Row]:
    number = 0
    for line, text in enumerate(lines, 1):
        if not text.strip():
            continue
        number += 1
        values: Any = {}
        problem, column, expected, fix = _problem(problems, line, line), None, None, None
        if problem is None:
            values, problem = files.parse_json(text)
            if not isinstance(values, dict):
                problem, expected = problem or f"a JSON {type(values).__name__}", "one JSON object per line"
                values = {}
            elif problem:
                fix = "write that line again"
            elif missing := [column for column in columns if column not in values]:
                problem = "missing" if problems is None else f"no {shown(missing[0])}"
                column, expected = missing[0], "a value"
        row = Row(values, str(path), line, number, problem)
        if problem and problems is None:
            raise row.error(problem, column, expected, fix)
        yield row


def _read_parquet(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if (name := _duplicate(names)) is not None:
                raise UserError(f"duplicate column {shown(name)}", file=path, fix="rename one of them")
            _check_columns(path, names, columns)
            rows = (values for batch in file.iter_batches(batch_size=1024) for values in _python_values(path, batch))
            for number, values in enumerate(rows, 1):
                yield Row(values, str(path), None, number)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"not Parquet: {_first_line(error)}", file=path, fix="write or download it again") from None


def _python_values(path: Path, batch: Any) -> list[dict[str, Any]]:
    """Return a batch's rows; an error names the column that holds a date, time, or text Python lacks."""
    # pyarrow's own errors about values are ValueErrors too; where pytz is installed, an unknown time zone is a KeyError.
    unreadable = (ValueError, OverflowError, KeyError)
    try:
        return batch.to_pylist()
    except unreadable:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                column.to_pylist()
            except unreadable as error:
                problem = f"a value of type {column.type} can't be read: {_first_line(error)}"
                fix = "write that column as UTF-8 text, or leave it out"
                raise UserError(problem, file=path, column=name, fix=fix) from None
        raise


def text_of(row: Row, column: str) -> str | None:
    """Return a cell as text, so that 3 in one file equals "3" in another; None if it is empty."""
    value = row.values[column]
    if value is None or value != value:
        return None
    if isinstance(value, (list, dict, bytes)):
        raise row.error(f"{shown(value)} is not a single value", column, expected="text or a number")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # Parquet stores integers as floats if one is missing
    return str(value).strip() or None


def probability_of(row: Row, column: str) -> float:
    """Return a cell as a number from 0 to 1, or raise ``UserError``."""
    try:
        value = float(row.values[column])
    except (KeyError, TypeError, ValueError, OverflowError):
        value = math.nan
    if not 0 <= value <= 1:
        problem = f"{shown(row.values.get(column))} is not a probability"
        raise row.error(problem, column, expected="a number from 0 to 1")
    return value
