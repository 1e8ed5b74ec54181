"""Run commands in forks of a process that has imported the libraries, which saves each of them seconds.

A fork starts in any folder with any environment, can be killed, and ends with a status. Settings that libraries read while
they are imported, such as HF_ENDPOINT, are those of the tests: to change them, start a new interpreter.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing.forkserver
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Client, Connection, Listener, wait
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
_CONTEXT = multiprocessing.get_context("forkserver")
# Importing bitsandbytes initializes CUDA, which forks of a process that has done so cannot use.
_CONTEXT.set_forkserver_preload([] if torch.cuda.is_available() else ["tests.imported"])
# Commands that a test calls in its own process fork from the same server. With their choice, it would depend on the tests that
# ran before whether a fork starts with modules of the product.
multiprocessing.forkserver.set_forkserver_preload = lambda modules: None
_FOLDER = tempfile.TemporaryDirectory(prefix="forked-")


class Forked:
    """A running command. ``words`` are those that follow ``python``: ``-m`` and a module, or a script, then arguments.

    Has what tests use of :class:`subprocess.Popen`; ``stdout`` is a stream of stdout and stderr.
    """

    def __init__(self, words: Sequence[str | Path], *, cwd: Path = ROOT, env: Mapping[str, str] | None = None):
        pipe = Path(tempfile.mkdtemp(dir=_FOLDER.name)) / "output"
        os.mkfifo(pipe)
        self._process = _started(words, cwd, env, (os.devnull, pipe, pipe))
        self.pid = self._process.pid
        self.stdout = pipe.open(encoding="utf-8", errors="replace")

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 300) -> tuple[str, None]:
        """Return the rest of the output, after the command has ended; it is killed if it does not end."""
        late = threading.Timer(timeout, self.kill)
        late.start()
        with self.stdout:
            output = self.stdout.read()
        late.cancel()
        _ended(self._process, timeout)
        return output, None


def until(process: Forked | subprocess.Popen, *words: str) -> str:
    """Read a process's stdout up to the line in which the last of ``words`` has come, one after the other; return what was read."""
    output, left = "", list(words)
    for line in process.stdout:
        output += line
        while left and left[0] in line:
            line = line.split(left.pop(0), 1)[1]
        if not left:
            return output
    raise AssertionError(f"it ended before {left[0]!r}: {output[-2000:]}")


def run(
    words: Sequence[str | Path], *, cwd: Path = ROOT, env: Mapping[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as ``subprocess.run(..., capture_output=True, text=True)`` does."""
    folder = Path(tempfile.mkdtemp(dir=_FOLDER.name))
    out, err = folder / "out", folder / "err"
    process = _started(words, cwd, env, (os.devnull, out, err))
    _ended(process, timeout)
    text = (path.read_text(encoding="utf-8", errors="replace") for path in (out, err))
    return subprocess.CompletedProcess(list(words), process.exitcode, *text)


@contextlib.contextmanager
def as_python(folder: Path) -> Iterator[Path]:
    """Put a program ``python`` into a folder, yield its path, and meanwhile run its commands as forks of this process's server."""
    folder.mkdir(parents=True, exist_ok=True)
    address = tempfile.mkdtemp(dir=_FOLDER.name) + "/socket"  # the path of a socket must be short
    program = folder / "python"
    program.write_text(PROGRAM.format(python=sys.executable, address=address), encoding="utf-8")
    program.chmod(0o755)
    with Listener(address, "AF_UNIX") as listener:

        def serve() -> None:
            while words := (client := listener.accept()).recv():
                threading.Thread(target=_run_for, args=(client, *words)).start()

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        yield program
        with Client(address, "AF_UNIX") as client:
            client.send(None)
        server.join()


def _run_for(client: Connection, words: list[str], cwd: str, env: dict[str, str], pid: int) -> None:
    """Run a command that writes to the streams of the program that asks for it, and tell it how that ended."""
    streams = [f"/proc/{pid}/fd/{descriptor}" for descriptor in range(3)]
    with client:
        process = _started(words[words[0] == "-u" :], Path(cwd), env, streams)
        if process.sentinel not in wait([process.sentinel, client]):  # the program was ended
            os.kill(process.pid, signal.SIGTERM)
        process.join()
        with contextlib.suppress(BrokenPipeError):
            client.send(process.exitcode)


PROGRAM = """\
#!{python} -SE
import os, sys
from multiprocessing.connection import Client
with Client({address!r}, "AF_UNIX") as server:
    server.send((sys.argv[1:], os.getcwd(), dict(os.environ), os.getpid()))
    status = server.recv()
if status < 0:
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


def launch(words: Sequence[str | Path], *, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``accelerate launch`` and the processes that it starts, all as forks, with more environment variables."""
    with as_python(Path(tempfile.mkdtemp(dir=_FOLDER.name))) as python:
        environment = {**os.environ, "PYTHON_EXEC": str(python), **env}
        return run(["-m", "accelerate.commands.launch", *words], cwd=cwd, env=environment)


def start_server() -> None:
    """Start the process that has the libraries, if it does not run yet."""
    with contextlib.chdir(ROOT):  # it imports from here
        multiprocessing.forkserver.ensure_running()


def _started(words: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None, streams: Sequence[Path | str]):
    """Start a command whose stdin, stdout and stderr are these files."""
    environment = dict(os.environ if env is None else env)
    process = _CONTEXT.Process(target=_main, args=([str(word) for word in words], cwd, environment, streams))
    start_server()
    process.start()
    return process


def _ended(process: multiprocessing.process.BaseProcess, timeout: float) -> None:
    process.join(timeout)
    if process.exitcode is None:
        os.kill(process.pid, signal.SIGKILL)
        raise TimeoutError(f"still running after {timeout:.0f} s")


def _main(words: list[str], cwd: Path, env: dict[str, str], streams: Sequence[Path | str]) -> None:
    # The server may have been started by a command of the product, which blocks signals meanwhile.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for descriptor, path in enumerate(streams):
        # Others may write to it, too.
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND if descriptor else os.O_RDONLY)
        os.dup2(file, descriptor)
        os.close(file)
    # Python's objects for the server's streams keep what kind of file those are.
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    try:
        if words[0] == "-m":
            sys.path.insert(0, str(cwd))
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(words[0]).parent))
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out
