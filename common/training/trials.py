"""Trainings of both methods, full fine-tuning and LoRA: which exist, and which learning rate each method gets.

Each method tries its learning rates with the first seed. The rate with the best mean of the validation score is run again with the
other seeds. If the mean over its seeds falls below another rate's, that rate gets its seeds too. Folders are named after what a
run is, so the same command continues, and a command with other settings reuses what it shares.
"""

from __future__ import annotations

import json
import shutil
import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.cli.console import duration, log, warn
from common.cli.errors import UserError, counted
from common.cli.options import METHODS, Method
from common.results.record import TRAINING_FILE, RunRecord, training_costs, training_facts
from common.results.scoring import ScoredSet, read_evaluation
from common.runtime.files import atomic_write
from common.stats.paired import over_seeds
from common.tables.report import fingerprint

CHILD = "common.training.child"  # what child processes import first
DIVERGED = "diverged.txt"  # a run leaves it instead of a model


@dataclass(frozen=True)
class Run:
    """One training."""

    arguments: Any  # with method, learning_rate, seed and output_dir

    @property
    def folder(self) -> Path:
        return self.arguments.output_dir

    @property
    def title(self) -> str:
        arguments = self.arguments
        return f"{METHODS[arguments.method]}, learning rate {arguments.learning_rate:g}, seed {arguments.seed}"

    @property
    def diverged(self) -> bool:
        """Whether its loss or weights became NaN or infinite: there is no model, and never would be."""
        return (self.folder / DIVERGED).is_file()

    @property
    def finished(self) -> bool:
        return (self.folder / TRAINING_FILE).is_file() or self.diverged

    def facts(self) -> dict[str, Any]:
        """Read the finished run's training record."""
        facts = training_facts(self.folder)
        assert facts is not None, f"{self.folder} is not finished"
        return facts

    def validation_score(self) -> float | None:
        """Return the score that the checkpoint was chosen by; None if the run diverged."""
        return None if self.diverged else float(next(iter(self.facts()["best"].values())))

    def answers(self, scored: ScoredSet, ids: Sequence[str]) -> np.ndarray | None:
        """Return the class that its model gave each item, shape (n,); None until the model is scored on these items."""
        kept = read_evaluation(self.folder)
        if kept is None or kept.record.data["fingerprint"] != scored.fingerprint:
            return None
        answers = {row["id"]: row["answer"] for row in kept.scores}
        return np.array([scored.names.index(answers[name]) for name in ids])


def trial_folder(folder: Path, method: Method, rate: float, seed: int, identity: Any) -> Path:
    """Return the folder of a run; ``identity`` is whatever else makes it another run."""
    identity = json.loads(json.dumps(identity, default=str))
    return folder / f"{method}-{rate:g}-seed{seed}-{fingerprint([identity])[:8]}"


@dataclass(frozen=True)
class Trials(ABC):
    """The trainings of both methods."""

    rates: Mapping[Method, Sequence[float]]
    seeds: Sequence[int]
    score: str  # by which rates are chosen, in words

    @abstractmethod
    def run(self, method: Method, rate: float, seed: int) -> Run:
        """Return a training, made or not."""

    def trials(self, method: Method) -> list[Run]:
        """Return a run for each learning rate, with the first seed."""
        return [self.run(method, rate, self.seeds[0]) for rate in self.rates[method]]

    def mean_score(self, method: Method, rate: float) -> float | None:
        """Return the mean validation score of a rate's existing runs; None if one diverged."""
        runs = [self.run(method, rate, seed) for seed in self.seeds]
        scores = [run.validation_score() for run in runs if run.finished]
        return None if None in scores else statistics.fmean(value for value in scores if value is not None)

    def chosen_rate(self, method: Method) -> float:
        """Return the rate with the best mean validation score over its existing runs; the first of equals."""
        means = {rate: self.mean_score(method, rate) for rate in self.rates[method]}
        left = {rate: mean for rate, mean in means.items() if mean is not None}
        if not left:
            problem = f"{METHODS[method]} diverged with every learning rate"
            raise UserError(problem, key=f"{method}_learning_rates", fix="try lower rates")
        return max(left, key=left.__getitem__)

    def finished_runs(self, method: Method) -> list[Run]:
        """Return all existing runs of a method, by rate and seed."""
        every = [self.run(method, rate, seed) for rate in self.rates[method] for seed in self.seeds]
        return [run for run in every if run.finished]

    def finals(self, method: Method) -> list[Run]:
        """Return the runs of the chosen rate, one per seed."""
        rate = self.chosen_rate(method)
        return [self.run(method, rate, seed) for seed in self.seeds]

    def runs_each(self, method: Method) -> int:
        """Count a method's trainings: its trials, and the further seeds of one of them."""
        return len(self.rates[method]) + len(self.seeds) - 1

    def made(self, method: Method) -> int:
        """Count a method's existing runs."""
        trials = self.trials(method)
        if not all(run.finished for run in trials):
            return sum(run.finished for run in trials)
        return len(trials) + sum(run.finished for run in self.finals(method)[1:])


