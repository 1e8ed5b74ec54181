"""What a model's answers are worth by how many annotators agreed on the gold label, and what it says where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from common.results.finding import Listing, Measures, Part, interval
from common.stats import metrics
from common.stats.metrics import Measure
from snli_roberta.data.corpus import LABELS, NO_LABEL, Pair

AS_GIVEN, TEMPERED = "as given", "after temperature scaling"
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}


def agreement_parts(judged: Judged, seed: int) -> tuple[list[str], list[Part]]:
    """Accuracy and mean confidence by how many of five annotators gave the gold label.

    Args:
        judged: Pairs with five labels each; those without a gold label are passed over.
        seed: Seed of the bootstrap.

    Returns:
        Sentences and tables; none where no pair has a gold label.
    """
    labels = np.array([pair.label for pair in judged.pairs], dtype=int)
    gold = labels != NO_LABEL
    if not gold.any():
        return [], []
    agreed = np.where(gold, judged.counts[np.arange(len(labels)), labels], 0)
    right = judged.answers == labels
    accuracy: dict[str, Measure] = {}
    confidence: dict[str, Measure] = {}
    said: list[str] = []
    sure: dict[str, list[str]] = {AS_GIVEN: [], TEMPERED: []}
    for number in sorted(set(agreed[gold].tolist()), reverse=True):
        chosen = gold & (agreed == number)
        name = f"{number} of {FIVE}"
        accuracy[name] = metrics.share(right[chosen], seed)
        for how, probabilities in ((AS_GIVEN, judged.given), (TEMPERED, judged.tempered)):
            confidence[f"{name}, {how}"] = metrics.share(probabilities[chosen].max(1), seed)
            sure[how].append(f"{confidence[f'{name}, {how}']['value']:.3f}")
        who = f"{'all ' if number == FIVE else 'only ' if number < 4 else ''}{NUMBERS.get(number, number)}"
        where = (
            f"where {who} did (n = {chosen.sum():,})"
            if said
            else f"On the {chosen.sum():,} pairs on which {who} annotators gave the gold label, it is right"
        )
        said.append(f"{where} in {interval(accuracy[name])}")
    overall = metrics.share(right[gold], seed)
    summary = [
        f"{'; '.join(said)}.",
        f"Its mean confidence on these is {', '.join(sure[AS_GIVEN])}; {TEMPERED} {', '.join(sure[TEMPERED])}.",
    ]
    parts: list[Part] = [
        Measures(
            "Accuracy by agreement",
            "annotators who gave the gold label",
            "accuracy",
            accuracy,
            overall["value"],
            "all with five labels",
        ),
        Measures("Mean confidence by agreement", "annotators who gave the gold label", "confidence", confidence),
    ]
    return summary, parts


def no_gold_parts(
    labelled: Sequence[np.ndarray], unlabelled: Sequence[np.ndarray], judged: Judged, seed: int
) -> tuple[list[str], list[Part]]:
    """What a model says of pairs without a gold label, beside those that have one.

    Args:
        labelled: Its probabilities of the test pairs with a gold label, as given and tempered, each of shape (n, 3).
        unlabelled: Of those without, likewise.
        judged: Those without one whose annotators' labels are known, however few.
        seed: Seed of the bootstrap.

    Returns:
        Sentences and tables; a sentence alone where there is no such pair.
    """
    if not len(unlabelled[0]):
        return ["No test pair is without a gold label."], []
    rows = {
        f"{name}, {how}": metrics.share(found.max(1), seed)
        for name, both in (("without a gold label", unlabelled), ("with one", labelled))
        for how, found in zip((AS_GIVEN, TEMPERED), both, strict=True)
        if len(found)
    }
    counts = [answer_counts(found) for found in (unlabelled[0], labelled[0])]
    shown = ", ".join(f"{label} {count:,}" for label, count in zip(LABELS, counts[0], strict=True))
    sure = rows[f"without a gold label, {AS_GIVEN}"]
    summary = [
        f"{len(unlabelled[0]):,} test pairs have no gold label. Of them it says {shown}, with a mean confidence of "
        f"{interval(sure)}"
        + (f"; on those that have one it is {interval(rows[f'with one, {AS_GIVEN}'])}." if len(labelled[0]) else ".")
    ]
    parts: list[Part] = [
        Listing(
            "Answers to pairs without and with a gold label",
            ["answer", "without", "share of them", "with", "share of those"],
            [
                [label, none, none / max(1, sum(counts[0])), one, one / max(1, sum(counts[1]))]
                for label, none, one in zip(LABELS, *counts, strict=True)
            ],
        ),
        Measures("Mean confidence without and with a gold label", "pairs", "confidence", rows),
    ]
    if judged.pairs:
        by_two = judged.counts >= 2
        given = metrics.share(by_two[np.arange(len(by_two)), judged.answers], seed)
        by_chance = by_two.mean()
        summary.append(
            f"Its answer is a label that at least two of the annotators gave in {interval(given)} of them "
            f"(n = {given['n']:,}); a label drawn at random would be in {by_chance:.3f}."
        )
        parts.append(
            Measures(
                "Answers that at least two annotators gave, without a gold label",
                "answer",
                "share",
                {"the model's": given},
                float(by_chance),
                "at random",
            )
        )
    return summary, parts


def answer_counts(probabilities: np.ndarray | Sequence[Sequence[float]]) -> list[int]:
    """How often each label is the likeliest, in the order of :data:`snli_roberta.data.corpus.LABELS`."""
    return np.bincount(np.asarray(probabilities).argmax(1), minlength=len(LABELS)).tolist()


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
