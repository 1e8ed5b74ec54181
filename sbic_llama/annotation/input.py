"""Survey files of posts, and annotate them in windows of rows."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from common.cli.console import log
from common.cli.errors import UserError, shown
from common.tables.reading import FORMATS, MOST_COLUMNS, Row, read_rows, table_format
from common.tables.writing import cell
from sbic_llama.data.texts import TextColumns

if TYPE_CHECKING:
    from sbic_llama.model.annotator import Annotator

WINDOW = 256  # rows per part, the most that a killed run loses
REMEMBERED = 100_000  # different posts of a file, those met last: if one of them comes again, it is not answered again
SHOWN = 5  # problems that are printed one by one

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(OrderedDict[Key, Value]):
    """Keeps the :data:`REMEMBERED` entries that were added or used last."""

    def add(self, key: Key, value: Value) -> None:
        self[key] = value
        if len(self) > REMEMBERED:
            self.popitem(last=False)

    def use(self, key: Key) -> Value | None:
        if key in self:
            self.move_to_end(key)
        return self.get(key)


@dataclass
class Survey:
    """What a first pass over a file found."""

    path: Path
    rows: int = 0
    columns: list[str] = field(default_factory=list)  # in order of appearance
    kinds: dict[str, set[str]] = field(default_factory=dict)  # kinds of values in each column, see `kind_of`
    problems: int = 0  # rows that cannot be annotated
    raw: bool = False  # whether some rows are not all that their records hold, see `Row.raw`
    longest: int = 0  # characters of the longest text, as a cell of a spreadsheet would hold it
    digest: str = ""  # SHA-256 of the file's bytes
    digests: list[str] = field(default_factory=list)  # of the rows up to the end of each window

    @property
    def changed(self) -> UserError:
        problem = "the posts changed while they were being annotated"
        fix = "restore the file to continue, or choose another --output; the parts are kept"
        return UserError(problem, file=self.path, fix=fix)


@dataclass(frozen=True)
class Window:
    """The rows of a part, by the numbers of file and part."""

    file: int
    number: int
    reasons: list[str | None]  # why a row cannot be annotated, or None
    equals: list[int | None]  # index in the file of an earlier row with the same post, or None
    posts: list[str]  # of the rows with neither


@dataclass(frozen=True)
class Part:
    """A window's annotation, by the numbers of file and part."""

    file: int
    number: int
    rows: int
    text: str  # a line per row, as written: a JSON object, or the index in the file of an equal row
    cut: int  # how many different posts were truncated, counted per adapter


@dataclass(frozen=True)
class RowFormat:
    """How rows are made from posts and answers."""

    texts: TextColumns
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
        table_format(path, writing=True)  # each file's annotation is in its own format
    if not paths:
        raise UserError("no files", file=source, expected=f"files ending in {', '.join(FORMATS)}")
    return paths


def survey(path: Path, texts: TextColumns, *, strict: bool) -> Survey:
    """Read a whole file before any model is loaded, and print which rows cannot be annotated."""
    result = Survey(path)
    columns: dict[str, set[str]] = {}
    digest = hashlib.sha256()
    for row in read_rows(path, () if table_format(path) == ".jsonl" else texts.columns, lenient=not strict):
        if result.rows and result.rows % WINDOW == 0:
            result.digests.append(digest.hexdigest())
        _update(digest, row)
        result.rows += 1
        result.raw |= row.raw is not None
        result.longest = max(result.longest, len(row.raw or ""), *map(_length, row.values.values()))
        for name, value in row.values.items():
            if name not in columns and len(columns) == MOST_COLUMNS:
                raise row.error(f"more than {MOST_COLUMNS:,} different columns up to here")
            columns.setdefault(name, set()).add(kind_of(value))
        if reason := problem(row, texts):
            result.problems += 1
            column, _ = texts.problem(row.values) or (texts.columns[0], "")
            error = row.error(f"row {row.number}: {reason}", column)
            if strict:
                raise error
            if result.problems <= SHOWN:
                log(f"{error}: kept without an annotation")
    if result.problems > SHOWN:
        log(f"{result.problems:,} rows in all are kept without an annotation")
    if not result.rows:
        raise UserError("no rows", file=path, expected="at least one post")
    result.digests.append(digest.hexdigest())
    for column in texts.columns:
        if column not in columns:
            raise UserError(f"missing column {column!r}", file=path, expected=f"it among {shown(list(columns), 200)}")
    result.columns, result.kinds = list(columns), columns
    with open(path, "rb") as file:
        result.digest = hashlib.file_digest(file, "sha256").hexdigest()
    return result


