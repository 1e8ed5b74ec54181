"""A trained classifier as commands use it: loaded by folder or Hub id, asked for probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from common.models.loading import hub_commit, local_folder, width_in
from common.runtime import hardware
from snli_roberta.data.corpus import Pair
from snli_roberta.model import encoder
from snli_roberta.model.facts import model_facts
from snli_roberta.training.arguments import DEFAULT_LENGTH


@dataclass(frozen=True)
class Classifier:
    """A fine-tuned model, or an adapter on its base.

    Attributes:
        name: Folder or Hub id, as it was named.
        folder: Where its files lie.
        model: The torch module, on this device.
        tokenizer: Its tokenizer.
        precision: In which it computes, and why.
        facts: What its training left (``training.json``); None for a model that others made.
    """

    name: str
    folder: Path
    model: Any
    tokenizer: Any
    precision: hardware.Choice
    facts: dict[str, Any] | None

    @property
    def kind(self) -> Literal["full", "adapter"]:
        return kind_of(self.folder)

    @property
    def max_length(self) -> int:
        """Tokens a pair at most, as it was trained."""
        return self.facts["settings"]["max_length"] if self.facts else DEFAULT_LENGTH

    @cached_property
    def own_folder(self) -> Path | None:
        """Where findings of it may be kept; None for a download, which is not ours to change."""
        return None if hub_commit(self.folder) is not None else self.folder

    def logits(self, pairs: Sequence[Pair], *, max_length: int | None = None, progress: bool = False) -> np.ndarray:
        """Shape (n, 3), in the pairs' order."""
        length = max_length or self.max_length
        return encoder.predict_logits(self.model, self.tokenizer, pairs, max_length=length, progress=progress)

    def probabilities(
        self, pairs: Sequence[Pair], *, max_length: int | None = None, progress: bool = False
    ) -> np.ndarray:
        """Shape (n, 3), in the pairs' order, columns as :data:`snli_roberta.data.corpus.LABELS`; rows sum to 1."""
        return softmax(self.logits(pairs, max_length=max_length, progress=progress))


def load(
    name: str,
    revision: str | None = None,
    *,
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32",
) -> Classifier:
    """A trained classifier from a folder or the Hub, in a precision of :func:`common.runtime.hardware.choose_precision`.

    Raises:
        UserError: See :func:`snli_roberta.model.encoder.load_trained`; or a precision that the device lacks.
    """
    folder = local_folder(name, revision)
    facts = model_facts(folder)
    model, tokenizer = encoder.load_trained(name, revision)
    chosen = hardware.choose_precision(precision, width=width_in(model.config))
    return Classifier(name, folder, model.to(hardware.dtype(chosen.value)), tokenizer, chosen, facts)


def kind_of(folder: Path) -> Literal["full", "adapter"]:
    """Whether a folder holds a whole model or an adapter."""
    return "adapter" if (folder / encoder.ADAPTER_CONFIG).is_file() else "full"


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of logits, shape (n, classes), in double precision."""
    powers = np.exp(np.asarray(logits, dtype=float) - np.max(logits, axis=1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)
