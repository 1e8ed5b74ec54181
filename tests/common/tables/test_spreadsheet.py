"""Test spreadsheets: cells are what people see, text stays text, and what can't be read is refused in one line."""

from __future__ import annotations

import datetime
import decimal
import math
import zipfile

import pytest
import xlsxwriter

from common.cli.errors import UserError
from common.tables import spreadsheet
from common.tables.reading import read_rows, text_of
from common.tables.writing import write_rows

ODS = (
    '<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" '
    'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" '
    'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" office:version="1.2"><office:body><office:spreadsheet>'
    '<table:table table:name="S">{}</table:table></office:spreadsheet></office:body></office:document-content>'
)
MANIFEST = '<manifest:manifest xmlns:manifest="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"/>'


def workbook(path, *sheets, hidden=()):
    with xlsxwriter.Workbook(path, {"default_date_format": "yyyy-mm-dd"}) as book:
        for number, rows in enumerate(sheets):
            sheet = book.add_worksheet()
            for place, row in enumerate(rows):
                for column, cell in enumerate(row):
                    write = sheet.write_string if isinstance(cell, str) else sheet.write
                    write(place, column, cell)
            if number in hidden:
                sheet.hide()
            elif number == min(set(range(len(sheets))) - set(hidden)):
                sheet.activate()
                sheet.set_first_sheet()
    return path


def values(path, columns=()):
    return [row.values for row in read_rows(path, columns)]


def test_cells_are_what_people_typed(tmp_path):
    when = datetime.datetime(2026, 3, 1, 14, 30)
    cells = ["007", "1e5", "NA", "None", "=1+1", 3, 2.5, True, datetime.date(2026, 3, 1), when, "a\nb", " x "]
    path = workbook(tmp_path / "t.xlsx", [[f"c{i}" for i in range(len(cells))], cells])
    (row,) = read_rows(path)
    assert list(row.values.values()) == [
        *("007", "1e5", "NA", "None", "=1+1", 3, 2.5, True, "2026-03-01", "2026-03-01T14:30:00", "a\nb", " x ")
    ]
    assert text_of(row, "c5") == "3"


def test_rows_have_their_numbers_in_the_sheet_and_empty_ones_are_left_out(tmp_path):
    path = workbook(tmp_path / "t.xlsx", [[], ["id", "post"], [1, "a"], [], [2, "b"]])
    rows = list(read_rows(path, ("id", "post")))
    assert [(row.line, row.number) for row in rows] == [(3, 1), (5, 2)]
    with pytest.raises(UserError, match="missing column 'text'"):
        values(path, ("text",))


def test_columns_without_a_name_that_have_values_are_kept(tmp_path, capsys):
    cells = [[], [None, "post", None, "n", None], [None, "a", None, 1, "later"], [*[None] * 4, "alone"]]
    path = workbook(tmp_path / "t.xlsx", cells)
    for _ in range(2):
        assert values(path) == [
            {"post": "a", "n": 1, "column E": "later"},
            {"post": "", "n": "", "column E": "alone"},
        ]
    assert capsys.readouterr().err.count("values without a name in the header are kept as column E") == 1


def test_the_first_visible_sheet_is_read_and_named(tmp_path, capsys):
    path = workbook(tmp_path / "t.xlsx", [["a"], [1]], [["a"], [2]], [["a"], [3]], hidden={0})
    assert values(path) == [{"a": 2}]
    assert "the sheet 'Sheet2' is read, not 'Sheet3'" in capsys.readouterr().err


def test_open_documents_are_read(tmp_path):
    cell = "<table:table-cell office:value-type='string'><text:p>{}</text:p></table:table-cell>"
    rows = "".join(
        f"<table:table-row>{''.join(map(cell.format, row))}</table:table-row>" for row in (["id", "post"], ["1", "ä"])
    )
    with zipfile.ZipFile(tmp_path / "t.ods", "w") as file:
        file.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        file.writestr("META-INF/manifest.xml", MANIFEST)
        file.writestr("content.xml", ODS.format(rows))
    assert values(tmp_path / "t.ods") == [{"id": "1", "post": "ä"}]
    with pytest.raises(UserError, match=r"unknown file format; expected .csv, .tsv, .jsonl, .parquet, .xlsx;"):
        write_rows(tmp_path / "out.ods", [{"a": 1}])


def test_what_is_written_is_read_again_and_equal_tables_are_equal_files(tmp_path):
    rows = [
        {"post": "=HYPERLINK(1)", "n": 1, "x": 0.25, "yes": True, "list": ["a"]},
        {"post": "http://a.example 007", "n": None, "x": 1e300, "yes": False, "list": None},
        {"post": "not a number", "n": 2, "x": math.nan, "yes": False, "list": None},
    ]
    for name in ("a", "b"):
        write_rows(tmp_path / f"{name}.xlsx", rows)
    assert (tmp_path / "a.xlsx").read_bytes() == (tmp_path / "b.xlsx").read_bytes()
    assert values(tmp_path / "a.xlsx") == [
        {"post": "=HYPERLINK(1)", "n": 1, "x": 0.25, "yes": True, "list": '["a"]'},
        {"post": "http://a.example 007", "n": "", "x": "1e+300", "yes": False, "list": ""},
        {"post": "not a number", "n": 2, "x": "", "yes": False, "list": ""},
    ]


def test_a_workbook_has_the_cells_of_csv(tmp_path):
    when = datetime.datetime(2026, 3, 1, 14, 30)
    row = {
        "when": when,
        "day": when.date(),
        "price": decimal.Decimal("1.50"),
        "raw": b"caf\xc3\xa9 \xff",
        "all": [when],
    }
    for name in ("t.csv", "t.xlsx"):
        write_rows(tmp_path / name, [row])
        assert values(tmp_path / name) == [
            {
                "when": "2026-03-01 14:30:00",
                "day": "2026-03-01",
                "price": "1.50",
                "raw": r"café \xff",
                "all": '["2026-03-01 14:30:00"]',
            }
        ]


def test_what_excel_cannot_hold_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(UserError, match=r"column 'post': a text of 32,768 characters; expected at most 32,767"):
        write_rows(tmp_path / "t.xlsx", [{"post": "a" * 32_768}])
    assert not list(tmp_path.iterdir())


def test_what_is_no_workbook_is_refused_in_one_line(tmp_path, monkeypatch):
    (tmp_path / "t.xlsx").write_bytes(b"id,post\n1,a\n")
    with pytest.raises(UserError, match="can't be read as a workbook"):
        values(tmp_path / "t.xlsx")
    workbook(tmp_path / "empty.xlsx", [])
    with pytest.raises(UserError, match="empty file; expected a header row"):
        values(tmp_path / "empty.xlsx")
    workbook(tmp_path / "twice.xlsx", [["a", "a"], [1, 2]])
    with pytest.raises(UserError, match="duplicate column 'a'"):
        values(tmp_path / "twice.xlsx")
    monkeypatch.setattr(spreadsheet, "LARGEST", 1000)
    with pytest.raises(UserError, match="a workbook that unpacks to 0 MB"):
        values(workbook(tmp_path / "large.xlsx", [["a"], ["b"]]))