def _length(value: Any) -> int:
    """Return how many characters a cell of text takes; 0 for numbers and such."""
    if isinstance(value, str):
        return len(value)
    return len(cell(value)) if isinstance(value, (list, dict, bytes)) else 0


def kind_of(value: Any) -> str:
    """Return a type's name; integers are ``int`` if a float holds them, else ``long`` in 64 bits, else ``huge``."""
    if type(value) is not int or abs(value) <= 2**53:
        return type(value).__name__
    return "long" if -(2**63) <= value < 2**63 else "huge"


def problem(row: Row, texts: TextColumns) -> str | None:
    """Return why a row cannot be annotated, or None."""
    if row.problem:
        return row.problem
    column, reason = texts.problem(row.values) or ("", None)
    return f"{reason} in {column!r}" if reason and texts.names else reason


def surveyed_rows(file: Survey) -> Iterator[Row]:
    """Yield a file's rows as they were surveyed.

    Raises:
        UserError: They have changed, which is known before the last row of a window is yielded.
    """
    digest, known = hashlib.sha256(), iter(file.digests)
    number = 0
    for number, row in enumerate(read_rows(file.path, lenient=True), 1):
        _update(digest, row)
        if number > file.rows or ((number % WINDOW == 0 or number == file.rows) and digest.hexdigest() != next(known)):
            raise file.changed
        yield row
    if number < file.rows:
        raise file.changed


def _update(digest: Any, row: Row) -> None:
    digest.update(repr((row.values, row.problem, row.raw)).encode())


def windows(files: Sequence[Survey], wanted: Iterable[tuple[int, int]], texts: TextColumns) -> Iterator[Window]:
    """Yield the windows of the ``wanted`` parts in order, streaming each file once.

    Which rows are equal depends on their file alone, so parts are the same in any order and by any number of processes.

    Raises:
        UserError: The posts have changed since the survey.
    """
    for file, group in itertools.groupby(sorted(wanted), key=lambda part: part[0]):
        rows, at = enumerate(surveyed_rows(files[file])), 0
        first_rows: Recent[bytes, int] = Recent()  # digest of a post → row
        for _, number in group:
            for skipped in range(at, number):
                _window(file, skipped, rows, first_rows, texts)
            yield _window(file, number, rows, first_rows, texts)
            at = number + 1


def _window(
    file: int, number: int, rows: Iterator[tuple[int, Row]], first_rows: Recent[bytes, int], texts: TextColumns
) -> Window:
    """Read the next rows of a file."""
    window = Window(file, number, [], [], [])
    for index, row in itertools.islice(rows, WINDOW):  # which need not fit into memory together
        reason, equal = problem(row, texts), None
        if reason is None:
            post = texts.read(row.values)
            digest = hashlib.blake2b(post.encode(errors="surrogatepass"), digest_size=16).digest()
            equal = first_rows.use(digest)
            if equal is None:
                first_rows.add(digest, index)
                window.posts.append(post)
        window.reasons.append(reason)
        window.equals.append(equal)
    return window


def annotated(window: Window, annotator: Annotator, row_format: RowFormat) -> Part:
    """Annotate a window; the text is the same wherever it is made.

    A row needs review if an answer's confidence is below its feature's threshold, or if it has no answer.
    """
    cut = annotator.cut
    answers, lines = iter(annotator.annotate_window(window.posts)), []
    for reason, equal in zip(window.reasons, window.equals, strict=True):
        if equal is not None:
            lines.append(f"{equal}\n")
            continue
        answer = {} if reason else next(answers)
        values = {name: round(value, 6) if isinstance(value, float) else value for name, value in answer.items()}
        if row_format.thresholds:
            values["needs_review"] = bool(reason) or any(
                adapter.confidence(values) < row_format.thresholds[adapter.name] for adapter in annotator.adapters
            )
        row = {f"{row_format.prefix}{name}": value for name, value in values.items()}
        lines.append(json.dumps(row | {f"{row_format.prefix}problem": reason}, ensure_ascii=False) + "\n")
    return Part(window.file, window.number, len(lines), "".join(lines), annotator.cut - cut)


def resolved(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield the new values of a file's rows from the lines of all its parts, in order."""
    answers: Recent[int, str] = Recent()  # row → line; holds what `windows` held when the line was made
    for index, line in enumerate(lines):
        values = json.loads(line)
        if isinstance(values, int):
            values = json.loads(answers.use(values) or "")
        elif list(values.values())[-1] is None:  # no problem
            answers.add(index, line)
        yield values
