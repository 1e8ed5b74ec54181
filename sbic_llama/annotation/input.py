"""Survey files of posts, and annotate them in windows of rows."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli.console import log
from common.cli.errors import UserError, shown
from common.tables.reading import FORMATS, Row, read_rows, table_format
from sbic_llama.data.corpus import clean

if TYPE_CHECKING:
    from sbic_llama.model.annotator import Annotator

WINDOW = 256  # rows per part, the most that a killed run loses
SHOWN = 5  # problems that are printed one by one


@dataclass
class Survey:
    """What a first pass over a file found."""

    path: Path
    rows: int = 0
    columns: list[str] = field(default_factory=list)  # in order of appearance
    kinds: dict[str, set[str]] = field(default_factory=dict)  # kinds of values in each column, see `kind_of`
    problems: int = 0  # rows that cannot be annotated
    digest: str = ""  # SHA-256 of the file's bytes


@dataclass(frozen=True)
class Window:
    """The rows of a part, by the numbers of file and part."""

    file: int
    number: int
    reasons: list[str | None]  # why a row cannot be annotated, or None
    posts: list[str]  # of the other rows


@dataclass(frozen=True)
class Part:
    """A window's annotation, by the numbers of file and part."""

    file: int
    number: int
    rows: int
    text: str  # a JSON object per row, as written
    cut: int  # how many posts were truncated, counted per adapter


@dataclass(frozen=True)
class RowFormat:
    """How rows are made from posts and answers."""

    text_column: str
    prefix: str  # of the new columns
    thresholds: dict[str, float]  # by feature, the confidence below which an answer needs review


def files_of(source: Path) -> list[Path]:
    """Return the files of a folder by name, without hidden ones, or the given file itself."""
    if not source.is_dir():
        return [source]
    paths = sorted(path for path in source.iterdir() if not path.name.startswith("."))
    for path in paths:
        if path.is_dir():
            raise UserError("a folder inside a folder of posts", file=path, fix="annotate each folder on its own")
        table_format(path)
    if not paths:
        raise UserError("no files", file=source, expected=f"files ending in {', '.join(FORMATS)}")
    return paths


def survey(path: Path, text_column: str, *, strict: bool) -> Survey:
    """Read a whole file before any model is loaded, and print which rows cannot be annotated."""
    result = Survey(path)
    columns: dict[str, set[str]] = {}
    for row in read_rows(path, () if table_format(path) == ".jsonl" else (text_column,), lenient=not strict):
        result.rows += 1
        for name, value in row.values.items():
            columns.setdefault(name, set()).add(kind_of(value))
        if reason := problem(row, text_column):
            result.problems += 1
            error = row.error(f"row {row.number}: {reason}", text_column)
            if strict:
                raise error
            if result.problems <= SHOWN:
                log(f"{error}: kept without an annotation")
    if result.problems > SHOWN:
        log(f"{result.problems:,} rows in all are kept without an annotation")
    if not result.rows:
        raise UserError("no rows", file=path, expected="at least one post")
    if text_column not in columns:
        raise UserError(f"missing column {text_column!r}", file=path, expected=f"it among {shown(list(columns), 200)}")
    result.columns, result.kinds = list(columns), columns
    with open(path, "rb") as file:
        result.digest = hashlib.file_digest(file, "sha256").hexdigest()
    return result


def kind_of(value: Any) -> str:
    """Return a type's name; integers are ``int`` if a float holds them, else ``long`` in 64 bits, else ``huge``."""
    if type(value) is not int or abs(value) <= 2**53:
        return type(value).__name__
    return "long" if -(2**63) <= value < 2**63 else "huge"


def problem(row: Row, text_column: str) -> str | None:
    """Return why a row cannot be annotated, or None."""
    if row.problem:
        return row.problem
    text = row.values.get(text_column)
    if text is None or (isinstance(text, str) and not clean(text)) or (isinstance(text, float) and text != text):
        return "no text"
    return None if isinstance(text, str) else f"{type(text).__name__} instead of text"


def windows(files: Sequence[Survey], wanted: Iterable[tuple[int, int]], text_column: str) -> Iterator[Window]:
    """Yield the windows of the ``wanted`` parts in order, streaming each file once."""
    for file, group in itertools.groupby(sorted(wanted), key=lambda part: part[0]):
        rows, at = read_rows(files[file].path, lenient=True), 0
        for _, number in group:
            start, at = (number - at) * WINDOW, number + 1
            window = list(itertools.islice(rows, start, start + WINDOW))
            reasons = [problem(row, text_column) for row in window]
            posts = [row.values[text_column] for row, reason in zip(window, reasons, strict=True) if not reason]
            yield Window(file, number, reasons, posts)


def annotated(window: Window, annotator: Annotator, row_format: RowFormat) -> Part:
    """Annotate a window; the text is the same wherever it is made.

    A row needs review if an answer's confidence is below its feature's threshold, or if it has no answer.
    """
    cut = annotator.cut
    answers, lines = iter(annotator.annotate_window(window.posts)), []
    for reason in window.reasons:
        answer = {} if reason else next(answers)
        values = {name: round(value, 6) if isinstance(value, float) else value for name, value in answer.items()}
        if row_format.thresholds:
            values["needs_review"] = bool(reason) or any(
                adapter.confidence(values) < row_format.thresholds[adapter.name] for adapter in annotator.adapters
            )
        row = {f"{row_format.prefix}{name}": value for name, value in values.items()}
        lines.append(json.dumps(row | {f"{row_format.prefix}problem": reason}, ensure_ascii=False) + "\n")
    return Part(window.file, window.number, len(lines), "".join(lines), annotator.cut - cut)
