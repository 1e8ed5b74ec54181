from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from common.cli.errors import UserError
from common.tables import parquet, reading
from common.tables.reading import escaped, in_windows, read_rows
from common.tables.writing import parquet_schema, row_writer, write_rows

ROOT = Path(__file__).parents[3]


def write(path, text):
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv", "t.jsonl", "t.jsonl.gz", "t.parquet"])
def test_every_format_gives_the_same_rows(tmp_path, name):
    rows = [{"post": 'a "quoted", text', "n": "1"}, {"post": "two\nlines\u2028and é", "n": "2"}]
    path = tmp_path / name
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif "jsonl" in name:
        write(path, "".join(json.dumps(row) + "\n\n" for row in rows))
    else:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, ["post", "n"], delimiter="\t" if "tsv" in name else ",")
        writer.writeheader()
        writer.writerows(rows)
        write(path, "\ufeff" + buffer.getvalue())
    rows_read = list(read_rows(path, ["post", "n"]))
    assert [row.values for row in rows_read] == rows
    assert [row.number for row in rows_read] == [1, 2]


def test_a_line_number_is_where_the_record_starts(tmp_path):
    path = write(tmp_path / "t.csv", 'a,b\n1,"x\ny\nz"\n\n2,w\n')
    assert [row.line for row in read_rows(path)] == [2, 6]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "t.xlsx.gz",
            "",
            "unknown file format; expected .csv, .tsv, .jsonl, .parquet, .xlsx, .xls, .ods, .sav, .dta; text formats also with .gz",
        ),
        (
            "t.csv",
            b"PK\x03\x04\x14\0\x06\0",
            "an Excel workbook or another zip archive; expected CSV in UTF-8. Name it .xlsx",
        ),
        ("t.csv", b"\xd0\xcf\x11\xe0\xa1\xb1", "an old Excel workbook"),
        ("t.tsv", gzip.compress(b"a\tb\n", mtime=0), "gzip data; expected TSV in UTF-8. Add .gz to its name"),
        ("t.csv.gz", gzip.compress(b"a\tb\n", mtime=0), "gzip data; expected CSV in UTF-8"),
        ("t.jsonl", b"PAR1\x15\x04\x15", "Parquet; expected JSONL in UTF-8. Name it .parquet"),
        ("t.csv", "a,b\n1,2\n".encode("utf-16-le"), "UTF-16 text; expected CSV in UTF-8. Save it as UTF-8"),
        ("t.csv", "a,b\n1,2\n".encode("utf-32"), "UTF-32 text; expected CSV in UTF-8. Save it as UTF-8"),
        (
            "t.csv",
            "\ufeffa,b\n1,2\n3,".encode("utf-16-le") + b"\x00\xd8",
            "line 3: text that is not UTF-16. Save it as UTF-8",
        ),
        ("t.tsv.gz", "a\tb\n1\t2\n".encode("utf-16-be"), "UTF-16 text"),
        ("t.jsonl", '{"a": 1, "b": 2}\n'.encode("utf-16-le"), "UTF-16 text"),
        ("t.csv", "", "empty file; expected a header line"),
        ("t.tsv", "id,post\n1,a\n", "line 1: one column, 'id,post'; expected columns separated by tabs"),
        ("t.csv", "a,c\n1,2\n", "missing column 'b'"),
        ("t.csv", "a,b,a\n", "line 1: duplicate column 'a'"),
        ("t.csv", "a,b\n1,2\n1,2,3\n", "line 3: 3 fields; expected 2"),
        ("t.csv", 'a,b\n1,"2\n', "line 2: not CSV: unexpected end of data"),
        ("t.csv", 'a,b\n1,"2"x\n', "line 2: not CSV"),
        ("t.csv", b"a,b\n1,2\n1,\xe92\n", "line 3: byte 0xe9 is not UTF-8. Save the file as UTF-8"),
        ("t.csv", b"a,b\n1,\x002\n", "line 2: a NUL character"),
        ("t.jsonl", '{"a": 1, "b": 2}\n{"a": 1\n', "line 2: not JSON"),
        ("t.jsonl", '{"a": "\\ud83d", "b": 2}\n', "line 1: half of a surrogate pair"),
        ("t.jsonl", '{"a": ' + "9" * 5000 + "}\n", "line 1: not JSON"),
        ("t.jsonl", "[1]\n", "line 1: a JSON list; expected one JSON object"),
        ("t.jsonl", '{"a": 1, "b": 2}\n{"a": 1}\n', "line 2, column 'b': missing"),
        ("t.parquet", "no parquet", "not Parquet"),
    ],
)
def test_nasty_files_are_refused_by_file_and_line(tmp_path, name, content, message):
    path = write(tmp_path / name, content)
    with pytest.raises(UserError) as error:
        list(read_rows(path, ["a", "b"]))
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_a_malformed_record_is_kept_so_that_its_bytes_come_back(tmp_path):
    records = [b"1,a,b", b"2", b'"3 \xff\\xff \\x5c\r\n",c', b"4\0,\xc3\xa9", b'5,"two\nlines",x']
    rows = list(
        read_rows(write(tmp_path / "t.csv", b"\r\n".join([b"id,post", b"6,fine", *records, b""])), lenient=True)
    )
    assert rows[0].raw is None
    restored = [re.sub(rb"\\x([0-9a-f]{2})", lambda m: bytes.fromhex(m[1].decode()), r.raw.encode()) for r in rows[1:]]
    assert restored == records
    assert rows[1].raw == "1,a,b"
    lines = [b'{"a": 1},', b'{"a": 1, "a": 2}', b'{"a": "\xe9", "b": 1}', b'{"a": "\\ud83d"}', b"[1]"]
    rows = list(read_rows(write(tmp_path / "t.jsonl", b"\n".join(lines)), lenient=True))
    assert [row.raw for row in rows] == [escaped(line) for line in lines]
    assert [row.values for row in rows] == [{}, {"a": 2}, {"a": "\ufffd", "b": 1}, {"a": "\ufffd"}, {}]
    rows = read_rows(write(tmp_path / "t.jsonl", '{"a": 1}\n'), ["b"], lenient=True)
    assert [(row.problem, row.raw) for row in rows] == [("no 'b'", None)], "nothing of it is lost"


