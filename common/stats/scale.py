"""Scales of labels: nominal, ordinal and real ones, or any similarity of two labels."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from common.cli.errors import UserError, shown

ScaleName = Literal["nominal", "ordinal", "real"]
Similarity = Callable[[Any, Any], float]


@dataclass(frozen=True)
class Scale:
    """How labels are read and compared."""

    name: ScaleName = "nominal"  # nominal: equal or not; ordinal: by order; real: by difference
    order: tuple[Hashable, ...] = ()  # labels of an ordinal scale from low to high; unneeded if they are numbers
    similarity: Similarity | None = None  # of two labels, 0 to 1 (equal); replaces "equal or not"

    def __post_init__(self) -> None:
        if self.name not in get_args(ScaleName):
            expected = ", ".join(get_args(ScaleName))
            raise UserError(f"unknown scale {shown(self.name)}", key="--scale", expected=expected)
        if self.order and self.name != "ordinal":
            raise UserError("only an ordinal scale has an order", key="--order", fix="add --scale ordinal")
        if self.order and (len(self.order) < 2 or len(set(self.order)) < len(self.order)):
            raise UserError("not an order of labels", key="--order", expected="two or more different labels")
        if self.similarity and self.name != "nominal":
            raise UserError("it replaces the scale", key="--similarity", fix=f"leave out --scale {self.name}")

    @property
    def is_number(self) -> bool:
        """Whether :meth:`read` returns numbers."""
        return self.name != "nominal"

    @property
    def expected(self) -> str:
        """What a label must be, for an error message."""
        if self.order:
            return f"one of {', '.join(map(str, self.order))}"
        or_order = ", or --order with the labels from low to high" if self.name == "ordinal" else ""
        return f"a number{or_order}" if self.is_number else "a label"

    def read(self, label: Hashable) -> Any:
        """Return a label as it is compared: itself, its place in the order, or its number; ValueError if it is none of these."""
        if not self.is_number:
            return label
        try:
            number = float(self.order.index(label) if self.order else label)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"label {shown(label)} is not on this scale; expected {self.expected}")
        return number

    def similar(self, first: Any, second: Any) -> float:
        """Call the user's similarity and check its result."""
        assert self.similarity is not None
        pair = f"{shown(first)} and {shown(second)}"
        try:
            similarity = float(self.similarity(first, second))
        except Exception as error:
            raise UserError(f"fails for {pair}: {type(error).__name__}: {error}", key="--similarity") from error
        if not 0 <= similarity <= 1:
            raise UserError(f"{similarity} for {pair}", key="--similarity", expected="a number from 0 to 1")
        return similarity

    def describe(self) -> dict[str, Any]:
        """Return the scale for a report."""
        named = getattr(self.similarity, "__name__", type(self.similarity).__name__) if self.similarity else None
        return {"scale": self.name, "order": list(self.order), "similarity": named}


def load_similarity(place: str) -> Similarity:
    """Load the function at ``path/to/file.py:function``."""
    name, colon, function = place.rpartition(":")
    path = Path(name)
    if not colon or path.suffix != ".py":
        raise UserError(f"{shown(place)} does not fit", key="--similarity", expected="path/to/file.py:function")
    if not path.is_file():
        raise UserError("no such file", file=path, key="--similarity", fix="check the path")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"fails: {type(error).__name__}: {error}", file=path, key="--similarity") from error
    loaded = getattr(module, function, None)
    if not callable(loaded):
        raise UserError(f"no function {shown(function)}", file=path, key="--similarity")
    return loaded
