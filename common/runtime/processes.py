"""The processes of one launch: rank, shared work, and communication.

Nothing heavy is imported if there is only one process.
"""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from common.cli.console import quiet_libraries
from common.cli.errors import UserError

Item = TypeVar("Item")
Answer = TypeVar("Answer")
# One process may work for hours while the others wait; the launcher ends them all as soon as one has died.
TIMEOUT = datetime.timedelta(days=365)


def is_first() -> bool:
    """Return whether this process writes and prints for all; also true if it is the only one."""
    return os.environ.get("RANK", "0") == "0"


@dataclass(frozen=True)
class Processes:
    """This process among those of its launch. All methods are called by all processes together."""

    rank: int = 0
    count: int = 1
    group: Any = None  # torch's process group

    @property
    def first(self) -> bool:
        return self.rank == 0

    def shared(self, function: Callable[[], Answer]) -> Answer:
        """Call ``function`` in the first process only and return its result in all."""
        if self.count == 1:
            return function()
        import torch.distributed

        box = [function() if self.first else None]
        self._communicate(lambda: torch.distributed.broadcast_object_list(box, src=0, group=self.group))
        return box[0]  # type: ignore[return-value]

    def gathered(self, value: Answer) -> list[Answer]:
        """Return the values of all processes by rank."""
        if self.count == 1:
            return [value]
        import torch.distributed

        box: list[Any] = [None] * self.count
        self._communicate(lambda: torch.distributed.all_gather_object(box, value, group=self.group))
        return box

    def divided(self, items: Sequence[Item], answer: Callable[[list[Item]], Iterable[Answer]]) -> list[Answer]:
        """Divide items among the processes and return all answers, in the items' order, in each of them."""
        mine = range(self.rank, len(items), self.count)
        own = list(zip(mine, answer([items[i] for i in mine]), strict=True)) if mine else []
        answers = dict(pair for part in self.gathered(own) for pair in part)
        return [answers[i] for i in range(len(items))]

    def _communicate(self, call: Callable[[], None]) -> None:
        try:
            call()
        except RuntimeError as error:  # a lost connection
            if not self.first:
                sys.exit(1)  # the process that ended has printed why
            raise UserError("another process has ended", fix="repeat the command to continue") from error


ALONE = Processes()


def join() -> Processes:
    """Join the other processes of this launch; raise ``UserError`` if fewer run than were requested."""
    if not {"WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"} & set(os.environ):
        return ALONE  # not started by a launcher
    quiet_libraries()
    from common.runtime import hardware

    hardware.choose_device()
    if hardware.check_processes() == 1:
        return ALONE
    import torch.distributed

    group = torch.distributed.new_group(backend="gloo", timeout=TIMEOUT)
    return Processes(torch.distributed.get_rank(), torch.distributed.get_world_size(), group)
