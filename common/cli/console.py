"""Status lines on standard error, printed by the first process only."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from common.cli.errors import printable

QUIET = "FINETUNING_QUIET"  # an environment variable, so that child processes are quiet too
LOG_INTERVAL = 10  # seconds between the lines of a bar in a log
_start = time.monotonic()


def started(at: float | None = None) -> float:
    """Return when the command started, on the monotonic clock; a child process sets its parent's time."""
    global _start
    _start = _start if at is None else at
    return _start


def be_quiet() -> None:
    """Print only errors, warnings and results from now on; this includes the libraries' download bars."""
    for name in (QUIET, "HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        os.environ[name] = "1"


def quiet() -> bool:
    return QUIET in os.environ


def log(message: str, *, always: bool = False) -> None:
    """Print one line with the seconds since the command started; ``always``: with ``--quiet`` too.

    A signal's handler may call it, too.
    """
    if os.environ.get("RANK", "0") == "0" and (always or not quiet()):
        line = f"[{time.monotonic() - _start:6.1f} s] {printable(message)}"
        try:
            print(line, file=sys.stderr, flush=True)
        except RuntimeError:  # a signal's handler prints while another line is being printed
            os.write(sys.stderr.fileno(), f"{line}\n".encode(errors="backslashreplace"))


def warn(message: str) -> None:
    """Print a warning, with ``--quiet`` too: it says that results may not be what they seem."""
    log(f"warning: {message}", always=True)


@contextlib.contextmanager
def stage(title: str) -> Iterator[None]:
    """Announce a stage and, when it ends, how long it took."""
    log(f"{title} …")
    start = time.monotonic()
    yield
    log(f"{title}: done in {time.monotonic() - start:.1f} s")


def duration(seconds: float) -> str:
    """Format a duration: ``95`` → ``1 min 35 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def quiet_libraries() -> None:
    """Silence library messages that do not help the user.

    These are new heads reported as errors, load bars, the use of deprecated names, and a missing bitsandbytes kernel.
    """
    import logging
    import warnings

    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    warnings.filterwarnings("ignore", "`past_key_values` is deprecated", FutureWarning)  # by transformers 5.24


def bar(total: int, unit: str, *, show: bool, done: int = 0, title: str | None = None, delay: float = 0) -> Any:
    """Return a tqdm bar on standard error; ``done`` units count toward the share, not the rate.

    ``title`` comes before it. It appears after ``delay`` seconds.
    """
    from tqdm.auto import tqdm

    hidden = quiet() or not show or os.environ.get("RANK", "0") != "0"
    style = {"mininterval": 0.1} if sys.stderr.isatty() else {"mininterval": LOG_INTERVAL, "file": _LogFile()}
    return tqdm(total=total, unit=unit, disable=hidden, initial=done, desc=title, delay=delay, **style)


class _LogFile:
    """Standard error as a log, where nothing can be overwritten: every state of a bar is a line."""

    def write(self, text: str) -> None:
        if state := text.strip():
            sys.stderr.write(f"{state}\n")

    def flush(self) -> None:
        sys.stderr.flush()
