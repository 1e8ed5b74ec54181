"""What labels are to each other: names, ranks, numbers, or whatever a function of the user's says of two of them."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from common.errors import UserError, shown

ScaleName = Literal["nominal", "ordinal", "real"]
Similarity = Callable[[Any, Any], float]


@dataclass(frozen=True)
class Scale:
    """How labels are read and compared.

    Attributes:
        name: ``nominal``: equal or not. ``ordinal``: their order counts. ``real``: their differences count.
        order: Labels from low to high, for an ordinal scale whose labels are no numbers.
        similarity: A function of two labels, from 0 to 1 for equal ones; it takes the place of "equal or not".
    """

    name: ScaleName = "nominal"
    order: tuple[Hashable, ...] = ()
    similarity: Similarity | None = None

    def __post_init__(self) -> None:
        if self.name not in get_args(ScaleName):
            raise UserError(f"{shown(self.name)} is no scale", key="--scale", expected=", ".join(get_args(ScaleName)))
        if self.order and self.name != "ordinal":
            raise UserError("only an ordinal scale has one", key="--order", fix="add --scale ordinal")
        if self.order and (len(self.order) < 2 or len(set(self.order)) < len(self.order)):
            raise UserError("not an order", key="--order", expected="two labels or more, each once")
        if self.similarity and self.name != "nominal":
            raise UserError("it takes the place of a scale", key="--similarity", fix=f"leave out --scale {self.name}")

    @property
    def is_number(self) -> bool:
        """Whether :meth:`read` makes numbers."""
        return self.name != "nominal"

    @property
    def expected(self) -> str:
        """What a label must be, in words."""
        if self.order:
            return f"one of {', '.join(map(str, self.order))}"
        or_order = ", or --order with the labels from low to high" if self.name == "ordinal" else ""
        return f"a number{or_order}" if self.is_number else "a label"

    def read(self, label: Hashable) -> Any:
        """A label as it is compared: itself, its place in the order (from 0), or its number.

        Raises:
            ValueError: It is none of the scale's.
        """
        if not self.is_number:
            return label
        try:
            number = float(self.order.index(label) if self.order else label)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{shown(label)} is no label of this scale; expected {self.expected}")
        return number

    def similar(self, one: Any, other: Any) -> float:
        """The user's similarity of two labels.

        Raises:
            UserError: It failed, or gave something else than a number from 0 to 1.
        """
        assert self.similarity is not None
        try:
            found = float(self.similarity(one, other))
        except Exception as error:
            raise UserError(
                f"fails on {shown(one)} and {shown(other)}: {type(error).__name__}: {error}", key="--similarity"
            ) from error
        if not 0 <= found <= 1:
            raise UserError(
                f"{found} for {shown(one)} and {shown(other)}", key="--similarity", expected="a number from 0 to 1"
            )
        return found

    def describe(self) -> dict[str, Any]:
        """The scale for a report."""
        named = getattr(self.similarity, "__name__", type(self.similarity).__name__) if self.similarity else None
        return {"scale": self.name, "order": list(self.order), "similarity": named}


def load_similarity(place: str) -> Similarity:
    """The function at ``path/to/file.py:function``.

    Raises:
        UserError: No such file or function, or a file that fails.
    """
    name, colon, function = place.rpartition(":")
    path = Path(name)
    if not colon or path.suffix != ".py":
        raise UserError(f"{shown(place)} does not fit", key="--similarity", expected="path/to/file.py:function")
    if not path.is_file():
        raise UserError("no such file", file=path, key="--similarity", fix="check the path")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"fails: {type(error).__name__}: {error}", file=path, key="--similarity") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise UserError(f"no function {shown(function)}", file=path, key="--similarity")
    return found
