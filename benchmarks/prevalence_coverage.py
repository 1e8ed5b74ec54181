"""Count how often an interval for a share contains the true one: ``python -m benchmarks.prevalence_coverage --scores scores.csv``

An evaluation has a human label for every item, so the true share is known. Again and again, a few items are drawn, as if they were
all that people had labeled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.cli.arguments import MAX_SEED, option, parse
from common.cli.console import log
from common.cli.errors import UserError, run
from common.results import rendering
from common.results.finding import Finding, Listing, Measures, worded
from common.results.record import read_record
from common.results.scoring import RECORD, command_line
from common.stats.prediction_powered import Estimate, labelled_only, share
from common.tables.reading import probability_of, read_rows
from common.tables.report import fingerprint

MODULE = "benchmarks.prevalence_coverage"
PREFIX = "probability_"
NONE = "none"  # the answer for an item that targets nobody
OURS, PEOPLE, NORMAL = "people and machine", "people alone", "people and machine, normal"
KINDS = (OURS, PEOPLE, NORMAL)
WORDS = Path(__file__).with_name("templates") / "prevalence_coverage.jinja"
# (class, labels, kind of interval) → how often it contains the share of all items, and its mean width
Coverage = dict[tuple[str, int, str], tuple[Estimate, float]]


@dataclass(kw_only=True)
class CoverageArguments:
    """Count how often 95 % intervals for the share of a class contain it, for several numbers of labeled items.

    Compared are the interval of sbic_llama.prevalence, the same without its added items (the normal interval of the papers), the
    interval from the labeled items alone, and that from the machine's labels taken as the truth.
    """

    scores: Path = option(help="scores.csv in a model's evaluation folder")
    draws: int = option(300, "draws per number of labels", minimum=10)
    labels: tuple[int, ...] = option((50, 100, 200), "numbers of labeled items", minimum=2)
    seed: int = option(0, "seed of the draws", minimum=0, maximum=MAX_SEED)
    output: Path | None = option(None, "JSON file for the finding")


@dataclass(frozen=True)
class ScoredClass:
    """A class: by item, whether its label and the machine's answer are this class (1 or 0), and the machine's prediction."""

    name: str
    labels: np.ndarray
    answers: np.ndarray
    predictions: np.ndarray

    @property
    def truth(self) -> float:
        return float(self.labels.mean())

    def counted(self) -> Estimate:
        """Return the share of the machine's labels, as if they were the truth."""
        return labelled_only(self.answers, len(self.answers), "population")


def read_classes(path: Path) -> list[ScoredClass]:
    """Read the classes of a file of scores: only the first of two; of lists of groups, whether there is any."""
    rows = list(read_rows(path, ("id", "label", "answer")))
    if not rows:
        raise UserError("no items", file=path, expected="a row per item")
    labels, answers = (np.array([row.values[name] for row in rows], dtype=object) for name in ("label", "answer"))
    names = [column.removeprefix(PREFIX) for column in rows[0].values if column.startswith(PREFIX)]
    if not names:
        answered = (answers != NONE).astype(float)
        return [ScoredClass("any group", (labels != NONE).astype(float), answered, answered)]
    predictions = {name: np.array([probability_of(row, PREFIX + name) for row in rows]) for name in names}
    return [
        ScoredClass(name, (labels == name).astype(float), (answers == name).astype(float), predictions[name])
        for name in (names if len(names) > 2 else names[:1])
    ]


