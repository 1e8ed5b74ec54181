"""Models by folder or Hub id: how a name becomes a folder, and what a failed load says."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from common.cli.errors import UserError, causes, shown
from common.models.retry import fault_in, patiently, use_patient_client
from common.runtime import files
from common.runtime.project import MINIATURE, MINIATURE_MODELS

# Of a repository that others may fill: no pickles, no code, no optimizer states.
WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "README.md", "evaluation/scores.csv")
UNWANTED = ("checkpoint-*", "onnx/*", "openvino/*")
KERNELS = ("attn_implementation", "experts_implementation", "kernel_config")  # settings of a model that may name one
OWN_KERNELS = (None, "eager", "sdpa")


def base_path(name: str) -> str:
    """Where a base model is loaded from: its folder or Hub id; the shipped ones' names stand for their folders."""
    shipped = MINIATURE_MODELS / name.removeprefix(MINIATURE)
    return str(shipped) if name.startswith(MINIATURE) and (shipped / "config.json").is_file() else name


def local_folder(name: str | Path, revision: str | None = None, *, cache_dir: Path | None = None) -> Path:
    """The folder of a trained model: that of the path, or the Hub's cache after its files were fetched.

    ``output/run`` could also be a Hub id; where the folder ``output`` exists, a path was meant. Without a network, what the
    cache holds is used.

    Args:
        name: Folder or Hub id.
        revision: Branch, tag or commit on the Hub.
        cache_dir: Cache to fetch to instead of the user's own.

    Raises:
        UserError: No such folder or repository, no access to it, or neither a network nor a cached copy.
    """
    name = str(name)
    check_place(name, revision)
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    def download() -> Path:
        patterns: dict[str, Any] = {"allow_patterns": WANTED, "ignore_patterns": UNWANTED}
        return Path(snapshot_download(name, revision=revision, cache_dir=cache_dir, **patterns))

    with loading(name, revision):
        return patiently(download, name)


def with_revision(name: str | Path) -> tuple[str, str | None]:
    """``user/name@v1`` as Hub id and revision. A path may hold an @, a Hub id may not."""
    plain, _, revision = (str(name), "", "") if Path(name).exists() else str(name).partition("@")
    return plain, revision or None


def check_place(name: str | Path, revision: str | None = None) -> None:
    """Refuses a path that is not there, before seconds of imports. (What is no path is taken for a Hub id.)

    Raises:
        UserError: No such folder, or a folder at a revision.
    """
    name = str(name)
    if Path(name).is_dir():
        if revision is not None:
            raise UserError("a folder has no revisions", file=name, expected="a Hub id beside a revision")
    elif name.startswith((".", "/", "~")) or (Path(name).parent.is_dir() and "/" in name):
        raise UserError("no such folder", file=name, expected="a trained model")


def hub_commit(folder: Path) -> str | None:
    """The commit that a folder of the Hub's cache holds; None for any other folder."""
    cached = folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", folder.name)
    return folder.name if cached else None


def require(folder: Path, filename: str, name: str | Path) -> Path:
    """A file that a trained model can't do without.

    Raises:
        UserError: It is not there. Where pickled weights lie instead, that is said: they can run code and are not loaded.
    """
    path = folder / filename
    if path.is_file():
        return path
    if filename.endswith(".safetensors") and not any(folder.glob("*.safetensors")):
        raise weightless(name, filename)
    raise UserError(f"it has no {filename}", file=name, expected="a model that this project trained")


def weightless(name: str | Path, expected: str) -> UserError:
    """The error about a model without the weights' file that is ``expected``."""
    problem = "it has no weights in the safetensors format"
    return UserError(problem, file=name, expected=expected, fix="pickles are not loaded: they can run code")


def read_config(folder: Path, filename: str, name: str | Path) -> dict[str, Any]:
    """A model's JSON file.

    Raises:
        UserError: It is not there, or no JSON object.
    """
    path = require(folder, filename, name)
    try:
        values = files.loads(path.read_bytes())
    except (OSError, ValueError):
        values = None
    if not isinstance(values, dict):
        raise UserError("it is damaged", file=path, expected="a JSON object", fix="get it again")
    return values


def check_config(name: str, revision: str | None) -> None:
    """Checks that a model's configuration names no kernel: one of another repository is compiled code, fetched and run.

    An ``auto_map`` names code as well, which is never followed.

    Raises:
        UserError: It does, or there is no such model.
    """
    path = file_of(name, "config.json", revision)
    try:
        values = files.loads(path.read_bytes()) if path else None
    except (OSError, ValueError):
        return  # for the loading itself to say
    for key, value in _settings(values):
        if key.endswith(KERNELS) and value not in OWN_KERNELS and not (isinstance(value, str) and "/" not in value):
            raise UserError(
                f"its config.json asks for the kernel {shown(value)} ({shown(key)}), which may be anybody's code",
                file=name,
                expected="a model that asks for none",
            )


def _settings(values: Any) -> Iterator[tuple[str, Any]]:
    """All keys of nested JSON objects and lists, with their values."""
    if isinstance(values, dict):
        yield from values.items()
    if isinstance(values, dict | list):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _settings(value)


def check_adapter_config(config: dict[str, Any], task: str, name: str | Path) -> None:
    """Checks that an adapter's configuration is a LoRA's for ``task``, and asks for nothing that other kinds could.

    Raises:
        UserError: It is another kind's, or names code to import.
    """
    if config.get("task_type") != task:
        raise UserError(f"an adapter for {shown(config.get('task_type'))}", file=name, expected=f"one for {task}")
    if config.get("peft_type") != "LORA" or config.get("auto_mapping") or config.get("megatron_config"):
        raise UserError(f"an adapter of kind {shown(config.get('peft_type'))}", file=name, expected="a LoRA adapter")
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(base, str) or not base or not isinstance(revision, str | None):
        raise UserError("its configuration names no base model", file=name, expected="a folder or a Hub id")


