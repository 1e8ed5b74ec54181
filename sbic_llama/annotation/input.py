"""The windows of rows that posts are annotated in: what is to be done of each, and what is done."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.tables.reading import read_rows

if TYPE_CHECKING:
    from sbic_llama.model.annotator import Annotator

import hashlib
from dataclasses import field
from pathlib import Path

from common.cli.console import log
from common.cli.errors import UserError, shown
from common.tables.reading import FORMATS, Row, table_format
from sbic_llama.data.corpus import clean

WINDOW = 256  # rows a part: what a killed run loses at most


@dataclass(frozen=True)
class Window:
    """The rows of a part: which of them can't be annotated, and the posts of the others.

    Attributes:
        file: The number of the rows' file.
        number: The part's number in it.
        reasons: A row's reason why not, or None.
        posts: The posts of the rows without one.
    """

    file: int
    number: int
    reasons: list[str | None]
    posts: list[str]


@dataclass(frozen=True)
class Part:
    """A window's annotation.

    Attributes:
        file: The number of the rows' file.
        number: The part's number in it.
        rows: How many rows.
        text: A JSON object a row, as it is written.
        cut: How often a post was longer than an adapter reads.
    """

    file: int
    number: int
    rows: int
    text: str
    cut: int


@dataclass(frozen=True)
class RowFormat:
    """How rows are made of posts and answers.

    Attributes:
        text_column: The posts' column.
        prefix: What the names of new columns begin with.
        thresholds: By feature, the confidence under which an answer goes to a person.
    """

    text_column: str
    prefix: str
    thresholds: dict[str, float]


def windows(files: Sequence[Survey], wanted: Iterable[tuple[int, int]], text_column: str) -> Iterator[Window]:
    """The windows of the ``wanted`` parts, in order; each file is read once, as a stream."""
    for file, group in itertools.groupby(sorted(wanted), key=lambda part: part[0]):
        rows, at = read_rows(files[file].path, lenient=True), 0
        for _, number in group:
            start, at = (number - at) * WINDOW, number + 1
            window = list(itertools.islice(rows, start, start + WINDOW))
            reasons = [problem(row, text_column) for row in window]
            posts = [row.values[text_column] for row, reason in zip(window, reasons, strict=True) if not reason]
            yield Window(file, number, reasons, posts)


def annotated(window: Window, annotator: Annotator, rule: RowFormat) -> Part:
    """A window's annotation: the same text wherever it is made.

    A row goes to a person where an answer is less sure than its feature's threshold, or where there is none.
    """
    cut = annotator.cut
    answers, lines = iter(annotator.annotate_window(window.posts)), []
    for reason in window.reasons:
        values = {} if reason else {name: _rounded(value) for name, value in next(answers).items()}
        if rule.thresholds:
            values["needs_review"] = bool(reason) or any(
                adapter.confidence(values) < rule.thresholds[adapter.name] for adapter in annotator.adapters
            )
        row = {f"{rule.prefix}{name}": value for name, value in values.items()}
        lines.append(json.dumps(row | {f"{rule.prefix}problem": reason}, ensure_ascii=False) + "\n")
    return Part(window.file, window.number, len(lines), "".join(lines), annotator.cut - cut)


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


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
                log(f"{error}: it is kept without an annotation")
    if found.problems > SHOWN:
        log(f"{found.problems:,} rows in all are kept without an annotation")
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
