"""Errors shown to the user as one line, and the exit status of a command."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

LONGEST = 600  # characters of a problem: a library's message may quote a whole file
# What would open a table's cell, code, a quotation or a tag (not before a space), and what starts a block of Markdown.
MARKUP = re.compile(r"[|`>]|<(?! )")
BLOCK = re.compile(r"^(\s*)(?=#|[-+=](?:[-+=\s]|$))|^(\s*\d+)(?=[.)](?:\s|$))")
INTERVALS = re.compile(r"(?!\s*\[[^\]]*\]:)[^\[\]]*(\[[^\[\]]*\](?![(\[])[^\[\]]*)*")  # pairs of brackets, and no link
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
STREAMS: dict[str, str] = {}  # temporary files by path, and the stream that each stands for


@dataclass(eq=False, repr=False)
class UserError(Exception):
    """Something the user can fix: bad input, a bad argument, a missing file.

    ``str(error)`` is one line: where, what is wrong, what was expected, what to do.
    """

    exit_status = 2

    problem: str
    _: KW_ONLY
    file: str | Path | None = None
    line: int | None = None  # of a text file, from 1: where the record starts
    row: int | None = None  # of a table without lines, such as Parquet, from 1
    column: str | None = None  # of a table
    key: str | None = None  # of a recipe, or an argument of a command (``--key``)
    expected: str | None = None
    fix: str | None = None

    def __str__(self) -> str:
        where = [
            file_name(self.file) if self.file is not None else "",
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
            fix = without_tokens(self.fix)  # before its first letter changes
            message += f". {fix[0].upper()}{fix[1:]}"
        return plain(message)


def file_name(path: str | Path) -> str:
    """Return what the user calls a file."""
    return STREAMS.get(str(path), str(path))


def plain(message: str) -> str:
    """Make a message one printable line without newlines, terminal escapes, or Hub tokens."""
    return " ".join(printable(message).split())


def printable(text: str, *, markdown: bool = False) -> str:
    """Make text that others wrote safe to show: every terminal, page and card writer passes it through here.

    Unprintable characters (line breaks, terminal escapes, bidirectional controls) become spaces, and Hub tokens are hidden. With
    ``markdown``, the text can't become a table, code, a tag, a link, an image, emphasis, mathematics or another block either.
    """
    text = without_tokens(text)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    if not markdown:
        return text
    text = MARKUP.sub(" ", text)
    brackets = "" if INTERVALS.fullmatch(text) else r"\[\]"
    text = re.sub(rf"[\\*$~{brackets}]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", text)
    return BLOCK.sub(lambda start: f"{start[0]}\\", text)


def without_tokens(text: str) -> str:
    """Hide Hub tokens: the values of the environment's variables, and anything that looks like one."""
    for name in TOKEN_VARIABLES:
        if token := os.environ.get(name, "").strip():
            text = text.replace(token, "hf_…")
    return re.sub(r"(?i:hf)_[A-Za-z0-9]{16,}", "hf_…", text)


def shown(value: object, limit: int = 60) -> str:
    """Return the ``repr`` of an untrusted value, cut to ``limit`` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Format a number with its noun: ``1 item``, ``1,200 items``."""
    digits = f"{number:,}" if isinstance(number, int) else str(number)  # a record may hold anything
    return f"{digits} {noun if number == 1 else plural or f'{noun}s'}"


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the errors behind it, which libraries wrap in their own."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
# Of a path: no permission, a name that is too long, a file where a folder belongs, or the reverse.
PLACES = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
# torch's archive writer and safetensors report these without the error number.
STORAGE_WORDS = re.compile(
    rf"iostream error|PytorchStreamWriter failed|unexpected pos|os error ({'|'.join(map(str, STORAGE))})\b"
)
FULL = "the GPU's memory is full"
LESS_MEMORY = (
    "end other programs on it, or use a smaller --batch_size; in training, a smaller per_device_train_batch_size with more"
    " gradient_accumulation_steps, activation_checkpointing: true, or a smaller base"
)
HEAD_START = 5.0  # seconds in which the launcher ends the other processes
LAUNCHERS = ("TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION")  # each is set by torch's or accelerate's launcher


