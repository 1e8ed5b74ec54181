"""Work that the processes of one launch share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def is_first() -> bool:
    """Whether this is the process that writes and speaks for all; also where it is the only one."""
    return os.environ.get("RANK", "0") == "0"


def divided(items: Sequence[Item], answer: Callable[[list[Item]], Iterable[Answer]]) -> list[Answer]:
    """One answer an item, in the items' order. Each process answers a part of them, and all get all.

    All processes call this with the same items, in the same order of calls, after :func:`common.hardware.check_processes`.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return list(answer(list(items)))
    from accelerate.utils import gather_object

    mine = range(int(os.environ["RANK"]), len(items), count)
    # With more processes than items some have none.
    own: list[Any] = list(zip(mine, answer([items[i] for i in mine]), strict=True)) if mine else []
    found = dict(gather_object(own))
    return [found[i] for i in range(len(items))]