def check_adapter(model: Any, weights: Path, adapter: str = "default") -> None:
    """Checks that an adapter's file holds the tensors that its configuration wants: PEFT only warns, and the base would answer
    alone under the adapter's name.

    Raises:
        UserError: It lacks some, or has others.
    """
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(weights, "pt") as file:
        there = set(file.keys())
    if wrong := there ^ set(get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)):
        raise UserError(
            f"its tensors are not those of its configuration, as {min(wrong)}", file=weights, fix="get it again"
        )


def file_of(name: str, filename: str, revision: str | None) -> Path | None:
    """A file of a base model, from its folder or the Hub; None where the model has no such file.

    Raises:
        UserError: No such model, no access to it, or no network.
    """
    if Path(name).is_dir():
        path = Path(name) / filename
        return path if path.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with loading(name, revision):
        try:
            return patiently(lambda: Path(hf_hub_download(name, filename, revision=revision)), name)
        except LocalEntryNotFoundError:  # the Hub could not be asked
            raise
        except EntryNotFoundError:
            return None


def commit_of(name: str, revision: str | None) -> str | None:
    """The commit of a base model on the Hub that ``revision`` (by default the main branch) stands for today; None for a folder.

    Raises:
        UserError: No such model, or no access to it.
    """
    if Path(name).is_dir():
        return None
    path = file_of(name, "config.json", revision)
    if path is None:
        raise UserError("it has no config.json", file=name, expected="a model")
    return path.parent.name  # the cache keeps a commit's files in a folder of its name


def width_of(name: str, revision: str | None = None) -> int:
    """The hidden size of a base model, from its configuration.

    Raises:
        UserError: No such model, or no access to it.
    """
    from transformers import AutoConfig

    check_config(name, revision)
    with loading(name, revision):
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    return width_in(config)


def width_in(config: Any) -> int:
    """The hidden size that a model's configuration names; 0 where it names none."""
    return int(getattr(config.get_text_config(), "hidden_size", 0))


def licence_of(name: str, commit: str | None) -> str | None:
    """The licence that a base model's card names, as the Hub abbreviates it (``llama2``); None where it names none."""
    from huggingface_hub import ModelCard

    card = file_of(name, "README.md", commit)
    if card is None:
        return None
    try:
        return ModelCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.license
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def loading(name: str | Path, revision: str | None = None) -> Iterator[None]:
    """Whatever a broken, hostile or missing model, or a Hub that fails, makes libraries raise in the block becomes one line for
    the user."""
    use_patient_client()
    # Of a model that has pickles alone, transformers would have a service elsewhere make other weights, and load those.
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise unloadable(name, error, revision) from error


def unloadable(name: str | Path, error: Exception, revision: str | None = None) -> UserError:
    """The error of a failed load or of a refused request to the Hub, for the user."""
    from huggingface_hub import errors

    if fault := fault_in(error):
        return fault.error(name)
    chain = list(causes(error))  # PEFT hides a 403 behind a ValueError, transformers behind an OSError
    endpoint = _endpoint()
    for cause in chain:
        if isinstance(cause, errors.GatedRepoError):
            return UserError(
                "it is gated, and this login may not read it",
                file=name,
                fix=f"accept its licence at {endpoint}/{name}, then run `hf auth login` or set HF_TOKEN",
            )
        if isinstance(cause, errors.RevisionNotFoundError):
            return UserError(f"it has no revision {shown(revision)}", file=name, expected="a branch, tag or commit")
        if isinstance(cause, errors.RepositoryNotFoundError):
            return UserError(
                f"no such repository on {endpoint}, or a private one that this login may not read",
                file=name,
                fix="check the id, and `hf auth login` (or HF_TOKEN) for private ones",
            )
        if isinstance(cause, errors.HFValidationError):
            return UserError("neither a folder nor a Hub id", file=name, expected="a path, or user/name")
        response = getattr(cause, "response", None)
        if isinstance(cause, errors.HfHubHTTPError) and response is not None:
            if response.status_code == 401:
                return UserError(
                    "the Hub does not accept the login's token", file=name, fix="`hf auth login`, or set HF_TOKEN anew"
                )
            said = response.headers.get("X-Error-Message") or response.reason_phrase
            fix = "use a token with the rights for it" if response.status_code == 403 else None
            return UserError(f"the Hub answered {response.status_code} ({said})", file=name, fix=fix)
        if isinstance(cause, SafetensorError):
            return UserError("its weights are damaged or cut short", file=name, fix="get or train it again")
    if any(isinstance(cause, (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)) for cause in chain):
        return UserError(
            f"not in the cache, and {endpoint} can't be reached", file=name, fix="check the network, and HF_HUB_OFFLINE"
        )
    said = str(error)
    if "no file named model.safetensors" in said or "have a file named model.safetensors" in said:
        return weightless(name, "model.safetensors")
    if "contains custom code" in said or "references custom code" in said:
        return UserError(
            "it needs code of its own, which is never run", file=name, expected="a model that transformers knows"
        )
    cause = error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    reason = " ".join(lines[: 2 if lines[0].endswith(":") else 1]).rstrip(".")
    if isinstance(cause, KeyError):
        return UserError(f"it lacks {reason}", file=name, fix="get or train it again")
    if "size mismatch" in reason:
        return UserError(f"can't be loaded: {reason}", file=name, fix="use it with the base model that it was made for")
    return UserError(
        f"can't be loaded: {reason}", file=name, fix="check the path or id, and `hf auth login` for gated models"
    )


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT
