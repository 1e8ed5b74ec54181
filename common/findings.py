"""Findings: what a check of a model found besides its score, as numbers that pages, cards and terminals all show alike.

A check (calibration, agreement, robustness, …) makes a :class:`Finding` out of parts: tables of measures with intervals, curves,
and listings. Nothing else needs to know of the check: the report, the trust page and the card show every finding that lies beside a
record.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from common import json_text, pictures
from common.bootstrap import Measure
from common.errors import UserError, shown
from common.files import written_aside
from common.records import RunRecord, git_commit, versions
from common.scored import OTHERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Form = TypeVar("Form", str, bytes)
SCHEMA = 1
FOLDER = "findings"  # beside records
KEPT = f"evaluation/{FOLDER}"  # in the folder of a model
MOST_ROWS = 20  # of a listing on a page; the file has them all
MOST_DRAWN, LARGEST = 1000, 1e12  # what a finding that is read may ask of a picture


@dataclass(frozen=True)
class Measures:
    """One measure of several things, with intervals: a table, and a picture of dots with their intervals.

    Attributes:
        title: Heading, as "Accuracy by source".
        of: What a row is, as "source".
        metric: What was measured, as "accuracy".
        rows: Name → ``{"value", "n", "ci95"}``.
        reference: A value to compare with, which the picture marks; None for no mark.
        reference_name: What it is, as "all posts".
        differences: Whether they are differences of two shares: the picture's axis then fits them, around 0.
    """

    title: str
    of: str
    metric: str
    rows: dict[str, Measure]
    reference: float | None = None
    reference_name: str = ""
    differences: bool = False


@dataclass(frozen=True)
class Curve:
    """Points that belong in one picture.

    Attributes:
        title: Heading.
        x: Name of the horizontal axis, 0 to 1.
        y: Name of the vertical one, 0 to 1.
        series: Name → points [x, y]; joined by a line in their order.
        diagonal: Whether x = y is where points should lie.
    """

    title: str
    x: str
    y: str
    series: dict[str, list[list[float]]]
    diagonal: bool = False


@dataclass(frozen=True)
class Points:
    """Points that belong in one picture whose axes fit them.

    Attributes:
        title: Heading.
        x: Name of the horizontal axis, with its unit.
        y: Name of the vertical one.
        series: Name → points [x, y].
        joined: Whether the points of a series are joined in their order, as a learning curve's.
    """

    title: str
    x: str
    y: str
    series: dict[str, list[list[float]]]
    joined: bool = False


@dataclass(frozen=True)
class Listing:
    """A table of anything: texts, whole numbers, shares.

    Attributes:
        title: Heading.
        columns: Names of the columns.
        rows: A value a column; None where there is none.
    """

    title: str
    columns: list[str]
    rows: list[list[Any]]


Part = Measures | Curve | Points | Listing
_KINDS: dict[str, type] = {"measures": Measures, "curve": Curve, "points": Points, "listing": Listing}


@dataclass
class Finding:
    """What one check found of one model, or of people.

    Attributes:
        name: Its short name, which names its file: ``calibration``.
        title: Its heading: "How far its probabilities can be believed".
        task: The task of the records that it belongs to: "SBIC offensiveYN".
        model: Whose it is, as it heads a row in the records' table.
        summary: What was found, in whole sentences with the numbers in them.
        parts: The numbers.
        limits: What they do not show.
        data: ``{"name", "split", "fingerprint"}`` of the items.
        facts: Whatever else a program may want: settings, thresholds, versions of a procedure.
        miniature: Whether the data is the embedded miniature.
        command: The command that finds it again.
    """

    name: str
    title: str
    task: str
    model: str
    summary: list[str]
    parts: list[Part]
    limits: str
    data: dict[str, str]
    facts: dict[str, Any] = field(default_factory=dict)
    miniature: bool = False
    command: str = ""
    commit: str = field(default_factory=git_commit)
    versions: dict[str, str] = field(default_factory=versions)
    schema: int = SCHEMA

    def write(self, path: Path) -> None:
        """Writes the finding as JSON, whole or not at all.

        Raises:
            ValueError: A number is NaN or infinite.
            UserError: The file can't be written.
        """
        values = dataclasses.asdict(self)
        values["parts"] = [
            {"kind": next(kind for kind, made in _KINDS.items() if isinstance(part, made))} | dataclasses.asdict(part)
            for part in self.parts
        ]
        text = json.dumps(values, indent=1, allow_nan=False, ensure_ascii=False, default=str)
        text = re.sub(r"\[[^][{}\"]*\]", lambda match: " ".join(match[0].split()), text)  # an interval on one line
        with written_aside(path) as part:
            part.write_text(text + "\n", encoding="utf-8")


def read_finding(path: Path) -> Finding:
    """Reads a finding; it may come from anybody's repository, so every field is checked.

    Raises:
        UserError: It is none of this schema.
    """
    try:
        values = json_text.loads(Path(path).read_bytes())
        if values["schema"] != SCHEMA:
            raise UserError(
                f"a finding of schema {shown(values['schema'])}",
                file=path,
                expected=f"schema {SCHEMA}",
                fix="run it again",
            )
        parts = []
        for part in values["parts"]:
            kind = _KINDS[part.pop("kind")]
            parts.append(kind(**part))
        found = Finding(**{**values, "parts": parts})
        _check(found)
        return found
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror}", file=path) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"not a finding: {error}", file=path, expected="a JSON file made by this project") from None


def _check(finding: Finding) -> None:
    texts = [finding.name, finding.title, finding.task, finding.model, finding.limits, finding.command, finding.commit]
    texts += [finding.data[key] for key in ("name", "split", "fingerprint")]
    for name, kind in {"summary": list, "parts": list, "facts": dict, "versions": dict, "miniature": bool}.items():
        if not isinstance(getattr(finding, name), kind):
            raise ValueError(f"{name} is no {kind.__name__}")
    texts += finding.summary
    size = 0
    for part in finding.parts:
        if isinstance(part, Measures):
            texts += [part.title, part.of, part.metric, part.reference_name, *part.rows]
            numbers = [n for row in part.rows.values() for n in (row["value"], row["n"], *row["ci95"])]
            numbers += [] if part.reference is None else [part.reference]
            size += len(part.rows)
            if any(len(row["ci95"]) != 2 for row in part.rows.values()):
                raise ValueError("an interval has two ends")
        elif isinstance(part, (Curve, Points)):
            texts += [part.title, part.x, part.y, *part.series]
            numbers = [n for points in part.series.values() for x, y in points for n in (x, y)]
            size += len(part.series)
            if not part.series or not all(part.series.values()):
                raise ValueError("a curve has no points")
        else:
            texts += [part.title, *part.columns]
            numbers = [cell for row in part.rows for cell in row if not isinstance(cell, (str, bool, type(None)))]
            if any(len(row) != len(part.columns) for row in part.rows):
                raise ValueError("a row has another number of columns")
        if not all(isinstance(n, (int, float)) and abs(n) < LARGEST for n in numbers):  # NaN is not below it either
            raise ValueError("a number is none, or too large")
    if size > MOST_DRAWN:
        raise ValueError(f"{size:,} rows to draw")
    if not all(isinstance(text, str) for text in texts) or not re.fullmatch(r"[a-z0-9-]+", finding.name):
        raise ValueError("a text is none")


def about(record: RunRecord) -> dict[str, Any]:
    """What findings on a record's items have in common with it, as fields of a :class:`Finding`."""
    return {
        "task": record.task,
        "model": record.title,
        "data": {name: record.data[name] for name in ("name", "split", "fingerprint")},
        "miniature": record.miniature,
        "command": record.command,
    }


