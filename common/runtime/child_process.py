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
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, TypeVar

from common.cli import console
from common.cli.errors import UserError

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
    process = context.Process(target=_work, args=(function, argument, theirs, console.started()))
    with _passed_on(process):
        with _blocked():
            process.start()
        theirs.close()
        try:
            error, result = ours.recv()
        except EOFError:
            error, result = None, None
        process.join()
    if error is not None:
        raise error
    if process.exitcode == 0:
        return result
    number = -(process.exitcode or 0)
    if number in SIGNALS:  # before it could end of itself
        raise SystemExit(128 + number)
    if number > 0:
        name = signal.Signals(number).name
        raise UserError(f"a process was ended by {name}", fix="the same command continues (SIGKILL: was memory short?)")
    raise SystemExit(process.exitcode)


def _work(function: Callable[[Any], Any], argument: Any, pipe: Connection, start: float) -> None:
    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    console.started(start)
    os.setsid()  # the terminal's Ctrl-C reaches the one that waits, which passes it on: here it would come twice
    for number in SIGNALS:
        signal.signal(number, leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
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
def _blocked() -> Iterator[None]:
    """While entered, signals wait, and what is started has them blocked too: the server is in the terminal's group, and a Ctrl-C
    would end it."""
    resource_tracker.ensure_running()  # its start, which the server's would bring about, unblocks them
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


@contextlib.contextmanager
def _passed_on(process: BaseProcess) -> Iterator[None]:
    """While entered, signals that would end this process go to another, once it has started."""

    def pass_on(number: int, _: FrameType | None) -> None:
        if process.pid is None:  # nothing has started yet
            raise SystemExit(128 + number)
        with contextlib.suppress(ProcessLookupError):  # where it has just ended
            os.kill(process.pid, number)

    previous = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
