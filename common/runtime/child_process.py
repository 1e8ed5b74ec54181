"""Call a function in a child process, so that its peak memory is its own and is freed afterwards.

Children are forked from a server that has imported what they need, so each starts at once.
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
from common.cli.errors import UserError, memory_errors

Given = TypeVar("Given")
Result = TypeVar("Result")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def call(function: Callable[[Given], Result], argument: Given, *, preload: str) -> Result:
    """Return ``function(argument)``, computed in a child process; all three are pickled.

    Ctrl-C and SIGTERM are forwarded to the child, which may finish what it must; then this process ends too. If this process is
    killed, the child is asked to stop. ``preload`` is a module that all children need: the first call's is imported once, except
    where there is a GPU.

    Raises:
        UserError: The function raised it, or the child was killed.
        SystemExit: The child ended with that status, as after a signal.
    """
    import torch

    context = multiprocessing.get_context("forkserver")
    # Importing bitsandbytes initializes CUDA, which forks of a process that has done so cannot use.
    context.set_forkserver_preload([console.__name__ if torch.cuda.is_available() else preload])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(function, argument, theirs, console.started()))
    with _forwarded_to(process):
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
    if number in SIGNALS:  # before it could end by itself
        raise SystemExit(128 + number)
    if number > 0:
        problem = f"a child process was ended by {signal.Signals(number).name}"
        raise UserError(problem, fix="repeat the command to continue (after SIGKILL, check that memory suffices)")
    raise SystemExit(process.exitcode)


def _work(function: Callable[[Any], Any], argument: Any, pipe: Connection, start: float) -> None:
    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    console.started(start)
    os.setsid()  # the terminal's Ctrl-C reaches the parent, which forwards it: otherwise it would arrive twice
    for number in SIGNALS:
        signal.signal(number, leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with memory_errors():
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
    """Block signals, also in processes started meanwhile: Ctrl-C would end the fork server, which is in the terminal's group."""
    resource_tracker.ensure_running()  # starting it unblocks signals; the server's start would start it
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


@contextlib.contextmanager
def _forwarded_to(process: BaseProcess) -> Iterator[None]:
    def forward(number: int, _: FrameType | None) -> None:
        if process.pid is None:  # not started yet
            raise SystemExit(128 + number)
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(process.pid, number)

    previous = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
