"""Run the sides of a job in turn, each in a process of its own that loads once and then waits.

Sides are forked from a server that has imported the libraries, so each starts at once.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, Literal

from common.cli.console import log, quiet_libraries
from common.cli.errors import UserError, keep_freed_memory
from common.runtime.hardware import cpu_threads
from common.runtime.project import ROOT

TAIL = 15  # lines of a failed process's output that are shown
GRACE = 5.0  # seconds between SIGTERM and SIGKILL
# What takes a side seconds to import; "common" first, as it turns telemetry off.
LIBRARIES = (
    "common", "bitsandbytes", "datasets", "peft", "transformers.models.llama.modeling_llama",
    "transformers.models.roberta.modeling_roberta", "transformers.trainer",
)  # fmt: skip
Precision = Literal["fp32", "bf16", "own"]  # "own": the product chooses


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a side works on."""

    sbic_dir: str
    snli_dir: str
    scratch: str  # folder for temporary files
    llama: str = ""
    adapters: dict[str, str] = field(default_factory=dict)  # feature → folder of an adapter for that Llama
    encoder: str = ""
    classifier: str = ""
    most: int = 0  # items per round of the largest side; the others use a subset of them
    precision: Precision = "own"


@dataclass(frozen=True)
class Measured:
    """What one side did in one round."""

    items: int
    seconds: float
    flops: int  # what this side's method needs for the items: see benchmarks.flops
    precision: str
    answers: dict[str, str] = field(default_factory=dict)  # item → label text, to compare sides
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Items per second."""
        return self.items / self.seconds


Measure = Callable[[int], Measured]  # number of items → measurement


class SideProcess:
    """A process that loads a side, and then measures it whenever it is asked."""

    def __init__(self, name: str, load: str, setting: Setting):
        """Start to load. ``load`` names a function from a setting to a :data:`Measure`, as ``benchmarks.inference.harness``."""
        self.name = name
        self._folder = tempfile.TemporaryDirectory(prefix="side-")
        self._output = Path(self._folder.name) / "output"
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(LIBRARIES))
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(load, setting, theirs, self._output))
        before = dict(os.environ)
        os.environ.clear()
        os.environ.update(environment())  # which the server keeps
        try:
            self._process.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        theirs.close()

    def loaded(self) -> None:
        """Wait until the side has loaded; a UserError if it fails."""
        self._receive()

    def measure(self, items: int) -> Measured:
        """Measure the side; a UserError if its process has ended."""
        with contextlib.suppress(BrokenPipeError):  # then there is no answer
            self._pipe.send(items)
        return self._receive()

    def _receive(self) -> Any:
        try:
            return self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            raise failure(self.name, self._output.read_bytes(), self._process.exitcode or 0) from None

    def end(self) -> None:
        """End the process and everything it has started."""
        assert self._process.pid is not None
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            self._process.join(GRACE)
        self._process.kill()  # where it is not yet the leader of a group
        self._process.join()
        self._pipe.close()
        self._folder.cleanup()


def _serve(load: str, setting: Setting, pipe: Connection, output: Path) -> None:
    """Load a side, then answer numbers of items with measurements until the benchmark ends."""
    os.setsid()  # what it starts ends with it, and Ctrl-C in a terminal reaches only the benchmark itself
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that semaphores of libraries are removed
    os.environ.update(environment())  # also where the tests' server has forked this process
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.stdout.reconfigure(line_buffering=True)  # lines of both in the order in which they were printed
    keep_freed_memory()  # as our commands do; other tools are no slower with it
    quiet_libraries()
    module, _, function = load.rpartition(".")
    try:
        measure: Measure = getattr(importlib.import_module(module), function)(setting)
        pipe.send(None)
        with contextlib.suppress(EOFError):
            while True:
                pipe.send(measure(pipe.recv()))
    except UserError as error:
        sys.exit(f"error: {error}")


def failure(name: str, output: bytes, status: int) -> UserError:
    """Show the end of a failed process's output, and return an error with its last line."""
    lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    for line in lines[-TAIL:]:
        log(f"{name}: {line}")
    return UserError(f"{name} exited with status {status}: {lines[-1].strip() if lines else 'no output'}")


def finished(name: str, command: Sequence[str], **more: str) -> str:
    """Run a command to its end and return its output; a UserError if it fails."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(command, cwd=ROOT, env=environment() | more, **streams)
    if done.returncode:
        raise failure(name, done.stdout, done.returncode)
    return done.stdout.decode(errors="replace")


def python(module: str, *words: object, **options: object) -> list[str]:
    """Return the command that runs a module with ``--name value`` for each option."""
    named = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [sys.executable, "-m", module, *map(str, [*words, *named])]


def environment() -> dict[str, str]:
    """Return the environment of both sides: all cores, no GPU, no Hub; torch's compiler is left to each side."""
    more = {"OMP_NUM_THREADS": str(cpu_threads()), "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    own = {name: value for name, value in os.environ.items() if name != "TORCHDYNAMO_DISABLE"}
    return {**own, **more, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def alternate(ask: dict[str, Callable[[], Measured]], rounds: int) -> Iterator[dict[str, Measured]]:
    """Ask each side in turn, round after round; each round starts with another side."""
    names = list(ask)
    for turn in range(rounds):
        first = turn % len(names)
        yield {name: ask[name]() for name in names[first:] + names[:first]}


def middle(values: Sequence[float]) -> str:
    """Format median and range, as ``2.31 (2.20–2.45)``."""
    return f"{median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def spread(items: list, count: int) -> list:
    """Return ``count`` items, evenly spaced; all of them if there are no more."""
    if count >= len(items):
        return list(items)
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]
