"""Checkpoints that can be trusted: each is whole, or is not used."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from common.cli.console import log
from common.cli.errors import UserError
from common.runtime import files
from common.runtime.files import atomic_write

MANIFEST = "manifest.json"
KEPT = 3  # at most: the newest and, should it turn out to be damaged, the one before, each with the best until then


class Checkpoints(TrainerCallback):
    """Writes a manifest (file → SHA-256) into each checkpoint once all its files are there, and only then removes older ones.

    Trainer's own rotation would come before the manifest: a process killed in between would have lost both.
    """

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # The state knows its best checkpoint by path, and Trainer forgets it where the folder was moved: the last model would
        # be saved as the best.
        if state.best_global_step and (best := _folder(args, state.best_global_step)).is_dir():
            state.best_model_checkpoint = str(best)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if args.world_size > 1:
            torch.distributed.barrier()  # every process saves its own random state
        if not state.is_world_process_zero:
            return
        folder = _folder(args, state.global_step)
        with atomic_write(folder / MANIFEST) as part:
            part.write_text(json.dumps(_digests(folder)), encoding="utf-8")
        folders = _newest_first(Path(args.output_dir))
        needed = {*folders[:2], *map(_best, folders[:2])}
        for old in folders:
            if old not in needed:
                shutil.rmtree(old)


def last_intact(output_dir: Path) -> Path | None:
    """The newest checkpoint whose files are those that were written, and whose best checkpoint so far is whole as well.

    Those that are not are named and removed: none can be continued, and what is written over one would be mixed with its
    remains.

    Raises:
        UserError: The disk can't be read.
    """
    folders = _newest_first(output_dir)
    problems = {folder: _problem(folder) for folder in folders}
    for folder in folders:
        if problems[folder] is None and (best := _best(folder)) is not None and problems.get(best, "missing"):
            problems[folder] = f"the best until then, {best.name}, is not"
    found = next((folder for folder in folders if problems[folder] is None), None)
    for folder, problem in problems.items():
        if problem is not None:
            log(f"{folder.name} is not whole ({problem}): it is passed over and removed")
            shutil.rmtree(folder)
    if problems and found is None:
        log("no checkpoint is whole: training starts anew")
    return found


def _newest_first(output_dir: Path) -> list[Path]:
    folders = [path for path in output_dir.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    return sorted(folders, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True)


def _folder(args: TrainingArguments, step: int) -> Path:
    return Path(args.output_dir) / f"checkpoint-{step}"


def _problem(folder: Path) -> str | None:
    """What is wrong with a checkpoint."""
    try:
        expected = files.loads((folder / MANIFEST).read_bytes())
        found: dict[str, Any] = _digests(folder)
    except FileNotFoundError:
        return f"it has no {MANIFEST}"
    except ValueError:
        return f"its {MANIFEST} is damaged"
    except OSError as error:  # the disk's fault, which may pass: nothing is removed
        raise UserError(
            f"can't be read: {error.strerror}", file=folder, fix="mend that, then repeat the command"
        ) from error
    if not isinstance(expected, dict):
        return f"its {MANIFEST} is damaged"
    # Earlier versions wrote sizes.
    found = {
        name: (folder / name).stat().st_size if isinstance(expected.get(name), int) else found[name] for name in found
    }
    if expected == found:
        return None
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    return f"{wrong[0]} is {'missing' if wrong[0] not in found else 'not as it was written'}"


def _best(folder: Path) -> Path | None:
    """The best checkpoint until one that is whole; None where none had been validated."""
    step = json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8")).get("best_global_step")
    return folder.with_name(f"checkpoint-{step}") if step else None


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of a checkpoint's files by name."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST and not path.name.startswith("."):
            with open(path, "rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


@contextlib.contextmanager
def unsharded(model: torch.nn.Module) -> Iterator[None]:
    """While entered, each process has the whole model, and runs it without waiting for the others; all enter and leave together.

    Without it every forward pass gathers what the others have, so all must make as many passes, and only through the outermost
    module. The whole model must fit beside a step's memory: 4-bit weights of 7 billion parameters take 4 GB. Models that are not
    sharded are left alone.
    """
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            # As accelerate has it, but for the output layer, which from now on is gathered once more a step.
            part.set_reshard_after_forward(part is not parts[0], recurse=False)
            part.reshard()


def keep_packed_weights(trainer: Trainer) -> None:
    """Keeps FSDP from casting what it gathers: eight 4-bit numbers in what looks like an fp32 would become one rounded bf16.

    accelerate asks for the cast wherever a training computes in half precision, which autocast does anyway.
    """
    trainer.accelerator.state.fsdp_plugin.set_mixed_precision(torch.float32, override=True)


def unsharded_copy(model: torch.nn.Module, build: Callable[[], Any], *, here: bool) -> Any:
    """A model that is not sharded, with what ``model`` has learnt; all processes call this together.

    Args:
        model: The sharded model.
        build: Makes the model as it was before the training.
        here: Whether this process gets it; None for the others.
    """
    learnt = {name: _gathered(p) for name, p in model.named_parameters() if p.requires_grad}
    if not here:
        return None
    copy = build()
    own = dict(copy.named_parameters())
    with torch.no_grad():
        for name, values in learnt.items():
            own[name].copy_(values)
    return copy


def _gathered(parameter: torch.Tensor) -> torch.Tensor:
    unsharded = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
    return unsharded.detach().cpu()
