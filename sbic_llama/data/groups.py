"""Handle sets of targeted groups: how names are written, and how one set is scored against another."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from sbic_llama.data.corpus import clean

if TYPE_CHECKING:
    from common.stats.design import Design

NONE = "none"
PRESENCE = ("none", "groups")  # the classes of "does the post target anyone at all?"
METRICS = ("token_f1", "bleu2", "rouge_l")

Groups = tuple[str, ...]


def split_groups(text: str) -> Groups:
    """Return the distinct groups of a comma-separated list, in lower case and sorted; empty for ``none``."""
    parts = re.split("[,;]", clean(text.replace("\n", ",")))
    names = (" ".join(part.split()).strip(" .;:\"'").casefold() for part in parts)
    return tuple(sorted({name for name in names if name and name != NONE}))


def joined_groups(groups: Groups) -> str:
    """Return groups as an answer is written, the inverse of :func:`split_groups`."""
    return ", ".join(groups) or NONE


def normalized_groups(groups: Iterable[str]) -> Groups:
    """Return the distinct groups of several lists, as annotators wrote them."""
    return tuple(sorted({name for group in groups for name in split_groups(group)}))


def presence(sets: Sequence[Groups]) -> list[int]:
    """Return the index into :data:`PRESENCE` of each set."""
    return [int(bool(groups)) for groups in sets]


def set_f1(gold: Groups, predicted: Groups) -> float:
    """Return the harmonic mean of precision and recall of a set; 1 if both sets are empty, 0 if only one is."""
    if not gold and not predicted:
        return 1.0
    return 2 * len(set(gold) & set(predicted)) / (len(gold) + len(predicted))


def evaluate_groups(
    labels: Sequence[Groups], predictions: Sequence[Groups], *, seed: int = 0, design: Design | None = None
) -> dict[str, dict[str, object]]:
    """Return mean set F1, share of exact sets and text overlaps, with 95 % percentile bootstrap intervals over posts.

    Most posts target nobody, and an empty set is easy to get right. So ``…/targeted`` restricts a metric to posts whose
    annotators named a group, and ``…/none`` and ``…/groups`` are precision, recall and F1 of telling the two kinds of
    posts apart. See :func:`overlaps` for the text overlaps.

    Returns:
        Metric → ``{"value", "n", "ci95"}``.
    """
    import numpy as np

    from common.stats import metrics

    if len(labels) != len(predictions) or not labels:
        raise ValueError(f"{len(labels)} labels against {len(predictions)} predictions")
    pairs = [(tuple(gold), tuple(predicted)) for gold, predicted in zip(labels, predictions, strict=True)]
    scores = {
        "set_f1": np.array([set_f1(*pair) for pair in pairs]),
        "exact": np.array([float(set(gold) == set(predicted)) for gold, predicted in pairs]),
        **dict(zip(METRICS, np.array([overlaps(*pair) for pair in pairs]).T, strict=True)),
    }
    targeted = np.array([bool(label) for label in labels])
    results = {}
    for name, values in scores.items():
        results[name] = metrics.with_width(metrics.mean(values, seed, design))
        if targeted.any():
            part = design and design.part(np.flatnonzero(targeted))
            results[f"{name}/targeted"] = metrics.with_width(metrics.mean(values[targeted], seed, part))
    present = metrics.evaluate(presence(labels), presence(predictions), PRESENCE, seed=seed, design=design)
    per_class = {f"{metric}/{name}" for metric in ("precision", "recall", "f1") for name in PRESENCE}
    return results | {name: metric for name, metric in present.items() if name in {*per_class, "balanced_accuracy"}}


@cache
def overlaps(label: Groups, predicted: Groups) -> tuple[float, float, float]:
    """Return token F1, BLEU-2 and ROUGE-L (F-measure), each 0 to 1 and against the best reference for that score.

    References are each group that annotators named and all of them together, or "none". BLEU is sacrebleu's sentence
    BLEU up to bigrams (effective order, exponential smoothing); ROUGE-L is rouge-score's without stemming.
    """
    bleu, rouge = _scorers()
    answer = joined_groups(predicted)
    references = {joined_groups(label), *label}
    return (
        max(token_f1(answer, reference) for reference in references),
        max(bleu.sentence_score(answer, [reference]).score / 100 for reference in references),
        max(rouge.score(reference, answer)["rougeL"].fmeasure for reference in references),
    )


def token_f1(answer: str, reference: str) -> float:
    """Return the harmonic mean of precision and recall of the answer's words, with counts (Rajpurkar et al. 2016)."""
    ours, theirs = (Counter(re.findall(r"\w+", text.casefold())) for text in (answer, reference))
    shared = (ours & theirs).total()
    return 2 * shared / (ours.total() + theirs.total()) if shared else 0.0


@cache
def _scorers() -> tuple[Any, Any]:
    # Imported on first use: they take a second, and features with labels need neither.
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU

    return BLEU(max_ngram_order=2, effective_order=True), RougeScorer(["rougeL"], use_stemmer=False)
