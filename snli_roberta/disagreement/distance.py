"""What several people said of pairs, as distributions over the labels, beside what a model said."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from common.results.finding import Curve, Listing, Measures, Part, interval
from common.stats import metrics
from common.stats.calibration import reliability
from common.stats.metrics import Measure, pearson, spearman
from snli_roberta.disagreement.gold_labels import AS_GIVEN, TEMPERED, Judged, commonest

UNIFORM, ONE_LABEL = "a third for each label", "all on the people's commonest label"


def distance_parts(
    judged: Judged, people: str, seed: int, references: Mapping[str, np.ndarray] | None = None
) -> tuple[list[str], list[Part], dict[str, Measure]]:
    """Distances to what people said, agreement with it by confidence, and whether the model is undecided where they are.

    Args:
        judged: The pairs.
        people: Who labelled them, as "the five annotators".
        seed: Seed of the bootstrap.
        references: Further distributions of the same pairs to measure as the model's, shape (n, 3), by name.

    Returns:
        Sentences, tables and pictures, and the measures by short names, as ``jsd/as given``.
    """
    models = {f"the model, {AS_GIVEN}": judged.given, f"the model, {TEMPERED}": judged.tempered}
    uniform = {UNIFORM: np.full_like(judged.given, 1 / judged.given.shape[1])}
    others = {**uniform, ONE_LABEL: commonest(judged.counts), **(references or {})}
    away = {name: metrics.jensen_shannon(judged.people, found) for name, found in {**models, **others}.items()}
    jsd = {name: metrics.mean(values, seed) for name, values in away.items()}
    # A distribution that gives a label nothing is infinitely far where one person gave it: these have no such mean.
    kl = {
        name: metrics.mean(metrics.kl_divergence(judged.people, found), seed)
        for name, found in {**models, **uniform}.items()
    }
    first, second = models
    gain = metrics.mean(away[first] - away[second], seed)
    nearer = "nearer by" if gain["value"] >= 0 else "farther away, by"
    chance = ", which may be chance" if gain["ci95"][0] <= 0 <= gain["ci95"][1] else ""
    summary = [
        f"Its probabilities lie {interval(jsd[first])} from what {people} said (mean Jensen-Shannon distance, 0 to "
        f"{metrics.FURTHEST:.3f}), and {interval(jsd[second])} {TEMPERED}, which brings them {nearer} "
        f"{abs(gain['value']):.4f} (95 % interval of the gain [{gain['ci95'][0]:.4f}, {gain['ci95'][1]:.4f}]{chance}). "
        "For comparison: " + ", ".join(f"{name} {jsd[name]['value']:.3f}" for name in others) + ".",
        f"KL divergence of its probabilities from theirs: {interval(kl[first])} nats, {interval(kl[second])} {TEMPERED}; "
        f"{UNIFORM} {kl[UNIFORM]['value']:.3f}.",
    ]
    together, words = _same_answer(judged, people, seed)
    summary += words
    related = _correlations(judged, seed)
    if related:
        summary.append(
            "Is it undecided where people are? Rank correlation (Spearman) of its entropy and theirs "
            + ", ".join(
                f"{interval(related[f'Spearman, {how}'])}{'' if how == AS_GIVEN else ' ' + how}"
                for how in (AS_GIVEN, TEMPERED)
                if f"Spearman, {how}" in related
            )
            + " (1: always, 0: not at all)."
        )
    title = f"what {people} said"
    parts: list[Part] = [
        Measures(f"Jensen-Shannon distance to {title} (less is better)", "distribution", "distance", jsd),
        Listing(
            f"KL divergence from {title}, and entropy",
            ["distribution", "n", "KL divergence, nats [95 %]", "mean entropy, bits"],
            [
                [
                    name,
                    len(judged.pairs),
                    interval(kl[name]) if name in kl else None,
                    round(float(metrics.entropy(found).mean()), 4),
                ]
                for name, found in {**models, **others, "the people's own": judged.people}.items()
            ],
        ),
        *together,
    ]
    if related:
        parts.append(Measures("Correlation of the model's entropy and people's", "coefficient", "correlation", related))
    measures = {
        **{f"jsd/{how}": jsd[f"the model, {how}"] for how in (AS_GIVEN, TEMPERED)},
        **{f"kl/{how}": kl[f"the model, {how}"] for how in (AS_GIVEN, TEMPERED)},
        "jsd/change": gain,
    }
    return summary, parts, measures


def _same_answer(judged: Judged, people: str, seed: int) -> tuple[list[Part], list[str]]:
    """How many people gave the model's answer, by how sure it was."""
    confidence = {AS_GIVEN: judged.given.max(1), TEMPERED: judged.tempered.max(1)}
    shared = metrics.share(judged.same_answer, seed)
    gaps = {how: metrics.mean(sure - judged.same_answer, seed) for how, sure in confidence.items()}
    said = [
        f"{abs(gap['value']):.3f} too {'sure' if gap['value'] > 0 else 'unsure'} "
        f"(95 % interval of the difference [{gap['ci95'][0]:.3f}, {gap['ci95'][1]:.3f}]){'' if how == AS_GIVEN else ' ' + how}"
        for how, gap in gaps.items()
    ]
    summary = [
        f"On average {interval(shared)} of {people} gave its answer; its own mean confidence is {confidence[AS_GIVEN].mean():.3f}: "
        f"{', '.join(said)}."
    ]
    bins = {how: reliability(sure, judged.same_answer) for how, sure in confidence.items()}
    parts: list[Part] = [
        Curve(
            f"Share of {people} who gave the model's answer, by its confidence",
            "confidence",
            "share of people who gave the same answer",
            {how: [[x, y] for x, y, _ in points] for how, points in bins.items()},
            diagonal=True,
        ),
        Listing(
            f"Share of {people} who gave the model's answer, in bins of its confidence",
            ["probabilities", "mean confidence", "share of people", "n"],
            [[how, round(x, 4), round(y, 4), n] for how, points in bins.items() for x, y, n in points],
        ),
    ]
    return parts, summary


def _correlations(judged: Judged, seed: int) -> dict[str, Measure]:
    """Correlations of entropies, those left out that have no value: where all people, or all answers, are alike."""
    theirs = metrics.entropy(judged.people)
    found = {
        f"{name}, {how}": coefficient(metrics.entropy(own), theirs, seed)
        for name, coefficient in (("Spearman", spearman), ("Pearson", pearson))
        for how, own in ((AS_GIVEN, judged.given), (TEMPERED, judged.tempered))
    }
    return {name: measure for name, measure in found.items() if measure is not None}
