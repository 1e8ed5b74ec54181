"""What an evaluation leaves beside a trained model: its record, those of its baselines, and its answers one by one.

``evaluation/record.json``, ``evaluation/baselines/*.json`` and ``evaluation/scores.csv``, which has no texts: an ``id`` made of
the item's text, its ``label``, the model's ``answer``, and numbers: ``probability_<label>``, or of a generated answer
``mean_log_probability`` and ``margin``, its least lead in probability of a token over the next likely one.
"""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.records import RunRecord, read_record
from common.tables import write_rows

EVALUATION = "evaluation"
RECORD, SCORES, BASELINES = f"{EVALUATION}/record.json", f"{EVALUATION}/scores.csv", f"{EVALUATION}/baselines"


@dataclass(frozen=True)
class Evaluation:
    """An evaluation read back: the model's record, its baselines', and its answers as rows of text."""

    record: RunRecord
    baselines: list[RunRecord]
    scores: list[dict[str, str]]


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
    except (OSError, ValueError) as error:
        raise UserError(f"can't be read: {error}", file=folder / SCORES, fix="evaluate the model again") from None
    if not scores or not {"id", "label", "answer"} <= set(scores[0]):
        raise UserError("no answers of a model", file=folder / SCORES, fix="evaluate the model again")
    return Evaluation(
        read_record(folder / RECORD),
        [read_record(path) for path in sorted((folder / BASELINES).glob("*.json"))],
        scores,
    )
