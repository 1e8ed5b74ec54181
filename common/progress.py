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

    interval = 0.1 if sys.stderr.isatty() else 30
    return tqdm(
        total=total, unit=unit, disable=quiet() or not (show and is_first()), mininterval=interval, initial=done
    )
