"""How a label depends on other columns of a file, or another column on the label, from the machine's and people's labels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from common.cli.errors import UserError, counted, shown
from common.hub.table_download import table_name
from common.results.finding import Finding, Listing, Measures, Part, worded
from common.stats.design import Design
from common.stats.metrics import Measure
from common.stats.regression import Fit, Kind, NoSolution, Table, by_both, by_machine, by_people
from common.tables.report import fingerprint
from sbic_llama.data.features import Feature
from sbic_llama.data.label_files import MIN_HUMAN_LABELS, NOTHING
from sbic_llama.evaluation.both_labels import BothLabels, design_in, indicators

TEMPLATE = Path(__file__).parent / "templates" / "regression.jinja"
FEWEST = 10  # human labels of a value that gets a coefficient of its own
MOST_VALUES = 30  # of a column of categories
OTHERS = "(rarer values)"
YEAR = 365.25  # days
SOURCES = {"both": "people and machine", "people": "people alone", "machine": "machine alone, as if right"}


@dataclass(frozen=True)
class Term:
    """A covariate."""

    kind: str  # "number", "date", "value" or "label"
    column: str
    values: np.ndarray  # shape (posts,); NaN in a row without a value
    value: str = ""  # whose coefficient it is, of a column of categories
    reference: str = ""  # the value that it is compared with

    @property
    def name(self) -> str:
        """Return how tables name it."""
        if self.kind == "value":
            return f"{self.column}: {self.value} against {self.reference}"
        return f"{self.column}: {self.value}" if self.kind == "label" else self.column


@dataclass(frozen=True)
class Variables:
    """The columns of a regression, each of shape (posts,)."""

    feature: Feature
    label: str
    by_people: np.ndarray  # whether a post has the label; NaN where nobody labeled it
    by_machine: np.ndarray
    predictions: np.ndarray  # the machine's probability of the label or, without one, its label
    outcome: np.ndarray | None  # None if the label is the outcome
    terms: list[Term]  # without the label

    @property
    def kept(self) -> np.ndarray:
        """Return whether each post has all values."""
        values = [term.values for term in self.terms] + ([] if self.outcome is None else [self.outcome])
        return ~np.isnan(values).any(0)

    @property
    def labeled(self) -> np.ndarray:
        """Return whether somebody labeled each post."""
        return ~np.isnan(self.by_people)

    def all_terms(self) -> list[Term]:
        """Return the covariates in the order of the coefficients, without the intercept."""
        of_label = Term("label", self.feature.name, self.predictions, self.label)
        return self.terms if self.outcome is None else [of_label, *self.terms]

    def table(self, labels: np.ndarray, rows: np.ndarray) -> Table:
        """Return the outcome and covariates of some rows, given everybody's labels."""
        own = [] if self.outcome is None else [labels]
        columns = np.stack([np.ones(len(labels)), *own, *(term.values for term in self.terms)], axis=1)
        return Table((labels if self.outcome is None else self.outcome)[rows], columns[rows])

    def fits(self, design: Design | None, kind: Kind) -> dict[str, Fit]:
        """Return the coefficients from each of :data:`SOURCES`."""
        kept, seen = self.kept, self.kept & self.labeled
        inside, items = np.flatnonzero(kept[self.labeled]), int(kept.sum())
        simple = Design(np.zeros(len(inside), dtype=int), np.array([float(items)]))
        drawn = simple if design is None else design.part(inside)
        known = self.table(self.by_people, seen)
        try:
            return {
                "both": by_both(
                    known, self.table(self.predictions, seen), self.table(self.predictions, kept), drawn, kind
                ),
                "people": by_people(known, drawn, items, kind),
                "machine": by_machine(self.table(self.by_machine, kept), kind),
            }
        except (NoSolution, np.linalg.LinAlgError):
            apart = ", or they tell the outcome without error" if kind == "logistic" else ""
            names = ", ".join(term.name for term in self.all_terms())
            problem = f"no coefficients for {shown(names, 200)}: one covariate repeats others{apart}"
            fix = "leave one out" + (", or try --kind linear" if apart else "")
            raise UserError(problem, key="--on", fix=fix) from None


