"""The runs of the study "full fine-tuning or LoRA?", as many trials for each method; see :mod:`common.training.trials`."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.cli.arguments import MAX_SEED, identifying, option
from common.cli.console import log
from common.cli.errors import UserError, counted
from common.cli.options import METHODS, LoraOptions, Method, Schedule
from common.results.finding import KEPT
from common.results.record import TRAINING_FILE
from common.results.scoring import RECORD
from common.runtime.files import atomic_folder, atomic_write
from common.training import trials
from common.training.trials import Run, Trials, check_trials, trial_folder
from snli_roberta.training.arguments import CorpusArguments, SharedSettings, TrainArguments

# Not part of a run's name: where base and corpus come from (their content is), and settings of logs.
NOT_IDENTITY = {"data_dir", "dataset_name", "dataset_revision", "dataset_columns", "dataset_splits"}
NOT_IDENTITY |= {"model_name_or_path", "model_revision"}
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
    report: Path | None = option(None, "also write an HTML page to this file", writes=(".html", ".htm"))
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
        check_trials(
            full_learning_rates=self.full_learning_rates, lora_learning_rates=self.lora_learning_rates, seeds=self.seeds
        )

    def rates(self, method: Method) -> tuple[float, ...]:
        return self.full_learning_rates if method == "full" else self.lora_learning_rates


@dataclass(frozen=True)
class Study(Trials):
    """The runs of a study."""

    arguments: StudyArguments
    data: str  # fingerprint of the training and validation pairs
    base: str  # see common.models.loading.base_identity

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
        folder = trial_folder(study.output_dir / "runs", method, rate, seed, [method, named, self.data, self.base])
        return Run(TrainArguments(method=method, learning_rate=rate, seed=seed, output_dir=folder, **shared))

    def others(self) -> list[Path]:
        """List runs with other adapters, rates or pairs in the study's folder that were scored on test pairs."""
        own = {run.folder for method in METHODS for run in (*self.trials(method), *self.finals(method))}
        scored = (self.arguments.output_dir / "runs").glob(f"*/{RECORD}")
        return sorted({path.parents[1] for path in scored} - own)


def announce(study: Study) -> None:
    """Print which runs the study has, how many are left, and how long they will take here."""
    from snli_roberta.training.run import estimate

    arguments = study.arguments
    rates = counted(len(arguments.full_learning_rates), "learning rate")
    further = counted(len(study.seeds) - 1, "further seed")
    then = f", then the best one with {further}" if len(study.seeds) > 1 else ""
    count = 2 * study.runs_each("full")
    log(
        f"{count} trainings: each method tries {rates} with seed {study.seeds[0]}{then}", always=arguments.estimate_only
    )
    trials.announce([study], estimate, always=arguments.estimate_only)


def check_free(folder: Path) -> None:
    """Refuse a folder for the model to use that holds something else than one of the study's runs."""
    runs = (folder.parent / "runs").glob(f"*/{TRAINING_FILE}")
    if folder.is_dir() and any(folder.iterdir()) and not any(_same(run, folder / TRAINING_FILE) for run in runs):
        raise UserError(
            "not a model of this study, which would replace it by one", file=folder, fix="move it elsewhere"
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
