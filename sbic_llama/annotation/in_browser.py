"""What the page does with a post or a file: see :mod:`sbic_llama.app`."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cli.errors import UserError, shown
from common.tables.reading import read_rows, table_format
from sbic_llama.annotation import parts as annotation
from sbic_llama.annotation.input import Part, RowFormat, annotated, survey, windows
from sbic_llama.data.corpus import clean
from sbic_llama.model.annotator import Annotator

PREFIX = "model_"
PREVIEW = 20  # rows of a file that are shown
LONGEST = 10_000  # characters of a post that is typed


@dataclass(frozen=True)
class PostAnswer:
    """What adapters say of a post.

    Attributes:
        labels: By feature that classifies, each label's probability.
        lists: By other features, the groups, and how sure they are (0 to 1).
        review: By feature that is less sure than its threshold, how sure it is and the threshold.
    """

    labels: dict[str, dict[str, float]]
    lists: dict[str, tuple[str, float]]
    review: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class FileAnswer:
    """A file that was annotated.

    Attributes:
        output: The annotated file.
        rows: How many rows it has.
        unanswered: How many of them could not be annotated.
        review: How many go to a person.
        counts: By feature, how often each answer was given.
        head: The columns and first rows of what is shown of it.
    """

    output: Path
    rows: int
    unanswered: int
    review: int
    counts: dict[str, Counter[str]]
    head: tuple[list[str], list[list[Any]]]


def annotate_post(annotator: Annotator, post: str, share: float) -> PostAnswer:
    """Answers for one post; ``share`` of the posts like those of validation go to a person.

    Raises:
        UserError: There is nothing to read in it, or too much.
    """
    if not clean(post):
        raise UserError("no post", expected="some text")
    if len(post) > LONGEST:
        raise UserError(f"{len(post):,} characters", expected=f"at most {LONGEST:,}")
    thresholds = annotation.review_thresholds(annotator.adapters, share, None)
    (row,) = annotator.annotate_window([post])
    labels, lists, review = {}, {}, {}
    for adapter in annotator.adapters:
        sure = adapter.confidence(row)
        if adapter.feature.classifies:
            numbers = zip(adapter.feature.labels, adapter.columns[1:], strict=True)
            labels[adapter.name] = {label: row[column] for label, column in numbers}
        else:
            lists[adapter.name] = (row[adapter.name], sure)
        if sure < thresholds[adapter.name]:
            review[adapter.name] = (sure, thresholds[adapter.name])
    return PostAnswer(labels, lists, review)


def columns_of(path: Path) -> list[str]:
    """The columns of a file's first row.

    Raises:
        UserError: It can't be read, or has no rows.
    """
    table_format(path)
    for row in read_rows(path, lenient=True):
        if row.values:
            return list(row.values)
    raise UserError("no rows", file=path.name, expected="at least one post")


def annotate_file(
    annotator: Annotator, source: Path, column: str, share: float, folder: Path, tell: Callable[[int, int], None]
) -> FileAnswer:
    """Annotates a file into ``folder``, as ``sbic_llama.annotate`` would.

    Args:
        annotator: The adapters.
        source: The file.
        column: Its column of posts.
        share: Share of the rows that go to a person.
        folder: Where the annotated file is to lie.
        tell: Is told how many rows are done, and of how many.

    Raises:
        UserError: A file that can't be read, or has such columns already.
    """
    if not source.is_file():
        raise UserError("it is not here any more", file=source.name, fix="upload it again")
    found = survey(source, column, strict=False)
    thresholds = annotation.review_thresholds(annotator.adapters, share, None)
    new = annotation.columns_of(annotator.adapters, PREFIX, review=True)
    if taken := [name for name in new if name in found.columns]:
        raise UserError(f"it has a column {shown(taken[0])} already", file=source.name, fix="remove or rename it")
    rule = RowFormat(column, PREFIX, thresholds)
    output = folder / f"annotated_{source.name}"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        run = annotation.AnnotationJob([found], Path(scratch) / "parts", Path(scratch) / output.name, into_folder=False)
        parts = (annotated(window, annotator, rule) for window in windows(run.files, run.parts(), column))
        run.keep(_told(parts, found.rows, tell), total=found.rows, done=0, show=False)
        run.assemble(new)
        shutil.move(run.output, output)
    return _answer(output, annotator, column, found.rows)


def _told(parts: Iterable[Part], rows: int, tell: Callable[[int, int], None]) -> Iterator[Part]:
    done = 0
    for part in parts:
        done += part.rows
        tell(done, rows)
        yield part


def _answer(output: Path, annotator: Annotator, column: str, rows: int) -> FileAnswer:
    counts: dict[str, Counter[str]] = {adapter.name: Counter() for adapter in annotator.adapters}
    names = [column, *(f"{PREFIX}{name}" for name in (*counts, "needs_review"))]
    head: list[list[Any]] = []
    unanswered = review = 0
    for row in read_rows(output, lenient=True):
        problem = row.values.get(f"{PREFIX}problem")
        unanswered += bool(problem)
        review += str(row.values.get(f"{PREFIX}needs_review")).casefold() == "true"
        for name, counted in counts.items():
            if not problem:
                counted[str(row.values[f"{PREFIX}{name}"])] += 1
        if len(head) < PREVIEW:
            cells = [row.values.get(name) for name in names]
            head.append(["" if cell is None else cell if isinstance(cell, str) else str(cell) for cell in cells])
    return FileAnswer(output, rows, unanswered, review, counts, (names, head))
