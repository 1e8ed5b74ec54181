"""From predictions to a run record: the one place where a scored set of items becomes numbers."""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from common.cli.console import stage
from common.results.record import RunRecord
from common.stats.metrics import confusion_matrix, evaluate
from common.tables.report import DataReport

SMALL = 20  # items under which a group has no score of its own
OTHERS = "smaller ones"


@dataclass(frozen=True)
class ScoredSet:
    """The items that several models or controls are scored on, and what is said of them wherever their numbers appear.

    Attributes:
        task: Heading of their table.
        question: What is asked of an item, in words.
        limits: What numbers on these items do not show.
        data: Name of the corpus.
        split: Name of the split.
        names: The classes' names.
        labels: One label an item: a class index, unless :meth:`metrics` and :meth:`confusion` say otherwise.
        fingerprint: Fingerprint of the items with their labels.
        class_counts: Sample → class → count, for the picture of the classes.
        reports: Data reports of what was loaded.
        policy: Choices that made the labels.
        miniature: Whether this is the embedded miniature.
        groups: Kind of group → the group of each item, or its groups, for scores by group.
    """

    task: str
    question: str
    limits: str
    data: str
    split: str
    names: tuple[str, ...]
    labels: Sequence[Any]
    fingerprint: str
    class_counts: dict[str, dict[str, int]]
    reports: Sequence[DataReport]
    policy: dict[str, Any]
    miniature: bool
    groups: dict[str, Sequence[str | tuple[str, ...]]] = field(default_factory=dict)

    def metrics(self, predictions: Sequence[Any], seed: int) -> dict[str, dict[str, Any]]:
        """Metric → ``{"value", "n", "ci95"}`` of predictions in the items' order."""
        return evaluate(self.labels, predictions, self.names, seed=seed)

    def confusion(self, predictions: Sequence[Any]) -> list[list[int]]:
        """Counts, rows = labels, columns = predictions, in the order of ``names``."""
        return confusion_matrix(self.labels, predictions, len(self.names)).tolist()

    def by_group(self, predictions: Sequence[Any], seed: int) -> dict[str, dict[str, dict[str, Any]]]:
        """Kind of group → group → headline metric of its items, the largest first; groups of under :data:`SMALL` items are put
        together. An item of several groups counts in each."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for kind, names in self.groups.items():
            several = [(one,) if isinstance(one, str) else one for one in names]
            sizes = Counter(name for one in several for name in one)
            places: dict[str, list[int]] = {}
            for index, one in enumerate(several):
                for name in dict.fromkeys(name if sizes[name] >= SMALL else OTHERS for name in one):
                    places.setdefault(name, []).append(index)
            found[kind] = {}
            for name, chosen in sorted(places.items(), key=lambda item: (item[0] == OTHERS, -len(item[1]), item[0])):
                part = replace(self, labels=[self.labels[i] for i in chosen])
                scored = part.metrics([predictions[i] for i in chosen], seed)
                found[kind][name] = scored[next(iter(scored))]
        return found

    def record(self, title: str, predictions: Sequence[Any], *, module: str, seed: int = 0, **facts: Any) -> RunRecord:
        """The record of one model's predictions.

        Args:
            title: What predicted, as it heads a table row.
            predictions: One label an item.
            module: The module that runs, for the command that makes the record again.
            seed: Seed of the run and of the bootstrap.
            facts: Further fields of :class:`RunRecord`.
        """
        return RunRecord(
            title=title,
            task=self.task,
            metrics=self.metrics(predictions, seed),
            labels=list(self.names),
            by_group=self.by_group(predictions, seed),
            confusion=self.confusion(predictions),
            data={
                "name": self.data,
                "split": self.split,
                "fingerprint": self.fingerprint,
                "question": self.question,
                "limits": self.limits,
                "class_counts": self.class_counts,
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
        """Runs ``predict``, times it (``facts`` may hold a training's seconds instead), and writes the record to ``path``."""
        with stage(title):
            start = time.monotonic()
            predictions = predict()
            seconds = time.monotonic() - start
        record = self.record(title, predictions, module=module, seed=seed, **{"seconds": seconds, **facts})
        record.write(path)
        return record


def class_counts(labels: Sequence[int], names: Sequence[str]) -> dict[str, int]:
    """Class → number of items."""
    return {name: sum(label == index for label in labels) for index, name in enumerate(names)}


def command_line(module: str) -> str:
    """This process's command, to be shown: paths out of the working folder are cut to their last part, so nobody's folders
    are published."""

    def shown(word: str) -> str:
        key, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        path = Path(value)
        return key + equals + (path.name if path.is_absolute() or ".." in path.parts else value)

    return shlex.join(["python", "-m", module, *map(shown, sys.argv[1:])])
