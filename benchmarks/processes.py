"""Run the sides of a job in turn, each in a process of its own that loads once and then waits.

``python -m benchmarks.processes LOAD SETTING`` is such a process: it answers each line of JSON with another. LOAD names a
function of this package, as ``inference.pair_pipeline``; SETTING is a :class:`Setting` as JSON.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

from common.cli.console import log, quiet_libraries
from common.cli.errors import UserError, run
from common.runtime.hardware import cpu_threads
from common.runtime.project import ROOT

TAIL = 15  # lines of a failed process's output that are shown
GRACE = 5.0  # seconds between SIGTERM and SIGKILL
Precision = Literal["fp32", "bf16", "own"]  # "own": the product chooses


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a side works on; it is sent to the side's process as JSON."""

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
    """A process that answers one line of JSON with another."""

    def __init__(self, name: str, command: Sequence[str]):
        self.name = name
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - stays open as long as the process
        # A session of its own: what it starts ends with it, and Ctrl-C in a terminal reaches only the benchmark itself.
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr,
            text=True, start_new_session=True,
        )  # fmt: skip

    def receive(self) -> dict[str, Any]:
        """Wait for the next line; a UserError if the process has ended."""
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._stderr.seek(0)
            raise failure(self.name, self._stderr.read(), status)
        return json.loads(line)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a line and wait for the answer; a UserError if the process has ended."""
        with contextlib.suppress(BrokenPipeError):  # then there is no answer
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self.receive()

    def end(self) -> None:
        """End the process and everything it has started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE)
        for pipe in (self._process.stdin, self._process.stdout, self._stderr):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


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
    """Return the environment of both sides: all cores, no GPU, no Hub."""
    more = {"OMP_NUM_THREADS": str(cpu_threads()), "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **more, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


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


def main() -> None:
    # Libraries print too: their lines must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(values: dict) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    quiet_libraries()
    module, _, function = sys.argv[1].partition(".")
    load = getattr(importlib.import_module(f"benchmarks.{module}"), function)
    measure = load(Setting(**json.loads(sys.argv[2])))
    answer({"ready": True})
    for line in sys.stdin:
        answer(dataclasses.asdict(measure(json.loads(line)["items"])))


if __name__ == "__main__":
    run(main)
