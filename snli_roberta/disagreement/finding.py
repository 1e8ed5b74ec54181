"""How far to trust a classifier where people disagree, as findings: SNLI's five annotators, and ChaosNLI's hundred."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from common.results.finding import Finding, Measures, Part, interval
from common.stats import metrics
from common.tables.report import fingerprint
from snli_roberta.data.corpus import Split
from snli_roberta.disagreement import chaosnli
from snli_roberta.disagreement.chaosnli import Item
from snli_roberta.disagreement.disputed import disputed_parts
from snli_roberta.disagreement.distance import distance_parts
from snli_roberta.disagreement.gold_labels import (
    DISPUTED,
    FIVE,
    SURE,
    Judged,
    agreement_parts,
    label_counts,
    no_gold_parts,
)
from snli_roberta.disagreement.validation_temperature import ValidationTemperature

ANNOTATORS, HUNDRED = "the five annotators", "the hundred people"
LIMITS = (
    "Which of several answers is right where people differ, or why they differ: opinions, slips and careless work all count "
    "alike. Five labels are a coarse sample: a model that knew what share of all people would give each label would not come to a "
    "distance of 0 either. The gold label is one of the five labels' own majority, so pairs with little agreement also have "
    "gold labels that are wrong more often. Pairs with five labels may be of another kind than those with fewer. "
    "Hypotheses of one premise are counted as independent: true intervals are a little wider."
)
CHAOS_LIMITS = (
    "How the model does on pairs at large: ChaosNLI asked again about pairs on which only three of SNLI's five annotators had "
    "agreed, so scores here are lower, and disagreement higher, than on all of SNLI. Those five labels chose the pairs, so "
    "the five look worse here than five others would: see the row of five drawn anew. The hundred people were others than the "
    "five, and chosen and checked otherwise; their labels are a sample too. The pairs are of SNLI's official dev split: where "
    "that is the validation split, the checkpoint was chosen on them, though the temperature of each half of it was fitted on the "
    "other half. Hypotheses of one premise are counted as independent: true intervals are a little wider."
)


def annotators_finding(
    test: Split,
    labelled: Sequence[np.ndarray],
    unlabelled: Sequence[np.ndarray],
    temperature: ValidationTemperature,
    *,
    seed: int,
    **about: Any,
) -> tuple[Finding, Judged]:
    """What a model's answers are worth by the agreement of SNLI's five annotators.

    Args:
        test: The test split.
        labelled: The model's probabilities of its pairs, as given and tempered, each of shape (n, 3).
        unlabelled: Of those without a gold label, likewise.
        temperature: What they were tempered with.
        seed: Seed of the bootstrap.
        about: ``task``, ``model``, ``data``, ``miniature``, ``command`` of the finding.

    Returns:
        The finding, and the pairs with five labels that it is of.
    """
    pairs = [*test.pairs, *test.without_gold]
    given, tempered = (np.concatenate(both) for both in zip(labelled, unlabelled, strict=True))

    def judged(places: Sequence[int]) -> Judged:
        chosen = [pairs[i] for i in places]
        return Judged(chosen, label_counts(chosen), given[list(places)], tempered[list(places)])

    five = judged([i for i, pair in enumerate(pairs) if len(pair.annotator_labels) == FIVE])
    known = judged([i for i in range(len(test.pairs), len(pairs)) if pairs[i].annotator_labels])
    left_out = len(pairs) - len(five.pairs)
    summary: list[str] = []
    parts: list[Part] = []
    facts: dict[str, Any] = {}
    if five.pairs:
        summary.append(
            f"{len(five.pairs):,} of the {len(pairs):,} test pairs have {FIVE} annotators' labels; the other {left_out:,} are left "
            "out where these are needed."
            if left_out
            else f"All {len(pairs):,} test pairs have {FIVE} annotators' labels."
        )
    else:
        summary.append(
            f"None of the {len(pairs):,} test pairs has {FIVE} annotators' labels, as the official files have: without them "
            "nothing can be said of their agreement."
        )
    sections = []
    if five.pairs:
        sections.append(agreement_parts(five, seed))
    sections.append(no_gold_parts(labelled, unlabelled, known, seed))
    if five.pairs:
        *section, measures = distance_parts(five, ANNOTATORS, seed)
        sections += [tuple(section), disputed_parts(five, ANNOTATORS, seed)]
        facts["measures"] = measures
    for sentences, found in sections:
        summary += sentences
        parts += found
    finding = Finding(
        name="disagreement",
        title="How far can it be trusted where people disagree?",
        summary=[*summary, temperature_sentence(temperature)],
        parts=parts,
        limits=LIMITS,
        facts={
            **settings(temperature, seed),
            "with_five_labels": len(five.pairs),
            "without_five_labels": left_out,
            "without_gold_label": len(test.without_gold),
            **facts,
        },
        **about,
    )
    return finding, five


def chaosnli_finding(
    items: Sequence[Item],
    probabilities: np.ndarray,
    temperature: ValidationTemperature,
    *,
    standing: dict[str, int],
    seed: int,
    **about: Any,
) -> tuple[Finding, Judged]:
    """A model's answers and probabilities against what a hundred people said.

    Args:
        items: ChaosNLI's items, without those that the model was trained on.
        probabilities: The model's probabilities of them, as given, shape (n, 3).
        temperature: What they are tempered with.
        standing: How many of the file's items stand in the ``train``, ``dev`` and ``test`` split.
        seed: Seed of the bootstrap.
        about: ``task``, ``model``, ``miniature``, ``command`` of the finding.

    Returns:
        The finding, and the pairs that it is of.
    """
    pairs = [item.pair for item in items]
    counts = np.array([item.counts for item in items])
    judged = Judged(pairs, counts, probabilities, temperature.apply(pairs, probabilities))
    invented = chaosnli.is_miniature(items)
    five = label_counts(pairs)
    old, new = np.array([pair.label for pair in pairs]), np.array([item.majority for item in items])
    on_old, on_new = (metrics.share(judged.answers == labels, seed) for labels in (old, new))
    same = metrics.share(old == new, seed)
    summary = [
        origin_sentence(len(items), standing, invented),
        f"It gives the old majority label, of SNLI's annotators, in {interval(on_old)}, and the new one, of the hundred, in "
        f"{interval(on_new)}; the two labels are the same in {interval(same)}. A temperature changes no answer.",
    ]
    references = {
        "SNLI's own five (or four) labels": five / five.sum(1, keepdims=True),
        "five people drawn anew by these shares": drawn_anew(judged.people, seed),
    }
    sentences, parts, measures = distance_parts(judged, HUNDRED, seed, references)
    summary += sentences
    summary.append(temperature_sentence(temperature))
    if not invented:
        summary.append(published_sentence(len(items)))
    listed, tables = disputed_parts(judged, HUNDRED, seed)
    accuracy = {
        "old, of SNLI's annotators": on_old,
        "new, of the hundred": on_new,
        "the old one, against the new": same,
    }
    facts: dict[str, Any] = {
        **settings(temperature, seed),
        "items": len(items),
        "standing_in": standing,
        "measures": {**measures, "accuracy/old": on_old, "accuracy/new": on_new, "old_is_new": same},
    }
    finding = Finding(
        name="chaosnli",
        title="Against a hundred people: ChaosNLI",
        summary=[*summary, *listed],
        parts=[Measures("Accuracy by majority label", "majority label", "accuracy", accuracy), *parts, *tables],
        limits=CHAOS_LIMITS,
        data={
            "name": "the ChaosNLI miniature" if invented else "ChaosNLI-SNLI",
            "split": "all" if not standing["train"] else "all but what stands in the training split",
            "fingerprint": chaosnli.item_fingerprint(items),
        },
        facts=facts if invented else facts | {"published": chaosnli.PUBLISHED},
        **{**about, "miniature": about["miniature"] or invented},
    )
    return finding, judged


def drawn_anew(people: np.ndarray, seed: int) -> np.ndarray:
    """What five other people would say, drawn by the shares of those who gave each label: distributions of shape (n, 3)."""
    return np.random.default_rng(seed).multinomial(FIVE, people) / FIVE


def data_of(test: Split, invented: bool) -> dict[str, str]:
    """What a finding says of the test pairs with their annotators' labels, those without a gold label included."""
    pairs = [*test.pairs, *test.without_gold]
    return {
        "name": "the SNLI miniature" if invented else "SNLI 1.0",
        "split": "test, also without a gold label",
        "fingerprint": fingerprint(
            [pair.premise, pair.hypothesis, pair.label, pair.annotator_labels] for pair in pairs
        ),
    }


