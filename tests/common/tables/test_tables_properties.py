"""Any table is read or refused with one line, and what is written is read back unchanged."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.cli.errors import UserError
from common.tables.reading import Row, escaped, probability_of, read_rows, text_of
from common.tables.writing import _finite, row_writer, write_rows
from tests.rubbish import DEEP, check_refusal, dumped, json_values, mutated, names, parquet_tables, texts

pytestmark = pytest.mark.properties
TEXT_FORMATS = ("csv", "tsv", "jsonl")


def rows_of(path: Path, data: bytes, *, lenient: bool) -> list[Row] | None:
    """Return a file's rows; None if it was refused properly."""
    path.write_bytes(data)
    try:
        return list(read_rows(path, lenient=lenient))
    except UserError as error:
        check_refusal(error, path)
        return None


def check_any_bytes(folder: Path, name: str, data: bytes) -> None:
    """Strict and lenient reading agree, every row has its place, and every problem is printable."""
    strict = rows_of(folder / name, data, lenient=False)
    lenient = rows_of(folder / name, data, lenient=True)
    if strict is not None:
        assert lenient is not None
        assert [repr(row) for row in lenient] == [repr(row) for row in strict]
    for number, row in enumerate(lenient or (), 1):
        assert row.number == number
        assert str(row.error(row.problem or "p", next(iter(row.values), None))).isprintable()
        for column in row.values:
            for read in (text_of, probability_of):
                try:
                    read(row, column)
                except UserError as error:
                    check_refusal(error, name)


TABLE = 'id,post,n\r\n1,"a ""quoted"", text",0.5\r\n\r\n2,"two\nlines\u2028 and é",1\r\n'.encode()
LINES = b'{"id": 1, "post": "\\u00e9", "n": [1, {"a": null}]}\n\n{"id": 2, "post": "b", "n": NaN}\n'


@pytest.mark.parametrize("name", TEXT_FORMATS)
@given(data=st.one_of(st.binary(max_size=60), texts.map(str.encode), mutated(TABLE), mutated(LINES)))
@example(data=b'{"a": {"b": "\\ud83d"}}\n')
@example(data=b'{"\\ud83d": 1}\n')
@example(data=b'{"a": 1, "a": 2}\n')
@example(data=b'{"a": ' + DEEP.encode())
@example(data=b'{"a": 1' + b"0" * 400 + b"}\n")
@example(data=b"\n\nid,post\n1,2\n")
@example(data=b"id\xff,post\n1,2\n")
@example(data=b"x" * 5000 + b",a," + b"x" * 5000)
@example(data=b'a,"' + b"x" * 3_000_000 + b'"\n1,2\n')
def test_any_bytes_are_read_or_refused(tmp_path, name, data):
    check_any_bytes(tmp_path, f"t.{name}", data)


ZIPPED = gzip.compress(TABLE, mtime=0)


@given(data=mutated(ZIPPED))
def test_gzip_that_is_broken_anywhere_is_refused(tmp_path, data):
    rows_read = rows_of(tmp_path / "t.csv.gz", data, lenient=False)
    # Some bytes of the header do not affect the content: time, system, name.
    assert rows_read is None or [row.values["id"] for row in rows_read] == ["1", "2"]


@given(table=parquet_tables())
def test_parquet_of_every_type_is_read_or_refused(tmp_path, table):
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(table, path)
    try:
        rows_read = list(read_rows(path))
    except UserError as error:
        check_refusal(error, path)
        return
    assert len(rows_read) == table.num_rows
    assert all(list(row.values) == table.column_names for row in rows_read)


def test_parquet_text_that_is_not_unicode_is_refused(tmp_path):
    offsets, data = pyarrow.py_buffer(b"\0\0\0\0\x01\0\0\0"), pyarrow.py_buffer(b"\xff")
    column = pyarrow.Array.from_buffers(pyarrow.string(), 1, [None, offsets, data])
    pyarrow.parquet.write_table(pyarrow.table({"a": column}), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"t\.parquet, column .a.: .*UTF-8 text"):
        list(read_rows(tmp_path / "t.parquet"))


def parquet_bytes() -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"id": [1, 2], "post": ["a", "b"]}), buffer)
    return buffer.getvalue()


PARQUET = parquet_bytes()


