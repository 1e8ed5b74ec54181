"""A training run in both projects: prepare the process, train with safe stop and resume, save and record."""

from __future__ import annotations

import datetime
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.utils import broadcast_object_list
from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback, Trainer, set_seed

from common.cli.arguments import identifying
from common.cli.console import log, quiet, quiet_libraries, stage
from common.cli.errors import UserError, counted
from common.cli.options import TrainingOptions
from common.models.loading import base_path, lasting_path, license_of, width_of
from common.results.record import TRAINING_FILE, count_parameters, git_commit, peak_memory, versions
from common.runtime import hardware
from common.runtime.files import atomic_write, disk_errors, readable_mode, require_space
from common.runtime.processes import is_first
from common.runtime.project import NAME
from common.runtime.run_folder import claim
from common.training import callbacks as cb
from common.training.checkpoints import keep_packed_weights, last_intact, unsharded_copy

PUBLISHING = ("push_to_hub", "hub_model_id", "hub_private", "hub_overwrite")
NOT_THE_RUN = ("output_dir", "estimate_only", "save_total_limit", "report_to", *PUBLISHING)  # the same run with others
SCHEDULE = ("num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps")
BATCH = ("processes", "per_device_train_batch_size", "gradient_accumulation_steps")  # their product: items per step
PASSED_ON = ("learning_rate", "lr_scheduler_type", "weight_decay", "logging_steps", "seed", "report_to", *SCHEDULE)

Options = TypeVar("Options", bound=Any)  # a project's TrainArguments


@dataclass(frozen=True)
class RunContext:
    """What a process trains with."""

    processes: int
    precision: hardware.Precision


@dataclass(frozen=True)
class TrainResult:
    """How long this process trained, and whether it continued an earlier one's run."""

    seconds: float
    continued: bool


def with_lasting_base(options: Options, output_dir: Path) -> Options:
    """Return a run's arguments with a name of the base model that serves in other working directories too."""
    name = options.model_name_or_path
    lasting = lasting_path(name, output_dir)
    return options if lasting == name else replace(options, model_name_or_path=lasting)


def prepare(options: TrainingOptions, base: str) -> RunContext:
    """Check the processes, choose precision and threads for a base model, and seed all generators."""
    quiet_libraries()
    processes = hardware.check_processes()
    width = width_of(base_path(base), options.model_revision)
    precision = hardware.choose_precision(options.precision, width=width)
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(hardware.cpu_threads())
    log(
        f"{counted(processes, 'process', 'processes')}, {hardware.device_type()}, {precision.value} ({precision.reason})"
    )
    if processes > 1:
        size, passes = options.per_device_train_batch_size, options.gradient_accumulation_steps
        items = f"{processes} × {size * passes:,} = {processes * size * passes:,} items"
        log(f"each step takes {items}: the batch size in the recipe is that of one process")
    set_seed(options.seed)
    return RunContext(processes, precision.value)


def identity(options: TrainingOptions, data: str) -> dict[str, Any]:
    """Return what identifies a run: its arguments and the fingerprint of its training data."""
    arguments = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in identifying(options).items()
        if name not in NOT_THE_RUN
    }
    return arguments | {"data": data}


def already_finished(output_dir: Path, run: dict[str, Any], context: RunContext, *, fixed_by: str | None) -> bool:
    """Claim the folder for this run and return whether it has finished there.

    Until then its precision may not change, nor how items are divided into batches (``fixed_by`` says why). If that is None, a
    step's items may be divided otherwise, such as among more processes.
    """
    finished = None
    if is_first():
        until_finished = {"precision": context.precision, "processes": context.processes, "sharded": hardware.shards()}
        fixed_by = "a sharded model" if hardware.shards() else fixed_by
        restate = partial(_restated, now=run | until_finished, output_dir=output_dir, fixed_by=fixed_by)
        claim(output_dir, run, until_finished, finished=TRAINING_FILE, restate=restate)
        finished = (output_dir / TRAINING_FILE).is_file()
    if not broadcast_object_list([finished])[0]:
        return False
    log(f"finished already: {output_dir} (remove the folder to train again)")
    return True


