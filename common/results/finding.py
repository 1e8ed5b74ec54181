"""Findings: what a check of a model found besides its score, as numbers that pages, cards and terminals all show alike.

A check (calibration, agreement, robustness, …) makes a :class:`Finding` out of parts: tables of measures with intervals, curves,
and listings. Nothing else needs to know of the check: the report, the trust page and the card show every finding that lies beside a
record.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli.errors import UserError
from common.results.record import RunRecord
from common.runtime.files import atomic_write
from common.stats.metrics import Measure

if TYPE_CHECKING:
    pass
import dataclasses
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from common.cli.errors import shown
from common.results.record import git_commit, versions
from common.results.scoring import OTHERS
from common.runtime import files

if TYPE_CHECKING:
    pass

Form = TypeVar("Form", str, bytes)
SCHEMA = 1
FOLDER = "findings"  # beside records
KEPT = f"evaluation/{FOLDER}"  # in the folder of a model
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
        with atomic_write(path) as part:
            part.write_text(text + "\n", encoding="utf-8")


def worded(template: Path, **numbers: Any) -> dict[str, Any]:
    """Render the words of a finding from its template; pass them on as ``Finding(**worded(…), …)``.

    The template has four blocks. ``title``: the question. ``headline``: one short sentence with the one number that matters and
    its interval. ``details``: further sentences, one paragraph each; may be empty. ``limits``: what the numbers do not show.

    Args:
        template: A ``.jinja`` file.
        numbers: What the sentences are made of.

    Returns:
        ``title``, ``summary`` (the headline first) and ``limits``.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent), undefined=jinja2.StrictUndefined, autoescape=False
    )
    environment.filters |= {"interval": interval, "percent": lambda share: f"{share:.0%}"}
    page = environment.get_template(template.name)
    context = page.new_context(numbers)
    texts = {}
    for name in ("title", "headline", "details", "limits"):
        paragraphs = re.split(r"\n\s*\n", "".join(page.blocks[name](context)))
        texts[name] = [" ".join(paragraph.split()) for paragraph in paragraphs if paragraph.strip()]
    return {
        "title": " ".join(texts["title"]),
        "summary": [" ".join(texts["headline"]), *texts["details"]],
        "limits": " ".join(texts["limits"]),
    }


def read_finding(path: Path) -> Finding:
    """Reads a finding; it may come from anybody's repository, so every field is checked.

    Raises:
        UserError: It is none of this schema.
    """
    try:
        values = files.loads(Path(path).read_bytes())
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


def interval(row: Measure) -> str:
    """A measure as ``0.8009 [0.789, 0.812]``."""
    low, high = row["ci95"]
    return f"{row['value']:.4f} [{low:.3f}, {high:.3f}]"
