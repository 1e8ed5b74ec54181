"""What the training of a classifier recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.cli.errors import UserError, shown
from common.results.training_record import TRAINING_FILE, training_facts

SETTINGS: dict[str, tuple[type, ...]] = {
    "max_length": (int,),
    "balance_classes": (bool,),
    "train_fraction": (int, float),
    "sample_seed": (int,),
}


def model_facts(folder: Path) -> dict[str, Any] | None:
    """What a training left; None where there is nothing, as for a model that others made.

    Raises:
        UserError: The file is no training's record: it may come from anybody's repository.
    """
    facts = training_facts(folder)
    if facts is None:
        return None
    settings = facts["settings"]
    for name, kinds in SETTINGS.items():
        value = settings.get(name)
        if type(value) not in kinds:
            raise _wrong(folder, f"{name} is {shown(value)}")
    if not 0 < settings["train_fraction"] <= 1:
        raise _wrong(folder, f"train_fraction is {settings['train_fraction']}")
    if settings["max_length"] < 8:
        raise _wrong(folder, f"max_length is {settings['max_length']}")
    return facts


def _wrong(folder: Path, problem: str) -> UserError:
    return UserError(f"not a classifier's record: {problem}", file=folder / TRAINING_FILE, fix="train again")
