"""Tie an output folder to one run and lock it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from common.cli.console import log
from common.cli.errors import UserError, shown
from common.runtime.files import atomic_write, read_json
from common.runtime.processes import is_first

IDENTITY = "run.json"
TRAINING_FILE = "training.json"  # in a trained model's folder
LOGS = "runs"  # TensorBoard's folder in a training's
LOCK = ".lock"  # in the folder of an annotation's parts
ATTEMPTS = 10  # to lock a folder
LONGEST = 150  # characters of a difference: the name of a dataset with its commit
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)  # the disk does not support them


def claim(
    output_dir: Path,
    identity: dict[str, Any],
    until_finished: dict[str, Any],
    *,
    finished: str,
    restate: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> None:
    """Tie a training's folder to the run that ``identity`` describes, or check that it belongs to that run.

    ``until_finished`` must stay the same only until the file ``finished`` exists. A run that failed before its first checkpoint
    leaves nothing to protect but TensorBoard's logs: its mark is replaced. For ``restate`` see :func:`check_identity`.
    """
    path, over = output_dir / IDENTITY, (output_dir / finished).is_file()
    if path.is_file() and (over or any(output_dir.glob("checkpoint-*"))):
        ignore = until_finished.keys() if over else ()
        check_identity(output_dir, identity | until_finished, ignore=ignore, restate=restate)
        return
    # A process killed while writing leaves a .part file.
    left = {entry.name for entry in output_dir.iterdir()} if output_dir.is_dir() else set()
    ours = {IDENTITY, LOGS} if IDENTITY in left else set()
    if any(not name.endswith(".part") for name in left - ours):
        raise UserError("the folder is not empty and holds no run", file=output_dir, fix="choose another --output_dir")
    write_identity(output_dir, identity | until_finished)


def write_identity(folder: Path, identity: dict[str, Any]) -> None:
    """Mark a folder as belonging to a run."""
    with atomic_write(folder / IDENTITY) as part:
        part.write_text(json.dumps(identity, indent=1, default=str), encoding="utf-8")


def check_identity(
    folder: Path,
    identity: dict[str, Any],
    *,
    ignore: Collection[str] = (),
    option: str = "--output_dir",
    restate: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> None:
    """Check that a folder's mark describes this run; ``option`` is the argument that names another folder.

    ``restate`` returns the mark in this run's terms, where the same can be described in several ways.

    Raises:
        UserError: The folder belongs to another run (the first difference is named), or the mark is damaged.
    """
    path = folder / IDENTITY
    recorded = restate(read_json(dict[str, Any], path, what="a run's description", fix=f"choose another {option}"))
    identity = json.loads(json.dumps(identity, default=str))
    # In the caller's order: an argument that changed the data is named before the data's fingerprint.
    for key in [*identity, *sorted(recorded.keys() - identity.keys())]:
        if key not in ignore and recorded.get(key) != identity.get(key):
            problem = f"the folder holds another run: {_difference(key, recorded.get(key), identity.get(key))}"
            fix = f"choose another {option}, or repeat that run's arguments to continue it"
            raise UserError(problem, file=folder, fix=fix)


def _difference(key: str, was: Any, now: Any) -> str:
    if isinstance(was, dict) and isinstance(now, dict):
        name = next(name for name in [*now, *was] if was.get(name) != now.get(name))
        return _difference(f"{key} ({name})", was.get(name), now.get(name))
    if isinstance(now, str) and re.fullmatch("[0-9a-f]{16,64}", now):  # a digest tells a reader nothing
        return f"{key} changed" if was else f"{key}: not recorded by the version that began it"
    return f"{key} was {shown(was, LONGEST)} and is {shown(now, LONGEST)}"


@contextlib.contextmanager
def locked(output_dir: Path) -> Iterator[None]:
    """Hold a training's folder for this process; the lock ends with the process, even if it is killed.

    Waits for another training in it, unless this is one of several processes. Only the first of those holds the lock.
    """
    if not is_first():
        yield
        return
    name = hashlib.sha256(str(output_dir.resolve()).encode()).hexdigest()[:16]
    # Not in the folder itself, because a network drive may not support locks.
    lock = FileLock(Path(tempfile.gettempdir()) / f"training-{os.getuid()}-{name}.lock")
    with contextlib.suppress(Timeout):
        lock.acquire(timeout=0)
    if not lock.is_locked:
        if os.environ.get("WORLD_SIZE", "1") != "1":  # the other processes would wait for this one until they time out
            problem = "another process is training in this folder"
            raise UserError(problem, file=output_dir, fix="wait until it has ended")
        log(f"another process is training in {output_dir}: waiting until it has ended")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def locked_inside(folder: Path, *, busy: UserError) -> Iterator[None]:
    """Create a folder and hold it through a lock file in it; raise ``busy`` if another process holds it.

    Processes on all machines that share the disk see the lock, if the disk supports locks. The holder may remove the folder.
    """
    lock = FileLock(folder / LOCK, fallback_to_soft=False)
    for attempt in range(ATTEMPTS):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
            break
        except Timeout:
            raise busy from None
        except OSError as error:
            if error.errno in NO_LOCKS:
                break
            if error.errno == errno.ENOENT and attempt + 1 < ATTEMPTS:
                continue  # another process may just have removed the folder
            problem = f"can't be written: {error.strerror}"
            raise UserError(problem, file=folder, fix="choose another --output") from error
    try:
        yield
    finally:
        lock.release()
