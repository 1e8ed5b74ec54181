"""Models by folder or Hub id: which of the two a name is, and what a failed load says."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError

from common.errors import UserError

UNLOADABLE = (
    OSError,
    ValueError,
    RuntimeError,
    SafetensorError,
)  # what a broken or missing model makes libraries raise


def local_or_hub(name: str | Path) -> str:
    """The name of a trained model's folder or of its Hub repository.

    ``output/run`` could also be a Hub id; where the folder ``output`` exists, a path was meant.

    Raises:
        UserError: A path without a folder.
    """
    name = str(name)
    if not Path(name).is_dir() and (name.startswith((".", "/", "~")) or (Path(name).parent.is_dir() and "/" in name)):
        raise UserError("no such folder", file=name, expected="a trained model")
    return name


def commit_of(name: str, revision: str | None) -> str | None:
    """The commit of a model on the Hub that ``revision`` (by default the main branch) stands for today; None for a folder.

    Raises:
        UserError: No such model, or no access to it.
    """
    from transformers.utils import cached_file, extract_commit_hash

    try:
        return extract_commit_hash(cached_file(name, "config.json", revision=revision), None)
    except UNLOADABLE as error:
        raise unloadable(name, error) from error


def unloadable(name: str | Path, error: Exception) -> UserError:
    """The error of a failed load, for the user."""
    # PEFT hides the Hub's answer (401, 403, 404) behind a ValueError: the cause says what happened.
    reason = str(error.__cause__ or error).strip().splitlines()[0].rstrip(".")
    return UserError(
        f"can't be loaded: {reason}", file=name, fix="check the path or id, and `hf auth login` for gated models"
    )
