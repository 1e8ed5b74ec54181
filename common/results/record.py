"""Run records: one JSON file that says what was measured, on what, and how to measure it again.

Cards, README tables, pictures and the report are rendered from these files.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import re
import resource
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.cli.errors import UserError
from common.results.shape import NUMBER, wrong
from common.runtime import files, hardware
from common.runtime.files import atomic_write
from common.runtime.project import ROOT

SCHEMA = 1
PACKAGES = [
    "torch",
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "datasets",
    "huggingface_hub",
    "bitsandbytes",
    "scikit-learn",
    "numpy",
    "tokenizers",
]
COUNTS = {str: int}
MEASURE = {"value": NUMBER, "n": int, "ci95": [NUMBER, NUMBER], "sd?": (*NUMBER, None)}
SHAPE: dict[str, Any] = {
    "title": str,
    "task": str,
    "metrics": {str: MEASURE},
    "data": {
        "name": str,
        "split": str,
        "fingerprint": str,
        "question": str,
        "limits": str,
        "class_counts": {str: COUNTS},
        "reports": [{"name": str, "read": int, "kept": int, "dropped": COUNTS, "notes": COUNTS}, ...],
    },
    "seed?": (int, None),
    "policy?": {str: object},
    "by_group?": {str: {str: MEASURE}},
    "labels?": [str, ...],
    "confusion?": [[int, ...], ...],
    "parameters?": COUNTS,
    "settings?": dict,
    "seconds?": (*NUMBER, None),
    "peak_memory_bytes?": COUNTS,
    "storage_bytes?": (int, None),
    "miniature?": bool,
    "command?": str,
    "commit?": str,
    "versions?": {str: str},
    "hardware?": {"cpu": object, "cores": object, "threads": object, "gpus?": ([{"name": object}, ...], None)},
}
COSTS = {"parameters": {"trainable": int, "total": int}, "peak_memory_bytes": {"host": int}}  # of what was trained


@dataclass
class RunRecord:
    """One run.

    Attributes:
        title: What ran, as it heads a table row ("LoRA").
        task: What was asked, as it heads a table ("SNLI: entailment, neutral or contradiction").
        metrics: Metric → ``{"value", "n", "ci95"}``, as :func:`common.stats.metrics.evaluate` gives them.
        data: ``{"name", "split", "fingerprint", "reports"}`` of the data that the metrics are of.
        seed: Seed of the run; None where nothing is random.
        policy: Choices that change the labels or the scores (thresholds, averaging, de-duplication).
        by_group: Kind of group ("source") → group → the headline metric on its items, as in ``metrics``.
        confusion: Counts, rows = labels, in the order of ``labels``.
        labels: Names of the classes.
        parameters: ``{"trainable", "total"}``, 4-bit numbers counted unpacked; empty for controls.
        settings: The run's arguments.
        seconds: Wall time of the run.
        peak_memory_bytes: As :func:`peak_memory` gives it.
        storage_bytes: What one task costs to store (a whole model, or an adapter); None for controls.
        miniature: Whether the data is the embedded miniature, whose numbers say nothing about real data.
        command: The command that makes this record again.
    """

    title: str
    task: str
    metrics: dict[str, dict[str, Any]]
    data: dict[str, Any]
    seed: int | None = None
    policy: dict[str, Any] = field(default_factory=dict)
    by_group: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    parameters: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    peak_memory_bytes: dict[str, int] = field(default_factory=dict)
    storage_bytes: int | None = None
    miniature: bool = False
    command: str = ""
    commit: str = field(default_factory=lambda: git_commit())
    versions: dict[str, str] = field(default_factory=lambda: versions())
    hardware: dict[str, Any] = field(default_factory=lambda: hardware.describe())
    schema: int = SCHEMA

    def write(self, path: Path) -> None:
        """Writes the record, whole or not at all.

        Raises:
            ValueError: A number is NaN or infinite, or a metric lacks its n or interval.
            UserError: The file can't be written.
        """
        for name, metric in self.metrics.items():
            low, high = metric["ci95"]
            if not (metric["n"] >= 0 and all(map(math.isfinite, (metric["value"], low, high)))):
                raise ValueError(f"metric {name} is not a number: {metric}")
        with atomic_write(path) as part:
            text = json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False, default=str)
            # A matrix row or an interval reads best on one line.
            text = re.sub(
                r"\[[^][{}\"]*\]", lambda m: " ".join(m[0].split()).replace("[ ", "[").replace(" ]", "]"), text
            )
            part.write_text(text + "\n", encoding="utf-8")


def read_record(path: Path) -> RunRecord:
    """Reads a record.

    Raises:
        UserError: The file is not a record of this schema.
    """
    try:
        values = files.loads(Path(path).read_bytes())
        if values["schema"] != SCHEMA:
            raise UserError(
                f"a record of schema {values['schema']}", file=path, expected=f"schema {SCHEMA}", fix="run it again"
            )
        _check(values)
        return RunRecord(**values)
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror}", file=path) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"not a run record: {error}", file=path, expected="a JSON file made by this project") from None


def _check(values: dict[str, Any]) -> None:
    """Raises what :func:`read_record` catches where a field is not what is read from it: a record may come from anybody."""
    if problem := wrong(values, SHAPE):
        raise ValueError(problem)
    metrics, confusion = values["metrics"], values.get("confusion", [])
    if "set_f1" not in metrics and not {"accuracy", "balanced_accuracy"} <= metrics.keys():
        raise ValueError("metrics lack a headline")
    if any(len(row) != len(values.get("labels", [])) for row in [confusion, *confusion]):
        raise ValueError("confusion has another number of labels")
    if any(report["dropped"] and not report["read"] for report in values["data"]["reports"]):
        raise ValueError("data reports has rows dropped of none read")
    if values.get("storage_bytes") is not None and (problem := wrong(values, COSTS)):
        raise ValueError(problem)


def count_parameters(model: Any) -> dict[str, int]:
    """Trainable and total parameters of a torch model; a packed 4-bit tensor counts the weights that it stands for."""
    trainable = total = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        count = math.prod(state.shape) if state is not None else parameter.numel()
        total += count
        trainable += count if parameter.requires_grad else 0
    return {"trainable": trainable, "total": total}


def peak_memory() -> dict[str, int]:
    """Peak memory of this process so far, in bytes: ``host`` (resident) and, with a GPU, ``device`` (allocated)."""
    # Linux counts ru_maxrss in KiB, macOS in bytes.
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)}
    if hardware.device_type() == "cuda":
        import torch

        peak["device"] = sum(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count()))
    return peak


def versions() -> dict[str, str]:
    """Versions of Python and of the installed core packages."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str:
    """The commit that runs, with ``+changes`` where the code differs from it; ``unknown`` outside a checkout."""

    def git(*arguments: str) -> str:
        result = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=20, check=True
        )
        return result.stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != ROOT:
            return "unknown"  # installed inside somebody else's repository
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
