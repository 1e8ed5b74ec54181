"""Findings: what a check shows about a model besides its scores, in a form that pages, cards and terminals share.

A check (calibration, agreement, robustness, …) makes a :class:`Finding` of parts: tables of measures with intervals, curves,
points and listings. Reports, trust pages and cards show every finding stored next to a record, whatever its check.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Gt, Len, Lt, MinLen

from common.cli.errors import UserError, counted, printable
from common.results.record import Open, RunRecord, StoredMeasure, git_commit, versions
from common.runtime.files import atomic_write, read_json

if TYPE_CHECKING:
    import jinja2

SCHEMA = 1
FOLDER = "findings"  # next to records
KEPT = f"evaluation/{FOLDER}"  # in a model's folder
MAX_DRAWN = 1000  # rows and series that the pictures of a finding from a file may have
Drawn = Annotated[float, Gt(-1e12), Lt(1e12)]  # what pictures can show; excludes NaN
Point = Annotated[list[Drawn], Len(2, 2)]
Span = Annotated[list[Drawn], Len(4, 4)]
Series = Annotated[dict[str, Annotated[list[Point], MinLen(1)]], MinLen(1)]
Cell = str | bool | Annotated[int, Gt(-(10**12)), Lt(10**12)] | Drawn | None


class _DrawnMeasure(StoredMeasure):
    value: Drawn
    ci95: Point


class _Strict:
    __pydantic_config__: ClassVar = {"extra": "forbid"}


@dataclass(frozen=True)
class Measures(_Strict):
    """One measure of several things: a table, and a picture of dots with their intervals."""

    title: str  # "Accuracy by source"
    of: str  # what a row is: "source"
    metric: str  # "accuracy"
    rows: dict[str, _DrawnMeasure]
    reference: Drawn | None = None  # a value to compare with, drawn as a line
    reference_name: str = ""
    differences: bool = False  # rows are differences of shares: the axis fits them, around 0
    kind: Literal["measures"] = "measures"


@dataclass(frozen=True)
class Curve(_Strict):
    """A picture of series of points with both axes from 0 to 1, each series joined in its order."""

    title: str
    x: str
    y: str
    series: Series
    diagonal: bool = False  # whether points should lie on x = y
    kind: Literal["curve"] = "curve"


@dataclass(frozen=True)
class Points(_Strict):
    """A picture of series of points with axes that fit them."""

    title: str
    x: str  # with its unit
    y: str
    series: Series
    joined: bool = False  # join each series in its order, like a learning curve
    kind: Literal["points"] = "points"


@dataclass(frozen=True)
class Growth(_Strict):
    """A picture of scores by size, which has a logarithmic axis: measured ones, and a fitted curve in its 95 % interval.

    Each place is size, score, and the ends of the score's interval.
    """

    title: str
    x: str
    y: str
    series: Annotated[dict[str, Annotated[list[Span], MinLen(1)]], MinLen(1)]
    curve: list[Span] = field(default_factory=list)
    curve_name: str = ""
    kind: Literal["growth"] = "growth"


@dataclass(frozen=True)
class Listing(_Strict):
    """A table of anything: texts, counts, shares."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]
    kind: Literal["listing"] = "listing"


class _ByKind:
    """Make pydantic choose a part's class by its ``kind``, without importing pydantic here."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic import Field

        return handler(Annotated[source, Field(discriminator="kind")])


Part = Measures | Curve | Points | Growth | Listing


class _Data(Open):
    name: str
    split: str
    fingerprint: str


@dataclass
class Finding(_Strict):
    """The result of one check of one model, or of people."""

    name: str  # short, part of the file's name: "calibration"
    title: str  # the question that it answers
    task: str  # task of the records that it belongs to: "SBIC offensiveYN"
    model: str  # as in the records' table
    summary: list[str]  # the headline, then further paragraphs, as worded() returns them
    parts: list[Annotated[Part, _ByKind()]]
    limits: str  # what the numbers do not show
    data: _Data  # the items
    facts: dict[str, Any] = field(default_factory=dict)  # for programs: settings, thresholds, sources
    miniature: bool = False
    command: str = ""
    commit: str = field(default_factory=git_commit)
    versions: dict[str, str] = field(default_factory=versions)
    schema: Literal[1] = SCHEMA

    def write(self, path: Path) -> None:
        """Write the finding as JSON, atomically; raise ValueError if a number is NaN or infinite."""
        values = dataclasses.asdict(self)
        values["parts"] = [{"kind": part["kind"]} | part for part in values["parts"]]
        text = json.dumps(values, indent=1, allow_nan=False, ensure_ascii=False, default=str)
        text = re.sub(r"\[[^][{}\"]*\]", lambda match: " ".join(match[0].split()), text)  # an interval on one line
        with atomic_write(path) as part:
            part.write_text(text + "\n", encoding="utf-8")

    def problem(self) -> str | None:
        """Name what is inconsistent in a finding that was read; None if nothing is."""
        if not re.fullmatch(r"[a-z0-9-]+", self.name):
            return "name: expected lowercase letters, digits and hyphens"
        drawn = sum(len(part.rows) for part in self.parts if isinstance(part, Measures))
        drawn += sum(len(part.series) for part in self.parts if isinstance(part, (Curve, Points, Growth)))
        if drawn > MAX_DRAWN:
            return f"parts: {drawn:,} rows to draw, at most {MAX_DRAWN:,} are allowed"
        for part in self.parts:
            if (
                isinstance(part, Growth)
                and min(place[0] for each in (*part.series.values(), part.curve) for place in each) <= 0
            ):
                return "parts: a size below 0, or 0, has no place on a logarithmic axis"
            if isinstance(part, Listing) and any(len(row) != len(part.columns) for row in part.rows):
                return "parts: a row has more or fewer values than there are columns"
        return None


def read_finding(path: Path) -> Finding:
    """Read a finding, which may come from anybody's repository."""
    finding = read_json(Finding, Path(path), what="a finding", fix="run the check again")
    if problem := finding.problem():
        raise UserError(f"not a finding: {problem}", file=path, fix="run the check again")
    return finding


