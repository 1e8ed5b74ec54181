"""The study behind "full fine-tuning or LoRA?": which runs it has, which of them are made, and which rate each method gets.

Each method gets as many trials: one run for each of its learning rates, with the first seed. The rate with the best validation
accuracy is run again with the other seeds. Should their mean fall below another rate's, as where one of them fails to learn at a
rate that is too high, that other rate gets its seeds too: what counts is the mean over the seeds. Runs lie in folders named by
what they are, so a study that is started again, or one with other settings for one of the methods, takes the runs that are there.
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

from common.cli.arguments import MAX_SEED, option
from common.cli.console import duration, log
from common.cli.errors import UserError
from common.cli.options import LoraOptions
from common.models.loading import base_path, commit_of
from common.results.evaluation import RECORD
from common.results.finding import KEPT
from common.results.training_record import TRAINING_FILE, training_facts
from common.runtime.files import atomic_folder, atomic_write
from common.tables.report import fingerprint
from snli_roberta.training.arguments import CorpusArguments, Method, Schedule, SetUp, TrainArguments

DIVERGED = "diverged.txt"  # what a run leaves instead of a model
TITLES: dict[Method, str] = {"full": "full fine-tuning", "lora": "LoRA"}
# Where base and corpus come from is not what they are, which a run is named by; and how often a loss is logged, and where, changes
# none.
WHENCE = {"data_dir", "dataset_name", "dataset_revision", "model_name_or_path", "model_revision"}
WHENCE |= {"logging_steps", "report_to"}
LORA_ONLY = {field.name for field in dataclasses.fields(LoraOptions)} | {
    "target_modules",
    "init_lora_weights",
    "use_rslora",
    "use_dora",
}


@dataclass(kw_only=True)
class StudyArguments(SetUp):
    """Full fine-tuning against LoRA under the same conditions: learning rates tried for each, several seeds, scored once.

    The same command continues a study that was stopped, and makes no run again. The folders full and lora of output_dir get the
    models to use: those of the chosen rates with the first seed."""

    full_learning_rates: tuple[float, ...] = option(help="rates to try for full fine-tuning", above=0, maximum=1)
    lora_learning_rates: tuple[float, ...] = option(help="as many to try for LoRA", above=0, maximum=1)
    seeds: tuple[int, ...] = option(
        (33, 34, 35), "seeds; the rates are tried with the first", minimum=0, maximum=MAX_SEED
    )
    output_dir: Path = option(help="folder for the runs, records and findings")
    report: Path | None = option(None, "HTML page to write as well")
    estimate_only: bool = option(False, "say how many runs there would be and how long they would take, and make none")
    trials_only: bool = option(
        False, "make the trials, say their validation accuracies, and leave the test split alone"
    )

    def __post_init__(self) -> None:
        CorpusArguments.__post_init__(self)
        Schedule.__post_init__(self)
        if len(self.full_learning_rates) != len(self.lora_learning_rates):
            raise UserError(
                f"{len(self.full_learning_rates)} and {len(self.lora_learning_rates)} learning rates",
                key="lora_learning_rates",
                expected="as many trials for each method",
            )
        for name in ("full_learning_rates", "lora_learning_rates", "seeds"):
            values = getattr(self, name)
            if len(set(values)) != len(values) or not values:
                raise UserError("one stands twice" if values else "none", key=name, expected="different values")

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
        one = self.arguments
        return f"{TITLES[one.method]}, learning rate {one.learning_rate:g}, seed {one.seed}"

    @property
    def diverged(self) -> bool:
        """Whether its loss or weights became no numbers: there is no model, and would be none the next time."""
        return (self.folder / DIVERGED).is_file()

    @property
    def finished(self) -> bool:
        return (self.folder / TRAINING_FILE).is_file() or self.diverged

    def facts(self) -> dict[str, Any]:
        """What the finished run left.

        Raises:
            UserError: It is damaged.
        """
        facts = training_facts(self.folder)
        assert facts is not None, f"{self.folder} is not finished"
        return facts

    def validation_accuracy(self) -> float | None:
        """None where the run has diverged."""
        return None if self.diverged else float(self.facts()["best"]["validation_accuracy"])


@dataclass(frozen=True)
class Study:
    """The runs of a study.

    Attributes:
        arguments: Its settings.
        data: Fingerprint of its training and validation pairs.
        base: What the base model is, as :func:`base_identity` gives it.
    """

    arguments: StudyArguments
    data: str
    base: str

    def run(self, method: Method, rate: float, seed: int) -> Run:
        """The run of a method, learning rate and seed."""
        study = self.arguments
        shared = {
            field.name: getattr(study, field.name)
            for field in dataclasses.fields(SetUp)
            # What an adapter is does not touch a run without one: it is the same run in a study of other adapters.
            if method == "lora" or field.name not in LORA_ONLY
        }
        named = {key: value for key, value in shared.items() if key not in WHENCE}
        identity = json.loads(json.dumps([method, named, self.data, self.base], default=str))
        name = f"{method}-{rate:g}-seed{seed}-{fingerprint([identity])[:8]}"
        folder = study.output_dir / "runs" / name
        return Run(TrainArguments(method=method, learning_rate=rate, seed=seed, output_dir=folder, **shared))

    def trials(self, method: Method) -> list[Run]:
        """A run for each learning rate, with the first seed."""
        return [self.run(method, rate, self.arguments.seeds[0]) for rate in self.arguments.rates(method)]

    def mean_accuracy(self, method: Method, rate: float) -> float | None:
        """Mean validation accuracy of a rate's runs that are there; None where one has diverged."""
        runs = (self.run(method, rate, seed) for seed in self.arguments.seeds)
        found = [run.validation_accuracy() for run in runs if run.finished]
        return None if None in found else statistics.fmean(one for one in found if one is not None)

    def chosen_rate(self, method: Method) -> float:
        """The rate with the best mean validation accuracy over the seeds that it has had; of equals the first that was given.

        Raises:
            UserError: With every rate a run has diverged.
        """
        means = {rate: self.mean_accuracy(method, rate) for rate in self.arguments.rates(method)}
        left = {rate: mean for rate, mean in means.items() if mean is not None}
        if not left:
            raise UserError(
                f"{TITLES[method]} diverged with every learning rate",
                key=f"{method}_learning_rates",
                fix="try lower ones",
            )
        return max(left, key=left.__getitem__)

    def made_runs(self, method: Method) -> list[Run]:
        """All runs of a method that are there, by rate and seed."""
        every = [self.run(method, rate, seed) for rate in self.arguments.rates(method) for seed in self.arguments.seeds]
        return [run for run in every if run.finished]

    def finals(self, method: Method) -> list[Run]:
        """The runs of the chosen rate, one a seed."""
        rate = self.chosen_rate(method)
        return [self.run(method, rate, seed) for seed in self.arguments.seeds]

    def runs_each(self) -> int:
        """Trainings a method: its trials, and the further seeds of one of them."""
        return len(self.arguments.full_learning_rates) + len(self.arguments.seeds) - 1

    def others(self) -> list[Path]:
        """Runs in the study's folder that are not of it and were scored on test pairs: of other adapters, rates or pairs."""
        own = {run.folder for method in TITLES for run in (*self.trials(method), *self.finals(method))}
        scored = (self.arguments.output_dir / "runs").glob(f"*/{RECORD}")
        return sorted({path.parents[1] for path in scored} - own)

    def made(self, method: Method) -> int:
        """How many of a method's runs are there already."""
        trials = self.trials(method)
        if not all(run.finished for run in trials):
            return sum(run.finished for run in trials)
        return len(trials) + sum(run.finished for run in self.finals(method)[1:])