ELEMENTS = [{"a": "x, ]\n\\", "b": [{}, [2]]}, {"a": 1, "b": {"c": 12}}, {"a": "é", "b": None}]


@pytest.mark.parametrize("chunk", [1, 7, 2**16])
@pytest.mark.parametrize("indent", [None, 1])
def test_a_json_array_is_read_like_json_lines(tmp_path, monkeypatch, chunk, indent):
    monkeypatch.setattr(reading, "CHUNK", chunk)
    text = json.dumps(ELEMENTS, indent=indent, ensure_ascii=False)
    rows = list(read_rows(write(tmp_path / "t.jsonl", f"\ufeff\n{text}\n\n"), ["a", "b"]))
    assert [row.values for row in rows] == ELEMENTS
    lines = text.splitlines()
    starts = [line for line, content in enumerate(lines, 2) if content.startswith((" {", "[{"))]
    assert [row.line for row in rows] == (starts if indent else [2, 2, 2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"a": 1}, 2]', "line 1: a JSON int; expected one JSON object per line"),
        (b'[\n{"a": 1,\n"a": 2}]', "line 2: duplicate name 'a'"),
        (b'[{"a": "\xff"}]', "line 1: byte 0xff is not UTF-8"),
        (b'[{"a": 1},\n{"a": 1,\n', "line 1: a JSON array with an element that is not JSON"),
        (b'[{"a": 1}]\n[{"a": 1}]\n', "a JSON array with an element that is not JSON"),
        (b'[{"a": 1}] x', "a JSON array with"),
        (b'[{"a": 1},]', "a JSON array with"),
        (b'[{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]", "a JSON array with"),
    ],
)
def test_a_json_array_that_is_wrong(tmp_path, content, message):
    with pytest.raises(UserError) as error:
        list(read_rows(write(tmp_path / "t.jsonl", content)))
    assert message in str(error.value)


def test_a_quote_that_swallows_lines_of_a_tsv_is_reported_once(tmp_path, capsys):
    path = write(tmp_path / "t.tsv", 'id\tpost\n1\t"hello there\n2\tgood day"\n3\t"a\nb"\n4\tc\n')
    assert len(list(read_rows(path))) == len(list(read_rows(path))) == 3
    output = capsys.readouterr().err
    assert output.count("t.tsv, line 2: a quoted field spans 2 lines") == output.count("spans") == 1
    list(read_rows(write(tmp_path / "t.csv", 'id,post\n1,"two\nlines"\n')))
    assert capsys.readouterr().err == "", "usual in CSV"


