"""A progress bar that behaves: many updates on a terminal, one every half minute in a log file."""

from __future__ import annotations

import sys
from typing import Any


def bar(total: int, unit: str, *, show: bool, done: int = 0) -> Any:
    """A tqdm bar on standard error with rate and time left; a context manager with ``update(n)``.

    ``done`` units were done before: they count for the share, not for the rate. Of several processes the first one shows it.
    """
    from tqdm.auto import tqdm

    from common.processes import is_first
    from common.stages import quiet

    shown = {"mininterval": 0.1} if sys.stderr.isatty() else {"mininterval": 30, "file": _Log()}
    return tqdm(total=total, unit=unit, disable=quiet() or not (show and is_first()), initial=done, **shown)


class _Log:
    """Standard error as a log file, in which nothing can be written over: every state of a bar is a line."""

    def write(self, text: str) -> None:
        if state := text.strip():
            sys.stderr.write(f"{state}\n")

    def flush(self) -> None:
        sys.stderr.flush()
