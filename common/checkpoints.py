"""Continuing a run: which checkpoints are complete, and whether a folder holds this run or another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from common import json_text
from common.errors import UserError, shown
from common.files import written_aside
from common.stages import say

MANIFEST = "manifest.json"
IDENTITY = "run.json"


class MarkComplete(TrainerCallback):
    """Writes a manifest (file → size) into each checkpoint once all its files are there."""

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if args.world_size > 1:
            torch.distributed.barrier()  # every process saves its own random state
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            with written_aside(folder / MANIFEST) as part:
                part.write_text(json.dumps(_sizes(folder)), encoding="utf-8")


def last_complete(output_dir: Path) -> Path | None:
    """The newest checkpoint whose files are those of its manifest; incomplete ones are named and passed over."""
    folders = [path for path in output_dir.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    for folder in sorted(folders, key=lambda path: int(path.name.removeprefix("checkpoint-")), reverse=True):
        try:
            if json_text.loads((folder / MANIFEST).read_bytes()) == _sizes(folder):
                return folder
        except (OSError, ValueError):
            pass
        say(f"{folder.name} is incomplete and is passed over")
    return None


def _sizes(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files if path.name != MANIFEST}


def claim(output_dir: Path, identity: dict[str, Any], *, finished: str) -> None:
    """Marks a folder as that of the run described by ``identity``, or checks that it is.

    A run that failed before its first checkpoint leaves nothing to protect: its mark is replaced.

    Args:
        output_dir: The run's folder.
        identity: What makes it this run: arguments and data.
        finished: Name of the file that a finished run leaves.

    Raises:
        UserError: The folder holds another run, or something that is no run.
    """
    path = output_dir / IDENTITY
    nothing_yet = not any(output_dir.glob("checkpoint-*"))
    identity = json.loads(json.dumps(identity, default=str))
    if path.is_file() and not (nothing_yet and not (output_dir / finished).is_file()):
        try:
            found = json_text.loads(path.read_bytes())
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise UserError("not a run's description", file=path, fix="choose another --output_dir")
        # In the caller's order: an argument that changed the data is named before the data's fingerprint.
        for key in [*identity, *sorted(found.keys() - identity.keys())]:
            if found.get(key) != identity.get(key):
                raise UserError(
                    f"the folder holds another run: {key} was {shown(found.get(key))} and is {shown(identity.get(key))}",
                    file=output_dir,
                    fix="choose another --output_dir, or repeat that run's arguments to continue it",
                )
        return
    # A process killed while it wrote leaves a .part file behind.
    left = {entry.name for entry in output_dir.iterdir()} if output_dir.is_dir() else set()
    if any(name != IDENTITY and not name.endswith(".part") for name in left):
        raise UserError("the folder is not empty and holds no run", file=output_dir, fix="choose another --output_dir")
    with written_aside(path) as part:
        part.write_text(json.dumps(identity, indent=1), encoding="utf-8")