def check_trials(**values: Sequence[float]) -> None:
    """Refuse learning rates or seeds, by the option that lists them, if there are none or one repeats."""
    for name, listed in values.items():
        if len(set(listed)) != len(listed) or not listed:
            raise UserError("a value occurs twice" if listed else "empty", key=name, expected="different values")


def announce(every: Sequence[Trials], estimate: Callable[[Any], Any], *, always: bool = False) -> None:
    """Print how many runs are left and, from a few steps of each method's first run, how long they will take here."""
    from common.runtime.child_process import call

    total = 0.0
    for method, title in METHODS.items():
        count = sum(trials.runs_each(method) for trials in every)
        if not (left := count - sum(trials.made(method) for trials in every)):
            log(f"{title}: nothing to train, {counted(count, 'run')} found", always=always)
            continue
        expected = call(estimate, every[0].trials(method)[0].arguments, preload=CHILD)
        total += left * expected.seconds
        log(f"{title}: {left} to train, each {expected}: {duration(left * expected.seconds)}", always=always)
    if total:
        again = "the same command continues where it was stopped"
        log(f"about {duration(total)} of training in total; {again}", always=always)


def make_trials(trials: Trials, train: Callable[[Any], None]) -> dict[Method, list[Run]]:
    """Make the missing trials; return them by method."""
    runs = {method: trials.trials(method) for method in METHODS}
    _make(_alternately(runs), train)
    return runs


def make_finals(trials: Trials, train: Callable[[Any], None]) -> dict[Method, list[Run]]:
    """Make the missing runs of each method's chosen rate, whose trials were made; return them by method."""
    finals = {method: trials.finals(method) for method in METHODS}
    while not all(run.finished for runs in finals.values() for run in runs):
        for method, runs in finals.items():
            log(f"{METHODS[method]}: learning rate {runs[0].arguments.learning_rate:g} by {trials.score}")
        _make(_alternately(finals), train)
        finals = {method: trials.finals(method) for method in METHODS}  # others, if the mean over seeds fell behind
    return finals


def _alternately(runs: Mapping[Method, Sequence[Run]]) -> list[Run]:
    """Order runs such that an interrupted command has seen as much of both methods."""
    longest = max(map(len, runs.values()))
    return [each[place] for place in range(longest) for each in runs.values() if place < len(each)]


def _make(runs: Sequence[Run], train: Callable[[Any], None]) -> None:
    """Make the missing ones of the runs, each in a process of its own.

    Raises:
        UserError: A run failed; finished ones are kept.
        SystemExit: A signal stopped it.
    """
    from common.runtime.child_process import call
    from common.training.callbacks import Diverged

    for number, run in enumerate(runs, 1):
        if run.finished:
            log(f"{run.title}: found in {run.folder}")
        else:
            log(f"run {number} of {len(runs)}: {run.title}")
            try:
                call(train, run.arguments, preload=CHILD)
            except Diverged as error:  # a result too: this rate is too high
                warn(f"{error}. The command continues without this rate")
                with atomic_write(run.folder / DIVERGED) as part:
                    part.write_text(f"{error.problem}\n", encoding="utf-8")
        for checkpoint in run.folder.glob("checkpoint-*"):  # those of ten runs could fill a disk
            shutil.rmtree(checkpoint)


def record_of(title: str, runs: Sequence[Run], answers: np.ndarray, scored: ScoredSet, **shared: Any) -> RunRecord:
    """Make a method's record: means over its seeds, the largest memory, the confusion of all seeds together.

    ``answers`` are the class that each run gives each item, shape (seeds, n).
    """
    costs = [training_costs(run.facts()) for run in runs]
    first: dict[str, Any] = costs[0]
    seconds = [cost["seconds"] for cost in costs]
    memory = {kind: max(cost["peak_memory_bytes"][kind] for cost in costs) for kind in first["peak_memory_bytes"]}
    settings = {k: v for k, v in first["settings"].items() if k not in ("seed", "best")}
    first |= {
        "settings": settings | {"seeds": [run.arguments.seed for run in runs]},
        "seconds": None if None in seconds else float(np.mean(seconds)),
        "peak_memory_bytes": memory,
    }
    record = scored.record(title, answers[0].tolist(), **shared, **first)
    record.metrics = over_seeds(scored.labels, answers, scored.names, seed=shared["seed"])
    record.confusion = np.sum([scored.confusion(each.tolist()) for each in answers], axis=0).tolist()
    return record
