"""What a command is doing: one line a stage, on standard error, from the first process only."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from common.cli.errors import without_tokens

QUIET = "FINETUNING_QUIET"  # in the environment, so that processes which a command starts are quiet too
_start = time.monotonic()


def started(at: float | None = None) -> float:
    """When the command started, on the monotonic clock; a process that works for another takes over that one's."""
    global _start
    _start = _start if at is None else at
    return _start


def be_quiet() -> None:
    """From now on nothing is said but errors, and no bar is shown, those of the libraries that fetch files included."""
    for name in (QUIET, "HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
        os.environ[name] = "1"


def quiet() -> bool:
    return QUIET in os.environ


def log(message: str, *, asked: bool = False) -> None:
    """Prints one line with the seconds since the command started; what was ``asked`` for is said in a quiet command too."""
    if os.environ.get("RANK", "0") == "0" and (asked or not quiet()):
        print(f"[{time.monotonic() - _start:6.1f} s] {_printable(message)}", file=sys.stderr, flush=True)


def _printable(message: str) -> str:
    """What is said may quote a file or a repository, and with it a terminal's escapes; or a command, and with it a token."""
    return "".join(c if c.isprintable() else " " for c in without_tokens(message))


@contextlib.contextmanager
def stage(title: str) -> Iterator[None]:
    """Announces a stage, and when it ends says how long it took."""
    log(f"{title} …")
    start = time.monotonic()
    yield
    log(f"{title}: done in {time.monotonic() - start:.1f} s")


def duration(seconds: float) -> str:
    """``95`` → ``1 min 35 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def quiet_libraries() -> None:
    """Silences what the libraries say that tells a user nothing: a new head reported as an error, a bar for a load of
    a second, PEFT's use of a name that transformers deprecates, a kernel that bitsandbytes does without."""
    import logging
    import warnings

    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)


def bar(total: int, unit: str, *, show: bool, done: int = 0) -> Any:
    """A tqdm bar on standard error with rate and time left; a context manager with ``update(n)``.

    ``done`` units were done before: they count for the share, not for the rate. Of several processes the first one shows it.
    """
    from tqdm.auto import tqdm

    shown = {"mininterval": 0.1} if sys.stderr.isatty() else {"mininterval": 30, "file": _Log()}
    return tqdm(
        total=total, unit=unit, disable=quiet() or not show or os.environ.get("RANK", "0") != "0", initial=done, **shown
    )


class _Log:
    """Standard error as a log file, in which nothing can be written over: every state of a bar is a line."""

    def write(self, text: str) -> None:
        if state := text.strip():
            sys.stderr.write(f"{state}\n")

    def flush(self) -> None:
        sys.stderr.flush()
