"""What a model's answers are worth by how many annotators agreed on the gold label, and what it says where there is none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common import bootstrap
from common.bootstrap import Measure
from common.findings import Listing, Measures, Part, interval
from snli_roberta.corpus import LABELS, NO_LABEL
from snli_roberta.human_distribution import FIVE, Judged

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
        accuracy[name] = bootstrap.share(right[chosen], seed)
        for how, probabilities in ((AS_GIVEN, judged.given), (TEMPERED, judged.tempered)):
            confidence[f"{name}, {how}"] = bootstrap.share(probabilities[chosen].max(1), seed)
            sure[how].append(f"{confidence[f'{name}, {how}']['value']:.3f}")
        who = f"{'all ' if number == FIVE else 'only ' if number < 4 else ''}{NUMBERS.get(number, number)}"
        where = (
            f"where {who} did (n = {chosen.sum():,})"
            if said
            else f"On the {chosen.sum():,} pairs on which {who} annotators gave the gold label, it is right"
        )
        said.append(f"{where} in {interval(accuracy[name])}")
    overall = bootstrap.share(right[gold], seed)
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
        f"{name}, {how}": bootstrap.share(found.max(1), seed)
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
        given = bootstrap.share(by_two[np.arange(len(by_two)), judged.answers], seed)
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
    """How often each label is the likeliest, in the order of :data:`snli_roberta.corpus.LABELS`."""
    return np.bincount(np.asarray(probabilities).argmax(1), minlength=len(LABELS)).tolist()