def read_variables(
    both: BothLabels,
    *,
    source: Path,
    on: Sequence[str],
    label: str | None,
    outcome: str | None,
    categories: Sequence[str],
    kind: Kind,
) -> tuple[Variables, list[str]]:
    """Return the columns of a regression, and what was done with them, in words.

    Raises:
        UserError: A column does not fit its role, or there are too few labels.
    """
    annotated, notes, terms = both.annotated, [], []
    chosen = _label(annotated.feature, label)
    labels = indicators(annotated, both.people, chosen)
    for column in on:
        labeled, values = ~np.isnan(labels[0]), annotated.columns[column]
        terms += _terms(column, values, labeled, column in categories, source, notes)
    numbers = None if outcome is None else _outcome(outcome, annotated.columns[outcome], kind, source)
    variables = Variables(annotated.feature, chosen, *labels, numbers, terms)
    count, coefficients = int((variables.kept & variables.labeled).sum()), len(variables.all_terms())
    if count < max(MIN_HUMAN_LABELS, FEWEST * coefficients):
        problem = f"only {counted(count, 'labeled post')} for {counted(coefficients, 'coefficient')}"
        expected = f"{FEWEST} for each coefficient, and at least {MIN_HUMAN_LABELS}"
        raise UserError(problem, key="--on", expected=expected, fix="use fewer covariates, or label more posts")
    if left_out := int((~variables.kept).sum()):
        notes.append(f"{counted(left_out, 'post')} without a value in one of the columns left out.")
    return variables, notes


def regression_finding(
    both: BothLabels, *, source: Path, outcome: str | None, kind: Kind, on: Sequence[str], **about: Any
) -> Finding:
    """Estimate the coefficients from both kinds of labels, from people's alone and from the machine's alone.

    ``about`` are the options of :func:`read_variables` and fields of the finding.
    """
    columns = {name: about.pop(name) for name in ("label", "categories")}
    variables, notes = read_variables(both, source=source, on=on, outcome=outcome, kind=kind, **columns)
    design = design_in(both.annotated, both.people, both.drawn) if both.drawn else None
    fits, terms = variables.fits(design, kind), variables.all_terms()
    rows = {key: fit.measures() for key, fit in fits.items()}
    estimates = [
        {"term": term, "name": term.name, **{key: rows[key][place] for key in SOURCES}}
        for place, term in enumerate(terms, 1)
    ]
    feature, kept = variables.feature, variables.kept
    of = outcome or f"{feature.name}: {variables.label}"
    unit = "log-odds" if kind == "logistic" else outcome or "share"
    counts = {"posts": int(kept.sum()), "labels": int((kept & variables.labeled).sum())}
    measures = {f"{row['name']} ({SOURCES[key]})": row[key] for row in estimates for key in SOURCES}
    people = both.people
    pairs = ([people[place], both.annotated.answers[place]] for place in sorted(people))
    return Finding(
        name="regression",
        **worded(
            TEMPLATE,
            estimates=estimates,
            of=of,
            label=variables.label,
            outcome=outcome,
            kind=kind,
            **counts,
            notes=[*notes, *both.votes.notes()],
            design=design,
        ),
        task=feature.title,
        parts=_parts(rows, measures, of, unit, kind),
        data={"name": table_name(source), "split": "posts with human labels", "fingerprint": fingerprint(pairs)},
        facts={
            "kind": kind,
            "outcome": of,
            "posts": counts["posts"],
            "human labels": counts["labels"],
            "weight of the machine": fits["both"].weight,
            "degrees of freedom": fits["both"].freedom,
            "standard errors": dict(zip([term.name for term in terms], fits["both"].errors[1:].tolist(), strict=True)),
        },
        **about,
    )


