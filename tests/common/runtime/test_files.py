from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.cli.errors import UserError
from common.runtime.files import atomic_folder, atomic_write


def test_the_old_file_stays_when_writing_fails(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as part:  # noqa: PT012
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_new_file_replaces_the_old_and_others_can_read_it(tmp_path):
    path = tmp_path / "sub" / "a.json"
    for text in ("one", "two"):
        with atomic_write(path) as part:
            part.write_text(text)
    assert path.read_text() == "two"
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_is_whole_or_absent(tmp_path):
    path = tmp_path / "folder"
    with pytest.raises(RuntimeError), atomic_folder(path) as part:  # noqa: PT012
        (part / "a").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(path) as part:
        (part / "a").write_text("whole")
    assert (path / "a").read_text() == "whole"


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    code = (
        "import sys, time; from pathlib import Path; from common.runtime.files import atomic_write\n"
        f"with atomic_write(Path({str(path)!r})) as part:\n"
        "    part.write_text('half'); print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    assert path.read_text() == "old"


def test_an_unwritable_path_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"), atomic_write(tmp_path / "file" / "a.json"):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("write", [atomic_write, atomic_folder])
@pytest.mark.parametrize("path", [".", "/"])
def test_a_path_without_a_name_is_a_user_error(write, path):
    with pytest.raises(UserError, match=r"not a name; expected that of a (file|folder) to write"), write(Path(path)):
        pytest.fail("the block must not run")
