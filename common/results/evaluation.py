"""What an evaluation leaves beside a trained model: its record, those of its baselines, and its answers one by one.

``evaluation/record.json``, ``evaluation/baselines/*.json``, ``evaluation/findings/*.json`` (also of other checks than an
evaluation's own) and ``evaluation/scores.csv``, which has no texts: an ``id`` made of
the item's text, its ``label``, the model's ``answer``, and numbers: ``probability_<label>``, or of a generated answer
``mean_log_probability`` and ``margin``, its least lead in probability of a token over the next likely one.
"""

from __future__ import annotations

import csv
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cli.errors import UserError
from common.results.finding import KEPT, Finding, read_findings
from common.results.record import RunRecord, read_record
from common.tables.writing import write_rows

EVALUATION = "evaluation"
RECORD, SCORES, BASELINES = f"{EVALUATION}/record.json", f"{EVALUATION}/scores.csv", f"{EVALUATION}/baselines"


@dataclass(frozen=True)
class Evaluation:
    """An evaluation read back: the model's record, its baselines', its answers as rows of text, and what checks found."""

    record: RunRecord
    baselines: list[RunRecord]
    scores: list[dict[str, str]]
    findings: list[Finding]


def keep(folder: Path, record: RunRecord, baselines: Sequence[RunRecord], scores: Sequence[dict[str, Any]]) -> None:
    """Writes an evaluation into a model's own folder, in place of an earlier one; not where it may not be written to."""
    if not os.access(folder, os.W_OK):
        return
    shutil.rmtree(folder / EVALUATION, ignore_errors=True)
    for number, baseline in enumerate(baselines, 1):
        baseline.write(folder / BASELINES / f"{number}.json")
    write_rows(folder / SCORES, scores)
    record.write(folder / RECORD)


def read_evaluation(folder: Path) -> Evaluation | None:
    """The evaluation in a model's folder; None where there is none.

    Raises:
        UserError: It is damaged.
    """
    if not (folder / RECORD).is_file():
        return None
    try:
        with open(folder / SCORES, encoding="utf-8", newline="") as file:
            scores = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"can't be read: {error}", file=folder / SCORES, fix="evaluate the model again") from None
    if not scores or not _answers(scores):
        raise UserError("no answers of a model", file=folder / SCORES, fix="evaluate the model again")
    return Evaluation(
        read_record(folder / RECORD),
        [read_record(path) for path in sorted((folder / BASELINES).glob("*.json"))],
        scores,
        read_findings(folder / KEPT),
    )


def _answers(rows: list[dict[str, str]]) -> bool:
    """Whether each row holds an answer and finite numbers, as a file from anybody's repository need not."""
    texts, numbers = ("id", "label", "answer"), [name for name in rows[0] if name not in ("id", "label", "answer")]
    probabilities = {name for name in numbers if name.startswith("probability_")}
    if not (probabilities or {"mean_log_probability", "margin"} <= set(numbers)):
        return False
    for row in rows:
        if not all(isinstance(row.get(name), str) for name in (*texts, *numbers)):
            return False
        if probabilities and f"probability_{row['answer']}" not in probabilities:
            return False
        try:
            if not all(math.isfinite(float(row[name])) for name in numbers):
                return False
        except ValueError:
            return False
    return True
