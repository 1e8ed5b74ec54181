"""Turn what libraries raise for a model that cannot be loaded into one-line errors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from common.cli.errors import UserError, causes, counted, memory_is_full, shown
from common.models.retry import outage_in, use_retrying_client


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
    from huggingface_hub import constants, errors, is_offline_mode

    if outage := outage_in(error):
        return outage.error(name)
    chain = list(causes(error))  # PEFT hides a 403 behind a ValueError, transformers behind an OSError
    for cause in chain:
        if problem := _refusal(name, cause, revision):
            return problem
    if any(isinstance(cause, (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)) for cause in chain):
        if is_offline_mode():
            return UserError("not in the cache, and HF_HUB_OFFLINE is set", file=name, fix="unset it to download it")
        fix = "check the network"
        return UserError(f"not in the cache, and cannot reach {constants.ENDPOINT}", file=name, fix=fix)
    text, report = str(error), _load_report(error)
    if memory_is_full(error) or "out of memory" in str(getattr(report, "conversion_errors", "")):
        return UserError("does not fit into the GPU's memory", file=name, fix="use a smaller base model")
    if "no file named model.safetensors" in text or "have a file named model.safetensors" in text:
        return without_weights(name, "model.safetensors")
    if "the above report" in text:
        fix = "download it again, or use the config.json that belongs to the weights"
        return UserError(f"its weights do not match config.json: {_reported(report)}", file=name, fix=fix)
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


def _load_report(error: Exception) -> Any:
    """Return transformers' load report, which its message refers to and its log, which we silence, shows; None without one."""
    traceback, report = error.__traceback__, None
    while traceback is not None:
        report = traceback.tb_frame.f_locals.get("loading_info", report)
        traceback = traceback.tb_next
    return report


def _reported(report: Any) -> str:
    """Say what a load report holds."""
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
        fix = {402: "this needs a paid plan of the Hub", 403: "use a token with sufficient rights"}.get(status)
        if status == 401:
            problem, fix = "the Hub rejects this login's token", "run `hf auth login`, or correct HF_TOKEN"
    else:
        return None
    return UserError(problem, file=name, expected=expected, fix=fix)


def without_weights(name: str | Path, expected: str) -> UserError:
    fix = "convert the weights: pickles are never loaded, because they can run code"
    return UserError("no weights in safetensors format", file=name, expected=expected, fix=fix)
