"""Errors that reach the user as one line, and the exit status that goes with them."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

LONGEST = 600  # characters of a problem: a library's message may quote a whole file
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


class UserError(Exception):
    """Something that the user can mend: bad input, a bad argument, a missing file.

    ``str()`` of it is one line: where, what is wrong, what was expected, what to do.

    Args:
        problem: What is wrong, in a few words.
        file: File in which it was found.
        line: Line of a text file (from 1), where the record starts.
        row: Row of a table without lines, as Parquet (from 1).
        column: Column of a table.
        key: Key of a recipe, or argument of a command (``--key``).
        expected: What would have been right.
        fix: What to do about it.
    """

    exit_status = 2

    def __init__(
        self,
        problem: str,
        *,
        file: str | Path | None = None,
        line: int | None = None,
        row: int | None = None,
        column: str | None = None,
        key: str | None = None,
        expected: str | None = None,
        fix: str | None = None,
    ):
        super().__init__(problem)
        self.problem, self.file, self.line, self.row = problem, file, line, row
        self.column, self.key, self.expected, self.fix = column, key, expected, fix

    def __str__(self) -> str:
        where = [
            str(self.file) if self.file is not None else "",
            f"line {self.line}" if self.line is not None else "",
            f"row {self.row}" if self.row is not None else "",
            f"column {shown(self.column)}" if self.column is not None else "",
            (self.key if self.key.startswith("--") else f"key {self.key!r}") if self.key is not None else "",
        ]
        place = ", ".join(part for part in where if part)
        problem = self.problem if len(self.problem) <= LONGEST else self.problem[:LONGEST] + "…"
        message = f"{place}: {problem}" if place else problem
        if self.expected:
            message += f"; expected {self.expected}"
        if self.fix:
            message += f". {self.fix[0].upper()}{self.fix[1:]}"
        return plain(message)


def plain(message: str) -> str:
    """A message as one printable line: a value in it, from a file or a repository, may hold newlines or terminal escapes, and one
    that somebody typed a Hub token."""
    return " ".join("".join(c if c.isprintable() else " " for c in without_tokens(message)).split())


def without_tokens(text: str) -> str:
    """``text`` without Hub tokens: those of this login's environment, and whatever looks like one."""
    for name in TOKEN_VARIABLES:
        if token := os.environ.get(name, "").strip():
            text = text.replace(token, "hf_…")
    return re.sub(r"\bhf_[A-Za-z0-9]{16,}", "hf_…", text)


def shown(value: object, limit: int = 60) -> str:
    """``repr`` of a value from outside, cut to ``limit`` characters, for a message."""
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it: libraries hide what happened behind errors of their own."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
# What libraries make of them, without the error number: torch's archive writer, and safetensors.
STORAGE_WORDS = re.compile(
    rf"iostream error|PytorchStreamWriter failed|unexpected pos|os error ({'|'.join(map(str, STORAGE))})\b"
)
HEAD_START = 5.0  # seconds in which a launcher ends the others


def storage_problem(error: BaseException) -> str | None:
    """What a disk refused (it is full, over quota, read-only, broken), where that is behind an error; None for other errors."""
    chain = list(causes(error))
    for one in chain:
        if isinstance(one, OSError) and one.errno in STORAGE:
            return one.strerror or str(one)
    return next((plain(str(one))[:120] for one in chain if STORAGE_WORDS.search(str(one))), None)


def run(main: Callable[[], None], *, several: bool = False) -> NoReturn:
    """Runs a command's ``main`` and exits as a shell user expects: 0, 2 (user error), 75 (the Hub failed), 130 (Ctrl-C).

    Of several processes that find the same fault only the first prints: the launcher ends the others as soon as one has ended,
    and they wait for that. A fault that only another one finds is printed by that one.

    Args:
        main: What the command does.
        several: Whether the processes of one launch share its work. Others are refused:
            each would do all, and write the same files.
    """
    # `python sbic_llama/x.py` puts that folder first on the path, where its files would hide packages of the same names
    # (an `evaluate`, say) from the libraries that main imports.
    if sys.path and (Path(sys.path[0]) / "__init__.py").is_file():
        del sys.path[0]
    keep_freed_memory()
    try:
        if not several and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError(
                "this command was started as several processes", expected="one", fix="start it with python -m"
            )
        main()
        sys.stdout.flush()
    except UserError as error:
        who = ""
        if rank := int(os.environ.get("RANK", "0")):
            time.sleep(HEAD_START)
            who = f" in process {rank + 1}"
        print(f"error{who}: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        # `… | head` closed our standard output: not an error, and nothing more can be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno not in STORAGE:
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {plain(f'{place}{error.strerror}')}. Mend that and repeat the command", file=sys.stderr)
        sys.exit(UserError.exit_status)
    sys.exit(0)


TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt(3)
MIB = 2**20


def keep_freed_memory() -> None:
    """Lets this process's C library (glibc; others are left alone) keep up to 2 GB of free memory at the end of its heap.

    By itself it keeps a few times the largest tensor so far, and gives the rest back after nearly every layer, to get it again
    page by page. Tensors of 32 MiB and more, the most that can be set, always go back at once.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_THRESHOLD, 32 * MIB)
        library.mallopt(TRIM_THRESHOLD, 2048 * MIB - 1)
