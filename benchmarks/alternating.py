"""Sides of a job in turn: each has a process of its own that loads once and then waits, so all see the same machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

from benchmarks.setting import ROOT, Measured
from common.cli.console import log
from common.cli.errors import UserError

TAIL = 15  # lines of a failed side's standard error that are shown
PATIENCE = 5.0  # seconds that a side has to end when it is told to


class Worker:
    """A side's process: a line of JSON in, a line of JSON out, one at a time.

    Args:
        name: The side's, for messages.
        command: What to run.
        environment: What it runs in.
    """

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str] | None = None):
        self.name = name
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        # A session of its own: what it starts ends with it, and a terminal's Ctrl-C comes here alone, where all are ended.
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            start_new_session=True,
        )

    def receive(self) -> dict[str, Any]:
        """Waits for the next line.

        Raises:
            UserError: The process has ended, with what it said last.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise self._failure()
        return json.loads(line)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Sends a line and waits for the answer.

        Raises:
            UserError: The process has ended, with what it said last.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._process.wait()
            raise self._failure() from None
        return self.receive()

    def end(self) -> None:
        """Ends the process and all that it has started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
        for pipe in (self._process.stdin, self._process.stdout, self._said):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _failure(self) -> UserError:
        return failure(self.name, self._said, self._process.returncode)


def failure(name: str, said: Any, status: int) -> UserError:
    """What to tell of a process that failed: the end of what it said is shown, and its last line is the error's."""
    said.seek(0)
    lines = [line for line in said.read().decode(errors="replace").splitlines() if line.strip()]
    for line in lines[-TAIL:]:
        log(f"{name}: {line}")
    return UserError(f"{name}: it ended with status {status}: {lines[-1].strip() if lines else 'it said nothing'}")


def finished(name: str, command: Sequence[str], environment: dict[str, str]) -> str:
    """Runs a command to its end, and gives what it said.

    Raises:
        UserError: It failed, with what it said last.
    """
    with tempfile.TemporaryFile() as said:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        if done.returncode:
            raise failure(name, said, done.returncode)
        said.seek(0)
        return said.read().decode(errors="replace")


def python(module: str, *words: object) -> list[str]:
    """The command that runs a module."""
    return [sys.executable, "-m", module, *map(str, words)]


def alternate(ask: dict[str, Callable[[], Measured]], rounds: int) -> Iterator[dict[str, Measured]]:
    """Asks each side in turn, round after round; another one begins each round."""
    names = list(ask)
    for turn in range(rounds):
        first = turn % len(names)
        yield {name: ask[name]() for name in names[first:] + names[:first]}


def ratios(rounds: Sequence[dict[str, Measured]], ours: str, theirs: str) -> list[float]:
    """Items a second of ours for each of theirs, a number a round."""
    return [each[ours].rate / each[theirs].rate for each in rounds]


def middle(values: Sequence[float]) -> str:
    """Median, and from where to where, as ``2.31 (2.20–2.45)``."""
    return f"{median(values):.2f} ({min(values):.2f}–{max(values):.2f})"