def group_scores(record: RunRecord) -> Finding | None:
    """A record's scores by group as a finding; None where it has none."""
    if not record.by_group:
        return None
    headline, overall = next(iter(record.metrics.items()))
    name = headline.replace("_f1", " F1")
    summary = []
    for kind, groups in record.by_group.items():
        named = {group: measure for group, measure in groups.items() if group != OTHERS}
        if len(named) < 2:
            continue
        low, high = (choose(named, key=lambda group: named[group]["value"]) for choose in (min, max))
        if named[low]["value"] == named[high]["value"]:
            summary.append(f"By {kind}, {name} is {named[low]['value']:.3f} in all {len(named)}.")
            continue
        chance = f"; {_spread_by_chance(named)}" if headline == "accuracy" else ""
        summary.append(
            f"By {kind}, {name} runs from {named[low]['value']:.3f} ({low}, n = {named[low]['n']:,}) to "
            f"{named[high]['value']:.3f} ({high}, n = {named[high]['n']:,}){chance}."
        )
    return Finding(
        name="groups",
        title="Is it as good everywhere?",
        summary=summary,
        parts=[
            Measures(f"{name[0].upper()}{name[1:]} by {kind}", kind, name, groups, overall["value"], "all items")
            for kind, groups in record.by_group.items()
        ],
        limits="Which groups really differ: the lowest and the highest of several lie apart by chance too. And why they do: they "
        "differ in how their labels are spread, and where nearly all items have one label, a model that always says so scores "
        "well.",
        **about(record),
    )


def _spread_by_chance(groups: dict[str, Measure]) -> str:
    """How often shares of equal groups would lie so far apart: Pearson's chi-squared test of right and wrong answers by group."""
    from scipy.stats import chi2_contingency

    right = [round(one["value"] * one["n"]) for one in groups.values()]
    wrong = [one["n"] - count for one, count in zip(groups.values(), right, strict=True)]
    if not (sum(right) and sum(wrong)):
        return "there is nothing to tell apart"
    p = float(chi2_contingency([right, wrong]).pvalue)
    return f"groups that are equal would lie so far apart with p {'< .001' if p < 0.001 else f'= {p:.3f}'} (chi-squared test)"


