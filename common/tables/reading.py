"""Read tables (CSV, JSONL, Parquet, Excel, SPSS, Stata) row by row, with the place of each."""

from __future__ import annotations

import codecs
import csv
import functools
import gzip
import itertools
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from common.cli.errors import UserError, counted, file_name, shown
from common.cli.extras import require
from common.runtime import files
from common.tables import encodings, parquet, spreadsheet, survey
from common.tables.spreadsheet import warn_once

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet", ".xlsx")
READ_ONLY = tuple(suffix for suffix in (*spreadsheet.READABLE, *survey.READABLE) if suffix not in FORMATS)
PACKED = (".parquet", *spreadsheet.READABLE, *survey.READABLE)  # never with .gz
JSON = (".json", ".ndjson")  # JSON Lines, or an array of objects, where these endings are read
LONGEST = 16 * 2**20  # bytes of a record: a small file can unpack to more than memory holds
WINDOW_BYTES = 64 * 2**20
MOST_COLUMNS = 10_000
HEADER_NAME = r'("[^",;\t]*"|[^",;\t]*)'  # of a column, in a line without commas
CHUNK = 2**16  # bytes of a JSON array that are read at first
# How a file begins that is something other than its name says, and what to do about it.
CONTENTS = {
    rb"PK\x03\x04": ("an Excel workbook or another zip archive", "name it .xlsx"),
    rb"\xd0\xcf\x11\xe0": ("an old Excel workbook", "name it .xls"),
    rb"\x1f\x8b": ("gzip data", "add .gz to its name"),
    rb"PAR1\x15": ("Parquet", "name it .parquet"),
    rb"\$FL[23]@\(#\)": ("SPSS data", "name it .sav"),
    rb"<stata_dta>": ("Stata data", "name it .dta"),
    rb"\xff\xfe\0\0|\0\0\xfe\xff": ("UTF-32 text", "save it as UTF-8"),
    rb"(\0[^\0]){2}|([^\0]\0){2}": ("UTF-16 text", "save it as UTF-8 (a spreadsheet's CSV UTF-8)"),
}


@dataclass(frozen=True)
class Row:
    """One record and its place in the source."""

    values: dict[str, Any]
    source: str
    line: int | None  # None if the source has rows but no lines
    number: int
    problem: str | None = None  # what is wrong with a record that was read leniently
    raw: str | None = None  # that record as it is in the file, see `escaped`

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

    Text formats are UTF-8, with or without a byte-order mark, or what :mod:`common.tables.encodings` recognizes. CSV and TSV
    values are text, and an empty field is ``""``. A JSON array of objects is read like JSON Lines. ``lenient`` yields a malformed
    record (invalid UTF-8, a wrong number of fields, not a JSON object) with what could be read, its ``problem``, and the record as
    it is; a file that is malformed as a whole is always an error. ``suffix`` gives the format of a file that is named otherwise.

    Raises:
        UserError: No such file, an unknown format, a missing column, a malformed record (with its line), or one of more than
            :data:`LONGEST` bytes.
    """
    path = Path(path)
    suffix = suffix or table_format(path)
    try:
        if not path.is_file():
            raise UserError("no such file", file=path, fix="check the path")
        if suffix == ".parquet" or suffix in survey.READABLE:
            check = functools.partial(_check_names, path, None, wanted=columns)
            rows = survey.read(path, check) if suffix != ".parquet" else parquet.read(path, check, longest=LONGEST)
            for number, values in enumerate(rows, 1):
                yield Row(values, str(path), None, number)
            return
        if suffix in spreadsheet.READABLE:
            located = spreadsheet.read(path, lambda names: _check_names(path, None, names, columns))
            for number, (line, values) in enumerate(located, 1):
                yield Row(values, str(path), line, number)
            return
        with gzip.open(path) if path.name.endswith(".gz") else open(path, "rb", encodings.SCANNED) as file:
            raw, how = encodings.as_utf8(path, file)
            if how is not None:
                warn_once(f"{file_name(path)}: {how}")
            head = raw.peek(16)
            for start, (what, fix) in CONTENTS.items():
                if re.match(start, head, re.DOTALL):
                    raise UserError(what, file=path, expected=f"{suffix[1:].upper()} in UTF-8", fix=fix)
            if head.startswith(codecs.BOM_UTF8):
                raw.read(len(codecs.BOM_UTF8))
            yield from (_read_jsonl if suffix == ".jsonl" else _read_delimited)(path, raw, suffix, columns, lenient)
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror or error}", file=path) from error
    except (EOFError, zlib.error) as error:
        raise UserError(f"broken gzip data: {error}", file=path, fix="download or compress it again") from error


def columns_of(path: Path, *, lenient: bool = False) -> list[str]:
    """Return the columns of a file's first row that has any."""
    for row in read_rows(path, lenient=lenient):
        if row.values:
            return list(row.values)
    raise UserError("no rows", file=path, expected="at least one")


