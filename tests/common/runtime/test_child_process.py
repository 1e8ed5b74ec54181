"""Child processes: results, failures, and that neither process outlives the other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.cli.errors import UserError
from common.runtime.child_process import call

ROOT = Path(__file__).parents[3]
WORKER = "tests.common.runtime.child_process_worker"


def test_the_result_comes_from_another_process():
    from tests.common.runtime import child_process_worker

    number, where = call(child_process_worker.double, 21, preload=WORKER)
    assert number == 42
    assert where != os.getpid()


def test_where_there_is_a_gpu_no_library_is_imported_before_the_fork():
    """Importing bitsandbytes initializes CUDA, which forks of a process that has done so cannot use."""
    code = "import torch\ntorch.cuda.is_available = lambda: True\nfrom common.runtime.child_process import call\n"
    code += f"from {WORKER} import has_imported\nprint(call(has_imported, 'wave', preload='wave'))"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stdout == "False\n", result.stderr


def test_a_full_gpu_is_one_line():
    from tests.common.runtime import child_process_worker

    with pytest.raises(UserError, match=r"^the GPU's memory is full\. End other programs on it, or use a smaller"):
        call(child_process_worker.fill_memory, 2, preload=WORKER)


def test_a_user_error_is_raised_in_the_parent():
    from tests.common.runtime import child_process_worker

    with pytest.raises(UserError) as error:
        call(child_process_worker.refuse, "x.csv", preload=WORKER)
    assert str(error.value) == "x.csv, line 3: bad. Fix it"


def test_a_process_that_is_killed_is_one_line():
    from tests.common.runtime import child_process_worker

    with pytest.raises(UserError, match="ended by SIGKILL"):
        call(child_process_worker.end_by, signal.SIGKILL, preload=WORKER)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_unhandled_signal_is_an_exit_status_without_traceback(number, capfd):
    from tests.common.runtime import child_process_worker

    with pytest.raises(SystemExit) as status:
        call(child_process_worker.end_by, number, preload=WORKER)
    assert status.value.code == 128 + number
    assert "Traceback" not in capfd.readouterr().err


def test_an_exit_status_is_passed_on():
    from tests.common.runtime import child_process_worker

    with pytest.raises(SystemExit) as status:
        call(child_process_worker.leave, 143, preload=WORKER)
    assert status.value.code == 143


def start(tmp_path: Path) -> tuple[subprocess.Popen, int]:
    """Start a process that waits for a child, and return it with the child's id."""
    mark = tmp_path / "pid"
    code = f"from common.runtime.child_process import call\nfrom {WORKER} import wait\ncall(wait, {str(mark)!r}, "
    code += f"preload={WORKER!r})"
    script = tmp_path / "run.py"
    script.write_text("if __name__ == '__main__':\n    " + code.replace("\n", "\n    "))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, script], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not (mark.is_file() and mark.read_text()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    return process, int(mark.read_text())


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_terminals_group_ends_both_and_reaches_the_child_once(tmp_path, number):
    """Like Ctrl-C: to every process of the group, including the fork server."""
    process, worker = start(tmp_path)
    assert os.getpgid(worker) != process.pid, "otherwise it would receive the signal twice and stop at once"
    os.killpg(process.pid, number)
    assert process.wait(30) == 128 + number
    assert process.stderr.read() == ""
    assert gone(worker)
    assert (tmp_path / "pid.signals").read_text() == f"{int(number)} "


def test_a_child_ends_when_its_parent_is_killed(tmp_path):
    process, worker = start(tmp_path)
    process.kill()
    process.wait(30)
    assert gone(worker)
