"""Read the first sheet of a spreadsheet (.xlsx, .xls, .ods) row by row, and write one (.xlsx)."""

from __future__ import annotations

import contextlib
import datetime
import functools
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from common.cli.console import warn
from common.cli.errors import UserError, counted, file_name, shown

READABLE = (".xlsx", ".xls", ".ods")
LARGEST = 512 * 2**20  # bytes of an unpacked workbook, which is read whole
MOST_ROWS, LONGEST_CELL = 2**20, 32_767  # of a sheet of Excel: rows with the header, and characters of a cell
warn_once = functools.cache(warn)  # a file may be read several times


def read(path: Path, check: Callable[[Sequence[str]], None]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows below the header with their numbers in the sheet; ``check`` gets the names of the columns before.

    Whole numbers are integers, and dates are text as in ISO 8601. An empty cell is ``""``, as in a CSV file.

    Raises:
        UserError: Not a workbook, one with a password, or one that unpacks to more than memory should hold.
    """
    import python_calamine

    _check_size(path)
    try:
        with python_calamine.CalamineWorkbook.from_path(path) as book:
            visible = python_calamine.SheetVisibleEnum.Visible
            names = [each.name for each in book.sheets_metadata if each.visible == visible] or book.sheet_names
            if not names:
                raise UserError("no sheet", file=path, expected="a table in the first sheet")
            if len(names) > 1:
                others = ", ".join(map(shown, names[1:4])) + (", …" if len(names) > 4 else "")
                warn_once(f"{file_name(path)}: the sheet {shown(names[0])} is read, not {others}")
            sheet = book.get_sheet_by_name(names[0])
            first = sheet.start or (0, 0)
            rows = list(sheet.to_python(skip_empty_area=True))
    except (python_calamine.CalamineError, zipfile.BadZipFile, OSError) as error:
        problem = f"can't be read as a workbook: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        raise UserError(problem, file=path, fix="save it again, without a password") from None
    if not rows:
        raise UserError("empty file", file=path, expected="a header row in its first sheet")
    header = _header(path, rows[0], rows[1:], first[1])
    check(list(header.values()))
    for number, cells in enumerate(rows[1:], first[0] + 2):
        values = {name: value(cells[place]) for place, name in header.items()}
        if any(each != "" for each in values.values()):
            yield number, values


def _header(path: Path, head: Sequence[Any], rows: Sequence[Sequence[Any]], first: int) -> dict[int, str]:
    """Return the place and name of each column; ``first`` is the sheet's column of place 0.

    A column that has values and no name is called by its letter, with a warning.
    """
    header = {place: str(value(cell)).strip() for place, cell in enumerate(head)}
    unnamed = [place for place, name in header.items() if not name and any(cells[place] != "" for cells in rows)]
    if unnamed:
        from xlsxwriter.utility import xl_col_to_name

        header |= {place: f"column {xl_col_to_name(first + place)}" for place in unnamed}
        names = ", ".join(header[place] for place in unnamed[:3]) + (", …" if len(unnamed) > 3 else "")
        warn_once(f"{file_name(path)}: values without a name in the header are kept as {names}")
    return {place: name for place, name in header.items() if name}


def value(cell: Any) -> Any:
    """Return a cell's value: text, a number, or whether something is true."""
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53:
        return int(cell)
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        return cell.date().isoformat()
    if isinstance(cell, datetime.date | datetime.time):
        return cell.isoformat()
    return str(cell) if isinstance(cell, datetime.timedelta) else cell


def _check_size(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as packed:
        size = sum(each.file_size for each in packed.infolist())
    if size > LARGEST:
        problem = f"a workbook that unpacks to {size / 2**20:,.0f} MB"
        raise UserError(problem, file=path, expected=f"at most {LARGEST / 2**20:.0f} MB", fix="save it as CSV UTF-8")


def check_fits(path: Path, *, rows: int = 0, longest: int = 0, column: str | None = None) -> None:
    """Check that a sheet can hold so many rows below its header, and so long a text."""
    fix = "write .csv or .parquet"
    if rows >= MOST_ROWS:
        raise UserError(f"more than {counted(MOST_ROWS - 1, 'row')}", file=path, fix=fix)
    if longest > LONGEST_CELL:
        expected = f"at most {LONGEST_CELL:,}, the most that Excel takes"
        raise UserError(f"a text of {longest:,} characters", file=path, column=column, expected=expected, fix=fix)


@contextlib.contextmanager
def writer(path: Path, part: Path, columns: Sequence[str], text: Callable[[Any], str]) -> Iterator[Callable]:
    """Yield a function that writes the values of a row to a sheet of ``part``; ``path`` is what the user called the file.

    Text stays text, also where it looks like a formula or an address. ``text`` writes what is neither text nor a number. Equal
    rows give equal bytes.
    """
    import xlsxwriter

    options = {
        "constant_memory": True,
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "strings_to_numbers": False,
    }
    with xlsxwriter.Workbook(part, options) as book:
        book.set_properties({"created": datetime.datetime(2000, 1, 1)})
        sheet = book.add_worksheet()
        row = 0

        def write(values: Sequence[Any]) -> None:
            nonlocal row
            check_fits(path, rows=row)
            for column, each in enumerate(values):
                if each is None or each == "" or (isinstance(each, float) and not math.isfinite(each)):
                    continue
                if isinstance(each, bool):
                    sheet.write_boolean(row, column, each)
                elif isinstance(each, int | float) and abs(each) < 2**53:
                    sheet.write_number(row, column, each)
                else:
                    content = each if isinstance(each, str) else text(each)
                    check_fits(path, longest=len(content), column=columns[column])
                    sheet.write_string(row, column, content)
            row += 1

        write(columns)
        yield write
