"""A training that has diverged is ended: no hours are spent on it, and no checkpoint holds weights that are no numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from common.errors import UserError


class Diverged(UserError):
    """The loss or the weights are no numbers any more."""


class Divergence(TrainerCallback):
    """Raises :class:`Diverged` where a loss is NaN or infinite, and before a checkpoint would hold such weights.

    In fp16 a single loss may be: the gradient scaler leaves such steps out. There the weights decide, and the validation.
    """

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        for name in ("eval_loss",) if args.fp16 else ("loss", "eval_loss"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise _diverged(f"the {'validation ' if name == 'eval_loss' else ''}loss is {logs[name]}", args, state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: torch.nn.Module, **_: Any
    ) -> None:
        if not control.should_save:
            return
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
                raise _diverged(f"weights are no numbers, the first in {name}", args, state)


def _diverged(problem: str, args: TrainingArguments, state: TrainerState) -> Diverged:
    return Diverged(
        f"{problem} at step {state.global_step}",
        file=args.output_dir,
        expected=f"a learning rate below {args.learning_rate:g}, or a longer warm-up",
        fix="train so into another --output_dir; the checkpoints before are whole",
    )
