"""Load models by folder or Hub id, and turn failed loads into one-line errors."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from common.cli.errors import UserError, causes, counted, shown
from common.models.retry import outage_in, use_retrying_client, with_retries
from common.runtime import files
from common.runtime.project import MINIATURE, MINIATURE_MODELS

# What is downloaded of a repository that anybody may have filled: no pickles, no code, no optimizer states.
WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "README.md", "evaluation/scores.csv")
UNWANTED = ("checkpoint-*", "onnx/*", "openvino/*")
KERNEL_SETTINGS = ("attn_implementation", "experts_implementation", "kernel_config")
OWN_KERNELS = (None, "eager", "sdpa")


def base_path(name: str) -> str:
    """Return the folder or Hub id to load a base model from; the shipped models' names become their folders."""
    shipped = MINIATURE_MODELS / name.removeprefix(MINIATURE)
    return str(shipped) if name.startswith(MINIATURE) and (shipped / "config.json").is_file() else name


def lasting_path(name: str, output_dir: Path) -> str:
    """Return how to record a base model so that a model in ``output_dir`` finds it from any working directory.

    A relative path is kept where :func:`base_of` finds the same folder from the model's own place; otherwise it becomes absolute.
    """
    if base_path(name) != name or not (path := Path(name)).is_dir():
        return name  # a shipped model or a Hub id
    above = _above(output_dir, name)
    return name if path.is_absolute() or (above and above.samefile(path)) else str(path.resolve())


def base_of(folder: Path, name: str, revision: str | None, *, local: bool) -> str:
    """Return the name of the base of the model in ``folder`` such that it does not depend on the working directory.

    A relative path is looked up from the model's folder upwards. ``local`` says that a base without a revision is a folder: our
    trainings record the commit of a base from the Hub.
    """
    elsewhere = revision is not None or base_path(name) != name or hub_commit(folder) is not None
    if elsewhere or Path(name).is_absolute():
        return name
    if above := _above(folder, name):
        return str(above)
    if local and not Path(name).is_dir():
        expected = f"{name} in the folder of the model or one above"
        raise UserError(f"its base model {shown(name)} is not here", file=folder, expected=expected, fix="put it there")
    return name


def _above(folder: Path, name: str) -> Path | None:
    start = folder.resolve()
    return next((up / name for up in (start, *start.parents) if (up / name / "config.json").is_file()), None)


def local_folder(name: str | Path, revision: str | None = None, *, cache_dir: Path | None = None) -> Path:
    """Return a trained model's folder, after downloading it where ``name`` is a Hub id.

    ``output/run`` could also be a Hub id; where the folder ``output`` exists, it is taken for a path. Without a network,
    the cached copy is used. ``cache_dir`` replaces the user's own cache.
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
        return with_retries(download, name)


def with_revision(name: str | Path) -> tuple[str, str | None]:
    """Split ``user/name@v1`` into Hub id and revision. A path may contain an @, a Hub id may not."""
    plain, _, revision = (str(name), "", "") if Path(name).exists() else str(name).partition("@")
    return plain, revision or None


def check_place(name: str | Path, revision: str | None = None) -> None:
    """Refuse a path that does not exist, before seconds of imports. (Anything else is taken for a Hub id.)"""
    name = str(name)
    if Path(name).is_dir():
        if revision is not None:
            raise UserError("a folder has no revisions", file=name, expected="a Hub id with a revision")
    elif name.startswith((".", "/", "~")) or (Path(name).parent.is_dir() and "/" in name):
        raise UserError("no such folder", file=name, expected="a trained model")


def hub_commit(folder: Path) -> str | None:
    """Return the commit that a folder of the Hub's cache holds; None for any other folder."""
    cached = folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", folder.name)
    return folder.name if cached else None


def require(folder: Path, filename: str, name: str | Path) -> Path:
    """Return the path of a file that a trained model must have; ``name`` is what the user called the model."""
    path = folder / filename
    if path.is_file():
        return path
    if filename.endswith(".safetensors") and not any(folder.glob("*.safetensors")):
        raise _without_weights(name, filename)
    raise UserError(f"missing {filename}", file=name, expected="a model trained by this project")


def _without_weights(name: str | Path, expected: str) -> UserError:
    fix = "convert the weights: pickles are never loaded, because they can run code"
    return UserError("no weights in safetensors format", file=name, expected=expected, fix=fix)


def read_config(folder: Path, filename: str, name: str | Path) -> dict[str, Any]:
    """Read a JSON file that a trained model must have."""
    path = require(folder, filename, name)
    try:
        values = files.loads(path.read_bytes())
    except (OSError, ValueError):
        values = None
    if not isinstance(values, dict):
        raise UserError("damaged file", file=path, expected="a JSON object", fix="download it or train again")
    return values


