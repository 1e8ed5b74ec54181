"""Tables in: CSV, TSV, JSONL and Parquet files (also gzipped) and Hub datasets, row by row, each row with its place."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError, shown
from common.files import written_aside

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Row:
    """One record and where it stands. ``line`` is None where the source has rows but no lines."""

    values: dict[str, Any]
    source: str
    line: int | None
    number: int

    def error(
        self, problem: str, column: str | None = None, expected: str | None = None, fix: str | None = None
    ) -> UserError:
        """An error that names this row."""
        row = None if self.line is not None else self.number
        return UserError(problem, file=self.source, line=self.line, row=row, column=column, expected=expected, fix=fix)


def read_rows(path: Path, columns: Sequence[str] = ()) -> Iterator[Row]:
    """Yields the rows of a file, in order, without holding more than a part of it.

    Text formats are UTF-8, with or without a byte-order mark. CSV and TSV values are text, an empty field is ``""``.

    Args:
        path: A file ending in .csv, .tsv, .jsonl or .parquet; the text formats also with .gz.
        columns: Columns that must be there.

    Raises:
        UserError: No such file, an unknown ending, a missing column, or a record that can't be read (with its line).
    """
    path = Path(path)
    suffix = table_format(path)
    if not path.is_file():
        raise UserError("no such file", file=path, fix="check the path")
    try:
        if suffix == ".parquet":
            yield from _read_parquet(path, columns)
        else:
            with _open_text(path) as file:
                yield from (
                    _read_jsonl(path, file, columns)
                    if suffix == ".jsonl"
                    else _read_delimited(path, file, suffix, columns)
                )
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror or error}", file=path) from error
    except (EOFError, zlib.error) as error:
        raise UserError(f"broken gzip data: {error}", file=path, fix="download or compress it again") from error


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
        )


def write_rows(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str] = ()) -> None:
    """Writes rows to a .csv, .tsv, .jsonl or .parquet file (text formats also with .gz), whole or not at all.

    ``columns`` come first, then further ones in order of appearance; a value that a row lacks is left empty.

    Raises:
        UserError: An unknown ending, a path that can't be written to, or values of mixed types in a Parquet column.
    """
    path = Path(path)
    suffix = table_format(path)
    columns = list(dict.fromkeys([*columns, *(column for row in rows for column in row)]))
    with written_aside(path) as part:
        if suffix == ".parquet":
            import pyarrow
            import pyarrow.parquet

            try:
                arrays = {column: pyarrow.array([row.get(column) for row in rows]) for column in columns}
            except pyarrow.ArrowException as error:
                reason = str(error).splitlines()[0]
                raise UserError(f"a column of mixed types: {reason}", file=path, fix="write .jsonl instead") from None
            pyarrow.parquet.write_table(pyarrow.table(arrays), part)
            return
        opener = gzip.open if path.name.endswith(".gz") else open
        with opener(part, "wt", encoding="utf-8", newline="") as file:
            if suffix == ".jsonl":
                # Dates and such, which JSON lacks, as text.
                file.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
            else:
                writer = csv.DictWriter(file, columns, delimiter="\t" if suffix == ".tsv" else ",", lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


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
    """Lines of a byte stream as text: a bad byte is an error with its line, where TextIOWrapper only has an offset."""

    def __init__(self, path: Path, raw: io.BufferedIOBase):
        self._path, self._raw, self.line = path, raw, 0

    def __iter__(self) -> Iterator[str]:
        for data in self._raw:
            self.line += 1
            try:
                text = data.decode("utf-8-sig" if self.line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"byte 0x{data[error.start]:02x} is not UTF-8",
                    file=self._path,
                    line=self.line,
                    fix="save the file as UTF-8",
                ) from None
            if "\0" in text:
                raise UserError(
                    "a NUL character", file=self._path, line=self.line, expected="text", fix="save the file as UTF-8"
                )
            yield text


@contextlib.contextmanager
def _open_text(path: Path) -> Iterator[_Decoder]:
    with gzip.open(path) if path.name.endswith(".gz") else open(path, "rb") as raw:
        yield _Decoder(path, raw)


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
            raise UserError(
                f"not {suffix[1:].upper()}: {error}", file=path, line=line, fix="check the quotes of this record"
            ) from None
        if fields is None:
            break
        if header is None:
            header = fields
            if len(set(header)) < len(header):
                twice = next(name for name in header if header.count(name) > 1)
                raise UserError(f"column {twice!r} stands twice in the header", file=path, line=line)
            _check_columns(path, header, columns)
        elif fields:  # a blank line is no record
            number += 1
            if len(fields) != len(header):
                raise UserError(
                    f"{len(fields)} fields",
                    file=path,
                    line=line,
                    expected=f"{len(header)}, as in the header",
                    fix="quote fields that hold the delimiter",
                )
            yield Row(dict(zip(header, fields, strict=True)), str(path), line, number)
    if header is None:
        raise UserError("empty file", file=path, expected="a header line")


def _read_jsonl(path: Path, file: _Decoder, columns: Sequence[str]) -> Iterator[Row]:
    number = 0
    for text in file:
        if not text.strip():
            continue
        number += 1
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
            raise UserError(
                f"not JSON: {getattr(error, 'msg', error)}",
                file=path,
                line=file.line,
                expected="one JSON object a line",
            ) from None
        if not isinstance(values, dict):
            raise UserError(f"a JSON {type(values).__name__}", file=path, line=file.line, expected="a JSON object")
        row = Row(values, str(path), file.line, number)
        texts = [value for value in values.values() if isinstance(value, str)]
        if any(re.search(r"[\ud800-\udfff]", value) for value in texts):
            raise row.error("half of a surrogate pair", expected="text that UTF-8 can hold", fix="mend its \\u escapes")
        for column in columns:
            if column not in values:
                raise row.error("missing", column, expected="a value")
        yield row


def _read_parquet(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            _check_columns(path, file.schema_arrow.names, columns)
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(values, str(path), None, number)
    except pyarrow.ArrowException as error:
        raise UserError(
            f"not Parquet: {str(error).splitlines()[0]}", file=path, fix="write or download it again"
        ) from None
