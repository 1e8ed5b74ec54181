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


def file_of(name: str, filename: str, revision: str | None) -> Path | None:
    """A file of a model, from its folder or the Hub; None where the model has no such file.

    Raises:
        UserError: No such model, no access to it, or no network.
    """
    if Path(name).is_dir():
        path = Path(name) / filename
        return path if path.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RevisionResolutionError

    try:
        return Path(hf_hub_download(name, filename, revision=revision))
    except LocalEntryNotFoundError as error:  # the Hub could not be asked
        raise unloadable(name, error) from error
    except EntryNotFoundError:
        return None
    except (*UNLOADABLE, RevisionResolutionError) as error:
        raise unloadable(name, error) from error


def commit_of(name: str, revision: str | None) -> str | None:
    """The commit of a model on the Hub that ``revision`` (by default the main branch) stands for today; None for a folder.

    Raises:
        UserError: No such model, or no access to it.
    """
    if Path(name).is_dir():
        return None
    path = file_of(name, "config.json", revision)
    if path is None:
        raise UserError("it has no config.json", file=name, expected="a model")
    return path.parent.name  # the cache keeps a commit's files in a folder of its name


def unloadable(name: str | Path, error: Exception) -> UserError:
    """The error of a failed load, for the user."""
    # PEFT hides the Hub's answer (401, 403, 404) behind a ValueError: the cause says what happened.
    cause = error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    reason = " ".join(lines[: 2 if lines[0].endswith(":") else 1]).rstrip(".")
    if "size mismatch" in reason:
        return UserError(f"can't be loaded: {reason}", file=name, fix="use it with the base model that it was made for")
    return UserError(
        f"can't be loaded: {reason}", file=name, fix="check the path or id, and `hf auth login` for gated models"
    )
