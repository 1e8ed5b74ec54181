"""What a training leaves beside its model for those who score it: ``training.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.cli.errors import UserError
from common.results.shape import NUMBER, wrong
from common.runtime import files

TRAINING_FILE = "training.json"
COSTS = ("parameters", "seconds", "peak_memory_bytes", "storage_bytes")
SHAPE: dict[str, Any] = {
    "project": str,
    "kind": str,
    "base": {"name": str, "commit": (str, None), "license": (str, None)},
    "settings": {
        "model_name_or_path": str,
        "data_dir": (str, None),
        "dataset_name": (str, None),
        "dataset_revision": (str, None),
    },
    "data": {"fingerprint": str, "report": dict},
    "best": dict,
    "precision": str,
    "continued": bool,
    "parameters": {"trainable": int, "total": int},
    "seconds": NUMBER,
    "peak_memory_bytes": {"host": int},
    "storage_bytes": int,
    "log": list,
    "processes": int,
    "hardware": dict,
    "versions": dict,
    "commit": str,
    "date": str,
}


def training_facts(folder: Path) -> dict[str, Any] | None:
    """What a training left beside a model; None where there is nothing, as for a model that others made.

    Raises:
        UserError: The file is no training's record.
    """
    path = folder / TRAINING_FILE
    if not path.is_file():
        return None
    try:
        facts = files.loads(path.read_bytes())
    except (OSError, ValueError):
        facts = None
    # It may come from anybody's repository: what is read from it later is what it must be.
    if problem := wrong(facts, SHAPE):
        raise UserError(f"not a training's record: {problem}", file=path, fix="train again")
    return facts


def training_costs(facts: dict[str, Any]) -> dict[str, Any]:
    """A record's fields on what a model cost to train and costs to store.

    Of a base model in a local folder the last parts of the path say enough: the rest is nobody's business.
    """
    settings = {k: v for k, v in facts["settings"].items() if k not in ("data", "data_dir")}
    settings["model_name_or_path"] = "/".join(Path(settings["model_name_or_path"]).parts[-2:])
    costs = {name: facts[name] for name in COSTS}
    if facts["continued"]:
        costs["seconds"] = None  # those of its last part are not those of the run
    return costs | {"settings": settings | {"best": facts["best"], "precision": facts["precision"]}}
