"""Functions that the tests call in a child process."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from common.cli.errors import UserError


def double(number: int) -> tuple[int, int]:
    return 2 * number, os.getpid()


def refuse(file: str) -> None:
    raise UserError("bad", file=file, line=3, fix="fix it")


def fill_memory(size: int) -> None:
    raise RuntimeError(f"CUDA out of memory. Tried to allocate {size} GiB.")  # torch's error is one


def has_imported(module: str) -> bool:
    return module in sys.modules


def end_by(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


def leave(status: int) -> None:
    sys.exit(status)


def wait(mark: str) -> None:
    """Write the process id, then the signals received; the first ends it after a while, like a training step."""
    received: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: received.append(number))
    Path(mark).write_text(str(os.getpid()))
    while not received:
        time.sleep(0.05)
    time.sleep(0.3)
    Path(f"{mark}.signals").write_text("".join(f"{int(number)} " for number in received))
    sys.exit(128 + received[0])
