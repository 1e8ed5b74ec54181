"""Refuse scores that are not numbers; remember whether fast ways of answering give a base the numbers of plain passes."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cli.errors import UserError, shown
from common.runtime.files import Number, atomic_write, read_json
from common.runtime.project import cache_folder


def check_finite(scores: Iterable[float], model: Any, name: str, precision: str) -> None:
    """Refuse NaN and infinite scores, and say whether the weights or the compute precision are to blame."""
    if all(map(math.isfinite, scores)):
        return
    import torch

    half = precision in ("fp16", "float16")  # holds no number above 65,504: finite weights may have become infinite

    def is_broken(weights: torch.Tensor) -> bool:
        return bool((weights.isnan() if half else ~weights.isfinite()).any())

    broken = (key for key, weights in model.named_parameters() if weights.is_floating_point() and is_broken(weights))
    if (first := next(broken, None)) is not None:
        fix = "download it again, or train again"
        raise UserError(f"non-finite weights (first in {shown(first)})", file=name, fix=fix)
    fix = "use bf16 or fp32" if half else None
    raise UserError(f"NaN or infinite scores in {precision}, although the weights are finite", file=name, fix=fix)


@dataclass(frozen=True)
class Exactness:
    """What holds for a base in a precision, with this machine's libraries."""

    base: str
    precision: str
    quantization: str
    packed: bool  # posts behind one copy of the instruction have the losses of separate sequences
    padded: bool  # so have padded rows
    cached: bool  # answers behind the instruction's cache have the probabilities of plain passes
    differences: dict[str, Number | None]  # largest per token of an answer; None where the base cannot be run so

    def line(self) -> str:
        """Return a line for a person."""
        names = {"packed": "packed training", "cached": "cached answering"}
        exact = [name for kind, name in names.items() if getattr(self, kind)]
        slow = [name for kind, name in names.items() if not getattr(self, kind)]
        told = ([f"{' and '.join(exact)} exact"] if exact else []) + ([f"no {' and no '.join(slow)}"] if slow else [])
        return f"{self.base} ({self.precision}, {self.quantization}): {'; '.join(told)}"


def key_of(facts: dict[str, Any]) -> str:
    """Return a name for what a base's exactness depends on: its configuration, our code, libraries, precision and device."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def remember(key: str, exactness: Exactness) -> None:
    """Keep a result in the user's cache; where that cannot be written, the base is checked again next time."""
    with contextlib.suppress(UserError), atomic_write(_folder() / f"{key}.json") as part:
        part.write_text(json.dumps(dataclasses.asdict(exactness), indent=1) + "\n", encoding="utf-8")


def recall(key: str) -> Exactness | None:
    """Return what was remembered; None where nothing was, or where it cannot be read."""
    path = _folder() / f"{key}.json"
    try:
        return read_json(Exactness, path, what="a base's exactness") if path.is_file() else None
    except UserError:
        return None


def remembered() -> list[Exactness]:
    """Return what was last remembered of each base, precision and quantization, by base."""
    paths = sorted(_folder().glob("*.json"), key=lambda path: path.stat().st_mtime)
    known = [each for path in paths if (each := recall(path.stem)) is not None]
    latest = {(each.base, each.precision, each.quantization): each for each in known}
    return [latest[key] for key in sorted(latest)]


def _folder() -> Path:
    return cache_folder("finetuning-bases")
