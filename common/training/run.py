"""What a training run does in both projects: set up the process, train with safe stop and resume, tell how it went."""

from __future__ import annotations

import dataclasses
import datetime
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
from accelerate.utils import broadcast_object_list
from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback, Trainer, set_seed

from common.cli.console import log, quiet, quiet_libraries, stage
from common.cli.errors import UserError
from common.cli.options import TrainingOptions
from common.models.loading import base_path, license_of, width_of
from common.results.record import count_parameters, git_commit, peak_memory, versions
from common.results.record import TRAINING_FILE
from common.runtime import hardware
from common.runtime.files import atomic_write, disk_errors, readable_mode, require_space
from common.runtime.processes import is_first
from common.runtime.project import NAME
from common.runtime.run_folder import claim
from common.training.callbacks import DivergenceCheck, NothingToTrain, ProgressLog, SafeStop, StopIfDone, load_best
from common.training.checkpoints import KEPT, Checkpoints, keep_packed_weights, last_intact, unsharded_copy

NOT_THE_RUN = ("output_dir", "estimate_only", "push_to_hub", "hub_model_id", "hub_private", "report_to")


@dataclass(frozen=True)
class RunContext:
    """What a process trains with."""

    processes: int
    precision: hardware.Precision


@dataclass(frozen=True)
class TrainResult:
    """How long a training took: seconds of this process, and whether an earlier one had begun it."""

    seconds: float
    continued: bool


def prepare(options: TrainingOptions, base: str) -> RunContext:
    """Checks the processes, chooses precision and threads for a base model, says so, and seeds every generator.

    Raises:
        UserError: A launch that would train wrongly, a precision that the device lacks, or no such model.
    """
    quiet_libraries()
    processes = hardware.check_processes()
    width = width_of(base_path(base), options.model_revision)
    precision = hardware.choose_precision(options.precision, width=width)
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(hardware.cpu_threads())
    log(f"{processes.count} process(es), {hardware.device_type()}, {precision.value} ({precision.reason})")
    set_seed(options.seed)
    return RunContext(processes.count, precision.value)


def identity(options: TrainingOptions, data: str) -> dict[str, Any]:
    """What makes a run this run: its arguments and the fingerprint of its training data."""
    known = {
        key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(options).items()
    }
    for name in NOT_THE_RUN:  # where it lies, who may read it and who is told do not make it another run
        known.pop(name)
    return known | {"data": data}


def already_finished(output_dir: Path, run: dict[str, Any], precision: hardware.Precision) -> bool:
    """Takes the folder for this run, or finds that it has ended there already. One that has begun goes on in its precision only.

    Raises:
        UserError: The folder holds another run, or something that is no run; it can't be written to.
    """
    found = None
    if is_first():
        claim(output_dir, run, {"precision": precision}, finished=TRAINING_FILE)
        found = (output_dir / TRAINING_FILE).is_file()
    if not broadcast_object_list([found])[0]:
        return False
    log(f"finished already: {output_dir} (remove the folder to train again)")
    return True


def trainer_settings(
    options: TrainingOptions, precision: hardware.Precision, *, metric: str, greater_is_better: bool, output_dir: Path
) -> dict[str, Any]:
    """Keyword arguments for TrainingArguments (or SFTConfig): schedule, validation, checkpoints, precision, seeds."""
    # As a share of all steps: validations and checkpoints coincide, which early stopping and the best checkpoint need.
    interval = 1 / options.evaluations if options.evaluations > 1 else 0.999999
    on_cpu = hardware.device_type() == "cpu"
    os.environ.setdefault("WANDB_PROJECT", NAME)  # the others take theirs from the settings
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
        "load_best_model_at_end": True,
        "metric_for_best_model": metric,
        "greater_is_better": greater_is_better,
        "restore_callback_states_from_checkpoint": True,  # or a resume forgets the patience that was spent
        "logging_steps": options.logging_steps,
        "logging_nan_inf_filter": False,  # or a loss that is no number is logged as the mean of those before
        "disable_tqdm": quiet() or not sys.stderr.isatty(),  # in a log file a bar would be thousands of lines
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "use_cpu": on_cpu,
        "dataloader_pin_memory": hardware.device_type() == "cuda",
        "ddp_find_unused_parameters": False,
        "seed": options.seed,
        "data_seed": options.seed,
        "report_to": options.report_to,
        "project": NAME,
        "run_name": f"{output_dir.parent.name}-{output_dir.name}",
    }


