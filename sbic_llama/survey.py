"""What a first reading of posts finds, before a model is loaded: files, rows, columns, and what can't be annotated."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import UserError, shown
from common.stages import say
from common.tables import FORMATS, Row, read_rows, table_format
from sbic_llama.corpus import clean

SHOWN = 5  # problems that are told one by one


@dataclass
class Survey:
    """What a first reading of a whole file found.

    Attributes:
        path: The file.
        rows: How many rows there are.
        columns: Their columns, in order of appearance.
        kinds: Of JSON Lines, the kinds of values in each column, as :func:`kind_of` names them.
        problems: How many rows can't be annotated.
        digest: SHA-256 of the file's bytes.
    """

    path: Path
    rows: int = 0
    columns: list[str] = field(default_factory=list)
    kinds: dict[str, set[str]] = field(default_factory=dict)
    problems: int = 0
    digest: str = ""


def files_of(source: Path) -> list[Path]:
    """The files of posts in a folder, by name, or the one file that was given. Hidden files are left out.

    Raises:
        UserError: Something else lies in the folder, or nothing.
    """
    if not source.is_dir():
        return [source]
    found = sorted(path for path in source.iterdir() if not path.name.startswith("."))
    for path in found:
        if path.is_dir():
            raise UserError("a folder in a folder of posts", file=path, fix="annotate each by itself")
        table_format(path)
    if not found:
        raise UserError("no files", file=source, expected=f"files ending in {', '.join(FORMATS)}")
    return found


def survey(path: Path, text_column: str, *, strict: bool) -> Survey:
    """Reads the whole file once, before any model is loaded, and tells which rows can't be annotated.

    Raises:
        UserError: A file that can't be read, or with ``strict`` its first row that can't be annotated.
    """
    found = Survey(path)
    columns: dict[str, set[str]] = {}
    for row in read_rows(path, () if table_format(path) == ".jsonl" else (text_column,), lenient=not strict):
        found.rows += 1
        for name, value in row.values.items():
            columns.setdefault(name, set()).add(kind_of(value))
        if reason := problem(row, text_column):
            found.problems += 1
            error = row.error(f"row {row.number}: {reason}", text_column)
            if strict:
                raise error
            if found.problems <= SHOWN:
                say(f"{error}: it is kept without an annotation")
    if found.problems > SHOWN:
        say(f"{found.problems:,} rows in all are kept without an annotation")
    if not found.rows:
        raise UserError("no rows", file=path, expected="at least one post")
    if text_column not in columns:
        raise UserError(f"missing column {text_column!r}", file=path, expected=f"it among {shown(list(columns), 200)}")
    found.columns, found.kinds = list(columns), columns
    with open(path, "rb") as file:
        found.digest = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def kind_of(value: Any) -> str:
    """The name of a value's type. A whole number is ``int`` as far as a float holds it, ``long`` in 64 bits, and ``huge``."""
    if type(value) is not int or abs(value) <= 2**53:
        return type(value).__name__
    return "long" if -(2**63) <= value < 2**63 else "huge"


def problem(row: Row, text_column: str) -> str | None:
    """Why a row can't be annotated, if it can't."""
    if row.problem:
        return row.problem
    text = row.values.get(text_column)
    if text is None or (isinstance(text, str) and not clean(text)):  # nothing that a model would read
        return "no text"
    if isinstance(text, float) and text != text:
        return "no text"
    return None if isinstance(text, str) else f"{type(text).__name__} instead of text"
