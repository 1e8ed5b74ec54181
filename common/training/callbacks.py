"""All callbacks of Trainer: progress, memory, safe stop, divergence, checkpoints, and the end of a continued run."""

from __future__ import annotations

import math
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from transformers import EarlyStoppingCallback, ProgressCallback, Trainer, TrainerCallback, TrainerState

from common.cli.console import duration, log
from common.cli.errors import UserError, launched, return_freed_memory
from common.training.checkpoints import checkpoint_folder, remove_old, write_manifest

WARM_UP = 3  # steps that are slower than the rest: caches fill, kernels are chosen
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class ProgressLog(TrainerCallback):
    """Log step, loss, and the time left, including validations and checkpoints so far."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None  # step and time from which the pace is measured

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        self._started = state.global_step  # above 0 in a continued run

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        if self._first is None and state.global_step >= self._started + WARM_UP:
            self._first = (state.global_step, time.monotonic())

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: dict[str, float], **_: Any) -> None:
        at = f"step {state.global_step:,} of {state.max_steps:,}"
        if "eval_loss" in logs:
            names = {"eval_loss", args.metric_for_best_model, f"eval_{args.metric_for_best_model}"} & logs.keys()
            scores = [f"{name.removeprefix('eval_').replace('_', ' ')} {logs[name]:.4f}" for name in sorted(names)]
            log(f"{at}, validation: {', '.join(scores)}")
        elif "loss" in logs:
            log(f"{at}, loss {logs['loss']:.4f}{self._left(state)}")

    def _left(self, state: TrainerState) -> str:
        if self._first is None or state.global_step <= self._first[0]:
            return ""
        pace = (time.monotonic() - self._first[1]) / (state.global_step - self._first[0])
        return f", about {duration(pace * (state.max_steps - state.global_step))} left"


class MemoryReturn(TrainerCallback):
    """Return freed memory to the system now and then.

    The tensors of each step have other sizes than those before, so gaps between tensors that stay grow. Within 80 steps of a
    135M model, a process reached 3.4 GB instead of 3.7. Returning it after every step left 2.9, but took a tenth of the time.
    """

    EVERY = 10  # steps

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        if state.global_step % self.EVERY == 0:
            return_freed_memory()

    def on_evaluate(self, *_: Any, **__: Any) -> None:
        return_freed_memory()


class BarOnly(ProgressCallback):
    """Trainer's bar without the dictionaries it prints between steps: :class:`ProgressLog` prints them in words."""

    def on_log(self, *_: Any, **__: Any) -> None:
        return


class StepClock(TrainerCallback):
    """Record when training began and when each step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.times.append(time.monotonic())

    on_step_end = on_train_begin


class Checkpoints(TrainerCallback):
    """Write a manifest into each complete checkpoint, and only then remove older ones.

    Trainer's own rotation would come before the manifest: a process killed in between would have lost both.
    """

    def __init__(self, limit: int):
        self.limit = limit

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        # The state knows its best checkpoint by path, and Trainer forgets it if the folder was moved: the last model would be
        # saved as the best.
        if state.best_global_step and (best := checkpoint_folder(args.output_dir, state.best_global_step)).is_dir():
            state.best_model_checkpoint = str(best)

    def on_save(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        if args.world_size > 1:
            torch.distributed.barrier()  # every process saves its own random state
        if state.is_world_process_zero:
            write_manifest(checkpoint_folder(args.output_dir, state.global_step))
            remove_old(Path(args.output_dir), self.limit)


class Interrupted(SystemExit):
    """A signal stopped a training, which the same command continues. Exits with 130 or 143."""


class SafeStop(TrainerCallback):
    """While entered, the first signal requests a stop at the end of the step; a second one acts as usual.

    Several processes agree by a reduction: all stop at the end of the first step at which any has received a signal.
    ``Trainer.train`` then returns as if it had finished, so call :meth:`raise_if_stopped` right after it.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> SafeStop:
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        log(f"{signal.Signals(number).name}: stopping after this step, with a checkpoint (again: at once, without)")
        self.__exit__()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
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
        if self.signal:
            note = " (ignore the traceback below: it is the launcher's)" if launched() else ""
            log(f"stopped; the same command continues from the last checkpoint{note}")
            raise Interrupted(128 + self.signal)


class Diverged(UserError):
    """The loss or a weight is NaN or infinite."""


class DivergenceCheck(TrainerCallback):
    """Raise :class:`Diverged` for a loss that is NaN or infinite, and before a checkpoint would contain such weights.

    In fp16 single losses may be: the gradient scaler skips such steps. There, the weights and the validation decide.
    """

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: dict[str, float], **_: Any) -> None:
        for name in ("eval_loss",) if args.fp16 else ("loss", "eval_loss"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise _diverged(f"the {'validation ' if name == 'eval_loss' else ''}loss is {logs[name]}", args, state)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, model: torch.nn.Module, **_: Any) -> None:
        if not control.should_save:
            return
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
                raise _diverged(f"non-finite weights (first in {name})", args, state)


def _diverged(problem: str, args: Any, state: TrainerState) -> Diverged:
    return Diverged(
        f"{problem} at step {state.global_step}",
        file=args.output_dir,
        expected=f"a learning rate below {args.learning_rate:g}, or a longer warmup",
        fix="retrain with these settings into a new --output_dir; earlier checkpoints are intact",
    )


class TrainsInFp32(TrainerCallback):
    """Raise if trained weights are not fp32, also after a checkpoint was loaded."""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: torch.nn.Module, **_: Any) -> None:
        wrong = {name: p.dtype for name, p in model.named_parameters() if p.requires_grad and p.dtype != torch.float32}
        if wrong:
            name, dtype = next(iter(wrong.items()))
            raise RuntimeError(f"{len(wrong)} trained tensors are not fp32, the first {name}: {dtype}")


class NothingToTrain(Exception):
    """The continued checkpoint is that of the last step."""


class StopIfDone(TrainerCallback):
    """Raise :class:`NothingToTrain` if a continued run had ended, by steps or early stopping, before it was saved.

    Trainer checks either only after another step, which it would also validate and could choose as the best.
    """

    def __init__(self, trainer: Trainer):
        self._callbacks = trainer.callback_handler.callbacks

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        stopped_early = any(
            callback.early_stopping_patience_counter >= callback.early_stopping_patience
            for callback in self._callbacks
            if isinstance(callback, EarlyStoppingCallback)
        )
        if stopped_early or state.global_step >= state.max_steps:
            raise NothingToTrain
