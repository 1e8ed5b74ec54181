"""Estimate how long a training would take here, from a few of its steps."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback, Trainer
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_utils import IntervalStrategy

from common.cli.console import duration, stage
from common.cli.errors import counted
from common.cli.options import TrainingOptions
from common.training.callbacks import Checkpoints, ProgressLog, StepClock

MEASURED_STEPS = 4  # after a first, slower one


@dataclass(frozen=True)
class TimeEstimate:
    """How long a run would take on this machine."""

    seconds: float
    steps: int
    seconds_a_step: float
    validations: int

    def __str__(self) -> str:
        return (
            f"about {duration(self.seconds)} on this machine for {counted(self.steps, 'step')} of {self.seconds_a_step:.2f} s and "
            f"{counted(self.validations, 'validation')}; early stopping may shorten it"
        )


def estimate(trainer: Trainer, options: TrainingOptions, *, train_items: int, validation_items: int) -> TimeEstimate:
    """Run a few steps, save nothing, and extrapolate to the whole run.

    Validations are not measured: a forward pass counts as a third of a training step (two thirds are backward).
    """
    clock = StepClock()
    trackers = INTEGRATION_TO_CALLBACK.values()
    for callback in (EarlyStoppingCallback, Checkpoints, ProgressLog, PrinterCallback, ProgressCallback, *trackers):
        trainer.remove_callback(callback)
    trainer.add_callback(clock)
    items = options.per_device_train_batch_size * options.gradient_accumulation_steps * trainer.args.world_size
    steps = options.max_steps if options.max_steps > 0 else math.ceil(train_items / items * options.num_train_epochs)
    trainer.args.max_steps = min(1 + MEASURED_STEPS, steps)
    trainer.args.eval_strategy = trainer.args.save_strategy = IntervalStrategy.NO
    trainer.args.load_best_model_at_end = False
    with stage(f"measuring {trainer.args.max_steps} steps"):
        trainer.train()
    times = [end - start for start, end in itertools.pairwise(clock.times)] or [0.0]
    measured = times[1:] or times  # a run of one step has only that one
    step = sum(measured) / len(measured)
    validations = options.evaluations * validation_items / items * step / 3
    return TimeEstimate(steps * step + validations, steps, step, options.evaluations)