def check_config(name: str, revision: str | None) -> None:
    """Refuse a configuration that names a kernel: compiled code that would be fetched and run."""
    path = file_of(name, "config.json", revision)
    try:
        values = files.loads(path.read_bytes()) if path else None
    except (OSError, ValueError):
        return  # reported by the load itself
    for key, value in _settings(values):
        if (
            key.endswith(KERNEL_SETTINGS)
            and value not in OWN_KERNELS
            and not (isinstance(value, str) and "/" not in value)
        ):
            problem = f"config.json asks for the kernel {shown(value)} ({shown(key)}), which is code from elsewhere"
            raise UserError(problem, file=name, expected="a model without kernels of its own")


def _settings(values: Any) -> Iterator[tuple[str, Any]]:
    """Yield all keys of nested JSON objects and lists, with their values."""
    if isinstance(values, dict):
        yield from values.items()
    if isinstance(values, dict | list):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _settings(value)


def check_adapter_config(config: dict[str, Any], task: str, name: str | Path) -> None:
    """Refuse an adapter's configuration that is not a LoRA for ``task`` or that names code to import."""
    if config.get("task_type") != task:
        raise UserError(f"an adapter for {shown(config.get('task_type'))}", file=name, expected=f"one for {task}")
    if config.get("peft_type") != "LORA" or config.get("auto_mapping") or config.get("megatron_config"):
        raise UserError(f"an adapter of type {shown(config.get('peft_type'))}", file=name, expected="a LoRA adapter")
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(base, str) or not base or not isinstance(revision, str | None):
        raise UserError("adapter_config.json names no base model", file=name, expected="a folder or a Hub id")


def check_adapter(model: Any, weights: Path, adapter: str = "default") -> None:
    """Refuse an adapter file that lacks tensors or has others: PEFT only warns, and the base would answer alone."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(weights, "pt") as file:
        present = set(file.keys())
    if wrong := present ^ set(get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)):
        problem = f"its tensors do not match its configuration (first: {min(wrong)})"
        raise UserError(problem, file=weights, fix="download it or train again")


def check_loaded(model: Any, report: Mapping[str, Any], name: str | Path, *, new_head: bool = False) -> None:
    """Refuse weights that are not those of the whole model: transformers would draw the rest at random, and only warn.

    Args:
        model: The loaded model, of any task.
        report: What ``from_pretrained(…, output_loading_info=True)`` returned with it.
        name: What the user called it.
        new_head: Whether a head (and a pooler) may be missing or of other sizes, because training starts with a new one.
    """
    prefix, absent = f"{model.base_model_prefix}.", set(report["missing_keys"])
    base = getattr(model, model.base_model_prefix, model)
    parts = {child for child, _ in base.named_children()}
    parts |= set() if new_head else {child for child, _ in model.named_children()} - {model.base_model_prefix}
    pooler = {f"{prefix}{key}" for key in base.state_dict() if key.startswith("pooler.")}

    def is_new(key: str) -> bool:
        return new_head and (not key.startswith(prefix) or (key in pooler and pooler <= absent))

    def is_known(key: str) -> bool:
        return key.removeprefix(prefix).partition(".")[0] in parts

    for problem, keys in (
        ("missing", [key for key in absent if not is_new(key)]),
        ("of another shape", [key for key, *_ in report["mismatched_keys"] if not is_new(key)]),
        ("beyond its layers", [key for key in report["unexpected_keys"] if is_known(key)]),
    ):
        if keys:
            raise UserError(
                f"its weights do not match config.json: {counted(len(keys), 'tensor')} {problem} (first: {shown(min(keys))})",
                file=name,
                expected="every tensor of the model, and no layer more",
                fix="download it again, or use the config.json that belongs to the weights",
            )


def check_vocabulary(tokenizer: Any, name: str | Path) -> None:
    """Refuse a tokenizer with only special tokens, which transformers makes where a model's folder has no files for it."""
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        fix = "copy tokenizer.json and tokenizer_config.json of the model into it"
        raise UserError("no vocabulary for the tokenizer", file=name, expected="tokenizer files", fix=fix)


def file_of(name: str, filename: str, revision: str | None) -> Path | None:
    """Return a file of a base model, from its folder or the Hub; None where the model has no such file."""
    if Path(name).is_dir():
        path = Path(name) / filename
        return path if path.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with loading(name, revision):
        try:
            return with_retries(lambda: Path(hf_hub_download(name, filename, revision=revision)), name)
        except LocalEntryNotFoundError:  # the Hub could not be asked
            raise
        except EntryNotFoundError:
            return None


def commit_of(name: str, revision: str | None) -> str | None:
    """Return the commit that ``revision`` of a base model means today (default: the main branch); None for a folder."""
    if Path(name).is_dir():
        return None
    path = file_of(name, "config.json", revision)
    if path is None:
        raise UserError("missing config.json", file=name, expected="a model")
    return path.parent.name  # the cache keeps a commit's files in a folder of its name


def width_of(name: str, revision: str | None = None) -> int:
    """Return the hidden size of a base model, from its configuration."""
    from transformers import AutoConfig

    check_config(name, revision)
    with loading(name, revision):
        return width_in(AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False))


