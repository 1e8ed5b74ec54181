"""From predictions to run records, and the evaluation that is kept in a trained model's folder.

An evaluation is ``evaluation/record.json``, ``evaluation/baselines/*.json``, ``evaluation/findings/*.json`` (also of other checks)
and ``evaluation/scores.csv``. The CSV file contains no texts: an ``id`` derived from the item's text, its ``label``, the model's
``answer``, and numbers: ``probability_<label>``, where several may hold ``label_probability_<label>``, or for a generated answer
``mean_log_probability`` and ``margin``, the smallest lead in probability of one of its tokens over the runner-up.
"""

from __future__ import annotations

import csv
import math
import os
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli.console import stage
from common.cli.errors import UserError
from common.results.finding import KEPT, Finding, read_findings
from common.results.record import RunRecord, read_record
from common.tables.report import DataReport
from common.tables.writing import write_rows

if TYPE_CHECKING:
    from common.stats.design import Design

EVALUATION = "evaluation"
RECORD, SCORES, BASELINES = f"{EVALUATION}/record.json", f"{EVALUATION}/scores.csv", f"{EVALUATION}/baselines"
SEVERAL = "label_probability_"  # begins the columns of an answer of any number of labels
SMALL = 20  # smaller groups get no score of their own
OTHERS = "smaller ones"


@dataclass(frozen=True)
class ScoredSet:
    """Items that several models or baselines are scored on, with what accompanies their numbers wherever these are shown."""

    task: str  # heading of the table
    question: str  # what is asked about an item, in words
    limits: str  # what numbers on these items do not show
    data: str  # name of the corpus
    split: str
    names: tuple[str, ...]  # the classes
    labels: Sequence[Any]  # one per item: class indices, unless metrics() and confusion() are overridden
    fingerprint: str  # of the items with their labels
    class_counts: dict[str, dict[str, int]]  # sample → class → count, for a picture
    reports: Sequence[DataReport]
    policy: dict[str, Any]  # choices that made the labels
    miniature: bool
    groups: dict[str, Sequence[str | tuple[str, ...]]] = field(
        default_factory=dict
    )  # kind → each item's group or groups
    design: Design | None = None  # how the items were drawn; None if all count the same

    def metrics(self, predictions: Sequence[Any], seed: int) -> dict[str, dict[str, Any]]:
        """Return metric → ``{"value", "n", "ci95"}`` for predictions in the order of the items."""
        from common.stats.metrics import evaluate

        return evaluate(self.labels, predictions, self.names, seed=seed, design=self.design)

    def classes(self, labels: Sequence[Any]) -> Sequence[int]:
        """Return the class of each label in the confusion matrix."""
        return labels

    def confusion(self, predictions: Sequence[Any]) -> list[list[int]]:
        """Return counts: rows are labels, columns predictions, in the order of ``names``.

        With a design they are the rounded numbers of items for which the labeled ones stand.
        """
        import numpy as np

        from common.stats.metrics import confusion_matrix

        weights = self.design and self.design.weights
        counts = confusion_matrix(self.classes(self.labels), self.classes(predictions), len(self.names), weights)
        return np.rint(counts).astype(int).tolist()

    def by_group(self, predictions: Sequence[Any], seed: int) -> dict[str, dict[str, dict[str, Any]]]:
        """Return kind of group → group → headline metric on its items, largest group first.

        Groups of fewer than :data:`SMALL` items are combined. An item with several groups counts in each.
        """
        scores: dict[str, dict[str, dict[str, Any]]] = {}
        for kind, names in self.groups.items():
            groups_of = [(name,) if isinstance(name, str) else name for name in names]
            sizes = Counter(name for groups in groups_of for name in groups)
            places: dict[str, list[int]] = {}
            for index, groups in enumerate(groups_of):
                for name in dict.fromkeys(name if sizes[name] >= SMALL else OTHERS for name in groups):
                    places.setdefault(name, []).append(index)
            scores[kind] = {}
            for name, chosen in sorted(places.items(), key=lambda item: (item[0] == OTHERS, -len(item[1]), item[0])):
                part = replace(
                    self, labels=[self.labels[i] for i in chosen], design=self.design and self.design.part(chosen)
                )
                metrics = part.metrics([predictions[i] for i in chosen], seed)
                scores[kind][name] = metrics[next(iter(metrics))]
        return scores

    def record(self, title: str, predictions: Sequence[Any], *, module: str, seed: int = 0, **facts: Any) -> RunRecord:
        """Score predictions, one per item, and return their record.

        ``title`` heads the table row; ``module`` is the command that runs; ``facts`` are further fields of the record.
        """
        return RunRecord(
            title=title,
            task=self.task,
            metrics=self.metrics(predictions, seed),
            labels=list(self.names),
            by_group=self.by_group(predictions, seed),
            confusion=self.confusion(predictions),
            data={
                **{"name": self.data, "split": self.split, "fingerprint": self.fingerprint, "question": self.question},
                **{"limits": self.limits, "class_counts": self.class_counts},
                "reports": [report.as_dict() for report in self.reports],
            },
            policy=self.policy,
            seed=seed,
            miniature=self.miniature,
            command=command_line(module),
            **facts,
        )

    def measure(
        self, title: str, predict: Callable[[], Sequence[Any]], *, module: str, seed: int, path: Path, **facts: Any
    ) -> RunRecord:
        """Run ``predict`` and write the record to ``path``, with the time that it took unless ``facts`` has ``seconds``."""
        with stage(title):
            start = time.monotonic()
            predictions = predict()
            seconds = time.monotonic() - start
        record = self.record(title, predictions, module=module, seed=seed, **{"seconds": seconds, **facts})
        record.write(path)
        return record


