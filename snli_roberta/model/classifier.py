"""A trained classifier as commands use it: loaded by folder or Hub ID, asked for probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from common.cli.errors import UserError, shown
from common.cli.options import DEFAULT_LENGTH
from common.models.adapters import ADAPTER_CONFIG
from common.models.exactness import check_finite
from common.models.loading import hub_commit, local_folder, width_in
from common.results.record import TRAINING_FILE, training_facts
from common.runtime import hardware
from snli_roberta.data.corpus import LABELS, Pair

SIDE_BY_SIDE = 4  # models on one page
SETTINGS: dict[str, tuple[type, ...]] = {
    "max_length": (int,),
    "balance_classes": (bool,),
    "train_fraction": (int, float),
    "sample_seed": (int,),
}  # of a training.json, and their types


@dataclass(frozen=True)
class Classifier:
    """A fine-tuned model, or an adapter on its base.

    Attributes:
        name: Folder or Hub ID, as the user gave it.
        folder: Local folder of its files.
        model: The torch module, on this device.
        tokenizer: Its tokenizer.
        precision: Compute precision, and the reason for it.
        facts: Contents of ``training.json``; None for a model trained elsewhere.
    """

    name: str
    folder: Path
    model: Any
    tokenizer: Any
    precision: hardware.Choice
    facts: dict[str, Any] | None

    @property
    def kind(self) -> Literal["full", "adapter"]:
        return "adapter" if (self.folder / ADAPTER_CONFIG).is_file() else "full"

    @property
    def max_length(self) -> int:
        """Maximum tokens per pair, as in training."""
        return (
            self.facts["settings"]["max_length"] if self.facts else min(DEFAULT_LENGTH, self.longest or DEFAULT_LENGTH)
        )

    @cached_property
    def longest(self) -> int | None:
        """Tokens that the model has positions for; None if its positions are relative."""
        from common.models import encoding

        return encoding.longest(self.model)

    @cached_property
    def own_folder(self) -> Path | None:
        """Where findings about it may be kept; None for a download, which must not be changed."""
        return None if hub_commit(self.folder) is not None else self.folder

    def logits(
        self,
        pairs: Sequence[Pair],
        *,
        max_length: int | None = None,
        progress: bool = False,
        answered: Callable[[int], Any] | None = None,
    ) -> np.ndarray:
        """Return logits of shape (n, 3), in the order of the pairs; see :func:`common.models.encoder.predict_logits`."""
        from common.models import encoder, encoding

        length = max_length or self.max_length
        encoding.check_length(self.model, length)
        texts = [pair.texts for pair in pairs]
        how: dict[str, Any] = {"max_length": length, "progress": progress, "answered": answered}
        logits = encoder.predict_logits(self.model, self.tokenizer, texts, **how)
        check_finite(logits.ravel(), self.model, self.name, self.precision.value)
        return logits

    def probabilities(self, pairs: Sequence[Pair], **how: Any) -> np.ndarray:
        """Return probabilities of shape (n, 3); columns as :data:`~snli_roberta.data.corpus.LABELS`, rows sum to 1.

        Keyword arguments are those of :meth:`logits`.
        """
        logits = self.logits(pairs, **how)
        powers = np.exp(np.asarray(logits, dtype=float) - np.max(logits, axis=1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)


def load(
    name: str, revision: str | None = None, *, precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
) -> Classifier:
    """Load a trained classifier from a folder or the Hub.

    Raises:
        UserError: No such model, no access to it, a model of other labels, or a precision that the device lacks.
    """
    from common.models import encoder

    folder = local_folder(name, revision)
    facts = model_facts(folder)
    model, tokenizer = encoder.load_trained(name, revision, labels=LABELS)
    chosen = hardware.choose_precision(precision, width=width_in(model.config))
    return Classifier(name, folder, model.to(hardware.dtype(chosen.value)), tokenizer, chosen, facts)


def model_facts(folder: Path) -> dict[str, Any] | None:
    """Read a classifier's ``training.json``; None for a model trained elsewhere.

    Raises:
        UserError: The file is not a classifier's record; it may come from anybody's repository.
    """
    facts = training_facts(folder)
    if facts is None:
        return None
    settings = facts["settings"]
    wrong = [name for name, kinds in SETTINGS.items() if type(settings.get(name)) not in kinds]
    if not wrong and not 0 < settings["train_fraction"] <= 1:
        wrong = ["train_fraction"]
    if not wrong and settings["max_length"] < 8:
        wrong = ["max_length"]
    if wrong:
        problem = f"not a classifier's record: {wrong[0]} is {shown(settings.get(wrong[0]))}"
        raise UserError(problem, file=folder / TRAINING_FILE, fix="train the model again")
    return facts