@given(data=st.one_of(mutated(PARQUET), mutated(PARQUET[-200:]).map(lambda end: PARQUET[:-200] + end)))
def test_parquet_that_is_broken_anywhere_is_read_or_refused(tmp_path, data):
    check_any_bytes(tmp_path, "t.parquet", data)


columns = st.lists(names, min_size=1, max_size=4, unique=True)


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz"])
@given(data=st.data())
def test_delimited_text_comes_back(tmp_path, ending, data):
    """All text but NUL, which no CSV file may contain; None comes back as empty text."""
    header = [name.replace("\0", "") for name in data.draw(columns)]
    if len(set(header)) < len(header):
        return
    table = [
        dict.fromkeys(header) | {name: data.draw(texts) for name in header} for _ in range(data.draw(st.integers(0, 3)))
    ]
    path = tmp_path / f"t.{ending}"
    write_rows(path, table, header)
    rows_read = list(read_rows(path))
    assert [list(row.values) for row in rows_read] == [header] * len(table)
    assert [row.values for row in rows_read] == [
        {name: text.replace("\0", "\ufffd") for name, text in row.items()} for row in table
    ]
    if ending == "csv":  # as another reader sees it
        with open(path, encoding="utf-8", newline="") as file:
            assert next(csv.reader(file)) == header or header[0].startswith("\ufeff")


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz"])
@given(lines=st.lists(st.dictionaries(names, json_values, min_size=1, max_size=3), max_size=3))
def test_json_lines_come_back(tmp_path, ending, lines):
    """Everything that JSON can express, and null for the numbers that it cannot."""
    path, again = tmp_path / f"in.{ending}", tmp_path / f"out.{ending}"
    data = b"".join(dumped(line) + b"\n" for line in lines)
    rows_read = rows_of(path, gzip.compress(data) if ending.endswith("gz") else data, lenient=False)
    if rows_read is None:
        return
    assert repr([row.values for row in rows_read]) == repr(lines)
    write_rows(again, [row.values for row in rows_read])
    assert [by_name(row.values) for row in read_rows(again)] == [by_name(_finite(line)) for line in lines]


def by_name(values: dict[str, Any]) -> str:
    """Make values comparable: NaN equals itself, and a line's keys may be in another order than the columns."""
    return repr(sorted(values.items(), key=lambda item: item[0]))


@given(table=parquet_tables())
def test_parquet_comes_back(tmp_path, table):
    """In columns of the same types, every value that Python has; it lacks nanoseconds of a time of day."""
    before, after = tmp_path / "a.parquet", tmp_path / "b.parquet"
    pyarrow.parquet.write_table(table, before)
    try:
        rows = [row.values for row in read_rows(before)]
    except UserError:
        return
    schema = pyarrow.parquet.read_schema(before)
    with row_writer(after, schema.names, schema) as write:
        for row in rows:
            write(row)
    assert pyarrow.parquet.read_schema(after).types == schema.types
    assert repr([row.values for row in read_rows(after)]) == repr(rows)


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@given(table=parquet_tables())
def test_every_format_takes_every_row(tmp_path, ending, table):
    """Rows in = rows out for all values; JSON lacks bytes and dates, and CSV only has text."""
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    try:
        rows = [row.values for row in read_rows(tmp_path / "in.parquet")]
        write_rows(tmp_path / f"out.{ending}", rows, table.column_names)
    except UserError as error:
        check_refusal(error, tmp_path / ("in.parquet" if "in.parquet" in str(error) else f"out.{ending}"))
        return
    assert len(list(read_rows(tmp_path / f"out.{ending}"))) == len(rows)


@given(record=st.lists(st.one_of(st.binary(max_size=4), st.sampled_from((b"\\x", b"5c", b"\\")))).map(b"".join))
def test_the_bytes_of_an_escaped_record_can_be_restored(record):
    text = escaped(record)
    assert "\0" not in text
    assert re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), text.encode()) == record


@given(value=json_values)
def test_a_cell_is_text_a_probability_or_refused(value):
    row = Row({"a": json.loads(dumped(value))}, "file.jsonl", 3, 1)
    try:
        text = text_of(row, "a")
        assert text is None or (text and text == text.strip())
    except UserError as error:
        check_refusal(error, "file.jsonl")
    try:
        assert 0 <= probability_of(row, "a") <= 1
    except UserError as error:
        check_refusal(error, "file.jsonl")
