"""What a training leaves beside its model for those who score it: ``training.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from common.errors import UserError, shown

TRAINING_FILE = "training.json"
COSTS = ("parameters", "seconds", "peak_memory_bytes", "storage_bytes")
NUMBER = (int, float)
FACTS: dict[str, Any] = {
    "project": str,
    "kind": str,
    "base": dict,
    "settings": dict,
    "data": dict,
    "best": dict,
    "precision": str,
    "continued": bool,
    "parameters": dict,
    "seconds": NUMBER,
    "peak_memory_bytes": dict,
    "storage_bytes": int,
    "log": list,
    "processes": int,
    "hardware": dict,
    "versions": dict,
    "commit": str,
    "date": str,
}
INSIDE: dict[str, dict[str, Any]] = {
    "base": {"name": str, "commit": (str, type(None)), "license": (str, type(None))},
    "parameters": {"trainable": int, "total": int},
    "peak_memory_bytes": {"host": int},
    "data": {"fingerprint": str, "report": dict},
    "settings": {
        "model_name_or_path": str,
        "data_dir": (str, type(None)),
        "dataset_name": (str, type(None)),
        "dataset_revision": (str, type(None)),
    },
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
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        facts = None
    # It may come from anybody's repository: what is read from it later is what it must be.
    if wrong := _wrong(facts, FACTS) or next(
        filter(None, (_wrong(facts[name], kinds) for name, kinds in INSIDE.items())), None
    ):
        raise UserError(f"not a training's record: {wrong}", file=path, fix="train again")
    return facts


def _wrong(values: Any, kinds: dict[str, Any]) -> str | None:
    if not isinstance(values, dict):
        return "it is no JSON object"
    for name, kind in kinds.items():
        if name not in values:
            return f"{name} is missing"
        if not isinstance(values[name], kind):
            return f"{name} is {shown(values[name], 30)}"
    return None


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