def settings(temperature: ValidationTemperature, seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "temperature": temperature.value,
        "temperature_of_halves": list(temperature.halves),
        "sure": SURE,
        "disputed": DISPUTED,
        "source": "Nie, Zhou and Bansal 2020",
    }


def temperature_sentence(temperature: ValidationTemperature) -> str:
    return (
        f"Temperature scaling with {temperature.value:.3f}, fitted on the validation pairs' gold labels (above 1 it lowers "
        "the model's confidence, below 1 it raises it)."
    )


def origin_sentence(items: int, standing: dict[str, int], invented: bool) -> str:
    """How many items there are, and where they stand in SNLI."""
    if invented:
        text = f"{items:,} items of the miniature's own"
    elif items < chaosnli.ITEMS:
        text = f"{items:,} of ChaosNLI's {chaosnli.ITEMS:,} items of SNLI"
    else:
        text = f"ChaosNLI's {items:,} items of SNLI"
    places = [
        f"{standing[split]:,} stand in this corpus's {name} split"
        for split, name in (("dev", "validation"), ("test", "test"))
        if standing[split]
    ]
    text += f", each labelled by a hundred people. {', '.join(places) or 'None stands in this corpus'}"
    left_out = f"; {standing['train']:,} more stand in the training split and are left out" if standing["train"] else ""
    return f"{text}{left_out}."


def published_sentence(items: int) -> str:
    known = chaosnli.PUBLISHED
    return (
        f"Published for {known['model']}, as its authors trained it, on all {known['items']:,} items ({known['source']}): distance "
        f"{known['jsd']:.4f}, KL {known['kl']:.4f}, accuracy {known['old_accuracy']:.4f} on the old label and "
        f"{known['new_accuracy']:.4f} on the new"
        + (f"; the {items:,} here are a part of them." if items < known["items"] else ".")
    )
