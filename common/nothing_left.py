"""A run that is continued after its last step: Trainer would train one more."""

from __future__ import annotations

from typing import Any

from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)


class NothingLeft(Exception):
    """The checkpoint that is continued is that of the last step."""


class LastStep(TrainerCallback):
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
            raise NothingLeft


def take_best(trainer: Trainer) -> None:
    """Loads the best checkpoint, as Trainer does after the last step."""
    trainer.is_in_train = False
    if trainer.state.best_model_checkpoint is not None:
        trainer._load_best_model()
