"""The runs of the study "full fine-tuning or LoRA?": which exist, and which learning rate each method gets.

Each method gets as many trials: one run per learning rate, with the first seed. The rate with the best validation
accuracy is run again with the other seeds. If the mean over its seeds falls below another rate's, that rate gets its
seeds too. Folders are named after what a run is, so a study that is started again, or with other settings for one of
the methods, reuses existing runs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cli.arguments import MAX_SEED, identifying, option
from common.cli.console import duration, log, warn
from common.cli.errors import UserError
from common.cli.options import LoraOptions
from common.models.loading import base_path, commit_of
from common.results.finding import KEPT
from common.results.record import TRAINING_FILE, training_facts
from common.results.scoring import RECORD
from common.runtime.files import atomic_folder, atomic_write
from common.tables.report import fingerprint
from snli_roberta.training.arguments import TITLES, CorpusArguments, Method, Schedule, SharedSettings, TrainArguments

DIVERGED = "diverged.txt"  # a run leaves it instead of a model
# Not part of a run's name: where base and corpus come from (their content is), and settings of logs.
NOT_IDENTITY = {"data_dir", "dataset_name", "dataset_revision", "model_name_or_path", "model_revision"}
NOT_IDENTITY |= {"logging_steps", "report_to", "save_total_limit"}
LORA_ONLY = {field.name for field in dataclasses.fields(LoraOptions)}
LORA_ONLY |= {"target_modules", "init_lora_weights", "use_rslora", "use_dora"}


@dataclass(kw_only=True)
class StudyArguments(SharedSettings):
    """Compare full fine-tuning and LoRA under the same conditions: several learning rates and seeds, scored once.

    The same command continues a study that was stopped, without repeating a run. The folders full and lora of output_dir
    receive the models to use: those of the chosen rates with the first seed."""

    full_learning_rates: tuple[float, ...] = option(help="rates to try for full fine-tuning", above=0, maximum=1)
    lora_learning_rates: tuple[float, ...] = option(help="as many rates to try for LoRA", above=0, maximum=1)
    seeds: tuple[int, ...] = option(
        (33, 34, 35), "seeds; the rates are tried with the first", minimum=0, maximum=MAX_SEED
    )
    output_dir: Path = option(help="folder for the runs, records and findings")
    report: Path | None = option(None, "also write an HTML page to this file")
    estimate_only: bool = option(False, "print the number of runs and their estimated time, and train nothing")
    trials_only: bool = option(
        False, "only make the trials, print their validation accuracies, and skip the test split"
    )

    def __post_init__(self) -> None:
        CorpusArguments.__post_init__(self)
        Schedule.__post_init__(self)
        if len(self.full_learning_rates) != len(self.lora_learning_rates):
            problem = f"{len(self.full_learning_rates)} and {len(self.lora_learning_rates)} learning rates"
            raise UserError(problem, key="lora_learning_rates", expected="as many trials for each method")
        for name in ("full_learning_rates", "lora_learning_rates", "seeds"):
            values = getattr(self, name)
            if len(set(values)) != len(values) or not values:
                raise UserError("a value occurs twice" if values else "empty", key=name, expected="different values")

    def rates(self, method: Method) -> tuple[float, ...]:
        return self.full_learning_rates if method == "full" else self.lora_learning_rates


@dataclass(frozen=True)
class Run:
    """One training of the study."""

    arguments: TrainArguments

    @property
    def folder(self) -> Path:
        return self.arguments.output_dir

    @property
    def title(self) -> str:
        arguments = self.arguments
        return f"{TITLES[arguments.method]}, learning rate {arguments.learning_rate:g}, seed {arguments.seed}"

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

    def validation_accuracy(self) -> float | None:
        """Return None if the run diverged."""
        return None if self.diverged else float(self.facts()["best"]["validation_accuracy"])


@dataclass(frozen=True)
class Study:
    """The runs of a study."""

    arguments: StudyArguments
    data: str  # fingerprint of the training and validation pairs
    base: str  # see base_identity

    def run(self, method: Method, rate: float, seed: int) -> Run:
        study = self.arguments
        shared = {
            field.name: getattr(study, field.name)
            for field in dataclasses.fields(SharedSettings)
            # A full run does not depend on the adapter's settings: studies of several adapters share it.
            if method == "lora" or field.name not in LORA_ONLY
        }
        recorded = identifying(study).keys() - NOT_IDENTITY
        named = {key: value for key, value in shared.items() if key in recorded}
        identity = json.loads(json.dumps([method, named, self.data, self.base], default=str))
        name = f"{method}-{rate:g}-seed{seed}-{fingerprint([identity])[:8]}"
        folder = study.output_dir / "runs" / name
        return Run(TrainArguments(method=method, learning_rate=rate, seed=seed, output_dir=folder, **shared))

    def trials(self, method: Method) -> list[Run]:
        """Return a run for each learning rate, with the first seed."""
        return [self.run(method, rate, self.arguments.seeds[0]) for rate in self.arguments.rates(method)]

    def mean_accuracy(self, method: Method, rate: float) -> float | None:
        """Return the mean validation accuracy of a rate's existing runs; None if one diverged."""
        runs = [self.run(method, rate, seed) for seed in self.arguments.seeds]
        accuracies = [run.validation_accuracy() for run in runs if run.finished]
        return None if None in accuracies else statistics.fmean(value for value in accuracies if value is not None)

    def chosen_rate(self, method: Method) -> float:
        """Return the rate with the best mean validation accuracy over its existing runs; the first of equals."""
        means = {rate: self.mean_accuracy(method, rate) for rate in self.arguments.rates(method)}
        left = {rate: mean for rate, mean in means.items() if mean is not None}
        if not left:
            problem = f"{TITLES[method]} diverged with every learning rate"
            raise UserError(problem, key=f"{method}_learning_rates", fix="try lower rates")
        return max(left, key=left.__getitem__)

    def finished_runs(self, method: Method) -> list[Run]:
        """Return all existing runs of a method, by rate and seed."""
        every = [self.run(method, rate, seed) for rate in self.arguments.rates(method) for seed in self.arguments.seeds]
        return [run for run in every if run.finished]

    def finals(self, method: Method) -> list[Run]:
        """Return the runs of the chosen rate, one per seed."""
        rate = self.chosen_rate(method)
        return [self.run(method, rate, seed) for seed in self.arguments.seeds]

    def runs_each(self) -> int:
        """Count the trainings per method: its trials, and the further seeds of one of them."""
        return len(self.arguments.full_learning_rates) + len(self.arguments.seeds) - 1

    def made(self, method: Method) -> int:
        """Count a method's existing runs."""
        trials = self.trials(method)
        if not all(run.finished for run in trials):
            return sum(run.finished for run in trials)
        return len(trials) + sum(run.finished for run in self.finals(method)[1:])

    def others(self) -> list[Path]:
        """List runs with other adapters, rates or pairs in the study's folder that were scored on test pairs."""
        own = {run.folder for method in TITLES for run in (*self.trials(method), *self.finals(method))}
        scored = (self.arguments.output_dir / "runs").glob(f"*/{RECORD}")
        return sorted({path.parents[1] for path in scored} - own)