def _restated(begun: dict[str, Any], now: dict[str, Any], output_dir: Path, *, fixed_by: str | None) -> dict[str, Any]:
    """Return the identity of the run in a folder with this command's processes and batches, if these take the same steps.

    Raises:
        UserError: They do not, so a continued run would repeat items or leave some out.
    """
    # Earlier versions did not record the number, but each of several processes saves its random state.
    states = {path.name for path in output_dir.glob("checkpoint-*/rng_state_*.pth")}
    begun = {"processes": len(states) or 1, "sharded": False} | begun
    if begun.get("base_commit") is None:  # nor a folder's digest
        begun["base_commit"] = now.get("base_commit")
    before, after = ([run.get(key) for key in BATCH] for run in (begun, now))
    if before == after or not all(isinstance(value, int) for value in before):
        return begun
    equal = math.prod(before) == math.prod(after)
    if equal and not fixed_by:
        return begun | dict(zip(BATCH, after, strict=True))
    if (output_dir / TRAINING_FILE).is_file():  # nothing to continue
        return begun
    # Processes × batch size × accumulation.
    steps = [f"{math.prod(run):,} items ({' × '.join(map(str, run))})" for run in (before, after)]
    why = f"; with {fixed_by}, only the same processes and batches give the same weights" if equal else ""
    options = " ".join(f"--{key} {value}" for key, value in zip(BATCH[1:], before[1:], strict=True))
    fix = f"continue it with accelerate launch --num_processes {before[0]} and {options}"
    size, left = divmod(math.prod(before), after[0] * after[2])
    if size and not left and not fixed_by:
        fix += f", or with --{BATCH[1]} {size} here"
    raise UserError(
        f"the run here takes steps of {steps[0]}, this command {steps[1]}{why}",
        file=output_dir,
        fix=f"{fix}; for a new run, choose another --output_dir",
    )


def trainer_settings(
    options: TrainingOptions, precision: hardware.Precision, *, metric: str, greater_is_better: bool, output_dir: Path
) -> dict[str, Any]:
    """Return keyword arguments for TrainingArguments or SFTConfig."""
    # As a share of all steps: validations and checkpoints coincide, which early stopping and the best checkpoint need.
    interval = 1 / options.evaluations if options.evaluations > 1 else 0.999999
    device = hardware.device_type()
    os.environ.setdefault("WANDB_PROJECT", NAME)  # other trackers read `project`
    return {
        **{name: getattr(options, name) for name in PASSED_ON},
        "output_dir": str(output_dir),
        "per_device_eval_batch_size": 2 * options.per_device_train_batch_size,
        "warmup_steps": options.warmup_ratio,  # Trainer takes a value below 1 as a share
        "eval_strategy": "steps",
        "eval_steps": interval,
        "save_strategy": "steps",
        "save_steps": interval,
        "load_best_model_at_end": True,
        "metric_for_best_model": metric,
        "greater_is_better": greater_is_better,
        "restore_callback_states_from_checkpoint": True,  # otherwise early stopping starts counting again on resume
        "logging_nan_inf_filter": False,  # otherwise a NaN loss is logged as the mean of earlier ones
        "disable_tqdm": quiet() or not sys.stderr.isatty(),  # in a log file a bar would be thousands of lines
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device == "cuda",
        "ddp_find_unused_parameters": False,
        "data_seed": options.seed,
        "project": NAME,
        "run_name": f"{output_dir.parent.name}-{output_dir.name}",
    }


def callbacks(options: TrainingOptions) -> list[Any]:
    """Return the callbacks that every trainer is built with."""
    stopping = EarlyStoppingCallback(options.early_stopping_patience)
    return [stopping, cb.Checkpoints(options.save_total_limit), cb.ProgressLog(), cb.MemoryReturn()]


