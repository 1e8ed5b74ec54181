"""The folder beside an output that keeps its parts until it is whole: whose parts they are, and that one command writes them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import json_text
from common.errors import UserError, shown
from common.files import written_aside

IDENTITY, LOCK = "run.json", ".lock"


@contextlib.contextmanager
def claimed(folder: Path, identity: dict[str, Any]) -> Iterator[None]:
    """While entered, the folder of parts is this run's alone. It is a new one, or this run's from before.

    Raises:
        UserError: It holds the parts of another run, or another command is at work in it.
    """
    if folder.is_dir() and not (folder / IDENTITY).is_file() and {path.name for path in folder.iterdir()} - {LOCK}:
        raise UserError("a folder of something else is in the way", file=folder, fix="choose another --output")
    with _locked(folder):
        if (folder / IDENTITY).is_file():
            check(folder, identity)
        else:
            with written_aside(folder / IDENTITY) as part:
                part.write_text(json.dumps(identity, indent=1), encoding="utf-8")
        yield


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    path = folder / LOCK
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = open(path, "a")  # noqa: SIM115
        except FileNotFoundError:  # another command has just cleared up
            continue
        except OSError as error:
            raise UserError(f"can't be written: {error.strerror}", file=path, fix="choose another --output") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    "another command is annotating into it",
                    file=folder,
                    fix="wait for its end, or choose another --output",
                ) from None
            except OSError:
                pass  # a network disk without locks
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                yield
                return


def check(folder: Path, identity: dict[str, Any]) -> None:
    """Checks that a folder of parts is this run's.

    Raises:
        UserError: It holds the parts of another run, or something damaged.
    """
    try:
        found = json_text.loads((folder / IDENTITY).read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        fix = "remove the folder, or choose another --output"
        raise UserError("not a run's description", file=folder / IDENTITY, fix=fix)
    for key in identity:
        if found.get(key) != identity[key]:
            raise UserError(
                f"it holds parts of another run: {key} was {shown(found.get(key))} and is {shown(identity[key])}",
                file=folder,
                fix="repeat that run's command to continue it, or remove the folder",
            )


def clear(folder: Path) -> None:
    """Removes the folder of parts; what says whose they are goes last, so that a run that is killed here is known by the next."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in (IDENTITY, LOCK):
            path.unlink()
    (folder / IDENTITY).unlink(missing_ok=True)
    (folder / LOCK).unlink(missing_ok=True)
    folder.rmdir()