def callbacks(options: TrainingOptions) -> list[Any]:
    """Early stopping, the mark of a whole checkpoint, and the time left."""
    return [EarlyStoppingCallback(options.early_stopping_patience), Checkpoints(), ProgressLog()]


class _BarOnly(ProgressCallback):
    """Trainer's bar without the dictionaries that it prints between its steps: TimeLeft says them in words."""

    def on_log(self, *_: Any, **__: Any) -> None:
        return


def run(trainer: Trainer, output_dir: Path) -> TrainResult:
    """Trains from the last whole checkpoint, or from the start.

    Raises:
        Interrupted: A signal stopped the run; the same command continues it.
        Diverged: The loss or the weights are no numbers any more.
        UserError: The disk is full or has become read-only.
    """
    checkpoint = _checkpoint(output_dir)
    if checkpoint:
        log(f"continuing from {checkpoint.name}")
    elif trainer.is_world_process_zero():
        trained = count_parameters(trainer.model)["trainable"]
        # One more checkpoint while the newest is written, in fp32 with Adam's two moments; and the model in the end.
        several = min(KEPT + 1, round(1 / trainer.args.save_steps))
        require_space(output_dir, 4 * trained * (3 * several + 1), f"{several} checkpoint(s) and the model")
    if hardware.shards():
        keep_packed_weights(trainer)
    start = time.monotonic()
    again = "mend that, then the same command continues from the last whole checkpoint"
    with SafeStop() as stop, disk_errors(output_dir, fix=again):
        trainer.add_callback(stop)
        trainer.add_callback(DivergenceCheck())  # after what asks for checkpoints, so that it sees that one is asked for
        trainer.remove_callback(PrinterCallback)  # TimeLeft says the same in words
        if trainer.pop_callback(ProgressCallback):
            trainer.add_callback(_BarOnly())
        trainer.add_callback(StopIfDone(trainer))
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except NothingToTrain:
            load_best(trainer)
    stop.raise_if_stopped()
    return TrainResult(round(time.monotonic() - start, 2), checkpoint is not None)


def _checkpoint(output_dir: Path) -> Path | None:
    """The checkpoint to continue from. Of several processes the first one looks, and all take the same."""
    found = broadcast_object_list([last_intact(output_dir) if is_first() else None])[0]
    if found and not found.is_dir():
        raise UserError(
            f"{found.name} is not on every machine",
            file=output_dir,
            fix="choose an --output_dir on a disk that all machines share",
        )
    return found


def trained_model(trainer: Trainer, build: Callable[[], Any] | None = None) -> Any:
    """The trained model on the first process, without the wrapper that computes in half precision: what is saved has none either.
    All processes call this together; None for the others.

    Args:
        trainer: After its training.
        build: Makes the model as it was before, where the trained one may lie in shards.
    """
    first = trainer.is_world_process_zero()
    if build is not None and hardware.shards():
        return unsharded_copy(trainer.model, build, here=first)
    return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False) if first else None


def base_facts(name: str, commit: str | None) -> dict[str, str | None]:
    """What a run's record says of the base model: name, commit on the Hub, and the licence that its card names."""
    return {"name": name, "commit": commit, "license": license_of(base_path(name), commit)}


def result_facts(trainer: Trainer, setup: RunContext, course: TrainResult) -> dict[str, Any]:
    """What a run's record says of how it went, and of what it ran on."""
    metric = trainer.args.metric_for_best_model.removeprefix("eval_")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
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


def save_run(save: Callable[[Path], int], facts: dict[str, Any], output_dir: Path) -> None:
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
    again = "mend that, then the same command saves it: nothing is trained again"
    with disk_errors(output_dir, fix=again), stage("saving, loading again and comparing"):
        facts["storage_bytes"] = save(part)
    for path in part.iterdir():
        if path.is_file():
            path.chmod(readable_mode())  # safetensors writes files that nobody else on a shared disk could read
        path.replace(output_dir / path.name)
    part.rmdir()
    if facts["settings"].get("data_dir"):
        # The facts may be shown to others; whole paths stay in the run's own description.
        facts["settings"] = facts["settings"] | {"data_dir": Path(facts["settings"]["data_dir"]).name}
    with atomic_write(output_dir / TRAINING_FILE) as file:
        file.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    (name, value), (_, step) = facts["best"].items()
    log(f"best {name.replace('_', ' ')} {value:.4f} at step {step}; saved in {output_dir}")
