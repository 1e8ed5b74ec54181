"""Colab is a stand-in module: no test here has been in the real one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from common import colab

TOKEN = "a token of the Hub"


class NotebookAccessError(Exception):
    pass


class SecretNotFoundError(Exception):
    pass


@pytest.fixture
def google(monkeypatch, tmp_path):
    """google.colab with one secret, and a Drive that is a folder."""
    mounted = []
    module = ModuleType("google.colab")
    module.userdata = SimpleNamespace(
        get={"HF_TOKEN": f"{TOKEN}\n"}.get,
        NotebookAccessError=NotebookAccessError,
        SecretNotFoundError=SecretNotFoundError,
    )
    module.drive = SimpleNamespace(mount=mounted.append)
    module.mounted = mounted
    monkeypatch.setitem(sys.modules, "google", ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", module)
    monkeypatch.setattr(colab, "MOUNT", tmp_path / "drive")
    return module


@pytest.fixture(autouse=True)
def token_of_the_environment(monkeypatch):
    # set and unset, so that monkeypatch takes away what login() leaves
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.delenv("HF_TOKEN")


@pytest.fixture
def elsewhere(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", None)  # importing it fails


def test_the_token_goes_into_the_environment_and_is_not_shown(google, capfd):
    colab.login()
    assert os.environ["HF_TOKEN"] == TOKEN
    shown = capfd.readouterr()
    assert TOKEN not in shown.out + shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SecretNotFoundError("HF_TOKEN"), "no secret HF_TOKEN"),
        (NotebookAccessError("HF_TOKEN"), "this notebook may not read the secret HF_TOKEN"),
        (None, "no secret HF_TOKEN"),
    ],
)
def test_without_a_token_one_line_says_what_to_do(google, error, words, capsys):
    def get(name: str) -> str:
        if error:
            raise error
        return " \n"  # a secret without a value

    google.userdata.get = get
    colab.login()
    shown = capsys.readouterr().err
    assert words in shown
    assert "add HF_TOKEN" in shown
    assert shown.count("\n") == 1
    assert "HF_TOKEN" not in os.environ


def test_a_token_that_is_there_already_stays(google, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "another")
    google.userdata.get = lambda name: None
    colab.login()
    assert os.environ["HF_TOKEN"] == "another"


def test_outside_colab_login_only_says_so(elsewhere, capsys):
    colab.login()
    assert "not in Colab" in capsys.readouterr().err
    assert "HF_TOKEN" not in os.environ


def test_the_folder_lies_on_drive(google, tmp_path):
    folder = colab.drive_folder("run")
    assert folder == tmp_path / "drive" / "MyDrive" / colab.NAME / "run"
    assert folder.is_dir()
    assert colab.drive_folder("run") == folder
    assert google.mounted == [str(tmp_path / "drive")] * 2  # Colab's mount does nothing the second time


def test_outside_colab_the_folder_lies_with_the_other_outputs(elsewhere, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert colab.drive_folder("run") == Path("output/run")
    assert not Path("output").exists()


class Shell:
    """An IPython with or without Colab's own magic."""

    def __init__(self, *magics: str) -> None:
        self.magics, self.ran = dict.fromkeys(magics, object()), []

    def find_cell_magic(self, name):
        return self.magics.get(name)

    def register_magic_function(self, function, magic_kind, magic_name):
        assert magic_kind == "cell"
        self.magics[magic_name] = function

    def run_cell_magic(self, *call):
        self.ran.append(call)
        return "a result that Colab would show"


def test_in_colab_its_shell_takes_the_place_of_bash():
    shell = Shell("bash", "shell")
    colab.load_ipython_extension(shell)
    assert shell.magics["bash"]("", "set -e\nls\n") is None
    assert shell.ran == [("shell", "", "set -e\nls\n")]


def test_elsewhere_bash_stays_what_it_is():
    shell = Shell("bash")
    before = dict(shell.magics)
    colab.load_ipython_extension(shell)
    assert shell.magics == before