def run(trainer: Trainer, output_dir: Path) -> TrainResult:
    """Train from the last intact checkpoint, or from the start.

    Raises:
        Interrupted: A signal stopped the run; the same command continues it.
        Diverged: The loss or a weight is NaN or infinite.
        UserError: The disk is full or read-only.
    """
    checkpoint = _checkpoint(output_dir)
    if checkpoint:
        log(f"continuing from {checkpoint.name}")
    elif trainer.is_world_process_zero():
        _require_space(trainer, output_dir)
    if hardware.shards():
        keep_packed_weights(trainer)
    start = time.monotonic()
    fix = "fix that, then the same command continues from the last intact checkpoint"
    with cb.SafeStop() as stop, disk_errors(output_dir, fix=fix):
        trainer.add_callback(stop)
        trainer.add_callback(cb.DivergenceCheck())  # after those that request checkpoints, so that it sees the request
        trainer.remove_callback(PrinterCallback)  # ProgressLog prints the same in words
        if trainer.pop_callback(ProgressCallback):
            trainer.add_callback(cb.BarOnly())
        trainer.add_callback(cb.StopIfDone(trainer))
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except cb.NothingToTrain:  # load the best checkpoint, as Trainer does after the last step
            trainer.is_in_train = False
            if trainer.state.best_model_checkpoint is not None:
                trainer._load_best_model()
    stop.raise_if_stopped()
    return TrainResult(round(time.monotonic() - start, 2), checkpoint is not None)


def _checkpoint(output_dir: Path) -> Path | None:
    """Return the checkpoint to continue from, which the first process chooses for all."""
    chosen = broadcast_object_list([last_intact(output_dir) if is_first() else None])[0]
    if chosen and not chosen.is_dir():
        fix = "choose an --output_dir on a disk that all machines share"
        raise UserError(f"{chosen.name} is not on every machine", file=output_dir, fix=fix)
    return chosen


def _require_space(trainer: Trainer, output_dir: Path) -> None:
    (rotation,) = [each for each in trainer.callback_handler.callbacks if isinstance(each, cb.Checkpoints)]
    # One more checkpoint while the newest is written, in fp32 with Adam's two moments, and finally the model.
    count = min(rotation.limit + 1, round(1 / trainer.args.save_steps))
    trained = count_parameters(trainer.model)["trainable"]
    require_space(output_dir, 4 * trained * (3 * count + 1), f"{count} checkpoint(s) and the model")


def trained_model(trainer: Trainer, build: Callable[[], Any] | None = None) -> Any:
    """Return the trained model on the first process, without accelerate's half-precision wrapper; None on the others.

    All processes call this together. ``build`` makes the untrained model, which is needed if the trained one is sharded.
    """
    first = trainer.is_world_process_zero()
    if build is not None and hardware.shards():
        return unsharded_copy(trainer.model, build, here=first)
    return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False) if first else None


def base_facts(name: str, commit: str | None) -> dict[str, str | None]:
    """Return a record's facts about the base model: its name, Hub commit, and the license its card names."""
    return {"name": name, "commit": commit, "license": license_of(base_path(name), commit)}


def result_facts(trainer: Trainer, context: RunContext, result: TrainResult) -> dict[str, Any]:
    """Return a record's facts about the training and the machine."""
    metric = trainer.args.metric_for_best_model.removeprefix("eval_")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": result.seconds,
        "continued": result.continued,
        "precision": context.precision,
        "processes": context.processes,
        "best": {f"validation_{metric}": trainer.state.best_metric, "step": trainer.state.best_global_step},
        "log": trainer.state.log_history,
        "peak_memory_bytes": peak_memory(),
        "hardware": hardware.describe(),
        "versions": versions(),
        "commit": git_commit(),
    }


def save_run(save: Callable[[Path], int], facts: dict[str, Any], output_dir: Path) -> None:
    """Save the model atomically and then write the facts, which mark a finished run.

    ``save`` writes into a folder, proves that the model loads with equal answers, and returns the bytes a task costs to store.
    """
    part = output_dir / ".model.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    fix = "fix that, then the same command saves the model without training again"
    with disk_errors(output_dir, fix=fix), stage("saving, loading again and comparing"):
        facts["storage_bytes"] = save(part)
    for path in part.iterdir():
        if path.is_file():
            path.chmod(readable_mode())  # safetensors writes files that others on a shared disk could not read
        path.replace(output_dir / path.name)
    part.rmdir()
    if facts["settings"].get("data_dir"):
        # The facts may be published: full paths stay in run.json.
        facts["settings"] = facts["settings"] | {"data_dir": Path(facts["settings"]["data_dir"]).name}
    with atomic_write(output_dir / TRAINING_FILE) as file:
        file.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    (name, value), (_, step) = facts["best"].items()
    log(f"best {name.replace('_', ' ')} {value:.4f} at step {step}; saved in {output_dir}")