def class_counts(labels: Sequence[int], names: Sequence[str]) -> dict[str, int]:
    """Count the items of each class."""
    return {name: sum(label == index for label in labels) for index, name in enumerate(names)}


def command_line(module: str) -> str:
    """Return this process's command for publication: of paths outside the working folder only the last part is kept."""

    def public(word: str) -> str:
        key, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        path = Path(value)
        return key + equals + (path.name if path.is_absolute() or ".." in path.parts else value)

    return shlex.join(["python", "-m", module, *map(public, sys.argv[1:])])


@dataclass(frozen=True)
class Evaluation:
    """An evaluation that was read back."""

    record: RunRecord
    baselines: list[RunRecord]
    scores: list[dict[str, str]]  # rows of scores.csv
    findings: list[Finding]


def keep(folder: Path, record: RunRecord, baselines: Sequence[RunRecord], scores: Sequence[dict[str, Any]]) -> None:
    """Write an evaluation into a model's folder, replacing an earlier one; do nothing if the folder is read-only."""
    if not os.access(folder, os.W_OK):
        return
    shutil.rmtree(folder / EVALUATION, ignore_errors=True)
    for number, baseline in enumerate(baselines, 1):
        baseline.write(folder / BASELINES / f"{number}.json")
    write_rows(folder / SCORES, scores)
    record.write(folder / RECORD)


def read_evaluation(folder: Path) -> Evaluation | None:
    """Read the evaluation in a model's folder; None if there is none."""
    if not (folder / RECORD).is_file():
        return None
    try:
        with open(folder / SCORES, encoding="utf-8", newline="") as file:
            scores = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"cannot be read: {error}", file=folder / SCORES, fix="evaluate the model again") from None
    if not scores or not _are_answers(scores):
        expected, fix = "columns id, label, answer and finite probabilities", "evaluate the model again"
        raise UserError("not a model's answers", file=folder / SCORES, expected=expected, fix=fix)
    baselines = [read_record(path) for path in sorted((folder / BASELINES).glob("*.json"))]
    return Evaluation(read_record(folder / RECORD), baselines, scores, read_findings(folder / KEPT))


def _are_answers(rows: list[dict[str, str]]) -> bool:
    """Check that each row has an answer and finite numbers; the file may come from anybody's repository."""
    texts = ("id", "label", "answer")
    numbers = [name for name in rows[0] if name not in texts]
    probabilities = {name for name in numbers if name.startswith("probability_")}
    several = [name.removeprefix(SEVERAL) for name in numbers if name.startswith(SEVERAL)]
    if not (probabilities or several or {"mean_log_probability", "margin"} <= set(numbers)):
        return False
    for row in rows:
        if not all(isinstance(row.get(name), str) for name in (*texts, *numbers)):
            return False
        if probabilities and f"probability_{row['answer']}" not in probabilities:
            return False
        if several and not set(row["answer"].split(", ")) <= {*several, "none"}:
            return False
        try:
            if not all(math.isfinite(float(row[name])) for name in numbers):
                return False
        except ValueError:
            return False
    return True
