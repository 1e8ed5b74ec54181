from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.cli import errors
from common.cli.errors import UserError, counted, printable


def test_an_error_is_one_line_with_place_expectation_and_fix():
    error = UserError("'x' is not valid", file="a.csv", line=3, column="label", expected="0 or 1", fix="fix the file")
    assert str(error) == "a.csv, line 3, column 'label': 'x' is not valid; expected 0 or 1. Fix the file"


def test_text_from_a_file_cannot_break_the_line_or_the_terminal():
    assert str(UserError("bad\n\x1b[31mvalue\x00", file="a\tb.csv")) == "a b.csv: bad [31mvalue"


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_the_tokens_of_the_environment_are_hidden(monkeypatch, name):
    monkeypatch.setenv(name, " not-like-a-token ")
    assert str(UserError("sent not-like-a-token", fix="not-like-a-token is wrong")) == "sent hf_…. Hf_… is wrong"
    assert printable("not-like-a-token\x1b[2J hf_abcdefghijklmnop Hf_abcdefghijklmnop") == "hf_… [2J hf_… hf_…"


def test_a_number_agrees_with_its_noun():
    assert [counted(n, "pair") for n in (0, 1, 2, 1200)] == ["0 pairs", "1 pair", "2 pairs", "1,200 pairs"]
    assert [counted(n, "person", "people") for n in (1, 2)] == ["1 person", "2 people"]


def run(body: str, timeout: int = 60, **environment: str) -> subprocess.CompletedProcess:
    code = f"from common.cli.errors import UserError, run\ndef main():\n    {body}\nrun(main)"
    environment = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=timeout, env=environment
    )


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ("pass", 0, ""),
        ("raise UserError('no such file', file='a.csv')", 2, "error: a.csv: no such file\n"),
        ("raise KeyboardInterrupt", 128 + signal.SIGINT, "interrupted\n"),
        ("raise RuntimeError('CUDA out of memory')", 2, f"error: {UserError(errors.FULL, fix=errors.LESS_MEMORY)}\n"),
        ("raise BrokenPipeError", 128 + signal.SIGPIPE, ""),
        (
            "raise OSError(28, 'No space left on device', 'a.csv')",
            2,
            "error: a.csv: No space left on device. Fix that and repeat the command\n",
        ),
        (
            "raise PermissionError(13, 'Permission denied', '/home/a/b.csv')",
            2,
            "error: /home/a/b.csv: Permission denied. Fix that and repeat the command\n",
        ),
    ],
)
def test_exit_status_and_message(body, status, message):
    result = run(body)
    assert (result.returncode, result.stderr) == (status, message)


def test_sigterm_removes_temporary_files(tmp_path):
    body = "import tempfile, time\n    with tempfile.TemporaryDirectory() as name:\n        print(name, flush=True); time.sleep(60)"
    code = f"from common.cli.errors import run\ndef main():\n    {body}\nrun(main)"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert Path(process.stdout.readline().strip()).is_dir()
        process.terminate()
    assert process.returncode == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_a_working_directory_that_was_removed_is_named(tmp_path):
    (tmp_path / "gone").mkdir()
    code = "import os; os.chdir({!r}); os.rmdir({!r}); from common.cli.errors import run; run(print)"
    result = subprocess.run(
        [sys.executable, "-c", code.format(*[str(tmp_path / "gone")] * 2)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
    )
    message = "error: the working directory no longer exists. Cd into one that does\n"
    assert (result.returncode, result.stderr) == (2, message)


def test_a_temporary_file_has_the_name_of_its_stream(monkeypatch):
    monkeypatch.setitem(errors.STREAMS, "/tmp/annotate-1/in.csv", "standard input")
    assert str(UserError("no rows", file=Path("/tmp/annotate-1/in.csv"), line=1)) == "standard input, line 1: no rows"


def test_a_command_started_as_several_processes_is_refused():
    result = run("pass", RANK="0", WORLD_SIZE="2")
    message = "error: this command was started as several processes; expected one. Start it with python -m\n"
    assert (result.returncode, result.stderr) == (2, message)


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (OSError(30, "Read-only file system"), "Read-only file system"),
        (
            RuntimeError("[enforce fail at inline_container.cc:1] unexpected pos 64 vs 0"),
            "[enforce fail at inline_container.cc:1]",
        ),
        (
            RuntimeError("Error while serializing: I/O error: File too large (os error 27)"),
            "Error while serializing: I/O error",
        ),
        (OSError(13, "Permission denied"), None),
        (RuntimeError("No such file or directory (os error 2)"), None),
        (RuntimeError("PytorchStreamReader failed reading zip archive"), None),
        (RuntimeError("shapes differ"), None),
    ],
)
def test_disk_errors_are_distinguished_from_others(error, problem):
    from common.cli.errors import storage_problem

    outer = ValueError("a library's own")
    outer.__cause__ = error
    reason = storage_problem(outer)
    assert reason is None if problem is None else reason.startswith(problem)


@pytest.mark.parametrize("bug", ["RuntimeError('bug')", "PermissionError(13, 'of no file')", "OSError(2, 'gone', 'a')"])
def test_a_bug_keeps_its_traceback(bug):
    result = run(f"raise {bug}")
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_of_several_processes_one_prints():
    assert run("raise UserError('no')", RANK="0").stderr == "error: no\n"
    body = "import common.cli.errors; common.cli.errors.HEAD_START = {}; raise UserError('no')"
    result = run(body.format(0), RANK="1")
    assert (result.returncode, result.stderr) == (2, "error in process 2: no\n")
    with pytest.raises(subprocess.TimeoutExpired) as waiting:
        run(body.format(60), 3, RANK="1")
    assert not waiting.value.stderr, "it waits for the first process to print"


def test_a_killed_launcher_takes_its_process_along():
    """Also before the process has imported what it needs to join the others."""
    worker = (
        "from common.cli.errors import run; import time; run(lambda: (print('at work', flush=True), time.sleep(60)))"
    )
    launcher = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {worker!r}]); time.sleep(60)"
    environment = {**os.environ, "TORCHELASTIC_RUN_ID": "none"}
    process = subprocess.Popen([sys.executable, "-c", launcher], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "at work\n"
    process.kill()
    assert process.communicate(timeout=10)[0] == "", "the pipe closes when its last writer has ended"


def test_a_script_run_by_its_path_does_not_shadow_packages(tmp_path):
    """`python snli_roberta/x.py` puts snli_roberta/ on the path, and snli_roberta/evaluate.py before a package `evaluate`."""
    (tmp_path / "project").mkdir()
    for name in ("__init__.py", "evaluate.py"):
        (tmp_path / "project" / name).touch()
    (tmp_path / "installed" / "evaluate").mkdir(parents=True)
    (tmp_path / "installed" / "evaluate" / "__init__.py").touch()
    script = tmp_path / "project" / "train.py"
    script.write_text(
        "from common.cli.errors import run\ndef main():\n    import evaluate; print(evaluate.__file__)\nrun(main)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}/installed{os.pathsep}{Path(__file__).parents[3]}"}
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, env=environment)
    assert result.stdout.strip() == str(tmp_path / "installed" / "evaluate" / "__init__.py")
