"""A run that is continued after its last step: Trainer would train one more."""

from __future__ import annotations

import math
import signal
import time
from types import FrameType
from typing import Any, Literal

import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from common.cli.console import duration, log
from common.cli.errors import UserError
from common.models.loading import check_config, loading
from common.runtime import hardware


class NothingToTrain(Exception):
    """The checkpoint that is continued is that of the last step."""


class StopIfDone(TrainerCallback):
    """Raises :class:`NothingLeft` where a continued run had its last step, or had lost its patience, before it was saved.

    Trainer looks at either only after a further step, which it would also validate, and could take for the best.
    """

    def __init__(self, trainer: Trainer):
        self._trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        spent = any(
            one.early_stopping_patience_counter >= one.early_stopping_patience
            for one in self._trainer.callback_handler.callbacks
            if isinstance(one, EarlyStoppingCallback)
        )
        if spent or state.global_step >= state.max_steps:
            raise NothingToTrain


def load_best(trainer: Trainer) -> None:
    """Loads the best checkpoint, as Trainer does after the last step."""
    trainer.is_in_train = False
    if trainer.state.best_model_checkpoint is not None:
        trainer._load_best_model()


WARM_UP = 3  # steps that are slower than the rest: caches fill, kernels are chosen


class ProgressLog(TrainerCallback):
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
            log(f"{at}, validation: {scores}")
        elif "loss" in logs:
            log(f"{at}, loss {logs['loss']:.4f}{self._left(state)}")

    def _left(self, state: TrainerState) -> str:
        if self._first is None or state.global_step <= self._first[0]:
            return ""
        pace = (time.monotonic() - self._first[1]) / (state.global_step - self._first[0])
        return f", about {duration(pace * (state.max_steps - state.global_step))} left"


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
        log(f"{signal.Signals(number).name}: stopping after this step, with a checkpoint (again: at once, without)")
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
            log("stopped; the same command continues from the last checkpoint")
            raise Interrupted(self.signal)


class Diverged(UserError):
    """The loss or the weights are no numbers any more."""


class DivergenceCheck(TrainerCallback):
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


class TrainsInFp32(TrainerCallback):
    """Stops a training whose trained weights are not fp32, also after a checkpoint was loaded."""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: torch.nn.Module, **_: Any) -> None:
        wrong = {name: p.dtype for name, p in model.named_parameters() if p.requires_grad and p.dtype != torch.float32}
        if wrong:
            name, dtype = next(iter(wrong.items()))
            raise RuntimeError(f"{len(wrong)} trained tensors are not fp32, the first {name}: {dtype}")