def read_findings(folder: Path) -> list[Finding]:
    """Read the findings in a folder, sorted by file name; none if there is no such folder."""
    return [read_finding(path) for path in sorted(Path(folder).glob("*.json"))]


@functools.cache  # an environment keeps the templates that it has compiled
def templates_in(*folders: Path, html: bool = False) -> jinja2.Environment:
    """Return the environment for templates of plain text or HTML, with filters for measures and shares."""
    import jinja2

    rules = {"undefined": jinja2.StrictUndefined, "autoescape": html, "trim_blocks": html, "lstrip_blocks": html}
    rules["finalize"] = _printable  # escaping keeps markup out of a page, this what hides text or makes a paragraph
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(folders), **rules)
    environment.filters |= {"interval": interval, "percent_interval": percent_interval, "percent": "{:.0%}".format}
    environment.filters["counted"] = counted
    return environment


def _printable(value: Any) -> Any:
    return value if hasattr(value, "__html__") else printable(str(value))


def worded(template: Path, **numbers: Any) -> dict[str, Any]:
    """Render the words of a finding from its template; pass them on as ``Finding(**worded(…), …)``.

    The template has four blocks. ``title``: the question. ``headline``: one short sentence with the one number that matters and
    its interval. ``details``: further sentences, one paragraph each; may be empty. ``limits``: what the numbers do not show.
    """
    page = templates_in(template.parent).get_template(template.name)
    context = page.new_context(numbers)
    list(page.root_render_func(context))  # defines the template's macros
    texts = {}
    for name in ("title", "headline", "details", "limits"):
        paragraphs = re.split(r"\n\s*\n", "".join(page.blocks[name](context)))
        texts[name] = [" ".join(paragraph.split()) for paragraph in paragraphs if paragraph.strip()]
    return {
        "title": " ".join(texts["title"]),
        "summary": [*filter(None, [" ".join(texts["headline"])]), *texts["details"]],
        "limits": " ".join(texts["limits"]),
    }


def about(record: RunRecord) -> dict[str, Any]:
    """Return the fields that a finding on a record's items shares with the record."""
    data = {name: record.data[name] for name in ("name", "split", "fingerprint")}
    shared = {name: getattr(record, name) for name in ("task", "miniature", "command")}
    return {**shared, "model": record.title, "data": data}


def stem(task: str, title: str) -> str:
    """Return the start of the file names of a model's records and findings, from the task's short name and the model's title.

    Letters other than a to z are left out; a digest then tells such titles apart.
    """
    words = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    if not words or re.search(r"[^\W_]", re.sub("[a-z0-9]", "", title.lower())):
        words = f"{words}-{hashlib.sha256(title.encode()).hexdigest()[:8]}".strip("-")
    return f"{task}-{words}"


def leave(finding: Finding, folder: Path, stem: str, model: Path | None) -> Path:
    """Write a finding to ``findings/<stem>-<name>.json`` next to the records in ``folder``, and return the path.

    It also goes into the model's folder, for its card, unless this is read-only or None, like a download.
    """
    path = Path(folder) / FOLDER / f"{stem}-{finding.name}.json"
    finding.write(path)
    if model is not None and os.access(model, os.W_OK):
        finding.write(Path(model) / KEPT / f"{finding.name}.json")
    return path


def interval(row: StoredMeasure) -> str:
    """Format a measure as ``0.8009 [0.789, 0.812]``."""
    low, high = row["ci95"]
    return f"{row['value']:.4f} [{low:.3f}, {high:.3f}]"


def percent_interval(row: StoredMeasure) -> str:
    """Format a share as ``20.2% [17.3%, 23.2%]``."""
    low, high = row["ci95"]
    return f"{row['value']:.1%} [{low:.1%}, {high:.1%}]"
