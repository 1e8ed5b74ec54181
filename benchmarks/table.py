"""What the rounds of a job come to: ratios, rates, and whether a target is met; and whether both sides gave the same answers."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks import jobs
from benchmarks.alternating import middle, ratios
from benchmarks.jobs import OURS, Job
from benchmarks.setting import Measured
from common.cli.errors import UserError
from common.results.finding import Listing
from common.runtime import hardware

AGREEMENT = 0.9  # share of the items at least on which theirs, in fp32, must say what ours says
SAME_LOSS = 0.1  # of ours at most that the mean loss of their training may be off: rows come in another order
COLUMNS = ["job", "theirs", "ratio (from–to)", "ours/s", "theirs/s", "MFU of ours", "same", "target", "met"]


@dataclass(frozen=True)
class Ran:
    """A job's rounds, and how far the others did what ours did: see :func:`agreement`."""

    job: Job
    rounds: list[dict[str, Measured]]
    agreement: dict[str, float]


def agreement(job: str, sides: dict[str, Measured]) -> dict[str, float]:
    """By side, the share of the items that it and ours did on which their answers are the same; of a training, the mean loss as a
    share of ours.

    Raises:
        UserError: One that computes in fp32 says something else too often, or one's loss is another: it does not do the job. Or
            ours says the same of every item, and agreement would mean nothing.
    """
    own = sides[OURS]
    if len(own.answers) > 1 and len(set(own.answers.values())) == 1:
        raise UserError(f"{job}: ours answers all of {len(own.answers)} items alike", expected="answers that differ")
    compare = _loss if "train_loss" in own.facts else _answers
    return {name: compare(f"{job}: {name}", side, own) for name, side in sides.items() if name != OURS}


def _answers(name: str, side: Measured, own: Measured) -> float:
    both = side.answers.keys() & own.answers.keys()
    same = sum(side.answers[item] == own.answers[item] for item in both) / max(1, len(both))
    if side.precision == "fp32" and same < AGREEMENT:
        raise UserError(
            f"{name} gives ours' answer for {same:.0%} of {len(both)} items",
            expected=f"{AGREEMENT:.0%}, or the two don't do the same",
        )
    return same


def _loss(name: str, side: Measured, own: Measured) -> float:
    theirs, ours = side.facts["train_loss"], own.facts["train_loss"]
    if abs(theirs / ours - 1) > SAME_LOSS:
        raise UserError(
            f"{name} trains with a loss of {theirs:.3f}, ours with {ours:.3f}",
            expected=f"at most {SAME_LOSS:.0%} between them, or the two don't do the same",
        )
    return theirs / ours


def compared(ran: Ran, rates: dict[str, float]) -> list[list[Any]]:
    """A row for each of the others."""
    own = [each[OURS] for each in ran.rounds]
    use = median(one.flops / one.seconds / rates[one.precision] for one in own)
    made = []
    for name, (tool, _) in jobs.sides(ran.job, bf16=hardware.cpu_has_bf16()).items():
        if name == OURS:
            continue
        each = ratios(ran.rounds, OURS, name)
        made.append(
            [
                f"{ran.job.name}, {ran.job.unit}",
                name,
                middle(each),
                _three(median(one.rate for one in own)),
                _three(median(one[name].rate for one in ran.rounds)),
                f"{use:.0%} of {own[0].precision}",
                f"loss × {ran.agreement[name]:.2f}" if "train_loss" in own[0].facts else f"{ran.agreement[name]:.0%}",
                f"≥ {tool.target:g}",
                median(each) >= tool.target,
            ]
        )
    return made


def _three(number: float) -> str:
    """Three digits: ``1,230``, ``45.6``, ``0.789``."""
    return f"{float(f'{number:.3g}'):,.0f}" if number >= 100 else f"{number:.3g}"


def summary(parts: list[Listing]) -> list[str]:
    """How many targets were met, and which not."""
    rows = [row for part in parts for row in part.rows]
    missed = [
        f"{row[0]}, {row[1]} ({row[2]})" if part.columns == COLUMNS else f"{part.title}, {row[0]}"
        for part in parts
        for row in part.rows
        if not row[-1]
    ]
    said = f"{len(rows) - len(missed)} of {len(rows)} targets were met."
    return [said] + ([f"Not met: {'; '.join(missed)}."] if missed else [])


def timings(ran: Ran) -> dict[str, list[dict[str, Any]]]:
    """Every single timing by side; the answers stay out."""
    found: dict[str, list[dict[str, Any]]] = {}
    for each in ran.rounds:
        for name, one in each.items():
            kept = {key: value for key, value in dataclasses.asdict(one).items() if key != "answers"}
            found.setdefault(name, []).append(kept)
    return found


def all_ratios(ran: Ran) -> dict[str, list[float]]:
    """The ratio of every round, by side."""
    return {name: ratios(ran.rounds, OURS, name) for name in ran.rounds[0] if name != OURS}
