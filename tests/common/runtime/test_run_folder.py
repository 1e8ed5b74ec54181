"""A folder of parts is one process's; a killed process frees it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from common.cli.errors import UserError
from common.runtime.run_folder import check_identity, locked_inside, write_identity

ROOT = Path(__file__).parents[3]
BUSY = UserError("another process is at work")
HOLD = """
import sys, time
from pathlib import Path
from common.cli.errors import UserError
from common.runtime.run_folder import check_identity, locked_inside, write_identity
with locked_inside(Path(sys.argv[1]), busy=UserError("busy")):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    folder = tmp_path / "parts"
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="another process is at work"), locked_inside(folder, busy=BUSY):
        pytest.fail("the folder is locked")
    process.kill()
    process.communicate()
    with locked_inside(folder, busy=BUSY):
        shutil.rmtree(folder)  # as the holder may
    assert not folder.exists()


def test_a_disk_without_locks_is_used_without_one_and_an_unwritable_one_is_refused(tmp_path, monkeypatch):
    def unsupported(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patched:
        patched.setattr(FileLock, "acquire", unsupported)
        with locked_inside(tmp_path / "parts", busy=BUSY):
            assert os.listdir(tmp_path) == ["parts"]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't be written"), locked_inside(tmp_path / "file" / "parts", busy=BUSY):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("fault", [errno.ENOENT, errno.EACCES])
def test_a_lock_that_cannot_be_created_is_one_line(tmp_path, monkeypatch, fault):
    """As below /proc, or in a working directory that was removed."""

    def refused(*_, **__):
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(FileLock, "acquire", refused)
    with pytest.raises(UserError, match=rf"parts: can't be written: {os.strerror(fault)}. Choose another --output"):
        locked_inside(tmp_path / "parts", busy=BUSY).__enter__()
    with pytest.raises(UserError, match="can't be written"):
        locked_inside(Path("/proc/out.csv.parts"), busy=BUSY).__enter__()


@pytest.mark.parametrize(
    ("was", "now", "difference"),
    [
        ({"posts": "a" * 64}, {"posts": "b" * 64}, "posts changed"),
        ({"posts": {"x.csv": "a" * 64}}, {"posts": {"x.csv": "b" * 64}}, "posts (x.csv) changed"),
        ({}, {"rows": "b" * 64}, "rows: not recorded by the version that began it"),
        ({"seed": 1}, {"seed": 2}, "seed was 1 and is 2"),
        ({"thresholds": {"x": 0.5}}, {"thresholds": {}}, "thresholds (x) was 0.5 and is None"),
    ],
)
def test_the_difference_between_two_runs_is_told_without_digests(tmp_path, was, now, difference):
    write_identity(tmp_path, was)
    with pytest.raises(UserError) as error:
        check_identity(tmp_path, now)
    assert f"the folder holds another run: {difference}. Choose" in str(error.value)
