"""A function in a process of its own: its peak memory is its own, and what it allocates is free again afterwards.

The processes are forked from a server that has imported what they need, so each starts at once.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, TypeVar

from common import stages
from common.errors import UserError

Given = TypeVar("Given")
Result = TypeVar("Result")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def call(function: Callable[[Given], Result], argument: Given, *, preload: str) -> Result:
    """``function(argument)`` in a process of its own.

    Ctrl-C and SIGTERM go to that process, which may finish what it must; when it has ended, this one ends too. Should this one
    be killed, that one is asked to stop.

    Args:
        function: A function of a module; it and what it takes and returns can be pickled.
        argument: What it is called with.
        preload: Module that all such processes need; it is imported once. The first call's counts.

    Raises:
        UserError: The function raised it, or its process was killed.
        SystemExit: The process ended with that status, as after a signal.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(function, argument, theirs, stages.started()))
    process.start()
    assert process.pid is not None
    theirs.close()
    with _passed_on(process.pid):
        try:
            error, result = ours.recv()
        except EOFError:
            error, result = None, None
        process.join()
    if error is not None:
        raise error
    if process.exitcode == 0:
        return result
    if process.exitcode is not None and process.exitcode < 0:
        name = signal.Signals(-process.exitcode).name
        raise UserError(f"a process was ended by {name}", fix="the same command continues (SIGKILL: was memory short?)")
    raise SystemExit(process.exitcode)


def _work(function: Callable[[Any], Any], argument: Any, pipe: Connection, start: float) -> None:
    stages.started(start)
    os.setsid()  # the terminal's Ctrl-C reaches the one that waits, which passes it on: here it would come twice
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        pipe.send((None, function(argument)))
    except UserError as error:
        pipe.send((error, None))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _passed_on(pid: int) -> Iterator[None]:
    """While entered, signals that would end this process go to another."""

    def pass_on(number: int, _: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):  # where it has just ended
            os.kill(pid, number)

    previous = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
