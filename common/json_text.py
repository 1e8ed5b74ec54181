"""JSON from outside, read so that what was read can be shown and written again, and nothing in it goes unseen."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from common.errors import shown

DEEPEST = 100  # levels; what Python's parser just takes, its writer may not
_HALF = re.compile(r"[\ud800-\udfff]")


def loads(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: It is none, or one of those that :func:`read` names.
    """
    value, problem = read(text.decode("utf-8") if isinstance(text, bytes) else text)
    if problem:
        raise ValueError(problem)
    return value


def read(text: str) -> tuple[Any, str | None]:
    """The value of a JSON text as far as it can be read, and what is wrong with it, if anything is.

    Wrong is, besides what is no JSON: a name that stands twice in an object, as only one of its values is kept; half of a surrogate
    pair (``\\ud83d`` alone), which no file can hold and U+FFFD stands for then; and nesting deeper than :data:`DEEPEST`.
    """
    twice: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
            twice.append(name)
        return values

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        return None, f"not JSON: {getattr(error, 'msg', error)}"
    if text.count("[") + text.count("{") > DEEPEST and _depth(value) > DEEPEST:
        return None, f"nested deeper than {DEEPEST} levels"
    if re.search(r"\\u[dD][89a-fA-F]", text):
        mended = _mended(value)
        if mended != value:
            return mended, "half of a surrogate pair"
    return value, f"{shown(twice[0])} stands twice in an object" if twice else None


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, (list, dict))]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return _HALF.sub("\ufffd", value)
    if isinstance(value, list):
        return [_mended(inner) for inner in value]
    if isinstance(value, dict):
        return {_mended(name): _mended(inner) for name, inner in value.items()}
    return value