def base_identity(name: str, revision: str | None) -> str:
    """What a base model is: its commit on the Hub, or a hash of a folder's configuration, tokenizer and weights.

    Raises:
        UserError: There is no such model, or no access to it.
    """
    path = base_path(name)
    if not Path(path).is_dir():
        return str(commit_of(path, revision))
    digest = hashlib.sha256()
    for file in sorted(file for file in Path(path).iterdir() if file.suffix in (".json", ".txt", ".safetensors")):
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def announce(study: Study) -> None:
    """Says how many runs there are to make and, from a few steps of each method, how long that takes here."""
    from common.runtime.child_process import call
    from snli_roberta.study import one_run

    arguments = study.arguments
    asked = arguments.estimate_only
    rates = _counted(len(arguments.full_learning_rates), "learning rate")
    further = _counted(len(arguments.seeds) - 1, "further seed")
    then = f", then its best with {further}" if len(arguments.seeds) > 1 else ""
    log(f"{2 * study.runs_each()} trainings: for each method {rates} with seed {arguments.seeds[0]}{then}", always=asked)
    total = 0.0
    for method, title in TITLES.items():
        left = study.runs_each() - study.made(method)
        if not left:
            log(f"{title}: nothing to train, {_counted(study.runs_each(), 'run')} there already", always=asked)
            continue
        run = study.trials(method)[0].arguments
        one = call(one_run.estimate, run, preload=one_run.__name__)
        total += left * one.seconds
        log(f"{title}: {left} to train, each {one}: {duration(left * one.seconds)}", always=asked)
    if total:
        log(
            f"about {duration(total)} of training in all; a stopped study is continued by the same command", always=asked
        )


def _counted(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def train(runs: Sequence[Run]) -> None:
    """Makes those of the runs that are not there, each in a process of its own.

    Raises:
        UserError: A run failed; what was made stays.
        SystemExit: A signal stopped it.
    """
    from common.runtime.child_process import call
    from common.training.callbacks import Diverged
    from snli_roberta.study import one_run

    for number, run in enumerate(runs, 1):
        if run.finished:
            log(f"{run.title}: there already ({run.folder})")
        else:
            log(f"run {number} of {len(runs)}: {run.title}")
            try:
                call(one_run.train, run.arguments, preload=one_run.__name__)
            except Diverged as error:  # that this rate is too high, is something that the study finds out
                log(f"{error}. The study goes on without this rate")
                with atomic_write(run.folder / DIVERGED) as part:
                    part.write_text(f"{error.problem}\n", encoding="utf-8")
        for checkpoint in run.folder.glob("checkpoint-*"):  # ten runs' would fill a disk, and none is continued
            shutil.rmtree(checkpoint)


def check_free(folder: Path) -> None:
    """Checks that a folder may get the model to use.

    Raises:
        UserError: It holds something else than a trained model.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / TRAINING_FILE).is_file():
        raise UserError(
            "the model to use would be put there, and it holds something else", file=folder, fix="move that away"
        )


def hand_over(run: Run, folder: Path, findings: Sequence[str]) -> None:
    """Copies a finished run to where it is found without knowing which rate was chosen.

    A copy of the same run that is there already keeps what else was found of the model; only the study's findings, of these file
    names, are renewed.
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


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()
