"""Checkpoints that are verified before use, and models that FSDP shards."""

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
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME

from common.cli.console import log
from common.cli.errors import UserError
from common.runtime.files import atomic_write, validated

MANIFEST = "manifest.json"  # file → SHA-256; earlier versions wrote sizes


def checkpoint_folder(output_dir: str | Path, step: int) -> Path:
    return Path(output_dir) / f"checkpoint-{step}"


def write_manifest(folder: Path) -> None:
    with atomic_write(folder / MANIFEST) as part:
        part.write_text(json.dumps(_digests(folder)), encoding="utf-8")


def remove_old(output_dir: Path, limit: int) -> None:
    """Keep at most ``limit`` checkpoints: the newest, each with the best until then, and remove the others."""
    folders = _newest_first(output_dir)
    newest = folders[: limit - 1]  # the best until the oldest of them may be one more
    needed = {*newest, *map(_best, newest)}
    for old in folders:
        if old not in needed:
            shutil.rmtree(old)


def last_intact(output_dir: Path) -> Path | None:
    """Return the newest checkpoint that is as it was written, and whose best checkpoint is too.

    Damaged checkpoints are logged and removed: none can be continued, and a new one would be mixed with their remains.

    Raises:
        UserError: The disk cannot be read.
    """
    folders = _newest_first(output_dir)
    problems = {folder: _problem(folder) for folder in folders}
    for folder in folders:
        if problems[folder] is None and (best := _best(folder)) is not None and problems.get(best, "missing"):
            problems[folder] = f"its best checkpoint, {best.name}, is damaged or missing"
    intact = next((folder for folder in folders if problems[folder] is None), None)
    for folder, problem in problems.items():
        if problem is not None:
            log(f"removing damaged {folder.name}: {problem}")
            shutil.rmtree(folder)
    if problems and intact is None:
        log("no intact checkpoint: training starts over")
    return intact


def _newest_first(output_dir: Path) -> list[Path]:
    folders = [path for path in output_dir.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    return sorted(folders, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True)


def _problem(folder: Path) -> str | None:
    """Return what is wrong with a checkpoint."""
    try:
        expected = validated(dict[str, str | int], (folder / MANIFEST).read_bytes())
        actual: dict[str, str | int] = dict(_digests(folder))
    except FileNotFoundError:
        return f"it has no {MANIFEST}"
    except ValueError:
        return f"its {MANIFEST} is damaged"
    except OSError as error:  # may be temporary: nothing is removed
        raise UserError(
            f"can't be read: {error.strerror}", file=folder, fix="fix that and repeat the command"
        ) from error
    actual |= {name: (folder / name).stat().st_size for name in actual if isinstance(expected.get(name), int)}
    wrong = sorted(name for name in expected.keys() | actual.keys() if expected.get(name) != actual.get(name))
    return f"{wrong[0]} is {'missing' if wrong[0] not in actual else 'not as it was written'}" if wrong else None


def _best(folder: Path) -> Path | None:
    """Return the best checkpoint until an intact one; None before the first validation."""
    step = json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8")).get("best_global_step")
    return checkpoint_folder(folder.parent, step) if step else None


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != MANIFEST and not path.name.startswith("."):
            with open(path, "rb") as file:
                digests[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


@contextlib.contextmanager
def unsharded(model: torch.nn.Module) -> Iterator[None]:
    """While entered, each process holds the whole model and runs it independently; all enter and leave together.

    Otherwise every forward pass gathers the other processes' shards, so all must make as many passes, and only through the
    outermost module. The whole model must fit beside a step's memory: 4-bit weights of 7 billion parameters take 4 GB. Models
    that are not sharded are left alone.
    """
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            # As accelerate sets it, except for the output layer, which is now gathered once more per step.
            part.set_reshard_after_forward(part is not parts[0], recurse=False)
            part.reshard()


def keep_packed_weights(trainer: Trainer) -> None:
    """Keep FSDP from casting what it gathers: eight 4-bit numbers packed into an fp32 would become one rounded bf16.

    accelerate requests the cast whenever a training computes in half precision, which autocast does anyway.
    """
    trainer.accelerator.state.fsdp_plugin.set_mixed_precision(torch.float32, override=True)


def unsharded_copy(model: torch.nn.Module, build: Callable[[], Any], *, here: bool) -> Any:
    """Return ``build()``, the untrained model, with the trained weights of a sharded one, where ``here``; None elsewhere.

    All processes call this together.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    whole = {name: (p.full_tensor() if isinstance(p, DTensor) else p).detach().cpu() for name, p in trained.items()}
    if not here:
        return None
    copy = build()
    own = dict(copy.named_parameters())
    with torch.no_grad():
        for name, values in whole.items():
            own[name].copy_(values)
    return copy