def base_identity(name: str, revision: str | None) -> str:
    """Identify a base model by its commit on the Hub, or by a hash of a folder's configuration, tokenizer and weights."""
    path = base_path(name)
    if not Path(path).is_dir():
        return str(commit_of(path, revision))
    digest = hashlib.sha256()
    for file in sorted(file for file in Path(path).iterdir() if file.suffix in (".json", ".txt", ".safetensors")):
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def announce(study: Study) -> None:
    """Print how many runs are left and, from a few steps of each method, how long they will take here."""
    from common.runtime.child_process import call
    from snli_roberta.study import child

    arguments = study.arguments
    always = arguments.estimate_only
    rates = _counted(len(arguments.full_learning_rates), "learning rate")
    further = _counted(len(arguments.seeds) - 1, "further seed")
    then = f", then the best one with {further}" if len(arguments.seeds) > 1 else ""
    log(
        f"{2 * study.runs_each()} trainings: each method tries {rates} with seed {arguments.seeds[0]}{then}",
        always=always,
    )
    total = 0.0
    for method, title in TITLES.items():
        left = study.runs_each() - study.made(method)
        if not left:
            log(f"{title}: nothing to train, {_counted(study.runs_each(), 'run')} found", always=always)
            continue
        estimate = call(child.estimate, study.trials(method)[0].arguments, preload=child.__name__)
        total += left * estimate.seconds
        log(f"{title}: {left} to train, each {estimate}: {duration(left * estimate.seconds)}", always=always)
    if total:
        again = "the same command continues a stopped study"
        log(f"about {duration(total)} of training in total; {again}", always=always)


def _counted(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def train(runs: Sequence[Run]) -> None:
    """Make the missing ones of the runs, each in a process of its own.

    Raises:
        UserError: A run failed; finished ones are kept.
        SystemExit: A signal stopped it.
    """
    from common.runtime.child_process import call
    from common.training.callbacks import Diverged
    from snli_roberta.study import child

    for number, run in enumerate(runs, 1):
        if run.finished:
            log(f"{run.title}: found in {run.folder}")
        else:
            log(f"run {number} of {len(runs)}: {run.title}")
            try:
                call(child.train, run.arguments, preload=child.__name__)
            except Diverged as error:  # a result too: this rate is too high
                warn(f"{error}. The study continues without this rate")
                with atomic_write(run.folder / DIVERGED) as part:
                    part.write_text(f"{error.problem}\n", encoding="utf-8")
        for checkpoint in run.folder.glob("checkpoint-*"):  # those of ten runs could fill a disk
            shutil.rmtree(checkpoint)


def check_free(folder: Path) -> None:
    """Refuse a folder for the model to use that holds something else."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / TRAINING_FILE).is_file():
        raise UserError(
            "not a trained model, and the study would replace it by one", file=folder, fix="move it elsewhere"
        )


def hand_over(run: Run, folder: Path, findings: Sequence[str]) -> None:
    """Copy a finished run to a folder whose name does not depend on the chosen rate.

    If the folder already holds the same run, only the study's findings (given by file name) are renewed.
    """
    for left in folder.parent.glob(f".{folder.name}.*.part"):  # of a copy that was killed
        shutil.rmtree(left)
    if all(_same(run.folder / name, folder / name) for name in (TRAINING_FILE, RECORD)):
        for name in findings:
            with atomic_write(folder / KEPT / name) as part:
                shutil.copyfile(run.folder / KEPT / name, part)
        return
    shutil.rmtree(folder, ignore_errors=True)
    with atomic_folder(folder) as part:
        shutil.copytree(run.folder, part, dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoint-*", "records"))


def _same(first: Path, second: Path) -> bool:
    return second.is_file() and first.read_bytes() == second.read_bytes()
