"""What a JSON file from outside must hold, written as an example of it, and what is wrong with one that does not."""

from __future__ import annotations

from typing import Any

from common.cli.errors import shown

LARGEST = 10**18  # numbers beyond it are no count, size or time, and some do not fit a float
NUMBER = (int, float)


def wrong(value: Any, shape: Any, place: str = "") -> str | None:
    """What is wrong with a JSON value, and where in it; None where it has the shape.

    A shape is a type (``int`` and ``float`` take finite numbers, ``int`` no fractions and neither a bool); None; a tuple of shapes
    that are all right; ``{"name": shape}`` for an object with these names among others, ``"name?"`` where one may be missing;
    ``{str: shape}`` for any names; ``[shape, ...]`` for a list of any length, ``[shape, shape]`` for one of two values; or
    ``object`` for anything.
    """
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return _is(place, value)
        if str in shape:
            return _first(wrong(inner, shape[str], f"{place} {name}") for name, inner in value.items())
        for name, inner in shape.items():
            plain = name.removesuffix("?")
            if plain in value:
                if problem := wrong(value[plain], inner, f"{place} {plain}"):
                    return problem
            elif plain == name:
                return f"{place} {name} is missing".strip()
        return None
    if isinstance(shape, list):
        if not isinstance(value, list):
            return _is(place, value)
        if shape[-1] is ...:
            return _first(wrong(inner, shape[0], place) for inner in value)
        if len(value) != len(shape):
            return _is(place, value)
        return _first(wrong(inner, one, place) for inner, one in zip(value, shape, strict=True))
    if isinstance(shape, tuple):
        return None if any(wrong(value, one) is None for one in shape) else _is(place, value)
    if shape is None or shape is object:
        return None if value is None or shape is object else _is(place, value)
    if shape in NUMBER:
        right = isinstance(value, shape) and not isinstance(value, bool) and abs(value) < LARGEST  # as NaN is not
        return None if right else _is(place, value)
    return None if isinstance(value, shape) else _is(place, value)


def _is(place: str, value: Any) -> str:
    return f"{place.strip() or 'it'} is {shown(value, 30)}"


def _first(problems: Any) -> str | None:
    return next(filter(None, problems), None)
