"""The processes of one launch: which of them this one is, how they share work, and how they tell each other something.

Nothing heavy is imported where there is only one.
"""

from __future__ import annotations

import datetime
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from common.cli.console import quiet_libraries
from common.cli.errors import UserError

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Told = TypeVar("Told")
# One may survey or annotate for hours while the others wait; the launcher ends them all as soon as one has died.
TIMEOUT = datetime.timedelta(days=365)


def is_first() -> bool:
    """Whether this is the process that writes and speaks for all; also where it is the only one."""
    return os.environ.get("RANK", "0") == "0"


@dataclass(frozen=True)
class Processes:
    """This process among those that a launcher started.

    Attributes:
        rank: Its number, from 0.
        count: How many there are.
        group: How they reach each other; None for one alone.
    """

    rank: int = 0
    count: int = 1
    group: Any = None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def shared(self, function: Callable[[], Told]) -> Told:
        """What ``function`` returns in the first process, in all of them; only the first calls it.

        Raises:
            UserError: The first process has ended, or another one.
        """
        if self.count == 1:
            return function()
        import torch.distributed

        box = [function() if self.first else None]
        self._with_the_others(lambda: torch.distributed.broadcast_object_list(box, src=0, group=self.group))
        return box[0]  # type: ignore[return-value]

    def gathered(self, value: Told) -> list[Told]:
        """The values of all processes, by their numbers, as soon as each has come here.

        Raises:
            UserError: Another process has ended.
        """
        if self.count == 1:
            return [value]
        import torch.distributed

        box: list[Any] = [None] * self.count
        self._with_the_others(lambda: torch.distributed.all_gather_object(box, value, group=self.group))
        return box

    def divided(self, items: Sequence[Item], answer: Callable[[list[Item]], Iterable[Answer]]) -> list[Answer]:
        """One answer an item, in the items' order. Each process answers a part of them, and all get all.

        All processes call this with the same items, in the same order of calls. With more processes than items some have none.
        """
        mine = range(self.rank, len(items), self.count)
        own = list(zip(mine, answer([items[i] for i in mine]), strict=True)) if mine else []
        found = dict(one for part in self.gathered(own) for one in part)
        return [found[i] for i in range(len(items))]

    def _with_the_others(self, call: Callable[[], None]) -> None:
        try:
            call()
        except RuntimeError as error:  # what a lost connection raises
            if not self.first:
                sys.exit(1)  # the one that ended has said why
            raise UserError("another process has ended", fix="the same command continues") from error


ALONE = Processes()


def join() -> Processes:
    """Joins the processes that the launcher started with this one.

    Raises:
        UserError: Fewer run than the launcher was asked for, or they would not know of each other.
    """
    if not {"WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"} & set(os.environ):
        return ALONE  # nothing of a launcher's
    quiet_libraries()
    from common.runtime import hardware

    hardware.choose_device()
    if hardware.check_processes().count == 1:
        return ALONE
    import torch.distributed

    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    group = torch.distributed.new_group(backend="gloo", timeout=TIMEOUT)
    return Processes(torch.distributed.get_rank(), torch.distributed.get_world_size(), group)


def _end_with(launcher: int) -> None:
    # A launcher that is killed leaves its processes behind: they would write where the next run does.
    while os.getppid() == launcher:
        time.sleep(0.2)
    os._exit(1)
