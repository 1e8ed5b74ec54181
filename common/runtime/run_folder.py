"""Whose folder an output folder is: one run's, and of one process at a time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from common.cli.console import log
from common.cli.errors import UserError, shown
from common.runtime import files
from common.runtime.files import atomic_write
from common.runtime.processes import is_first

IDENTITY = "run.json"


def claim(output_dir: Path, identity: dict[str, Any], while_it_runs: dict[str, Any], *, finished: str) -> None:
    """Marks a folder as that of the run described by ``identity``, or checks that it is.

    A run that failed before its first checkpoint leaves nothing to protect: its mark is replaced.

    Args:
        output_dir: The run's folder.
        identity: What makes it this run: arguments and data.
        while_it_runs: What must stay as it was until it has finished, and not afterwards.
        finished: Name of the file that a finished run leaves.

    Raises:
        UserError: The folder holds another run, or something that is no run.
    """
    path = output_dir / IDENTITY
    nothing_yet = not any(output_dir.glob("checkpoint-*"))
    over = (output_dir / finished).is_file()
    identity = json.loads(json.dumps(identity | while_it_runs, default=str))
    if path.is_file() and (over or not nothing_yet):
        try:
            found = files.loads(path.read_bytes())
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise UserError("not a run's description", file=path, fix="choose another --output_dir")
        # In the caller's order: an argument that changed the data is named before the data's fingerprint.
        for key in [*identity, *sorted(found.keys() - identity.keys())]:
            if found.get(key) != identity.get(key) and not (over and key in while_it_runs):
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
    with atomic_write(path) as part:
        part.write_text(json.dumps(identity, indent=1), encoding="utf-8")


@contextlib.contextmanager
def locked(output_dir: Path) -> Iterator[None]:
    """While entered, no other process of this machine trains in the folder; it is free again however this process ends.

    Waits for one that does: its launcher may have been killed while it was in a validation. Of the processes that train together
    the first one holds the folder for all.

    Raises:
        UserError: Another one trains in it, and this is one of several.
    """
    if not is_first():
        yield
        return
    name = hashlib.sha256(str(output_dir.resolve()).encode()).hexdigest()[:16]
    # Not in the folder itself: a network drive may know no locks.
    lock = FileLock(Path(tempfile.gettempdir()) / f"training-{os.getuid()}-{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if os.environ.get("WORLD_SIZE", "1") != "1":  # the others would wait for this one, and lose their patience
            raise UserError("another process trains in it", file=output_dir, fix="wait for its end") from None
        log(f"another process trains in {output_dir}: waiting until it has ended")
        lock.acquire()
    with lock:
        yield
