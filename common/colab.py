"""What the notebooks need of Colab: the Hub's token, a folder that outlives the machine, and output while a command runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from common.cli.console import log
from common.runtime.project import NAME

SECRET = "HF_TOKEN"  # the secret's name in Colab, and the environment variable that the Hub's library reads
MOUNT = Path("/content/drive")


def login() -> None:
    """Takes the Hub's token from Colab's secret into the environment, for every later command; it is never shown.

    Without the secret, or access to it, the environment stays as it is and one line says what to do: a base model that is
    not gated needs no token. Outside Colab nothing is done, which is said too.
    """
    try:
        from google.colab import userdata
    except ImportError:
        log(f"not in Colab: the Hub's token is that of `hf auth login` or of the variable {SECRET}, if there is one")
        return
    give = (
        f"open Secrets (the key at the left), add {SECRET} with a token of the Hub, allow this notebook, run this again"
    )
    try:
        token = (userdata.get(SECRET) or "").strip()  # pasted tokens bring line ends along
    except userdata.NotebookAccessError:
        log(f"this notebook may not read the secret {SECRET}; for gated models and publishing {give}")
        return
    except userdata.SecretNotFoundError:
        token = ""
    if not token:
        log(f"there is no secret {SECRET}; for gated models and publishing {give}")
        return
    os.environ[SECRET] = token
    log(f"the Hub's token was taken from the secret {SECRET}")


def drive_folder(name: str) -> Path:
    """A folder on Google Drive, mounted and made where need be: a free machine may be taken away at any time, and what lies
    there stays. The same command on the next machine continues the run.

    Args:
        name: Its name. Outside Colab it is ``output/<name>``, which the command that writes to it makes.

    Raises:
        ValueError: Drive can't be mounted (Colab's own error).
        OSError: The folder can't be made, as on a full Drive.
    """
    try:
        from google.colab import drive
    except ImportError:
        return Path("output") / name
    drive.mount(str(MOUNT))
    folder = MOUNT / "MyDrive" / NAME / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def example() -> Path:
    """A folder with ``posts.csv``, a few posts about invented groups, and ``human_labels.csv``, what people said of some."""
    from common.runtime.project import miniature_corpora

    return miniature_corpora() / "own_file"


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext common.colab``: in Colab, ``%%bash`` cells show what a command prints while it runs.

    Colab's IPython is older than the first one that does so, and would leave hours of training without a line. Its own
    ``%%shell`` streams, and also raises where a command fails; it takes the place of ``%%bash``. Elsewhere nothing is changed.
    """
    if shell.find_cell_magic("shell") is None:
        return

    def bash(line: str, cell: str) -> None:
        shell.run_cell_magic("shell", line, cell)

    shell.register_magic_function(bash, magic_kind="cell", magic_name="bash")
