"""Checkpoints that can be trusted: each is whole, or is not used."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from common import json_text
from common.errors import UserError
from common.files import written_aside
from common.stages import say

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
        with written_aside(folder / MANIFEST) as part:
            part.write_text(json.dumps(_digests(folder)), encoding="utf-8")
        folders = _newest_first(Path(args.output_dir))
        needed = {*folders[:2], *map(_best, folders[:2])}
        for old in folders:
            if old not in needed:
                shutil.rmtree(old)


def last_whole(output_dir: Path) -> Path | None:
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
            say(f"{folder.name} is not whole ({problem}): it is passed over and removed")
            shutil.rmtree(folder)
    if problems and found is None:
        say("no checkpoint is whole: training starts anew")
    return found


def _newest_first(output_dir: Path) -> list[Path]:
    folders = [path for path in output_dir.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    return sorted(folders, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True)


def _folder(args: TrainingArguments, step: int) -> Path:
    return Path(args.output_dir) / f"checkpoint-{step}"


def _problem(folder: Path) -> str | None:
    """What is wrong with a checkpoint."""
    try:
        expected = json_text.loads((folder / MANIFEST).read_bytes())
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
