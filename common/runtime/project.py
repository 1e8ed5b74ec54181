"""Names and places of this repository: on GitHub and the Hub, its two projects, and its miniature."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

from common.cli.errors import UserError
from common.cli.options import CorpusOptions

ROOT = Path(__file__).parents[2]  # the folder that holds the packages
PROJECTS = ("sbic_llama", "snli_roberta")  # by name only: common imports neither
PROJECT = "finetuning-projects/annotate-and-compare"  # owner/repository; the owner is the Hub's namespace too
DISTRIBUTION = "finetuning-projects"  # the package's name for pip
NAMESPACE, _, NAME = PROJECT.partition("/")
SOURCE = f"https://github.com/{PROJECT}"
MINIATURE = "miniature/"  # prefix by which a trained model names the shipped base models, on any machine
MINIATURE_MODELS = ROOT / "common" / "miniature" / "models"


def cache_folder(name: str) -> Path:
    """Return ``$XDG_CACHE_HOME/name`` (``~/.cache/name`` by default)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / name


def miniature_cache() -> Path:
    """Return the folder below which all versions of the miniature's corpora are built."""
    return cache_folder("finetuning-miniature")


def is_miniature(path: Path) -> bool:
    """Return whether a file belongs to the miniature."""
    return path.resolve().is_relative_to(miniature_cache().resolve())


def corpus_folder(options: CorpusOptions, name: str) -> Path | None:
    """Return ``data_dir``, or the miniature's corpus of that name; None for a Hub dataset."""
    return miniature_corpora() / name if options.on_miniature else options.data_dir


def miniature_corpora() -> Path:
    """Return the folder of the miniature's corpora, which a command builds on first use: nothing imports the generators."""
    return _built(miniature_cache())


@functools.cache
def _built(cache: Path) -> Path:
    command = [sys.executable, "-m", "common.miniature", "--print_folder", "--quiet"]
    # Without the launcher's variables: the command refuses to run as several processes.
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if result.returncode == UserError.exit_status:
        raise UserError(result.stderr.strip().removeprefix("error: "))
    if result.returncode:
        raise RuntimeError(f"building the miniature failed:\n{result.stderr}")
    return Path(result.stdout.strip())
