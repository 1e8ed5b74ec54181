"""What a command is doing: one line a stage, on standard error, from the first process only."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator

_START = time.monotonic()


def say(message: str) -> None:
    """Prints one line with the seconds since the command started."""
    if os.environ.get("RANK", "0") == "0":
        print(f"[{time.monotonic() - _START:6.1f} s] {message}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def stage(title: str) -> Iterator[None]:
    """Announces a stage, and when it ends says how long it took."""
    say(f"{title} …")
    start = time.monotonic()
    yield
    say(f"{title}: done in {time.monotonic() - start:.1f} s")
