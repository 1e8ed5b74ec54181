"""Test SPSS and Stata files: labels, missing values, dates and texts are what people see in these programs."""

from __future__ import annotations

import datetime

import pandas
import pyreadstat
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.cli.errors import UserError
from common.tables import survey
from common.tables.reading import read_rows
from common.tables.writing import write_rows

LABELS = {"answer": {1: "Offensive", 2: "Nicht anstößig", 9: "refused"}}
LONG = "ä" * 300  # longer than the 255 bytes of a string that SPSS stores in one piece
WHEN = datetime.datetime(2026, 3, 1, 14, 30)


def table():
    columns = {
        "id": [1.0, 2.0, 3.0, 4.5],
        "post": ["„é“; NA", "007", "", LONG],
        "answer": [1.0, 2.0, None, 7.0],
        "day": [datetime.date(2026, 3, 1), None, datetime.date(1899, 12, 31), datetime.date(2000, 2, 29)],
        "when": [WHEN, None, datetime.datetime(2026, 3, 1), WHEN],
    }
    return pandas.DataFrame(columns)


def write(path, frame, **options):
    writer = pyreadstat.write_sav if path.suffix == ".sav" else pyreadstat.write_dta
    writer(frame, path, **options)
    return path


def values(path):
    return [row.values for row in read_rows(path)]


@pytest.mark.parametrize("step", [survey.ROWS, 1, 2, 3])
@pytest.mark.parametrize("name", ["t.sav", "t.dta"])
def test_cells_are_what_people_see_however_many_are_read_at_once(tmp_path, monkeypatch, name, step):
    monkeypatch.setattr(survey, "ROWS", step)
    path = write(tmp_path / name, table(), variable_value_labels=LABELS)
    assert [list(row.values()) for row in values(path)] == [
        [1, "„é“; NA", "Offensive", "2026-03-01", "2026-03-01T14:30:00"],
        [2, "007", "Nicht anstößig", "", ""],
        [3, "", "", "1899-12-31", "2026-03-01T00:00:00"],
        [4.5, LONG, 7, "2000-02-29", "2026-03-01T14:30:00"],
    ]
    assert [(row.line, row.number) for row in read_rows(path, ("post",))] == [(None, n) for n in range(1, 5)]
    with pytest.raises(UserError, match="missing column 'text'"):
        list(read_rows(path, ("text",)))


def test_values_declared_missing_are_empty(tmp_path):
    frame = pandas.DataFrame({"answer": [1.0, 9.0, None]})
    path = write(tmp_path / "t.sav", frame, variable_value_labels=LABELS, missing_ranges={"answer": [9]})
    assert values(path) == [{"answer": "Offensive"}, {"answer": ""}, {"answer": ""}]
    frame = pandas.DataFrame({"answer": [1.0, "a", None]}, dtype=object)
    path = write(tmp_path / "t.dta", frame, missing_user_values={"answer": ["a"]})
    assert values(path) == [{"answer": 1}, {"answer": ""}, {"answer": ""}]


def test_texts_may_have_labels_and_labels_that_say_the_same_are_named(tmp_path, capsys):
    frame = pandas.DataFrame({"code": ["y", "n", "?"], "n": [1.0, 2.0, 3.0]})
    labels = {"code": {"y": "yes", "n": "no"}, "n": {1: "same", 2: "same", 3: " "}}
    path = write(tmp_path / "t.sav", frame, variable_value_labels=labels)
    assert [list(row.values()) for row in values(path)] == [["yes", "same"], ["no", "same"], ["?", 3]]
    assert "t.sav, column 'n': several values have the label 'same'" in capsys.readouterr().err


def test_numbers_of_single_precision_have_no_more_digits_than_they_were_given(tmp_path):
    frame = pandas.DataFrame({"x": [0.1, 3.0]}, dtype="float32")
    frame.to_stata(tmp_path / "t.dta", write_index=False)  # pyreadstat would write doubles
    assert values(tmp_path / "t.dta") == [{"x": 0.1}, {"x": 3}]


def test_a_file_of_an_old_windows_version_of_spss(tmp_path):
    path = write(tmp_path / "t.sav", pandas.DataFrame({"post": ["gr#n"]}))
    data = path.read_bytes()
    name = b"\7\0\0\0\x14\0\0\0\1\0\0\0\5\0\0\0UTF-8"  # the record that names the encoding, which old versions lack
    code = (65001).to_bytes(4, "little")
    assert data.count(name) == data.count(code) == data.count(b"gr#n") == 1
    data = data.replace(name, name.replace(b"\x14", b"\x63")).replace(code, (1252).to_bytes(4, "little"))
    path.write_bytes(data.replace(b"gr#n", b"gr\xfcn"))
    assert values(path) == [{"post": "grün"}]
    path.write_bytes(path.read_bytes().replace((1252).to_bytes(4, "little"), code))
    with pytest.raises(UserError, match=r"t\.sav: can't be read as SPSS data: .* Save it again, with Unicode text"):
        values(path)


@pytest.mark.parametrize("name", ["t.sav", "t.dta"])
def test_what_is_broken_or_can_only_be_read_is_refused_in_one_line(tmp_path, name):
    path = tmp_path / name
    whole = write(path, table()).read_bytes()
    (tmp_path / "t.csv").write_bytes(whole)
    with pytest.raises(UserError, match=f"S.* data; expected CSV in UTF-8. Name it {path.suffix}"):
        values(tmp_path / "t.csv")
    for data in (b"", b"id,post\n1,a\n", whole[:300], whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(UserError, match="can't be read as S"):
            values(path)
    with pytest.raises(UserError, match=r"unknown file format; expected .csv, .tsv, .jsonl, .parquet, .xlsx;"):
        write_rows(path, [{"a": 1}])


@pytest.mark.properties
@pytest.mark.parametrize("name", ["t.sav", "t.dta"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["C", "Z"]), max_size=300), st.integers(-(2**53) + 1, 2**53 - 1)
        ),
        min_size=1,
        max_size=5,
    )
)
def test_texts_and_whole_numbers_are_read_as_they_were_written(tmp_path, name, rows):
    frame = pandas.DataFrame(rows, columns=["post", "n"]).astype({"n": "float64"})
    assert [tuple(row.values()) for row in values(write(tmp_path / name, frame))] == rows
