"""What a training leaves beside its model for those who score it: ``training.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from common.errors import UserError

TRAINING_FILE = "training.json"
COSTS = ("parameters", "seconds", "peak_memory_bytes", "storage_bytes")
FACTS = {*COSTS, "project", "kind", "base", "settings", "data", "best", "precision", "continued"}


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
        missing = FACTS - facts.keys()
    except (ValueError, AttributeError):
        missing = {"everything"}
    if missing:
        raise UserError(f"not a training's record: {min(missing)} is missing", file=path, fix="train again")
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
