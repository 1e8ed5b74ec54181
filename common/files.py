"""Writing that can be interrupted: a file or folder is complete, or it is not there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common.errors import UserError, storage_problem


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Gives a path beside ``path`` to write a file to, and renames it to ``path`` when the block ends well.

    Readers see the old file or the new one, whole. When the block fails, the old file is left as it was.

    Raises:
        UserError: The folder can't be written to.
    """
    path = Path(path)
    with _writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
    part = Path(name)
    try:
        yield part
        with _writable(path):
            _sync(part)
            # mkstemp's 0600 would keep colleagues on a shared disk from reading the file.
            part.chmod(readable_mode())
            part.replace(path)
            _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_written_aside(path: Path) -> Iterator[Path]:
    """The same for a folder that does not exist yet: filled beside ``path``, then renamed to it."""
    path = Path(path)
    with _writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    try:
        yield part
        with _writable(path):
            for file in part.rglob("*"):
                _sync(file)
            part.chmod(0o777 & ~_umask())
            part.rename(path)
            _sync(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def storing(folder: Path, *, fix: str) -> Iterator[None]:
    """Whatever libraries raise in the block where ``folder``'s disk is full or read-only becomes one line for the user.

    Args:
        folder: Where they write.
        fix: What to do once there is room.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        problem = storage_problem(error)
        if problem is None:
            raise
        raise UserError(f"can't be written: {problem}", file=folder, fix=fix) from error


def require_space(folder: Path, needed: int, what: str) -> None:
    """Checks before hours of work that a disk can hold what they leave.

    Args:
        folder: Where it is left; it is there.
        needed: Bytes.
        what: What needs them, in words.

    Raises:
        UserError: It can't.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{free / 1e6:,.0f} MB are free on this disk",
            file=folder,
            expected=f"about {needed / 1e6:,.0f} MB, for {what}",
            fix="make room, or choose an --output_dir on another disk",
        )


def readable_mode() -> int:
    """The mode that a new file would get here, for files that were made with a closer one."""
    return 0o666 & ~_umask()


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"can't be written: {error.strerror}", file=path, fix="choose another output path") from error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
