"""The windows of rows that posts are annotated in: what is to be done of each, and what is done."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common.tables import read_rows
from sbic_llama.survey import Survey, problem

if TYPE_CHECKING:
    from sbic_llama.annotator import Annotator

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
class Rule:
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


def annotated(window: Window, annotator: Annotator, rule: Rule) -> Part:
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
