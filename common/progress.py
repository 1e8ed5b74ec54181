"""A progress bar that behaves: many updates on a terminal, one every half minute in a log file."""

from __future__ import annotations

import sys
from typing import Any


def bar(total: int, unit: str, *, show: bool) -> Any:
    """A tqdm bar on standard error with rate and time left; a context manager with ``update(n)``."""
    from tqdm.auto import tqdm

    return tqdm(total=total, unit=unit, disable=not show, mininterval=0.1 if sys.stderr.isatty() else 30)
