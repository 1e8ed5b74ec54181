"""Labels of several people next to a model's probabilities; arrays have shape (n, 3), with columns as ``LABELS``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from common.cli.errors import UserError
from common.stats.calibration import fit_temperature, tempered
from common.stats.metrics import entropy, jensen_shannon
from snli_roberta.data.chaosnli import pair_key
from snli_roberta.data.corpus import LABELS, NO_GOLD, NO_LABEL, Pair, pair_id

FIVE = 5  # annotators of a pair of SNLI; some pairs have fewer
CONFIDENT = 0.9  # probability of its answer at which a model counts as confident
DISPUTED = 0.6  # a pair is disputed if no label got a larger share: at most three of five
COLUMNS = [
    *("source", "id", "premise", "hypothesis", "gold", "people", "answer"),
    *(f"{who}_{label}" for who in ("human", "model", "tempered") for label in LABELS),
    *(f"{who}_entropy" for who in ("human", "model", "tempered")),
    *("jensen_shannon", "sure_and_disputed"),
]  # of the table of all pairs


@dataclass(frozen=True)
class AnnotatedPairs:
    """Pairs that several people labeled and a model answered."""

    pairs: list[Pair]
    counts: np.ndarray  # how many people gave each label
    given: np.ndarray  # the model's probabilities
    tempered: np.ndarray  # the same, after temperature scaling

    def __post_init__(self) -> None:
        shape = (len(self.pairs), len(LABELS))
        shapes = [array.shape for array in (self.counts, self.given, self.tempered)]
        if shapes != [shape] * 3:
            raise ValueError(f"shapes {shapes} for {len(self.pairs)} pairs")

    @cached_property
    def people(self) -> np.ndarray:
        """The share of people who gave each label."""
        return self.counts / self.counts.sum(1, keepdims=True)

    @property
    def answers(self) -> np.ndarray:
        """The model's most likely label of each pair, shape (n,); a temperature does not change it."""
        return self.given.argmax(1)

    @property
    def same_answer(self) -> np.ndarray:
        """The share of people who gave the model's answer, shape (n,)."""
        return self.people[np.arange(len(self.pairs)), self.answers]

    @property
    def disputed(self) -> np.ndarray:
        """Whether no label was given by more than :data:`DISPUTED` of the people, shape (n,)."""
        return self.people.max(1) <= DISPUTED + 1e-9

    def confident_and_disputed(self, probabilities: np.ndarray) -> np.ndarray:
        return self.disputed & (probabilities.max(1) >= CONFIDENT)


def label_counts(pairs: Sequence[Pair]) -> np.ndarray:
    """Count how many annotators gave each label."""
    counted = [[pair.annotator_labels.count(label) for label in LABELS] for pair in pairs]
    return np.array(counted, dtype=int).reshape(-1, len(LABELS))


class ValidationTemperature:
    """Temperatures of a model's logits (Guo et al. 2017), fitted on gold labels of validation pairs.

    ChaosNLI's pairs are validation pairs, and the most disputed ones. Fitting without them would make a model look more
    confident than it may be; fitting with them would measure on the fitted pairs. So validation is split in two by
    premise, and a pair of one half gets the temperature of the other.
    """

    def __init__(self, pairs: Sequence[Pair], probabilities: np.ndarray):
        order: dict[str, int] = {}
        half = np.array([order.setdefault(pair.premise, len(order)) % 2 for pair in pairs], dtype=int)
        if len(order) < 2:
            raise UserError("fewer than two premises in the validation split", expected="pairs to fit a temperature on")
        labels = np.array([pair.label for pair in pairs])
        self.value = fit_temperature(probabilities, labels)  # for pairs outside of validation
        self.halves = tuple(fit_temperature(probabilities[half == n], labels[half == n]) for n in (0, 1))
        self._half_of = {pair_key(pair): int(n) for pair, n in zip(pairs, half, strict=True)}

    def of(self, pairs: Sequence[Pair]) -> np.ndarray:
        """Return the temperature for each pair, shape (n,)."""
        halves = [self._half_of.get(pair_key(pair)) for pair in pairs]
        return np.array([self.value if half is None else self.halves[1 - half] for half in halves], dtype=float)

    def apply(self, pairs: Sequence[Pair], probabilities: np.ndarray) -> np.ndarray:
        """Return the probabilities after each pair's temperature."""
        scaled = np.array(probabilities, dtype=float)
        own = self.of(pairs)
        for temperature in np.unique(own):
            scaled[own == temperature] = tempered(scaled[own == temperature], float(temperature))
        return scaled


def order(judged: AnnotatedPairs) -> list[int]:
    """Order pairs from most to least disputed; of equally disputed pairs, the model's most confident comes first."""
    disputed, confidence = np.round(entropy(judged.people), 6), np.round(judged.given.max(1), 6)
    ids = [item_id(pair) for pair in judged.pairs]
    return sorted(range(len(ids)), key=lambda i: (-disputed[i], -confidence[i], ids[i]))


def table(judged: AnnotatedPairs, source: str) -> list[dict[str, Any]]:
    """Return a row per pair with its sentences, in the order of :func:`order`."""
    flags = judged.confident_and_disputed(judged.given)
    distances = jensen_shannon(judged.people, judged.given)
    distributions = {"human": judged.people, "model": judged.given, "tempered": judged.tempered}
    entropies = {name: entropy(array) for name, array in distributions.items()}
    rows = []
    for i in order(judged):
        pair = judged.pairs[i]
        row: dict[str, Any] = {
            "source": source,
            "id": item_id(pair),
            "premise": pair.premise,
            "hypothesis": pair.hypothesis,
            "gold": NO_GOLD if pair.label == NO_LABEL else LABELS[pair.label],
            "people": int(judged.counts[i].sum()),
            "answer": LABELS[judged.answers[i]],
        }
        for name, array in distributions.items():
            row |= {f"{name}_{label}": round(float(p), 6) for label, p in zip(LABELS, array[i], strict=True)}
        row |= {f"{name}_entropy": round(float(values[i]), 6) for name, values in entropies.items()}
        row |= {"jensen_shannon": round(float(distances[i]), 6), "sure_and_disputed": bool(flags[i])}
        rows.append(row)
    return rows


def item_id(pair: Pair) -> str:
    """Return the corpus's own ID of a pair; without one, an ID made from its sentences."""
    return pair.id or pair_id(pair)
