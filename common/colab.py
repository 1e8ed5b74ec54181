"""Helpers for notebooks in Colab: the Hub's token, a folder that outlives the machine, and live output of commands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from common.cli.console import log
from common.runtime.project import NAME, miniature_corpora

SECRET = "HF_TOKEN"  # the secret's name in Colab, and the environment variable that huggingface_hub reads
MOUNT = Path("/content/drive")


def login() -> None:
    """Copy the Hub token from Colab's secrets into the environment, for all later commands; it is never shown.

    Without a secret, or outside Colab, only a line is printed: open base models need no token.
    """
    try:
        from google.colab import userdata
    except ImportError:
        log(f"not in Colab: the Hub token, if any, comes from `hf auth login` or {SECRET}")
        return
    problem = f"no secret {SECRET}"
    try:
        token = (userdata.get(SECRET) or "").strip()  # pasted tokens end with a line break
    except userdata.NotebookAccessError:
        token, problem = "", f"this notebook may not read the secret {SECRET}"
    except userdata.SecretNotFoundError:
        token = ""
    if token:
        os.environ[SECRET] = token
        log(f"using the Hub token from the secret {SECRET}")
    else:
        how = f"open Secrets (the key on the left), add {SECRET}, allow this notebook, and run this cell again"
        log(f"{problem}; for gated models and publishing, {how}")


def drive_folder(name: str) -> Path:
    """Return a folder on Google Drive, mounted and created; outside Colab, ``output/<name>``.

    A free machine may be taken away at any time, but files on Drive stay: the same command resumes the run on the next one.
    """
    try:
        from google.colab import drive
    except ImportError:
        return Path("output") / name
    drive.mount(str(MOUNT))
    folder = MOUNT / "MyDrive" / NAME / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def example(name: str = "own_file") -> Path:
    """Return a folder of the miniature: ``own_file``, posts and people's labels of some; or ``own_task``, with a codebook."""
    return miniature_corpora() / name


def load_ipython_extension(shell: Any) -> None:
    """Make ``%%bash`` cells in Colab print while a command runs: ``%load_ext common.colab``.

    Colab's IPython is too old to stream by itself. Its own ``%%shell`` streams, and also raises where a command fails; it
    replaces ``%%bash``. Elsewhere nothing changes.
    """
    if shell.find_cell_magic("shell") is None:
        return

    def bash(line: str, cell: str) -> None:
        shell.run_cell_magic("shell", line, cell)

    shell.register_magic_function(bash, magic_kind="cell", magic_name="bash")
