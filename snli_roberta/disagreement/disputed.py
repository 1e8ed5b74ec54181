"""The pairs on which people differ most, and those on which the model is sure and people are not."""

from __future__ import annotations

from typing import Any

import numpy as np

from common.results.finding import Listing, Measures, Part, interval
from common.stats import metrics
from common.stats.metrics import entropy, jensen_shannon
from snli_roberta.data.corpus import LABELS, NO_GOLD, NO_LABEL, Pair, pair_id
from snli_roberta.disagreement.gold_labels import AS_GIVEN, DISPUTED, SURE, TEMPERED, Judged

LISTED = 20  # pairs of a finding; the table has all
# What people said of a pair is the corpus's, which may not be published with a card: a finding has ids and what was computed, the
# table that the user gets beside it has the rest.
COLUMNS = ["id", "the model says", TEMPERED, "people's entropy, bits"]
TABLE = [
    "source",
    "id",
    "premise",
    "hypothesis",
    "gold",
    "people",
    "answer",
    *(f"{who}_{label}" for who in ("human", "model", "tempered") for label in LABELS),
    *(f"{who}_entropy" for who in ("human", "model", "tempered")),
    "jensen_shannon",
    "sure_and_disputed",
]  # of the table of all pairs, which has a header even where there is none


def item_id(pair: Pair) -> str:
    """The corpus's own id of a pair; where it has none, one made of its sentences."""
    return pair.id or pair_id(pair)


def order(judged: Judged) -> list[int]:
    """Places of the pairs: the most disputed first, of equally disputed ones the one that the model is surest of."""
    disputed, sure = np.round(entropy(judged.people), 6), np.round(judged.given.max(1), 6)
    ids = [item_id(pair) for pair in judged.pairs]
    return sorted(range(len(ids)), key=lambda i: (-disputed[i], -sure[i], ids[i]))


def disputed_parts(judged: Judged, people: str, seed: int) -> tuple[list[str], list[Part]]:
    """Lists of ids and computed numbers, without the corpus's own; and how often the model is sure where people are not."""
    ranked = order(judged)
    flags = {AS_GIVEN: judged.sure_and_disputed(judged.given), TEMPERED: judged.sure_and_disputed(judged.tempered)}
    parts: list[Part] = [
        Listing(
            "The most disputed pairs, and what the model says: entailment / neutral / contradiction",
            COLUMNS,
            [_listed(judged, i) for i in ranked[:LISTED]],
        )
    ]
    number = int(judged.disputed.sum())
    if not number:
        return [f"No pair is disputed: on each, more than {DISPUTED:.0%} of {people} gave one label."], parts
    shares = {how: metrics.share(flag[judged.disputed], seed) for how, flag in flags.items()}
    summary = [
        f"{number:,} of {len(judged.pairs):,} pairs are disputed (no label was given by more than {DISPUTED:.0%} of {people}). "
        f"Of these it is sure, with a probability of {SURE} or more, in {interval(shares[AS_GIVEN])}; {TEMPERED} in "
        f"{interval(shares[TEMPERED])}."
    ]
    parts.append(Measures("Disputed pairs on which the model is sure", "probabilities", "share", shares))
    ranked = [i for i in ranked if flags[AS_GIVEN][i]]
    ranked.sort(key=lambda i: -round(float(judged.given[i].max()), 6))  # stable: of equals, the more disputed first
    if ranked:
        parts.append(
            Listing(
                "Where the model is surest and people are not: entailment / neutral / contradiction",
                COLUMNS,
                [_listed(judged, i) for i in ranked[:LISTED]],
            )
        )
    return summary, parts


def rows(judged: Judged, source: str) -> list[dict[str, Any]]:
    """A row a pair, with its sentences, in the order of :func:`order`."""
    flags = judged.sure_and_disputed(judged.given)
    distances = jensen_shannon(judged.people, judged.given)
    entropies = {
        name: entropy(found)
        for name, found in (("human", judged.people), ("model", judged.given), ("tempered", judged.tempered))
    }
    found = []
    for i in order(judged):
        pair = judged.pairs[i]
        row: dict[str, Any] = {
            "source": source,
            "id": item_id(pair),
            "premise": pair.premise,
            "hypothesis": pair.hypothesis,
            "gold": gold_name(pair),
            "people": int(judged.counts[i].sum()),
            "answer": LABELS[judged.answers[i]],
        }
        for name, array in (("human", judged.people), ("model", judged.given), ("tempered", judged.tempered)):
            row |= {f"{name}_{label}": round(float(p), 6) for label, p in zip(LABELS, array[i], strict=True)}
        row |= {f"{name}_entropy": round(float(values[i]), 6) for name, values in entropies.items()}
        row |= {"jensen_shannon": round(float(distances[i]), 6), "sure_and_disputed": bool(flags[i])}
        found.append(row)
    return found


def gold_name(pair: Pair) -> str:
    return NO_GOLD if pair.label == NO_LABEL else LABELS[pair.label]


def _listed(judged: Judged, place: int) -> list[Any]:
    pair = judged.pairs[place]
    model, tempered = (" / ".join(f"{p:.3f}" for p in found[place]) for found in (judged.given, judged.tempered))
    return [item_id(pair), model, tempered, round(float(entropy(judged.people)[place]), 3)]
