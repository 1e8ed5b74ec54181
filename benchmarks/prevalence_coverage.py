"""How often does an interval for a share hold the true one? ``python -m benchmarks.prevalence_coverage --scores scores.csv``

An evaluation has a human label of every item, so the share that an interval should hold is known. Again and again, a few items are
drawn whose labels are looked at, as if they were all that people had labelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.cli.arguments import MAX_SEED, option, parse
from common.cli.console import log
from common.cli.errors import UserError, run
from common.results import rendering
from common.results.evaluation import RECORD
from common.results.finding import Finding, Listing, Measures
from common.results.record import read_record
from common.results.scoring import command_line
from common.stats.prediction_powered import Estimate, labelled_only, share
from common.tables.reading import probability_of, read_rows
from common.tables.report import fingerprint

MODULE = "benchmarks.prevalence_coverage"
PREFIX = "probability_"
NONE = "none"  # the answer of an item that targets nobody
OURS, PEOPLE, NORMAL, NAIVE = "people and machine", "people alone", "people and machine, normal", "machine alone"
LIMITS = (
    "Whether an interval holds where the labelled items are not drawn at random, and how it does on other files or models: the "
    "items are those of one evaluation, and only the draws differ. The interval of the machine's labels is the same in every draw."
)


@dataclass(kw_only=True)
class CoverageArguments:
    """Counts how often 95 % intervals for the share of a class hold it, for several numbers of labelled items.

    Compared are the interval of sbic_llama.prevalence, the same without its made-up items (the normal interval of the papers), the
    interval from the labelled items alone, and that of the machine's labels taken for the truth.
    """

    scores: Path = option(help="scores.csv in the evaluation folder of a model")
    draws: int = option(300, "draws for each number of labels", minimum=10)
    labels: tuple[int, ...] = option((50, 100, 200), "numbers of labelled items", minimum=2)
    seed: int = option(0, "seed of the draws", minimum=0, maximum=MAX_SEED)
    output: Path | None = option(None, "JSON file for the finding")


@dataclass(frozen=True)
class Scored:
    """A class: whether each item is in it by its label (1 or 0) and by the machine's answer, and the machine's prediction."""

    name: str
    labels: np.ndarray
    answers: np.ndarray
    predictions: np.ndarray


def read_classes(path: Path) -> list[Scored]:
    """The classes of a file of scores; of two only the first, of lists of groups whether there is any.

    Raises:
        UserError: No such file, or not scores.
    """
    rows = list(read_rows(path, ("id", "label", "answer")))
    if not rows:
        raise UserError("no items", file=path, expected="a row for each")
    labels, answers = (np.array([row.values[name] for row in rows], dtype=object) for name in ("label", "answer"))
    names = [column.removeprefix(PREFIX) for column in rows[0].values if column.startswith(PREFIX)]
    if not names:
        answered = (answers != NONE).astype(float)
        return [Scored("any group", (labels != NONE).astype(float), answered, answered)]
    predictions = {name: np.array([probability_of(row, PREFIX + name) for row in rows]) for name in names}
    return [
        Scored(name, (labels == name).astype(float), (answers == name).astype(float), predictions[name])
        for name in (names if len(names) > 2 else names[:1])
    ]


def intervals(one: Scored, labelled: np.ndarray, rest: np.ndarray) -> dict[str, tuple[float, float]]:
    """Estimator → interval, from the labels of some items."""
    both = share(one.labels[labelled], one.predictions[labelled], one.predictions[rest])
    alone = labelled_only(one.labels[labelled], len(one.labels))
    half = 1.959964 * both.standard_error
    return {
        OURS: (both.low, both.high),
        PEOPLE: (alone.low, alone.high),
        NORMAL: (max(0.0, both.value - half), min(1.0, both.value + half)),
    }


def naive(one: Scored) -> Estimate:
    """The share of the machine's labels, as if they were the truth."""
    return labelled_only(one.answers, len(one.answers), "population")


def measure_coverage(
    classes: list[Scored], counts: tuple[int, ...], draws: int, seed: int
) -> dict[tuple[str, int, str], tuple[list[bool], float]]:
    """(Class, labels, estimator) → whether the interval of each draw held the share of all items, and the mean width."""
    found = {}
    for count in counts:
        rng = np.random.default_rng([seed, count])
        places = [np.split(rng.permutation(len(classes[0].labels)), [count]) for _ in range(draws)]
        for one in classes:
            truth = float(one.labels.mean())
            drawn = [intervals(one, labelled, rest) for labelled, rest in places]
            for name in (OURS, PEOPLE, NORMAL):
                ends = [each[name] for each in drawn]
                # A share of the whole file is exact: rounding must not decide.
                held = [low - 1e-9 <= truth <= high + 1e-9 for low, high in ends]
                found[one.name, count, name] = (held, float(np.mean([high - low for low, high in ends])))
    return found


