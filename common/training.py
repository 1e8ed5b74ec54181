"""What a training run does in both projects: set up the process, train with safe stop and resume, tell how it went."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, set_seed

from common import hardware
from common.checkpoints import MarkComplete, claim, last_complete
from common.files import readable_mode, written_aside
from common.interruption import SafeStop
from common.records import git_commit, peak_memory, versions
from common.stages import quiet_libraries, say, stage
from common.time_left import TimeLeft
from common.training_file import TRAINING_FILE
from common.training_options import TrainingOptions


@dataclass(frozen=True)
class Setup:
    """What a process trains with."""

    processes: int
    precision: hardware.Precision


@dataclass(frozen=True)
class Course:
    """How long a training took: seconds of this process, and whether an earlier one had begun it."""

    seconds: float
    continued: bool


def set_up(options: TrainingOptions) -> Setup:
    """Checks the processes, chooses precision and threads, says so, and seeds every generator.

    Raises:
        UserError: A launch that would train wrongly, or a precision that the device lacks.
    """
    quiet_libraries()
    processes = hardware.check_processes()
    precision = hardware.training_precision(options.precision)
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(hardware.cpu_threads())
    say(f"{processes.count} process(es), {hardware.device_type()}, {precision.value} ({precision.reason})")
    set_seed(options.seed)
    return Setup(processes.count, precision.value)


def identity(options: TrainingOptions, data: str) -> dict[str, Any]:
    """What makes a run this run: its arguments and the fingerprint of its training data."""
    known = {
        key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(options).items()
    }
    known.pop("output_dir")
    return known | {"data": data}


def finished_before(output_dir: Path, run: dict[str, Any]) -> bool:
    """Takes the folder for this run, or finds that it has ended there already.

    Raises:
        UserError: The folder holds another run, or something that is no run.
    """
    if int(os.environ.get("RANK", "0")) == 0:
        claim(output_dir, run, finished=TRAINING_FILE)
    if not (output_dir / TRAINING_FILE).is_file():
        return False
    say(f"finished already: {output_dir} (remove the folder to train again)")
    return True


def trainer_settings(
    options: TrainingOptions, precision: hardware.Precision, *, metric: str, greater_is_better: bool, output_dir: Path
) -> dict[str, Any]:
    """Keyword arguments for TrainingArguments (or SFTConfig): schedule, validation, checkpoints, precision, seeds."""
    # As a share of all steps: validations and checkpoints coincide, which early stopping and the best checkpoint need.
    interval = 1 / options.evaluations if options.evaluations > 1 else 0.999999
    on_cpu = hardware.device_type() == "cpu"
    return {
        "output_dir": str(output_dir),
        "learning_rate": options.learning_rate,
        "num_train_epochs": options.num_train_epochs,
        "max_steps": options.max_steps,
        "per_device_train_batch_size": options.per_device_train_batch_size,
        "per_device_eval_batch_size": 2 * options.per_device_train_batch_size,
        "gradient_accumulation_steps": options.gradient_accumulation_steps,
        "warmup_steps": options.warmup_ratio,  # below 1 Trainer takes it for a share
        "weight_decay": options.weight_decay,
        "eval_strategy": "steps",
        "eval_steps": interval,
        "save_strategy": "steps",
        "save_steps": interval,
        "save_total_limit": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": metric,
        "greater_is_better": greater_is_better,
        "restore_callback_states_from_checkpoint": True,  # or a resume forgets the patience that was spent
        "logging_steps": options.logging_steps,
        "disable_tqdm": not sys.stderr.isatty(),  # in a log file a bar would be thousands of lines
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "use_cpu": on_cpu,
        "dataloader_pin_memory": hardware.device_type() == "cuda",
        "ddp_find_unused_parameters": False,
        "seed": options.seed,
        "data_seed": options.seed,
        "report_to": "none",
    }


def callbacks(options: TrainingOptions) -> list[Any]:
    """Early stopping, the mark of a whole checkpoint, and the time left."""
    return [EarlyStoppingCallback(options.early_stopping_patience), MarkComplete(), TimeLeft()]


def run(trainer: Trainer, output_dir: Path) -> Course:
    """Trains from the last whole checkpoint, or from the start.

    Raises:
        Interrupted: A signal stopped the run; the same command continues it.
    """
    checkpoint = last_complete(output_dir)
    if checkpoint:
        say(f"continuing from {checkpoint.name}")
    start = time.monotonic()
    with SafeStop() as stop:
        trainer.add_callback(stop)
        trainer.remove_callback(PrinterCallback)  # TimeLeft says the same in words
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    stop.raise_if_stopped()
    return Course(round(time.monotonic() - start, 2), checkpoint is not None)


def plain_model(trainer: Trainer) -> Any:
    """The trained model without the wrapper that computes in half precision: what is saved has none either."""
    return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)


def outcome_facts(trainer: Trainer, setup: Setup, course: Course) -> dict[str, Any]:
    """What a run's record says of how it went, and of what it ran on."""
    metric = trainer.args.metric_for_best_model.removeprefix("eval_")
    return {
        "seconds": course.seconds,
        "continued": course.continued,
        "precision": setup.precision,
        "processes": setup.processes,
        "best": {f"validation_{metric}": trainer.state.best_metric, "step": trainer.state.best_global_step},
        "log": trainer.state.log_history,
        "peak_memory_bytes": peak_memory(),
        "hardware": hardware.describe(),
        "versions": versions(),
        "commit": git_commit(),
    }


def finish(save: Callable[[Path], int], facts: dict[str, Any], output_dir: Path) -> None:
    """Saves the model aside, moves it in place, and last writes the facts: they mark a finished run.

    Args:
        save: Writes into a folder, proves that what it wrote loads to the same answers, and returns the bytes that a task costs
            to store.
        facts: The run's facts; ``storage_bytes`` is added.
        output_dir: The run's folder.
    """
    part = output_dir / ".model.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    with stage("saving, loading again and comparing"):
        facts["storage_bytes"] = save(part)
    for path in part.iterdir():
        if path.is_file():
            path.chmod(readable_mode())  # safetensors writes files that nobody else on a shared disk could read
        path.replace(output_dir / path.name)
    part.rmdir()
    if facts["settings"].get("data_dir"):
        # The facts may be shown to others; whole paths stay in the run's own description.
        facts["settings"] = facts["settings"] | {"data_dir": Path(facts["settings"]["data_dir"]).name}
    with written_aside(output_dir / TRAINING_FILE) as file:
        file.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    (name, value), (_, step) = facts["best"].items()
    say(f"best {name.replace('_', ' ')} {value:.4f} at step {step}; saved in {output_dir}")