def read_findings(folder: Path) -> list[Finding]:
    """The findings in a folder, by name; none where there is no such folder."""
    return [read_finding(path) for path in sorted(Path(folder).glob("*.json"))]


def lines(finding: Finding, *, numbers: bool = True) -> list[str]:
    """A finding for a terminal: its sentences, then its tables unless only sentences are wanted."""
    note = " (miniature)" if finding.miniature else ""
    found = [f"{finding.task}, {finding.model}{note}: {finding.title}", *(f"  {line}" for line in finding.summary)]
    for title, rows in tables(finding) if numbers else ():
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        found += [f"  {title}"]
        found += [
            "    " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
    return [
        "".join(c if c.isprintable() else " " for c in line) for line in found
    ]  # names may hold a terminal's escapes


def show(found: Iterable[Finding]) -> None:
    """Prints findings with their numbers, and what they do not show."""
    for finding in found:
        print("\n".join(lines(finding)))
        print(f"  What this does not show: {finding.limits}")


def tables(finding: Finding, most: int = MOST_ROWS) -> list[tuple[str, list[list[str]]]]:
    """Title and rows of text, the heading first, of each part that is a table. Long listings are cut, and say so."""
    found = []
    for part in finding.parts:
        if isinstance(part, Measures):
            rows = [[part.of, "n", f"{part.metric} [95 %]"]]
            rows += [[name, f"{row['n']:,}", interval(row)] for name, row in part.rows.items()]
            found.append((part.title, rows))
        elif isinstance(part, Listing) and part.rows:
            title = part.title if len(part.rows) <= most else f"{part.title} (the first {most} of {len(part.rows):,})"
            found.append((title, [part.columns, *([_cell(cell) for cell in row] for row in part.rows[:most])]))
    return found


def drawn(finding: Finding, finish: Callable[[Figure, str], Form]) -> list[tuple[str, Form]]:
    """Title and picture of each part that is one: measures of at least two things, curves, and points."""
    found: list[tuple[str, Form]] = []
    for part in finding.parts:
        if isinstance(part, Measures) and len(part.rows) > 1:
            picture = pictures.intervals(
                part.rows,
                part.metric,
                finish,
                reference=part.reference,
                reference_name=part.reference_name,
                differences=part.differences,
            )
            found.append((part.title, picture))
        elif isinstance(part, Curve):
            found.append((part.title, pictures.curves(part.series, part.x, part.y, finish, diagonal=part.diagonal)))
        elif isinstance(part, Points):
            found.append((part.title, pictures.points(part.series, part.x, part.y, finish, joined=part.joined)))
    return found


def markdown(finding: Finding, images: Sequence[tuple[str, str]]) -> str:
    """A finding as Markdown under a heading of the third level.

    Args:
        finding: The finding.
        images: Title and path of each of its pictures.
    """
    found = [f"### {plain(finding.title)}", " ".join(map(plain, finding.summary))]
    for title, (head, *rows) in tables(finding):
        found.append(f"{plain(title)}:")
        body = ["| " + " | ".join(map(plain, row)) + " |" for row in (head, *rows)]
        found.append("\n".join([body[0], "|---" * len(head) + "|", *body[1:]]))
    found += [f"![{plain(title)}]({path})" for title, path in images]
    if finding.limits:
        found.append(f"What this does not show: {plain(finding.limits)}")
    return "\n\n".join(filter(None, found))


def plain(text: str) -> str:
    """A text that may be a corpus's own, so that it can't break a table or be markup; ``<`` before a space is none."""
    return re.sub(r"[|`>]|<(?! )", " ", "".join(c if c.isprintable() else " " for c in text)).replace("](", "] (")


def interval(row: Measure) -> str:
    """A measure as ``0.8009 [0.789, 0.812]``."""
    low, high = row["ci95"]
    return f"{row['value']:.4f} [{low:.3f}, {high:.3f}]"


def of_task(findings: Iterable[Finding], task: str) -> list[Finding]:
    """The findings that belong to a task's records."""
    return [finding for finding in findings if finding.task == task]


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def stem(task: str, title: str) -> str:
    """What the names of a model's findings begin with: its task's short name and its title, as of a file's name."""
    return f"{task}-{re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')}"


def leave(finding: Finding, folder: Path, stem: str, model: Path | None) -> Path:
    """Writes a finding beside the records in ``folder`` and, where that can be, into the model's own folder, for its card.

    Args:
        finding: The finding.
        folder: Where the run records are; the file is ``findings/<stem>-<name>.json`` in it.
        stem: As :func:`stem` gives it: findings of two models in one folder stay apart.
        model: The model's folder; None for one that is not ours to change, as a download.

    Returns:
        The path beside the records.
    """
    path = Path(folder) / FOLDER / f"{stem}-{finding.name}.json"
    finding.write(path)
    if model is not None and os.access(model, os.W_OK):
        finding.write(Path(model) / KEPT / f"{finding.name}.json")
    return path
