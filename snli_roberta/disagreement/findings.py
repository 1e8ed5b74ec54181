"""How far to trust a classifier where people disagree, as findings: SNLI's five annotators, and ChaosNLI's hundred."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.results.finding import Curve, Finding, Listing, Measures, Part, interval, worded
from common.stats import metrics
from common.stats.calibration import reliability
from common.stats.metrics import Measure, entropy, pearson, spearman
from snli_roberta.data import chaosnli
from snli_roberta.data.corpus import LABELS, NO_LABEL, Split
from snli_roberta.disagreement.people import (
    CONFIDENT,
    DISPUTED,
    FIVE,
    AnnotatedPairs,
    ValidationTemperature,
    item_id,
    label_counts,
    order,
)

TEMPLATES = Path(__file__).parent / "templates"
ANNOTATORS, HUNDRED = "the five annotators", "the hundred people"
AS_GIVEN, TEMPERED = "as given", "after temperature scaling"
UNIFORM, ONE_LABEL = "a third for each label", "all on the people's commonest label"
LISTED = 20  # pairs in a listing; the table has all of them
# People's labels of single pairs belong to the corpus, which may not be published with a card: a finding has IDs and
# computed numbers only. The user's table has the rest.
COLUMNS = ["id", "the model says", TEMPERED, "people's entropy, bits"]

Numbers = dict[str, Any]  # for a template


def annotators_finding(
    test: Split,
    labeled: Sequence[np.ndarray],  # probabilities of its pairs, as given and tempered, each of shape (n, 3)
    unlabeled: Sequence[np.ndarray],  # probabilities of its pairs without a gold label, likewise
    temperature: ValidationTemperature,
    *,
    seed: int,
    **about: Any,  # further fields of the finding
) -> tuple[Finding, AnnotatedPairs]:
    """Measure a model's answers by the agreement of SNLI's five annotators; also return the pairs with five labels."""
    pairs = [*test.pairs, *test.without_gold]
    given, tempered = (np.concatenate(both) for both in zip(labeled, unlabeled, strict=True))

    def judged(places: Sequence[int]) -> AnnotatedPairs:
        chosen = [pairs[i] for i in places]
        return AnnotatedPairs(chosen, label_counts(chosen), given[list(places)], tempered[list(places)])

    five = judged([i for i, pair in enumerate(pairs) if len(pair.annotator_labels) == FIVE])
    known = judged([i for i in range(len(test.pairs), len(pairs)) if pairs[i].annotator_labels])
    numbers: Numbers = {"pairs": len(pairs), "five": len(five.pairs), "by_agreement": []}
    parts: list[Part] = []
    facts: dict[str, Any] = {}
    if five.pairs:
        numbers["by_agreement"], agreement = agreement_parts(five, seed)
        parts += agreement
    numbers["no_gold"], no_gold = no_gold_parts(labeled, unlabeled, known, seed)
    parts += no_gold
    if five.pairs:
        shared, distance, facts["measures"] = people_parts(five, ANNOTATORS, seed)
        numbers |= shared
        parts += distance
    counts = {"with_five_labels": len(five.pairs), "without_five_labels": len(pairs) - len(five.pairs)}
    counts["without_gold_label"] = len(test.without_gold)
    finding = Finding(
        name="disagreement",
        **worded(TEMPLATES / "disagreement.jinja", temperature=temperature.value, **numbers),
        parts=parts,
        facts=settings(temperature, seed) | counts | facts,
        **about,
    )
    return finding, five


def chaosnli_finding(
    items: Sequence[chaosnli.Item],  # without those that the model was trained on
    probabilities: np.ndarray,  # as given, shape (n, 3)
    temperature: ValidationTemperature,
    *,
    standing: dict[str, int],  # how many of the file's items are in the train, dev and test split
    seed: int,
    **about: Any,  # further fields of the finding
) -> tuple[Finding, AnnotatedPairs]:
    """Compare a model with the labels of a hundred people; also return the items as judged pairs."""
    pairs = [item.pair for item in items]
    counts, old, new = (
        np.array(column) for column in zip(*((i.counts, i.pair.label, i.majority) for i in items), strict=True)
    )
    judged = AnnotatedPairs(pairs, counts, probabilities, temperature.apply(pairs, probabilities))
    on_old, on_new = (metrics.share(judged.answers == labels, seed) for labels in (old, new))
    same = metrics.share(old == new, seed)
    five = label_counts(pairs)
    references = {
        "SNLI's own five (or four) labels": five / five.sum(1, keepdims=True),
        "five people drawn anew by these shares": drawn_anew(judged.people, seed),
    }
    numbers, parts, measures = people_parts(judged, HUNDRED, seed, references)
    invented = chaosnli.is_miniature(items)
    words = worded(
        TEMPLATES / "chaosnli.jinja",
        items=len(items),
        standing=standing,
        miniature=invented,
        on_old=on_old,
        on_new=on_new,
        same_label=same,
        temperature=temperature.value,
        published=chaosnli.PUBLISHED,
        **numbers,
    )
    names = ("old, of SNLI's annotators", "new, of the hundred", "the old one, against the new")
    accuracy = dict(zip(names, (on_old, on_new, same), strict=True))
    measures |= {"accuracy/old": on_old, "accuracy/new": on_new, "old_is_new": same}
    facts = settings(temperature, seed) | {"items": len(items), "standing_in": standing, "measures": measures}
    finding = Finding(
        name="chaosnli",
        **words,
        parts=[Measures("Accuracy by majority label", "majority label", "accuracy", accuracy), *parts],
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
    """Draw the labels of five other people from the shares of each label, as distributions of shape (n, 3)."""
    return np.random.default_rng(seed).multinomial(FIVE, people) / FIVE


def settings(temperature: ValidationTemperature, seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "temperature": temperature.value,
        "temperature_of_halves": list(temperature.halves),
        "sure": CONFIDENT,
        "disputed": DISPUTED,
        "source": "Nie, Zhou and Bansal 2020",
    }


def agreement_parts(judged: AnnotatedPairs, seed: int) -> tuple[list[Numbers], list[Part]]:
    """Measure accuracy and confidence by how many of five annotators gave the gold label; empty without gold labels."""
    labels = np.array([pair.label for pair in judged.pairs], dtype=int)
    gold = labels != NO_LABEL
    if not gold.any():
        return [], []
    agreed = np.where(gold, judged.counts[np.arange(len(labels)), labels], 0)
    right = judged.answers == labels
    accuracy: dict[str, Measure] = {}
    confidence: dict[str, Measure] = {}
    levels = []
    for number in sorted(set(agreed[gold].tolist()), reverse=True):
        chosen = gold & (agreed == number)
        name = f"{number} of {FIVE}"
        accuracy[name] = metrics.share(right[chosen], seed)
        for how, probabilities in ((AS_GIVEN, judged.given), (TEMPERED, judged.tempered)):
            confidence[f"{name}, {how}"] = metrics.share(probabilities[chosen].max(1), seed)
        given, tempered = (confidence[f"{name}, {how}"] for how in (AS_GIVEN, TEMPERED))
        levels.append({"number": number, "accuracy": accuracy[name], "given": given, "tempered": tempered})
    who, overall = "annotators who gave the gold label", metrics.share(right[gold], seed)
    return levels, [
        Measures("Accuracy by agreement", who, "accuracy", accuracy, overall["value"], "all with five labels"),
        Measures("Mean confidence by agreement", who, "confidence", confidence),
    ]


def no_gold_parts(
    labeled: Sequence[np.ndarray], unlabeled: Sequence[np.ndarray], judged: AnnotatedPairs, seed: int
) -> tuple[Numbers, list[Part]]:
    """Compare answers to pairs without a gold label (``judged``: those with any annotators' labels) with other answers."""
    numbers: Numbers = {"n": len(unlabeled[0]), "confidence_with": None, "two": None}
    if not numbers["n"]:
        return numbers, []
    rows = {
        f"{name}, {how}": metrics.share(probabilities.max(1), seed)
        for name, both in (("without a gold label", unlabeled), ("with one", labeled))
        for how, probabilities in zip((AS_GIVEN, TEMPERED), both, strict=True)
        if len(probabilities)
    }
    without, with_gold = (
        np.bincount(np.asarray(both[0]).argmax(1), minlength=len(LABELS)).tolist() for both in (unlabeled, labeled)
    )
    numbers |= {
        "answers": dict(zip(LABELS, without, strict=True)),
        "confidence": rows[f"without a gold label, {AS_GIVEN}"],
        "confidence_with": rows.get(f"with one, {AS_GIVEN}"),
    }
    parts: list[Part] = [
        Listing(
            "Answers to pairs without and with a gold label",
            ["answer", "without", "share of them", "with", "share of those"],
            [
                [label, a, a / max(1, sum(without)), b, b / max(1, sum(with_gold))]
                for label, a, b in zip(LABELS, without, with_gold, strict=True)
            ],
        ),
        Measures("Mean confidence without and with a gold label", "pairs", "confidence", rows),
    ]
    if judged.pairs:
        by_two = judged.counts >= 2
        given = metrics.share(by_two[np.arange(len(by_two)), judged.answers], seed)
        by_chance = float(by_two.mean())
        numbers["two"] = {"given": given, "by_chance": by_chance}
        title = "Answers that at least two annotators gave, without a gold label"
        parts.append(Measures(title, "answer", "share", {"the model's": given}, by_chance, "at random"))
    return numbers, parts


def people_parts(
    judged: AnnotatedPairs, people: str, seed: int, references: Mapping[str, np.ndarray] | None = None
) -> tuple[Numbers, list[Part], dict[str, Measure]]:
    """Measure distances to people's labels, agreement with them, correlation of entropies, and disputed pairs.

    ``references`` are further distributions to compare with. The measures have short names such as ``jsd/as given``.
    """
    distance, parts, measures = distance_parts(judged, people, seed, references)
    same, same_parts = same_answer_parts(judged, people, seed)
    related = correlations(judged, seed)
    disputed, disputed_listings = disputed_parts(judged, seed)
    parts += same_parts
    if related:
        parts.append(Measures("Correlation of the model's entropy and people's", "coefficient", "correlation", related))
    numbers = {
        "people": people,
        "distance": distance,
        "same": same,
        "spearman": {how: related.get(f"Spearman, {how}") for how in (AS_GIVEN, TEMPERED)},
        "disputed": disputed,
    }
    return numbers, [*parts, *disputed_listings], measures


def distance_parts(
    judged: AnnotatedPairs, people: str, seed: int, references: Mapping[str, np.ndarray] | None
) -> tuple[Numbers, list[Part], dict[str, Measure]]:
    models = {f"the model, {AS_GIVEN}": judged.given, f"the model, {TEMPERED}": judged.tempered}
    uniform = {UNIFORM: np.full_like(judged.given, 1 / judged.given.shape[1])}
    others = {**uniform, ONE_LABEL: np.eye(len(LABELS))[judged.counts.argmax(1)], **(references or {})}
    away = {name: metrics.jensen_shannon(judged.people, array) for name, array in {**models, **others}.items()}
    jsd = {name: metrics.mean(values, seed) for name, values in away.items()}
    # Without the others: a distribution without any weight on a label that somebody gave is infinitely far away.
    kl = {
        name: metrics.mean(metrics.kl_divergence(judged.people, array), seed)
        for name, array in {**models, **uniform}.items()
    }
    given, tempered = models
    gain = metrics.mean(away[given] - away[tempered], seed)
    title = f"what {people} said"
    rows: list[list[Any]] = []
    for name, array in {**models, **others, "the people's own": judged.people}.items():
        divergence = interval(kl[name]) if name in kl else None
        rows.append([name, len(judged.pairs), divergence, round(float(entropy(array).mean()), 4)])
    columns = ["distribution", "n", "KL divergence, nats [95 %]", "mean entropy, bits"]
    parts: list[Part] = [
        Measures(f"Jensen-Shannon distance to {title} (less is better)", "distribution", "distance", jsd),
        Listing(f"KL divergence from {title}, and entropy", columns, rows),
    ]
    numbers = {
        "given": jsd[given],
        "tempered": jsd[tempered],
        "furthest": metrics.FURTHEST,
        "gain": gain,
        "others": {name: jsd[name] for name in others},
        "kl": {"given": kl[given], "tempered": kl[tempered], "uniform": kl[UNIFORM]},
    }
    measures = {f"jsd/{how}": jsd[f"the model, {how}"] for how in (AS_GIVEN, TEMPERED)}
    measures |= {f"kl/{how}": kl[f"the model, {how}"] for how in (AS_GIVEN, TEMPERED)}
    return numbers, parts, measures | {"jsd/change": gain}


def same_answer_parts(judged: AnnotatedPairs, people: str, seed: int) -> tuple[Numbers, list[Part]]:
    """Measure how many people gave the model's answer, by its confidence."""
    confidence = {AS_GIVEN: judged.given.max(1), TEMPERED: judged.tempered.max(1)}
    bins = {how: reliability(values, judged.same_answer) for how, values in confidence.items()}
    numbers = {
        "share": metrics.share(judged.same_answer, seed),
        "confidence": float(confidence[AS_GIVEN].mean()),
        "gaps": [metrics.mean(values - judged.same_answer, seed) for values in confidence.values()],
    }
    title = f"Share of {people} who gave the model's answer"
    return numbers, [
        Curve(
            f"{title}, by its confidence",
            "confidence",
            "share of people who gave the same answer",
            {how: [[x, y] for x, y, _ in points] for how, points in bins.items()},
            diagonal=True,
        ),
        Listing(
            f"{title}, in bins of its confidence",
            ["probabilities", "mean confidence", "share of people", "n"],
            [[how, round(x, 4), round(y, 4), n] for how, points in bins.items() for x, y, n in points],
        ),
    ]


def correlations(judged: AnnotatedPairs, seed: int) -> dict[str, Measure]:
    """Correlate the model's entropy with people's; without coefficients that are undefined because all are equal."""
    theirs = entropy(judged.people)
    measures = {
        f"{name}, {how}": coefficient(entropy(own), theirs, seed)
        for name, coefficient in (("Spearman", spearman), ("Pearson", pearson))
        for how, own in ((AS_GIVEN, judged.given), (TEMPERED, judged.tempered))
    }
    return {name: measure for name, measure in measures.items() if measure is not None}


def disputed_parts(judged: AnnotatedPairs, seed: int) -> tuple[Numbers, list[Part]]:
    """List the most disputed pairs, and measure how often the model is confident about disputed ones."""
    listing = "entailment / neutral / contradiction"
    ranked = order(judged)
    flags = {
        AS_GIVEN: judged.confident_and_disputed(judged.given),
        TEMPERED: judged.confident_and_disputed(judged.tempered),
    }
    rows = [_listed(judged, i) for i in ranked[:LISTED]]
    parts: list[Part] = [Listing(f"The most disputed pairs, and what the model says: {listing}", COLUMNS, rows)]
    numbers: Numbers = {"n": int(judged.disputed.sum()), "of": len(judged.pairs), "at_most": DISPUTED}
    if not numbers["n"]:
        return numbers, parts
    shares = {how: metrics.share(flag[judged.disputed], seed) for how, flag in flags.items()}
    numbers |= {"confident": CONFIDENT, "given": shares[AS_GIVEN], "tempered": shares[TEMPERED]}
    parts.append(Measures("Disputed pairs on which the model is sure", "probabilities", "share", shares))
    ranked = [i for i in ranked if flags[AS_GIVEN][i]]
    ranked.sort(key=lambda i: -round(float(judged.given[i].max()), 6))  # stable: of equals, the more disputed first
    if ranked:
        rows = [_listed(judged, i) for i in ranked[:LISTED]]
        parts.append(Listing(f"Where the model is surest and people are not: {listing}", COLUMNS, rows))
    return numbers, parts


def _listed(judged: AnnotatedPairs, place: int) -> list[Any]:
    model, tempered = (" / ".join(f"{p:.3f}" for p in array[place]) for array in (judged.given, judged.tempered))
    return [item_id(judged.pairs[place]), model, tempered, round(float(entropy(judged.people)[place]), 3)]