def in_windows(items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """Yield successive tuples of ``size`` rows or texts, or fewer if these are long; the last one may be shorter."""
    window: list[Any] = []
    weight = 0
    for item in items:
        window.append(item)
        weight += size_of(item.values if isinstance(item, Row) else item)
        if len(window) == size or weight > WINDOW_BYTES:
            yield tuple(window)
            window, weight = [], 0
    if window:
        yield tuple(window)


def size_of(value: Any) -> int:
    """Return about how much memory a value takes."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(size_of, value.values()))
    return sum(map(size_of, value)) if isinstance(value, (list, tuple)) else 8


def _check_columns(source: str | Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    if missing := [column for column in wanted if column not in names]:
        raise UserError(
            f"missing column {', '.join(map(repr, missing))}",
            file=source,
            expected=f"it among {shown(list(names), 200)}",
            fix="rename the file's column, or name it with the option for it, as --text_column or --key (see --help)",
        )


def _check_names(path: Path, line: int | None, names: Sequence[str], wanted: Sequence[str]) -> None:
    if len(names) > MOST_COLUMNS:
        raise UserError(f"{len(names):,} columns", file=path, line=line, expected=f"at most {MOST_COLUMNS:,}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        where = " in the header" if line is not None else ""
        raise UserError(f"duplicate column {shown(twice)}{where}", file=path, line=line, fix="rename one of them")
    _check_columns(path, names, wanted)


def suffix_of(path: Path) -> str:
    """Return the ending that names a file's format: in lower case, and not .gz."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def table_format(path: Path, *, writing: bool = False) -> str:
    """Return the suffix that names a file's format, without .gz; raise ``UserError`` if it is unknown."""
    suffix = suffix_of(path)
    formats = FORMATS if writing else (*FORMATS, *READ_ONLY)
    if suffix not in formats or (suffix in PACKED and path.name.endswith(".gz")):
        expected = f"{', '.join(formats)}; text formats also with .gz"
        raise UserError("unknown file format", file=path, expected=expected)
    if suffix in (*spreadsheet.READABLE, *survey.READABLE):
        require("tables")
    return suffix


def escaped(record: bytes) -> str:
    r"""Return a record as text, with ``\xNN`` for NUL and for each byte that is not UTF-8.

    A backslash that would look like one of these is ``\x5c``, so that the bytes can be restored; docs/annotate.md shows how.
    """
    record = re.sub(rb"\\(?=x[0-9a-f]{2})", rb"\\x5c", record).replace(b"\0", rb"\x00")
    return record.decode(errors="backslashreplace")


def _text(data: bytes) -> tuple[str, str | None]:
    """Return a line as text and what is wrong with it; U+FFFD replaces malformed characters."""
    problem = None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        text, problem = data.decode(errors="replace"), f"byte 0x{data[error.start]:02x} is not UTF-8"
    return text.replace("\0", "\ufffd"), problem or ("a NUL character" if "\0" in text else None)


def _lines(path: Path, raw: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield lines with their numbers; one that is too long is never held in memory."""
    for number in itertools.count(1):
        line = raw.readline(LONGEST + 1)
        if not line:
            return
        if len(line) > LONGEST:
            raise _too_long(path, number)
        yield number, line


def _too_long(path: Path, line: int) -> UserError:
    problem = f"a record of more than {LONGEST / 2**20:.0f} MB"
    return UserError(
        problem, file=path, line=line, fix="shorten or remove it, and check for a quote that is never closed"
    )


class _CsvLines:
    """Lines as text for a CSV reader, and the record that they belong to.

    TextIOWrapper would name only the offset of a malformed byte.
    """

    def __init__(self, path: Path, raw: BinaryIO, lenient: bool):
        self._path, self._lines, self._lenient = path, _lines(path, raw), lenient
        self._record, self._problem = bytearray(), None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line, data = next(self._lines)
        self._record += data
        if len(self._record) > LONGEST:
            raise _too_long(self._path, line)
        text, problem = _text(data)
        if problem and not self._lenient:
            raise UserError(problem, file=self._path, line=line, fix="save the file as UTF-8")
        self._problem = self._problem or problem
        return text

    def record(self) -> tuple[bytes, str | None]:
        """Return the bytes of the record just read and what is wrong with them, and begin the next one."""
        ended = bytes(self._record).rstrip(b"\r\n"), self._problem
        self._record, self._problem = bytearray(), None
        return ended


def _read_delimited(path: Path, raw: BinaryIO, suffix: str, columns: Sequence[str], lenient: bool) -> Iterator[Row]:
    csv.field_size_limit(LONGEST)
    delimiter = "\t" if suffix == ".tsv" else _delimiter(path, raw)
    lines = _CsvLines(path, raw, lenient)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    number, spans = 0, False
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
        record, problem = lines.record()
        if header is None:
            if fields:
                header = fields
                _check_header(path, line, header, problem, suffix)
                _check_names(path, line, header, columns)
            continue
        if not fields:  # a blank line
            if len(header) > 1:
                continue
            fields = [""]
        number += 1
        if suffix == ".tsv" and reader.line_num > line and not spans:
            spans = True
            fix = "if its quote belongs to the text, double it and put the field in quotes"
            warn_once(f"{file_name(path)}, line {line}: a quoted field spans {reader.line_num - line + 1} lines; {fix}")
        if len(fields) != len(header):
            if not lenient:
                expected, fix = f"{len(header)}, as in the header", "quote fields that contain the delimiter"
                raise UserError(counted(len(fields), "field"), file=path, line=line, expected=expected, fix=fix)
            problem = problem or f"{counted(len(fields), 'field')}, where the header has {len(header)}"
        values = dict(zip(header, fields, strict=False))
        yield Row(values, str(path), line, number, problem, escaped(record) if problem else None)
    if header is None:
        raise UserError("empty file", file=path, expected="a header line")


def _delimiter(path: Path, raw: BinaryIO) -> str:
    """Return what separates the columns of a CSV file: a comma or, as spreadsheets of many countries write it, a semicolon."""
    header = raw.peek(CHUNK).partition(b"\n")[0].decode(errors="replace").strip()
    for delimiter, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if re.fullmatch(rf"{HEADER_NAME}({re.escape(delimiter)}{HEADER_NAME})+", header):
            warn_once(f"{file_name(path)}: read as columns separated by {name}")
            return delimiter
    return ","


def _check_header(path: Path, line: int, header: list[str], problem: str | None, suffix: str) -> None:
    expected, fix = None, "save the file as UTF-8"
    if problem is None and len(header) == 1 and re.fullmatch(r"[\w .-]+([;,\t][\w .-]+)+", header[0]):
        problem = f"one column, {shown(header[0])}"
        expected = f"columns separated by {'tabs' if suffix == '.tsv' else 'commas'}"
        fix = "save the table that way (a spreadsheet's CSV may use semicolons)"
    if problem is not None:
        raise UserError(problem, file=path, line=line, expected=expected, fix=fix)


def _read_jsonl(path: Path, raw: BinaryIO, suffix: str, columns: Sequence[str], lenient: bool) -> Iterator[Row]:
    number = 0
    is_array = re.match(rb"\s*\[\s*\{", raw.peek(CHUNK))
    for line, record in (_array_elements if is_array else _lines)(path, raw):
        if not record.strip():
            continue
        number += 1
        text, problem = _text(record)
        values, wrong = files.parse_json(text)
        column, expected, fix = None, None, "save the file as UTF-8" if problem else None
        if not isinstance(values, dict):
            wrong, expected = wrong or f"a JSON {type(values).__name__}", "one JSON object per line"
            values = {}
        elif wrong:
            fix = fix or "write that line again"
        missing = None if problem or wrong else next((column for column in columns if column not in values), None)
        lost = problem = problem or wrong
        if missing is not None:
            problem = "missing" if not lenient else f"no {shown(missing)}"
            column, expected = missing, "a value"
        kept = escaped(record.rstrip(b"\r\n")) if lost else None
        row = Row(values, str(path), line, number, problem, kept)
        if problem and not lenient:
            raise row.error(problem, column, expected, fix)
        yield row


def _array_elements(path: Path, raw: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the elements of a JSON array, each with the line where it starts, without reading the whole array."""
    # Finds where elements end, no more. In Latin-1 each byte is a character, and JSON's own characters are all ASCII.
    decode = json.JSONDecoder(strict=False, parse_int=len, parse_float=len).raw_decode
    before, text, at, line = re.compile(r"\s*\[\s*"), "", 0, 1
    while True:
        gap = before.match(text, at)
        try:
            end = decode(text, gap.end())[1] if gap else len(text)
        except (ValueError, RecursionError):
            end = len(text)
        if end == len(text):  # the element may go on
            size = len(text) - at
            more = raw.read(min(max(CHUNK, size), LONGEST + CHUNK - size)) if size <= LONGEST else b""
            if not more:
                break
            text, at = text[at:] + more.decode("latin-1"), 0
            continue
        line += text.count("\n", at, gap.end())
        yield line, text[gap.end() : end].encode("latin-1")
        line += text.count("\n", gap.end(), end)
        at, before = end, re.compile(r"\s*,\s*")
    if not re.fullmatch(r"\s*\]\s*", text[at:]):
        problem = f"a JSON array with an element that is not JSON or takes more than {LONGEST / 2**20:.0f} MB"
        raise UserError(problem, file=path, line=line, fix="write one JSON object per line")


def text_of(row: Row, column: str) -> str | None:
    """Return a cell as text, so that 3 in one file equals "3" in another; None if it is empty."""
    value = row.values[column]
    if type(value) is str:  # a cell of a text file
        return value.strip() or None
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