def _parts(rows: dict[str, list[Measure]], measures: dict[str, Measure], of: str, unit: str, kind: Kind) -> list[Part]:
    return [
        Measures(
            f"Coefficients for {of} ({kind})",
            "covariate",
            f"difference in {unit}",
            measures,
            reference=0.0,
            reference_name="no difference",
            differences=True,
        ),
        Listing(
            "Where each covariate is 0 or its most frequent value",
            ["labels", unit, "from", "to"],
            [[SOURCES[key], each[0]["value"], *each[0]["ci95"]] for key, each in rows.items()],
        ),
    ]


def _label(feature: Feature, wanted: str | None) -> str:
    names = feature.labels or feature.choices
    if wanted is None and not names:
        raise UserError(f"{feature.name} lists groups", key="--label", expected="the group that it is about")
    if wanted is None:
        return names[0]
    if names and wanted not in names:
        raise UserError(f"unknown label {shown(wanted)}", key="--label", expected=", ".join(names))
    return wanted


def _numbers(values: Sequence[tuple[str, ...]], read: Callable[[str], float]) -> np.ndarray | None:
    """Return a column's numbers, NaN where it is empty; None if a value is not one."""
    numbers = np.full(len(values), np.nan)
    for place, cell in enumerate(values):
        if cell != (NOTHING,):
            try:
                numbers[place] = read(cell[0])
            except ValueError:
                return None
            if len(cell) > 1 or not math.isfinite(numbers[place]):
                return None
    return numbers


def _days(text: str) -> float:
    return date.fromisoformat(text[:10]).toordinal()


def _outcome(column: str, values: Sequence[tuple[str, ...]], kind: Kind, source: Path) -> np.ndarray:
    numbers = _numbers(values, float)
    if numbers is None:
        raise UserError("not a column of numbers", file=source, column=column, expected="numbers as the outcome")
    if kind == "logistic" and not set(numbers[~np.isnan(numbers)].tolist()) <= {0.0, 1.0}:
        raise UserError("not a column of 0 and 1", file=source, column=column, expected="0 and 1, or --kind linear")
    return numbers


def _terms(
    column: str,
    values: Sequence[tuple[str, ...]],
    labeled: np.ndarray,
    categorical: bool,
    source: Path,
    notes: list[str],
) -> list[Term]:
    """Return the covariates of a column."""
    if not categorical:
        if (numbers := _numbers(values, float)) is not None:
            return [Term("number", column, numbers)]
        if (days := _numbers(values, _days)) is not None:
            return [Term("date", column, (days - np.nanmin(days)) / YEAR)]
    cells = [", ".join(cell) for cell in values]
    sizes = Counter(cell for cell in cells if cell != NOTHING)
    known = Counter(cell for cell, has in zip(cells, labeled, strict=True) if has)
    if rare := {cell for cell in sizes if known[cell] < FEWEST}:
        share = sum(sizes[cell] for cell in rare)
        enough = sum(known[cell] for cell in rare) >= FEWEST
        done = f"are one value, {OTHERS}" if enough else "are left out"
        notes.append(
            f"{counted(len(rare), 'value')} of {column} with fewer than {FEWEST} labels each ({counted(share, 'post')}) {done}."
        )
        cells = [(OTHERS if enough else NOTHING) if cell in rare else cell for cell in cells]
    sizes = Counter(cell for cell in cells if cell != NOTHING)
    if not 2 <= len(sizes) <= MOST_VALUES:
        expected = f"2 to {MOST_VALUES} values with {FEWEST} labels, or numbers or dates"
        raise UserError(
            f"{counted(len(sizes), 'value')} with enough labels", file=source, column=column, expected=expected
        )
    first, *others = (cell for cell, _ in sizes.most_common())
    array = np.array(cells)
    return [
        Term("value", column, np.where(array == NOTHING, np.nan, (array == cell).astype(float)), cell, first)
        for cell in others
    ]