def width_in(config: Any) -> int:
    """Return the hidden size in a model's configuration; 0 where there is none."""
    return int(getattr(config.get_text_config(), "hidden_size", 0))


def license_of(name: str, commit: str | None) -> str | None:
    """Return the license on a base model's card, as the Hub abbreviates it (``llama2``); None where there is none."""
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
    """Turn whatever libraries raise for a broken, hostile or missing model, or a failing Hub, into a UserError."""
    use_retrying_client()
    # For a model that has only pickles, transformers would ask a service to convert them, and load the result.
    os.environ["DISABLE_SAFETENSORS_CONVERSION"] = "1"
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise load_error(name, error, revision) from error


def load_error(name: str | Path, error: Exception, revision: str | None = None) -> UserError:
    """Return the user's error for a failed load or a request that the Hub refused."""
    from huggingface_hub import constants, errors

    if outage := outage_in(error):
        return outage.error(name)
    chain = list(causes(error))  # PEFT hides a 403 behind a ValueError, transformers behind an OSError
    for cause in chain:
        if problem := _refusal(name, cause, revision):
            return problem
    if any(isinstance(cause, (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)) for cause in chain):
        fix = "check the network and HF_HUB_OFFLINE"
        return UserError(f"not in the cache, and cannot reach {constants.ENDPOINT}", file=name, fix=fix)
    text = str(error)
    if "no file named model.safetensors" in text or "have a file named model.safetensors" in text:
        return _without_weights(name, "model.safetensors")
    if "the above report" in text:
        fix = "download it again, or use the config.json that belongs to the weights"
        return UserError(f"its weights do not match config.json: {_reported(error)}", file=name, fix=fix)
    if "contains custom code" in text or "references custom code" in text:
        expected = "a model that transformers supports"
        return UserError("needs code of its own, which is never run", file=name, expected=expected)
    cause = error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [type(cause).__name__]
    reason = " ".join(lines[: 2 if lines[0].endswith(":") else 1]).rstrip(".")
    if isinstance(cause, KeyError):
        return UserError(f"missing {reason}", file=name, fix="download it or train again")
    fix = "check the files in that folder" if Path(name).is_dir() else "check the id and the revision"
    if "size mismatch" in reason:
        fix = "use it with the base model that it was trained on"
    return UserError(f"cannot be loaded: {reason}", file=name, fix=fix)


def _reported(error: Exception) -> str:
    """Say what transformers' load report holds, which its message refers to and its log, which we silence, shows."""
    traceback, report = error.__traceback__, None
    while traceback is not None:
        report = traceback.tb_frame.f_locals.get("loading_info", report)
        traceback = traceback.tb_next
    shapes = {
        key: f"{tuple(stored)} instead of {tuple(wanted)}"
        for key, stored, wanted in getattr(report, "mismatched_keys", ())
    }
    for problem, keys in (("of another shape", shapes), ("not convertible", getattr(report, "conversion_errors", {}))):
        if keys:
            first = min(keys)
            reason = (str(keys[first]).strip() or "unknown").splitlines()[-1]
            return f"{counted(len(keys), 'tensor')} {problem} (first: {shown(first)}, {reason})"
    return "tensors of another shape"


def _refusal(name: str | Path, cause: BaseException, revision: str | None) -> UserError | None:
    """Return the user's error for one cause of a failed load; None where the cause says too little."""
    from huggingface_hub import constants, errors

    expected: str | None = None
    if isinstance(cause, errors.GatedRepoError):
        problem = "gated, and this login may not read it"
        fix = f"accept its license at {constants.ENDPOINT}/{name}, then run `hf auth login` or set HF_TOKEN"
    elif isinstance(cause, errors.RevisionNotFoundError):
        problem, expected, fix = f"no revision {shown(revision)}", "a branch, tag or commit", None
    elif isinstance(cause, errors.RepositoryNotFoundError):
        problem = f"no such repository on {constants.ENDPOINT}, or a private one that this login may not read"
        fix = "check the id, and `hf auth login` (or HF_TOKEN) for private ones"
    elif isinstance(cause, errors.HFValidationError):
        problem, expected, fix = "neither a folder nor a Hub id", "a path, or user/name", None
    elif isinstance(cause, SafetensorError):
        problem, fix = "its weights are damaged or truncated", "download it or train again"
    elif isinstance(cause, errors.HfHubHTTPError) and cause.response is not None:
        status, message = cause.response.status_code, cause.response.headers.get("X-Error-Message")
        problem = f"the Hub answered {status} ({message or cause.response.reason_phrase})"
        fix = "use a token with sufficient rights" if status == 403 else None
        if status == 401:
            problem, fix = "the Hub rejects this login's token", "run `hf auth login`, or correct HF_TOKEN"
    else:
        return None
    return UserError(problem, file=name, expected=expected, fix=fix)
