"""What several people said of pairs, as distributions over the labels, beside what a model said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from snli_roberta.corpus import LABELS, Pair

FIVE = 5  # annotators of a pair of SNLI; not all pairs have as many
SURE = 0.9  # a model is sure from this probability of its answer on
DISPUTED = 0.6  # people are not, where no larger share of them gave one label: three of five


@dataclass(frozen=True)
class Judged:
    """Pairs that several people labelled and a model answered; arrays are of shape (n, 3), columns as :data:`LABELS`.

    Attributes:
        pairs: The pairs.
        counts: How many people gave each label.
        given: The model's probabilities, as it gives them.
        tempered: The same, after temperature scaling.
    """

    pairs: list[Pair]
    counts: np.ndarray
    given: np.ndarray
    tempered: np.ndarray

    def __post_init__(self) -> None:
        shape = (len(self.pairs), len(LABELS))
        if not self.counts.shape == self.given.shape == self.tempered.shape == shape:
            raise ValueError(
                f"{self.counts.shape}, {self.given.shape}, {self.tempered.shape} for {len(self.pairs)} pairs"
            )

    @cached_property
    def people(self) -> np.ndarray:
        """The share of people who gave each label."""
        return self.counts / self.counts.sum(1, keepdims=True)

    @property
    def answers(self) -> np.ndarray:
        """The model's likeliest label of each pair, shape (n,). A temperature changes none."""
        return self.given.argmax(1)

    @property
    def same_answer(self) -> np.ndarray:
        """The share of people who gave the model's answer, shape (n,)."""
        return self.people[np.arange(len(self.pairs)), self.answers]

    @property
    def disputed(self) -> np.ndarray:
        """Whether no label was given by more than :data:`DISPUTED` of the people, shape (n,)."""
        return self.people.max(1) <= DISPUTED + 1e-9

    def sure_and_disputed(self, probabilities: np.ndarray) -> np.ndarray:
        """Whether a pair is disputed and a probability of it is at least :data:`SURE`, shape (n,)."""
        return self.disputed & (probabilities.max(1) >= SURE)


def label_counts(pairs: Sequence[Pair]) -> np.ndarray:
    """How many annotators gave each label, shape (n, 3)."""
    counted = [[pair.annotator_labels.count(label) for label in LABELS] for pair in pairs]
    return np.array(counted, dtype=int).reshape(-1, len(LABELS))


def commonest(counts: np.ndarray) -> np.ndarray:
    """All probability on the commonest label, shape (n, 3); of equals on the first."""
    return np.eye(len(LABELS))[np.asarray(counts).argmax(1)]
