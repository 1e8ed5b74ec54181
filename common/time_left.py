"""How far a training is and how long it still takes, one line each time it logs: also where no progress bar is seen."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from common.stages import duration, say

WARM_UP = 3  # steps that are slower than the rest: caches fill, kernels are chosen


class TimeLeft(TrainerCallback):
    """Says step, loss and the time left, validations and checkpoints so far counted in."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None  # step and time from which the pace is measured

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._started = state.global_step  # more than 0 where a run is continued

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._first is None and state.global_step >= self._started + WARM_UP:
            self._first = (state.global_step, time.monotonic())

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> None:
        at = f"step {state.global_step:,} of {state.max_steps:,}"
        if "eval_loss" in logs:
            shown = {"eval_loss", args.metric_for_best_model, f"eval_{args.metric_for_best_model}"} & logs.keys()
            scores = ", ".join(
                f"{name.removeprefix('eval_').replace('_', ' ')} {logs[name]:.4f}" for name in sorted(shown)
            )
            say(f"{at}, validation: {scores}")
        elif "loss" in logs:
            say(f"{at}, loss {logs['loss']:.4f}{self._left(state)}")

    def _left(self, state: TrainerState) -> str:
        if self._first is None or state.global_step <= self._first[0]:
            return ""
        pace = (time.monotonic() - self._first[1]) / (state.global_step - self._first[0])
        return f", about {duration(pace * (state.max_steps - state.global_step))} left"