def storage_problem(error: BaseException) -> str | None:
    """Return why the disk refused a write (full, over quota, read-only, broken); None for other errors."""
    chain = list(causes(error))
    for cause in chain:
        if isinstance(cause, OSError) and cause.errno in STORAGE:
            return cause.strerror or str(cause)
    return next((plain(str(cause))[:120] for cause in chain if STORAGE_WORDS.search(str(cause))), None)


def memory_is_full(error: BaseException) -> bool:
    """Return whether a GPU had too little memory: torch's own error, and those of CUDA's libraries."""
    return any(isinstance(cause, RuntimeError) and "out of memory" in str(cause) for cause in causes(error))


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Say in one line what takes less of a GPU's memory, wherever in a command it was full."""
    try:
        yield
    except RuntimeError as error:
        if not memory_is_full(error):
            raise
        raise UserError(FULL, fix=LESS_MEMORY) from error


def _terminated(number: int, _: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def run(main: Callable[[], None], *, several: bool = False) -> NoReturn:
    """Run a command and exit: 0, 2 (user error), 75 (the Hub failed), 130 (Ctrl-C), 143 (SIGTERM).

    If all processes of a launch hit the same error, only the first prints it: the others wait until the launcher ends them.
    Set ``several`` if the processes of one launch share the work; otherwise each would do all of it and write the same files.
    """
    # `python sbic_llama/x.py` puts that folder first on the path, where its files would shadow packages that libraries import.
    if sys.path and (Path(sys.path[0]) / "__init__.py").is_file():
        del sys.path[0]
    keep_freed_memory()
    without_compiler()
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    if launched():  # before the imports, which take seconds
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    if alone:  # several may wait for each other on the way out, where temporary files are removed: they end at once
        signal.signal(signal.SIGTERM, _terminated)
    try:
        if not several and not alone:
            problem = "this command was started as several processes"
            raise UserError(problem, expected="one", fix="start it with python -m")
        try:
            os.getcwd()
        except FileNotFoundError:
            raise UserError("the working directory no longer exists", fix="cd into one that does") from None
        with memory_errors():
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
    except BrokenPipeError:  # `… | head` closed standard output: not an error, but nothing more can be printed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno not in STORAGE and not (error.filename and error.errno in PLACES):
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {plain(f'{place}{error.strerror}')}. Fix that and repeat the command", file=sys.stderr)
        sys.exit(UserError.exit_status)
    sys.exit(0)


def launched() -> bool:
    """Return whether a launcher of several processes started this one."""
    return any(name in os.environ for name in LAUNCHERS)


def _end_with(launcher: int) -> None:
    """End this process when its launcher has been killed: it would train on, and write where the next run does."""
    while os.getppid() == launcher:
        time.sleep(0.2)
    os._exit(1)


TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt(3)
MIB = 2**20


def keep_freed_memory() -> None:
    """Let glibc keep up to 2 GiB of freed memory, which it would return after nearly every layer and fetch page by page.

    Tensors of 32 MiB (the largest threshold allowed) and more are always returned at once.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_THRESHOLD, 32 * MIB)
        library.mallopt(TRIM_THRESHOLD, 2048 * MIB - 1)


def without_compiler() -> None:
    """Make ``torch.compile`` do nothing in this process and its children: call it before torch is imported.

    Importing bitsandbytes, which PEFT does, otherwise loads torch's compiler, a fifth of what a command imports, for functions
    that only devices without its kernels use.
    """
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")


def return_freed_memory() -> None:
    """Let glibc return all freed memory, also that between tensors in use, which it would never return by itself."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
