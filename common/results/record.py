"""Run and training records: JSON files that state what was measured or trained, on what, and how to reproduce it.

Cards, tables, pictures and reports are rendered from these files.
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
from typing import Annotated, Any, ClassVar, Literal, NotRequired

from annotated_types import Len
from typing_extensions import TypedDict  # pydantic refuses typing's own before Python 3.12

from common.cli.errors import UserError
from common.runtime import hardware
from common.runtime.files import Count, Number, atomic_write, read_json
from common.runtime.project import ROOT
from common.runtime.run_folder import TRAINING_FILE

SCHEMA = 1
PACKAGES = (
    *("torch", "transformers", "peft", "trl", "accelerate", "datasets", "huggingface_hub", "bitsandbytes"),
    *("scikit-learn", "numpy", "tokenizers"),
)


class Open(TypedDict):
    """An object of a JSON file that may have further keys, which are kept unchecked."""

    __pydantic_config__ = {"extra": "allow"}  # noqa: RUF012


class StoredMeasure(Open):
    """A measure with its 95 % interval, and its standard deviation between seeds."""

    value: Number
    n: Count
    ci95: Annotated[list[Number], Len(2, 2)]
    sd: NotRequired[Number | None]


class _Report(Open):
    name: str
    read: Count
    kept: Count
    dropped: dict[str, Count]
    notes: dict[str, Count]


class _Data(Open):
    name: str
    split: str
    fingerprint: str
    question: str
    limits: str
    class_counts: dict[str, dict[str, Count]]
    reports: list[_Report]


class _Gpu(Open):
    name: Any


class _Hardware(Open):
    cpu: Any
    cores: Any
    threads: Any
    gpus: NotRequired[list[_Gpu] | None]


@dataclass
class RunRecord:
    """One run and its scores."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    title: str  # what ran, as the heading of a table row ("LoRA")
    task: str  # heading of the table ("SNLI: entailment, neutral or contradiction")
    metrics: dict[str, StoredMeasure]  # as common.stats.metrics.evaluate returns them
    data: _Data  # what was scored
    seed: int | None = None
    policy: dict[str, Any] = field(
        default_factory=dict
    )  # choices that change labels or scores: thresholds, averaging, …
    by_group: dict[str, dict[str, StoredMeasure]] = field(
        default_factory=dict
    )  # kind of group → group → headline metric
    labels: list[str] = field(default_factory=list)
    confusion: list[list[Count]] = field(default_factory=list)  # rows are labels, columns predictions
    parameters: dict[str, Count] = field(default_factory=dict)  # trainable, total; 4-bit weights count unpacked
    settings: dict[str, Any] = field(default_factory=dict)  # arguments of the run
    seconds: Number | None = None  # wall time
    peak_memory_bytes: dict[str, Count] = field(default_factory=dict)
    storage_bytes: Count | None = None  # of the whole model or of its adapter; None for a baseline
    miniature: bool = False
    command: str = ""
    commit: str = field(default_factory=lambda: git_commit())
    versions: dict[str, str] = field(default_factory=lambda: versions())
    hardware: _Hardware = field(default_factory=lambda: hardware.describe())
    schema: Literal[1] = SCHEMA

    def write(self, path: Path) -> None:
        """Write the record atomically; raise ValueError if a metric is NaN or infinite or lacks its n or interval."""
        for name, metric in self.metrics.items():
            low, high = metric["ci95"]
            if not (metric["n"] >= 0 and all(map(math.isfinite, (metric["value"], low, high)))):
                raise ValueError(f"metric {name} is NaN or infinite: {metric}")
        text = json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False, default=str)
        # Each row of a matrix and each interval on one line.
        text = re.sub(r"\[[^][{}\"]*\]", lambda m: " ".join(m[0].split()).replace("[ ", "[").replace(" ]", "]"), text)
        with atomic_write(path) as part:
            part.write_text(text + "\n", encoding="utf-8")

    def problem(self) -> str | None:
        """Name what is inconsistent in a record that was read; None if nothing is."""
        if "set_f1" not in self.metrics and not {"accuracy", "balanced_accuracy"} <= self.metrics.keys():
            return "metrics: no accuracy and balanced_accuracy, and no set_f1"
        if any(len(row) != len(self.labels) for row in [self.confusion, *self.confusion]):
            return f"confusion: not a square matrix of {len(self.labels)} labels"
        if any(report["dropped"] and not report["read"] for report in self.data["reports"]):
            return "data.reports: rows dropped, but none read"
        if self.storage_bytes is not None:
            for name, keys in {"parameters": {"trainable", "total"}, "peak_memory_bytes": {"host"}}.items():
                if missing := keys - getattr(self, name).keys():
                    return f"{name}.{min(missing)}: Field required"
        return None


