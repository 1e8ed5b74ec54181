"""Stopping a training without losing it: Ctrl-C and SIGTERM end it after the step at hand, with a checkpoint."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from common.stages import say

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(SystemExit):
    """A training was stopped by a signal, and can be continued by the same command. Exits 130 or 143."""

    def __init__(self, number: int):
        super().__init__(128 + number)


class SafeStop(TrainerCallback):
    """While entered, the first signal asks for a stop at the step's end; a second one acts as usual.

    Among several processes the first step's end at which any has seen a signal stops all: they agree by a sum.
    ``Trainer.train`` then returns as if it had finished, so call :meth:`raise_if_stopped` right after it.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> SafeStop:
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        say(f"{signal.Signals(number).name}: stopping after this step, with a checkpoint (again: at once, without)")
        for other, handler in self._previous.items():
            signal.signal(other, handler)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        number = self.signal or 0
        if args.world_size > 1:
            highest = torch.tensor(number, device=args.device)
            torch.distributed.all_reduce(highest, op=torch.distributed.ReduceOp.MAX)
            number = int(highest)
        if number:
            self.signal = number
            control.should_save = control.should_training_stop = True
        return control

    def raise_if_stopped(self) -> None:
        """Raises :class:`Interrupted` if a signal ended the training."""
        if self.signal:
            say("stopped; the same command continues from the last checkpoint")
            raise Interrupted(self.signal)