def test_a_blank_line_is_a_row_where_there_is_one_column(tmp_path):
    assert [row.values["a"] for row in read_rows(write(tmp_path / "t.csv", "a\n1\n\n2\n"))] == ["1", "", "2"]
    assert [row.line for row in read_rows(write(tmp_path / "t.csv", "\na,b\n\n1,2\n\n"))] == [4]


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("t.csv", b"a\n1\n" + b"x" * 2000 + b"\n", 3),
        ("t.csv.gz", b"a\n" + b"x" * 2000, 2),
        ("t.tsv", b'a\n"' + b"x\n" * 1000 + b'"\n', 501),
        ("t.jsonl", b'{"a": 1}\n{"a": "' + b"x" * 2000 + b'"}\n', 2),
        ("t.jsonl", b'[{"a": 1},\n{"a": "' + b"x" * 2000 + b'"}]\n', 1),
    ],
)
def test_a_record_that_is_too_long_is_refused_unread(tmp_path, monkeypatch, name, content, line, lenient):
    monkeypatch.setattr(reading, "LONGEST", 1000)
    monkeypatch.setattr(reading, "CHUNK", 100)
    with pytest.raises(UserError, match=rf"{name}, line {line}: a (record|JSON array with an element) .*more than"):
        list(read_rows(write(tmp_path / name, content), lenient=lenient))


def test_too_many_columns_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"line 1: 10,001 columns; expected at most 10,000"):
        list(read_rows(write(tmp_path / "t.csv", "a" + ",a" * 10_000)))


def test_long_rows_come_in_smaller_windows(monkeypatch):
    monkeypatch.setattr(reading, "WINDOW_BYTES", 10)
    assert [len(window) for window in in_windows(["x" * 6] * 5 + ["y"] * 4, 3)] == [2, 2, 3, 2]


SHARED = {
    "text": (["x" * 1000] * 50, pyarrow.string()),
    "large": (["x" * 1000] * 49 + [None], pyarrow.large_string()),
    "bytes": ([b"x" * 1000] * 50, pyarrow.binary()),
    "dictionary": (["x" * 1000] * 50, pyarrow.dictionary(pyarrow.int8(), pyarrow.string())),
    "list": ([["x" * 400, None, "y" * 600]] * 48 + [None, []], pyarrow.list_(pyarrow.string())),
    "struct": ([{"a": 1, "b": "x" * 1000}] * 50, pyarrow.struct({"a": pyarrow.int8(), "b": pyarrow.string()})),
    "map": ([[("x" * 1000, 1)]] * 50, pyarrow.map_(pyarrow.string(), pyarrow.int8())),
    "fixed": ([["x" * 500, "y" * 500]] * 50, pyarrow.list_(pyarrow.string(), 2)),
}


@pytest.mark.parametrize("kind", SHARED)
def test_parquet_is_read_in_steps_by_what_its_rows_hold(tmp_path, monkeypatch, kind):
    """A text that many rows share takes no room in the file: neither its size nor a number of rows tells what they hold."""
    values, column_type = SHARED[kind]
    pyarrow.parquet.write_table(pyarrow.table({"a": pyarrow.array(values, column_type)}), tmp_path / "t.parquet")
    monkeypatch.setattr(parquet, "BYTES", 5500)
    steps, read = [], parquet._python_values
    monkeypatch.setattr(parquet, "_python_values", lambda path, step: steps.append(len(step)) or read(path, step))
    rows = [row.values["a"] for row in read_rows(tmp_path / "t.parquet")]
    assert rows == values
    assert max(steps) <= 8
    assert max(steps[:4]) == 5
    monkeypatch.setattr(reading, "LONGEST", 900)
    with pytest.raises(UserError, match=r"t\.parquet, row 1: a row of more than 0 MB"):
        next(read_rows(tmp_path / "t.parquet"))


def test_parquet_that_unpacks_to_much_more_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "UNPACKED", 100_000)
    texts = [f"{number}{'x' * 50_000}" for number in range(20)]
    pyarrow.parquet.write_table(pyarrow.table({"a": texts}), tmp_path / "t.parquet", compression="zstd")
    with pytest.raises(UserError, match=r"t\.parquet, column 'a': [\d,]+ bytes that unpack to 1,0\d\d,\d+"):
        next(read_rows(tmp_path / "t.parquet"))