def read_record(path: Path) -> RunRecord:
    """Read a run record, which may come from anybody's repository."""
    record = read_json(RunRecord, Path(path), what="a run record", fix="evaluate the model again")
    if problem := record.problem():
        raise UserError(f"not a run record: {problem}", file=path, fix="evaluate the model again")
    return record


class _Parameters(Open):
    trainable: Count
    total: Count


class _Memory(Open):
    host: Count


class _Base(Open):
    name: str
    commit: str | None
    license: str | None


class _TrainingData(Open):
    fingerprint: str
    report: dict[str, Any]


class _Settings(Open):
    model_name_or_path: str
    data_dir: str | None
    dataset_name: str | None
    dataset_revision: str | None


class TrainingFacts(Open):
    """``training.json``: how a model was trained."""

    project: str
    kind: str
    base: _Base
    settings: _Settings
    data: _TrainingData
    best: dict[str, Any]
    precision: str
    continued: bool
    parameters: _Parameters
    seconds: Number
    peak_memory_bytes: _Memory
    storage_bytes: Count
    log: list[Any]
    processes: Count
    hardware: dict[str, Any]
    versions: dict[str, Any]
    commit: str
    date: str


def training_facts(folder: Path) -> dict[str, Any] | None:
    """Read the training record in a model's folder; None if the folder has none, like other people's models."""
    path = folder / TRAINING_FILE
    if not path.is_file():
        return None
    return dict(read_json(TrainingFacts, path, what="a training record", fix="train the model again"))


def training_costs(facts: dict[str, Any]) -> dict[str, Any]:
    """Turn a training record into a run record's fields on what the model cost to train and to store."""
    settings = {k: v for k, v in facts["settings"].items() if k not in ("data", "data_dir")}
    # Of a local base model only the end of its path is published.
    settings["model_name_or_path"] = "/".join(Path(settings["model_name_or_path"]).parts[-2:])
    settings |= {"best": facts["best"], "precision": facts["precision"]}
    costs = {name: facts[name] for name in ("parameters", "seconds", "peak_memory_bytes", "storage_bytes")}
    if facts["continued"]:
        costs["seconds"] = None  # only the time of the last part is known
    return costs | {"settings": settings}


def count_parameters(model: Any) -> dict[str, int]:
    """Count a torch model's trainable and total parameters; a packed 4-bit tensor counts the weights it stands for."""
    trainable = total = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        count = math.prod(state.shape) if state is not None else parameter.numel()
        total += count
        trainable += count if parameter.requires_grad else 0
    return {"trainable": trainable, "total": total}


def peak_memory() -> dict[str, int]:
    """Return this process's peak memory in bytes: ``host`` (resident) and, with a GPU, ``device`` (allocated)."""
    # Linux counts ru_maxrss in KiB, macOS in bytes.
    peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)}
    if hardware.device_type() == "cuda":
        import torch

        peak["device"] = sum(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count()))
    return peak


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed core packages."""
    installed = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def git_commit() -> str:
    """Return the commit that runs, with ``+changes`` if the code differs from it; ``unknown`` outside a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != ROOT:
            return "unknown"  # installed inside another repository
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
