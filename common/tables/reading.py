"""Tables in: CSV, TSV, JSONL and Parquet files (also gzipped) and Hub datasets, row by row, each row with its place."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import gzip
import io
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
    """One record and where it stands. ``line`` is None where the source has rows but no lines.

    ``problem`` says what is wrong with a record that was read all the same.
    """

    values: dict[str, Any]
    source: str
    line: int | None
    number: int
    problem: str | None = None

    def error(
        self, problem: str, column: str | None = None, expected: str | None = None, fix: str | None = None
    ) -> UserError:
        """An error that names this row."""
        row = None if self.line is not None else self.number
        return UserError(problem, file=self.source, line=self.line, row=row, column=column, expected=expected, fix=fix)


def read_rows(
    path: Path, columns: Sequence[str] = (), *, lenient: bool = False, suffix: str | None = None
) -> Iterator[Row]:
    """Yields the rows of a file, in order, without holding more than a part of it.

    Text formats are UTF-8, with or without a byte-order mark. CSV and TSV values are text, an empty field is ``""``.

    Args:
        path: A file ending in .csv, .tsv, .jsonl or .parquet; the text formats also with .gz.
        columns: Columns that must be there.
        lenient: Yield a record that is wrong by itself (a byte that is no UTF-8, too few fields, no JSON object) with what could
            be read of it and its ``problem``. A file that is wrong as a whole is an error nevertheless: no header, a quote that
            never ends, broken compression.
        suffix: The ending that says its format, where the file has another: ``.tsv`` for a corpus that comes as ``.txt``.

    Raises:
        UserError: No such file, an unknown ending, a missing column, or a record that can't be read (with its line).
    """
    path = Path(path)
    suffix = suffix or table_format(path)
    try:
        if not path.is_file():
            raise UserError("no such file", file=path, fix="check the path")
        if suffix == ".parquet":
            yield from _read_parquet(path, columns)
        else:
            with _open_text(path, lenient) as file:
                yield from (
                    _read_jsonl(path, file, columns)
                    if suffix == ".jsonl"
                    else _read_delimited(path, file, suffix, columns)
                )
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror or error}", file=path) from error
    except (EOFError, zlib.error) as error:
        raise UserError(f"broken gzip data: {error}", file=path, fix="download or compress it again") from error


def in_windows(items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """Successive tuples of ``size`` items, the last one shorter."""
    iterator = iter(items)
    while window := tuple(itertools.islice(iterator, size)):
        yield window


def read_hub_rows(
    dataset: str, split: str, columns: Sequence[str] = (), *, revision: str | None = None
) -> Iterator[Row]:
    """Yields the rows of a split of a Hub dataset, as :func:`read_rows` does for a file.

    Args:
        dataset: Dataset id, as ``stanfordnlp/snli``.
        split: Its split.
        columns: Columns that must be there.
        revision: Branch, tag or commit; ``refs/convert/parquet`` for datasets that are a script.

    Raises:
        UserError: The dataset, revision or split can't be had (with the Hub's own reason), or lacks a column.
    """
    import datasets

    # Otherwise load_dataset also asks a second server for a Parquet export, which private and offline hubs lack.
    datasets.config.USE_PARQUET_EXPORT = False
    source = f"{dataset} ({split})"
    try:
        table = datasets.load_dataset(dataset, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"can't be loaded from the Hub: {reason}", file=source, fix="check the id, the revision and the network"
        ) from error
    _check_columns(source, table.column_names, columns)
    for number, values in enumerate(table, 1):
        yield Row(values, source, None, number)


def _check_columns(source: str | Path, found: Sequence[str], wanted: Sequence[str]) -> None:
    missing = [column for column in wanted if column not in found]
    if missing:
        raise UserError(
            f"missing column {', '.join(map(repr, missing))}",
            file=source,
            expected=f"it among {shown(list(found), 200)}",
            fix="rename it in the file, or name the file's own with the option for it (see --help)",
        )


def table_format(path: Path) -> str:
    """The ending that says a file's format, without .gz.

    Raises:
        UserError: It is none of :data:`FORMATS`.
    """
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in FORMATS or (suffix == ".parquet" and path.name.endswith(".gz")):
        raise UserError("unknown file format", file=path, expected=f"{', '.join(FORMATS)}; text formats also with .gz")
    return suffix


class _Decoder(io.TextIOBase):
    """Lines of a byte stream as text: a bad byte is an error with its line, where TextIOWrapper only has an offset.

    A lenient one replaces it by U+FFFD and keeps what was wrong, by line, until it is asked.
    """

    def __init__(self, path: Path, raw: io.BufferedIOBase, lenient: bool):
        self._path, self._raw, self.lenient, self.line = path, raw, lenient, 0
        self._problems: dict[int, str] = {}

    def problem(self, first: int, last: int) -> str | None:
        """What was wrong with the lines of a record."""
        found = [self._problems.pop(line) for line in range(first, last + 1) if line in self._problems]
        return found[0] if found else None

    def __iter__(self) -> Iterator[str]:
        for data in self._raw:
            self.line += 1
            try:
                text = data.decode("utf-8-sig" if self.line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                text = data.decode("utf-8-sig" if self.line == 1 else "utf-8", errors="replace")
                self._wrong(f"byte 0x{data[error.start]:02x} is not UTF-8")
            if "\0" in text:
                text = text.replace("\0", "\ufffd")
                self._wrong("a NUL character")
            yield text

    def _wrong(self, problem: str) -> None:
        if not self.lenient:
            raise UserError(problem, file=self._path, line=self.line, fix="save the file as UTF-8")
        self._problems[self.line] = problem


@contextlib.contextmanager
def _open_text(path: Path, lenient: bool = False) -> Iterator[_Decoder]:
    with gzip.open(path) if path.name.endswith(".gz") else open(path, "rb") as raw:
        yield _Decoder(path, raw, lenient)


def _read_delimited(path: Path, file: _Decoder, suffix: str, columns: Sequence[str]) -> Iterator[Row]:
    csv.field_size_limit(1 << 30)
    reader = csv.reader(file, delimiter="\t" if suffix == ".tsv" else ",", strict=True)
    header: list[str] | None = None
    number, line = 0, 1
    while True:
        line = reader.line_num + 1  # where the record starts: quoted fields may hold newlines
        try:
            fields = next(reader, None)
        except csv.Error as error:
            if "new-line character" in str(error):
                problem, fix = "a carriage return outside quotes", "quote that field, or end lines with LF or CRLF"
            else:
                problem, fix = f"not {suffix[1:].upper()}: {error}", "check the quotes of this record"
            raise UserError(problem, file=path, line=line, fix=fix) from None
        if fields is None:
            break
        if not fields:  # a blank line is no record
            continue
        if header is None:
            header = fields
            if problem := file.problem(line, reader.line_num):
                raise UserError(problem, file=path, line=line, fix="save the file as UTF-8")
            if len(set(header)) < len(header):
                twice = next(name for name in header if header.count(name) > 1)
                raise UserError(f"column {shown(twice)} stands twice in the header", file=path, line=line)
            if len(header) == 1 and re.fullmatch(r"[\w .-]+([;,\t][\w .-]+)+", header[0]):
                raise UserError(
                    f"one column, {shown(header[0])}",
                    file=path,
                    line=line,
                    expected=f"columns apart by {'tabs' if suffix == '.tsv' else 'commas'}",
                    fix="save the table so (a spreadsheet's CSV may have semicolons)",
                )
            _check_columns(path, header, columns)
        else:
            number += 1
            problem = file.problem(line, reader.line_num)
            if len(fields) != len(header):
                if not file.lenient:
                    raise UserError(
                        f"{len(fields)} fields",
                        file=path,
                        line=line,
                        expected=f"{len(header)}, as in the header",
                        fix="quote fields that hold the delimiter",
                    )
                problem = problem or f"{len(fields)} fields, where the header has {len(header)}"
            yield Row(dict(zip(header, fields, strict=False)), str(path), line, number, problem)
    if header is None:
        raise UserError("empty file", file=path, expected="a header line")


def _read_jsonl(path: Path, file: _Decoder, columns: Sequence[str]) -> Iterator[Row]:
    number = 0
    for text in file:
        if not text.strip():
            continue
        number += 1
        row = _json_row(path, file, text, number)
        for column in columns:
            if row.problem is None and column not in row.values:
                row = dataclasses.replace(row, problem=f"no {shown(column)}")
                if not file.lenient:
                    raise row.error("missing", column, expected="a value")
        yield row


def _json_row(path: Path, file: _Decoder, text: str, number: int) -> Row:
    values: Any = {}
    problem, expected, fix = file.problem(file.line, file.line), None, None
    if problem is None:
        values, problem = files.read(text)
        if not isinstance(values, dict):
            problem = problem or f"a JSON {type(values).__name__}"
            values, expected = {}, "a JSON object, one a line"
        elif problem:
            fix = "write the line anew"
    row = Row(values, str(path), file.line, number, problem)
    if problem and not file.lenient:
        raise row.error(problem, expected=expected, fix=fix)
    return row


def _read_parquet(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise UserError(f"two columns are called {shown(twice)}", file=path, fix="rename one of them")
            _check_columns(path, names, columns)
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for values in _python_values(path, batch):
                    number += 1
                    yield Row(values, str(path), None, number)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"not Parquet: {reason}", file=path, fix="write or download it again") from None


def _python_values(path: Path, batch: Any) -> list[dict[str, Any]]:
    """A batch's rows. Parquet has dates, times and texts that Python has not: their column is named."""
    try:
        return batch.to_pylist()
    # pyarrow's own errors of values are ValueErrors too; where pytz is installed, an unknown time zone is a KeyError.
    except (ValueError, OverflowError, KeyError):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            try:
                column.to_pylist()
            except (ValueError, OverflowError, KeyError) as error:
                raise UserError(
                    f"a value of type {column.type} can't be read: {str(error).splitlines()[0]}",
                    file=path,
                    column=name,
                    fix="write that column as UTF-8 text, or leave it out",
                ) from None
        raise


def text_of(row: Row, column: str) -> str | None:
    """A cell as text, so that a 3 in one file and a "3" in another are the same; None for nothing."""
    value = row.values[column]
    if value is None or value != value:
        return None
    if isinstance(value, (list, dict, bytes)):
        raise row.error(f"{shown(value)} is no single value", column, expected="text or a number")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # what a Parquet column makes of whole numbers as soon as one is missing
    return str(value).strip() or None


def probability_of(row: Row, column: str) -> float:
    """A cell as a number from 0 to 1.

    Raises:
        UserError: It is none.
    """
    try:
        value = float(row.values[column])
    except (KeyError, TypeError, ValueError, OverflowError):
        value = math.nan
    if not 0 <= value <= 1:
        raise row.error(f"{shown(row.values.get(column))} is no probability", column, expected="a number from 0 to 1")
    return value