def coverage_finding(arguments: CoverageArguments) -> Finding:
    """Runs the draws.

    Raises:
        UserError: Not scores, or fewer items than labels are to be drawn.
    """
    classes = read_classes(arguments.scores)
    items = len(classes[0].labels)
    if max(arguments.labels) >= items:
        raise UserError(
            f"{max(arguments.labels):,} labels of {items:,} items", key="--labels", expected=f"fewer than {items:,}"
        )
    found = measure_coverage(classes, arguments.labels, arguments.draws, arguments.seed)
    beside = arguments.scores.parent / Path(RECORD).name
    record = read_record(beside) if beside.is_file() else None
    parts: list = [
        Measures(
            f"Draws in which the interval held the share of {one.name}",
            "labels and interval",
            "coverage",
            {
                f"{count:,} labels, {name}": _share(found[one.name, count, name][0])
                for count in arguments.labels
                for name in (OURS, PEOPLE, NORMAL)
            },
            0.95,
            "asked for",
        )
        for one in classes
    ]
    parts += _listings(classes, arguments.labels, found)
    return Finding(
        name="prevalence-coverage",
        title="How often intervals for a share hold it",
        task=record.task if record else arguments.scores.name,
        model=record.title if record else "model",
        summary=_summary(classes, found, arguments.draws, items),
        parts=parts,
        limits=LIMITS,
        data={
            "name": record.data["name"] if record else arguments.scores.name,
            "split": record.data["split"] if record else "all items",
            "fingerprint": fingerprint([one.name, one.labels.tolist(), one.predictions.tolist()] for one in classes),
        },
        facts={"draws": arguments.draws, "seed": arguments.seed, "items": items},
        miniature=bool(record and record.miniature),
        command=command_line(MODULE),
    )


def _share(held: list[bool]) -> dict:
    return labelled_only(np.array(held, dtype=float), len(held), "population").measure()


def _listings(classes: list[Scored], counts: tuple[int, ...], found: dict) -> list[Listing]:
    kinds = (OURS, PEOPLE, NORMAL)
    widths = [
        [one.name, count, *(found[one.name, count, kind][1] for kind in kinds)] for one in classes for count in counts
    ]
    counted = [(one, naive(one)) for one in classes]
    shares = [[one.name, float(one.labels.mean()), each.value, each.low, each.high] for one, each in counted]
    return [
        Listing("Mean width of the intervals", ["class", "labels", *(f"width, {kind}" for kind in kinds)], widths),
        Listing("The machine's labels counted", ["class", "true share", "share counted", "from", "to"], shares),
    ]


def _summary(classes: list[Scored], found: dict, draws: int, items: int) -> list[str]:
    def least(name: str) -> str:
        return f"{100 * min(np.mean(held) for (_, _, kind), (held, _) in found.items() if kind == name):.1f} %"

    pairs = [(found[key][1], found[(*key[:2], PEOPLE)][1]) for key in found if key[2] == OURS]
    ratio = 100 * (1 - np.mean([ours / alone for ours, alone in pairs]))
    wrong = [one.name for one in classes if not naive(one).holds(float(one.labels.mean()))]
    return [
        f"In {draws:,} draws of labelled items among {items:,}, the interval from people and machine held the true share in at "
        f"least {least(OURS)} of them, that from people alone in {least(PEOPLE)}, the normal interval in {least(NORMAL)}.",
        f"Intervals were on average {abs(ratio):.0f} % {'narrower' if ratio >= 0 else 'wider'} with the machine than from people "
        "alone.",
        f"Counting the machine's labels gives an interval that misses the true share of {', '.join(wrong) or 'no class'}.",
    ]


def main() -> None:
    arguments = parse(
        CoverageArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} --scores output/miniature_sbic/offensiveYN/evaluation/scores.csv --output finding.json",
    )
    found = coverage_finding(arguments)
    print("\n".join(rendering.lines(found)))
    if arguments.output is not None:
        found.write(arguments.output)
        log(f"finding: {arguments.output}")


if __name__ == "__main__":
    run(main)