def intervals(scored: ScoredClass, labelled: np.ndarray, rest: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return each kind of interval, from the labels of some items."""
    both = share(scored.labels[labelled], scored.predictions[labelled], scored.predictions[rest])
    alone = labelled_only(scored.labels[labelled], len(scored.labels))
    half = 1.959964 * both.standard_error
    normal = max(0.0, both.value - half), min(1.0, both.value + half)
    return {OURS: (both.low, both.high), PEOPLE: (alone.low, alone.high), NORMAL: normal}


def measure_coverage(classes: list[ScoredClass], counts: tuple[int, ...], draws: int, seed: int) -> Coverage:
    coverage: Coverage = {}
    for count in counts:
        rng = np.random.default_rng([seed, count])
        places = [np.split(rng.permutation(len(classes[0].labels)), [count]) for _ in range(draws)]
        for scored in classes:
            drawn = [intervals(scored, labelled, rest) for labelled, rest in places]
            for kind in KINDS:
                ends = [each[kind] for each in drawn]
                # A share of the whole file is exact: rounding must not decide.
                holds = np.array([low - 1e-9 <= scored.truth <= high + 1e-9 for low, high in ends], dtype=float)
                width = float(np.mean([high - low for low, high in ends]))
                coverage[scored.name, count, kind] = labelled_only(holds, draws, "population"), width
    return coverage


def coverage_finding(arguments: CoverageArguments) -> Finding:
    """Run the draws."""
    classes, name = read_classes(arguments.scores), arguments.scores.name
    items, most = len(classes[0].labels), max(arguments.labels)
    if most >= items:
        raise UserError(f"{most:,} labels of {items:,} items", key="--labels", expected=f"fewer than {items:,}")
    coverage = measure_coverage(classes, arguments.labels, arguments.draws, arguments.seed)
    beside = arguments.scores.parent / Path(RECORD).name
    record = read_record(beside) if beside.is_file() else None
    data = record.data if record else {"name": name, "split": "all items"}
    items_read = fingerprint([c.name, c.labels.tolist(), c.predictions.tolist()] for c in classes)
    return Finding(
        name="prevalence-coverage",
        task=record.task if record else name,
        model=record.title if record else "model",
        **worded(WORDS, **_numbers(classes, coverage), draws=arguments.draws, items=items),
        parts=_parts(classes, arguments.labels, coverage),
        data={"name": data["name"], "split": data["split"], "fingerprint": items_read},
        facts={"draws": arguments.draws, "seed": arguments.seed, "items": items},
        miniature=bool(record and record.miniature),
        command=command_line(MODULE),
    )


def _parts(classes: list[ScoredClass], counts: tuple[int, ...], coverage: Coverage) -> list:
    parts: list = []
    for scored in classes:
        title = f"Draws in which the interval contains the share of {scored.name}"
        rows = {f"{n:,} labels, {kind}": coverage[scored.name, n, kind][0].measure() for n in counts for kind in KINDS}
        parts.append(Measures(title, "labels and interval", "coverage", rows, 0.95, "nominal"))
    widths = [[c.name, n, *(coverage[c.name, n, kind][1] for kind in KINDS)] for c in classes for n in counts]
    counted = [(scored, scored.counted()) for scored in classes]
    shares = [[scored.name, scored.truth, each.value, each.low, each.high] for scored, each in counted]
    return [
        *parts,
        Listing("Mean width of the intervals", ["class", "labels", *(f"width, {kind}" for kind in KINDS)], widths),
        Listing("The machine's labels counted", ["class", "true share", "share counted", "from", "to"], shares),
    ]


def _numbers(classes: list[ScoredClass], coverage: Coverage) -> dict[str, Any]:
    widths = [(coverage[name, n, OURS][1], width) for (name, n, kind), (_, width) in coverage.items() if kind == PEOPLE]
    return {
        "least": [min(held.value for (*_, k), (held, _) in coverage.items() if k == kind) for kind in KINDS],
        "narrower": 1 - np.mean([ours / alone for ours, alone in widths]),
        "missed": [scored.name for scored in classes if not scored.counted().holds(scored.truth)],
    }


def main() -> None:
    example = (
        f"  python -m {MODULE} --scores output/miniature_sbic/offensiveYN/evaluation/scores.csv --output finding.json"
    )
    arguments = parse(CoverageArguments, prog=f"python -m {MODULE}", examples=example)
    finding = coverage_finding(arguments)
    print("\n".join(rendering.lines(finding)))
    if arguments.output is not None:
        finding.write(arguments.output)
        log(f"finding: {arguments.output}")


if __name__ == "__main__":
    run(main)
