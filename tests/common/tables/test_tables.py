from __future__ import annotations

import datetime
import gzip
import io

import pyarrow
import pyarrow.parquet
import pytest

from common.cli.errors import UserError
from common.tables.reading import read_hub_rows, read_rows
from common.tables.writing import parquet_types, row_writer, write_rows


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
        import json

        write(path, "".join(json.dumps(row) + "\n\n" for row in rows))
    else:
        import csv

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
        ("t.xlsx", "", "unknown file format; expected .csv"),
        ("t.csv", "", "empty file; expected a header line"),
        ("t.csv", "id;post\n1;a\n", "line 1: one column, 'id;post'; expected columns separated by commas"),
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


def test_hub_datasets_come_through_the_real_client(hub, tmp_path):
    from huggingface_hub import HfApi

    rows = [{"text": f"post {i}", "n": i} for i in range(5)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train-00000-of-00001.parquet")
    HfApi().create_repo("miniature/table", repo_type="dataset")
    HfApi().upload_folder(repo_id="miniature/table", repo_type="dataset", folder_path=tmp_path, path_in_repo="data")
    rows_read = list(read_hub_rows("miniature/table", "train", ["text"]))
    assert [row.values for row in rows_read] == rows
    assert str(rows_read[2].error("bad", "n")) == "miniature/table (train), row 3, column 'n': bad"
    with pytest.raises(UserError, match="missing column 'label'"):
        list(read_hub_rows("miniature/table", "train", ["label"]))
    for id, split in (("miniature/nowhere", "train"), ("miniature/table", "exam")):
        with pytest.raises(UserError, match="can't be loaded from the Hub"):
            list(read_hub_rows(id, split))


@pytest.mark.parametrize("name", ["t.csv", "t.tsv.gz", "t.jsonl", "t.parquet"])
def test_writing_keeps_columns_that_only_some_rows_have(tmp_path, name):
    write_rows(tmp_path / name, [{"a": "1"}, {"a": "2", "note": "x"}], ["b", "a"])
    rows_read = [row.values for row in read_rows(tmp_path / name)]
    assert [row.get("note") or "" for row in rows_read] == ["", "x"]
    assert [row["a"] for row in rows_read] == ["1", "2"]
    if name.endswith(("csv", "tsv.gz")):
        assert list(rows_read[0]) == ["b", "a", "note"]


def test_writing_what_a_format_lacks(tmp_path):
    write_rows(tmp_path / "t.jsonl", [{"day": datetime.date(2026, 1, 2)}])
    assert next(read_rows(tmp_path / "t.jsonl")).values == {"day": "2026-01-02"}
    with pytest.raises(UserError, match=r"t.parquet: a column of mixed types: .*\. Write .jsonl instead"):
        write_rows(tmp_path / "t.parquet", [{"a": 1}, {"a": "x"}])
    assert not (tmp_path / "t.parquet").exists()


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1, 2.5], "double"), ([None, 3], "int64"), ([None, None], "null"), (["a", None], "string")],
)
def test_a_parquet_columns_type_holds_the_values_of_all_windows(tmp_path, values, expected):
    windows = [[{"a": value}] for value in values]
    assert str(parquet_types(tmp_path / "t.parquet", windows)["a"]) == expected


def test_values_that_no_parquet_type_holds_are_one_line(tmp_path):
    path = tmp_path / "t.parquet"
    with pytest.raises(UserError, match=r"t\.parquet: a column of mixed types"):
        parquet_types(path, [[{"a": 1}], [{"a": "one"}]])
    rows = [{"a": 2**53 + 1}, {"a": 1.5}]  # an integer that a double cannot represent
    types = parquet_types(path, [[row] for row in rows])

    def write_all() -> None:
        with row_writer(path, ["a"], types) as write:
            for row in rows:
                write(row)

    with pytest.raises(UserError, match=r"t\.parquet: a column of mixed types"):
        write_all()
    assert not path.exists()