MEMORY = """
import re, sys
import numpy, pyarrow.compute, pyarrow.parquet
from pathlib import Path
from common.cli.errors import UserError
from common.tables.reading import read_rows
def peak():  # of this program; getrusage begins with what the process that started it had in memory
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
before = peak()
for name in sys.argv[1:]:
    try:
        print(len(next(read_rows(Path(name), lenient=True)).values["post"]))
    except UserError as error:
        print(error)
    print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="measured as on Linux")
def test_small_files_do_not_exhaust_memory(tmp_path):
    """A cell of 150 MB in a small .csv.gz, and a text of 600 kB in each of 1,024 rows of a small Parquet file."""
    with gzip.open(tmp_path / "t.csv.gz", "wb", compresslevel=1) as file:
        file.write(b"post\n")
        for _ in range(150):
            file.write(b"x" * 10**6)
    pyarrow.parquet.write_table(pyarrow.table({"post": ["x" * 600_000] * 1024}), tmp_path / "t.parquet")
    assert all(path.stat().st_size < 2 * 10**6 for path in tmp_path.iterdir())
    names = [str(tmp_path / name) for name in ("t.csv.gz", "t.parquet")]
    result = subprocess.run([sys.executable, "-c", MEMORY, *names], cwd=ROOT, capture_output=True, text=True)
    refusal, of_cell, length, of_texts = result.stdout.splitlines()
    assert "t.csv.gz, line 2: a record of more than 16 MB" in refusal
    assert length == "600000"
    assert float(of_cell) < 120, of_cell
    assert float(of_texts) < 500, of_texts


def test_long_texts_in_a_large_row_group_are_refused(tmp_path, monkeypatch):
    """They compress less than a bomb, but they share a page, which is unpacked whole."""
    pyarrow.parquet.write_table(pyarrow.table({"post": ["florbs sing " * 100_000] * 8}), tmp_path / "t.parquet")
    assert len(list(read_rows(tmp_path / "t.parquet"))) == 8
    monkeypatch.setattr("common.tables.parquet.UNPACKED", 10**5)
    with pytest.raises(
        UserError, match=r"t.parquet, column 'post': texts of [0-9,]+ bytes on average\. Write it again"
    ):
        list(read_rows(tmp_path / "t.parquet"))


def test_a_broken_gzip_and_a_missing_file(tmp_path):
    whole = gzip.compress(b"a,b\n" + b"1,2\n" * 1000)
    (tmp_path / "t.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="broken gzip data"):
        list(read_rows(tmp_path / "t.csv.gz"))
    (tmp_path / "u.csv.gz").write_bytes(b"a,b\n")
    with pytest.raises(UserError, match="can't be read"):
        list(read_rows(tmp_path / "u.csv.gz"))
    with pytest.raises(UserError, match="no such file"):
        list(read_rows(tmp_path / "nowhere.csv"))


def test_reading_is_streamed(tmp_path):
    path = write(tmp_path / "t.jsonl", '{"a": 1}\nbroken\n')
    rows = read_rows(path)
    assert next(rows).values == {"a": 1}
    with pytest.raises(UserError, match="line 2"):
        next(rows)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv.gz", "t.jsonl", "t.parquet"])
def test_writing_keeps_columns_that_only_some_rows_have(tmp_path, name):
    write_rows(tmp_path / name, [{"a": "1"}, {"a": "2", "note": "x"}], ["b", "a"])
    rows_read = [row.values for row in read_rows(tmp_path / name)]
    assert [row.get("note") or "" for row in rows_read] == ["", "x"]
    assert [row["a"] for row in rows_read] == ["1", "2"]
    if name.endswith(("csv", "tsv.gz")):
        assert list(rows_read[0]) == ["b", "a", "note"]


def test_json_has_no_nan(tmp_path):
    values = {"a": float("nan"), "b": [1.5, {"c": float("inf")}], "d": "NaN"}
    write_rows(tmp_path / "t.jsonl", [values])
    expected = {"a": None, "b": [1.5, {"c": None}], "d": "NaN"}
    assert json.loads((tmp_path / "t.jsonl").read_text(), parse_constant=pytest.fail) == expected
    write_rows(tmp_path / "t.csv", [values])
    assert next(read_rows(tmp_path / "t.csv")).values["b"] == '[1.5, {"c": null}]'


def test_cells_that_begin_like_a_formula_are_kept_and_reported_once(tmp_path, capsys):
    posts = ["fine", "=1+1", "@someone", "-5", "+1.5e-3", "-", "-2%", "+cmd|x", 7]
    write_rows(tmp_path / "t.csv", [{"post": post} for post in posts])
    assert [row.values["post"] for row in read_rows(tmp_path / "t.csv")] == list(map(str, posts))
    output = capsys.readouterr().err
    assert output.count("\n") == 1
    assert "t.csv: cells that a spreadsheet may run as formulas: 3 (first: row 2, column 'post')" in output
    write_rows(tmp_path / "t.jsonl", [{"post": "=1+1"}])
    assert capsys.readouterr().err == ""


def test_long_rows_are_written_to_parquet_in_small_groups(tmp_path, monkeypatch):
    monkeypatch.setattr("common.tables.writing.PARQUET_BYTES", 1000)
    write_rows(tmp_path / "t.parquet", [{"a": {"b": ["x" * 300], "c": b"y" * 300}}] * 5)
    file = pyarrow.parquet.ParquetFile(tmp_path / "t.parquet")
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [2, 2, 1]


def test_writing_what_a_format_lacks(tmp_path):
    write_rows(tmp_path / "t.jsonl", [{"day": datetime.date(2026, 1, 2), "raw": b"caf\xc3\xa9 \xff"}])
    assert next(read_rows(tmp_path / "t.jsonl")).values == {"day": "2026-01-02", "raw": r"café \xff"}
    with pytest.raises(UserError, match=r"t.parquet: a column of mixed types: .*\. Write .jsonl instead"):
        write_rows(tmp_path / "t.parquet", [{"a": 1}, {"a": "x"}])
    assert not (tmp_path / "t.parquet").exists()


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1, 2.5], "double"), ([None, 3], "int64"), ([None, None], "null"), (["a", None], "string")],
)
def test_a_parquet_columns_type_holds_the_values_of_all_windows(tmp_path, values, expected):
    windows = [[{"a": value}] for value in values]
    assert str(parquet_schema(tmp_path / "t.parquet", windows).field("a").type) == expected


def test_values_that_no_parquet_type_holds_are_one_line(tmp_path):
    path = tmp_path / "t.parquet"
    with pytest.raises(UserError, match=r"t\.parquet: a column of mixed types"):
        parquet_schema(path, [[{"a": 1}], [{"a": "one"}]])
    rows = [{"a": 2**53 + 1}, {"a": 1.5}]  # an integer that a double cannot represent
    schema = parquet_schema(path, [[row] for row in rows])

    def write_all() -> None:
        with row_writer(path, ["a"], schema) as write:
            for row in rows:
                write(row)

    with pytest.raises(UserError, match=r"t\.parquet: a column of mixed types"):
        write_all()
    assert not path.exists()


@pytest.mark.parametrize(("delimiter", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_csv_of_other_countries_spreadsheets(tmp_path, capsys, delimiter, name, ending):
    text = f'\ufeff"the id"{delimiter}post\r\n1{delimiter}"a, {delimiter} b"\r\n1,5{delimiter}c\r\n'
    data = text.encode()
    path = write(tmp_path / f"t_{name}.{ending}", data)
    assert [row.values for row in read_rows(path)] == [
        {"the id": "1", "post": f"a, {delimiter} b"},
        {"the id": "1,5", "post": "c"},
    ]
    assert f"read as columns separated by {name}" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv.gz", "t.jsonl"])
def test_utf_16_with_a_byte_order_mark_is_read_and_said(tmp_path, monkeypatch, capsys, encoding, name):
    monkeypatch.setattr("common.tables.encodings.CHUNK", 3)  # characters of two and four bytes are divided
    rows = [{"id": "1", "post": "é 😀,\t„x“"}, {"id": "2", "post": "b"}]
    write_rows(tmp_path / f"{encoding}_{name}", rows)
    path = tmp_path / f"{encoding}_{name}"
    data = path.read_bytes()
    text = (gzip.decompress(data) if name.endswith(".gz") else data).decode()
    write(path, ("\ufeff" + text).encode(encoding))
    assert [row.values for row in read_rows(path)] == rows
    assert f"{path.name}: read as UTF-16" in capsys.readouterr().err


def test_a_single_column_of_text_with_semicolons_stays_one(tmp_path):
    path = write(tmp_path / "t.csv", "post\na; b\n")
    assert [row.values for row in read_rows(path)] == [{"post": "a; b"}]
    path = write(tmp_path / "u.csv", '"a, b; c",d\n1,2\n')
    assert [row.values for row in read_rows(path)] == [{"a, b; c": "1", "d": "2"}]
