"""Sets of targeted groups: how names are written, and how one set is scored against another."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np

from common.stats import metrics
from sbic_llama.data.corpus import clean

NONE = "none"
PRESENCE = ("none", "groups")  # the classes of "does the post target anyone at all?"

Groups = tuple[str, ...]


def split_groups(text: str) -> Groups:
    """The distinct groups of a text that lists them with commas, in lower case, sorted; of ``none``, nothing."""
    names = (
        " ".join(part.split()).strip(" .;:\"'").casefold() for part in re.split("[,;]", clean(text.replace("\n", ",")))
    )
    return tuple(sorted({name for name in names if name and name != NONE}))


def normalized_groups(groups: Iterable[str]) -> Groups:
    """The same of several texts, as annotators wrote them."""
    return tuple(sorted({name for group in groups for name in split_groups(group)}))


def set_f1(gold: Groups, predicted: Groups) -> float:
    """Harmonic mean of precision and recall of one set against another; 1 where both are empty, 0 where one is."""
    if not gold and not predicted:
        return 1.0
    return 2 * len(set(gold) & set(predicted)) / (len(gold) + len(predicted))


def evaluate_groups(
    labels: Sequence[Groups], predictions: Sequence[Groups], *, seed: int = 0
) -> dict[str, dict[str, object]]:
    """Mean set F1, share of exact sets and overlaps of the text, with 95 % percentile bootstrap intervals over posts.

    Posts without a group are the majority and an empty set is easily right, so "none" is scored apart: ``…/targeted`` are over
    the posts whose annotators named a group; ``…/none`` and ``…/groups`` are precision, recall and F1 of telling the two kinds
    of posts apart. The overlaps are those of :mod:`sbic_llama.data.groups`.

    Returns:
        Metric → ``{"value", "n", "ci95"}``.

    Raises:
        ValueError: The two differ in length or are empty.
    """
    if len(labels) != len(predictions) or not labels:
        raise ValueError(f"{len(labels)} labels against {len(predictions)} predictions")
    f1 = np.array([set_f1(*pair) for pair in zip(labels, predictions, strict=True)])
    exact = np.array([float(set(one) == set(other)) for one, other in zip(labels, predictions, strict=True)])
    targeted = np.array([bool(label) for label in labels])
    found = {}
    by_text = np.array([overlaps(*pair) for pair in zip(labels, predictions, strict=True)])
    for name, values in {"set_f1": f1, "exact": exact, **dict(zip(METRICS, by_text.T, strict=True))}.items():
        found[name] = metrics.mean(values, seed)
        if targeted.any():
            found[f"{name}/targeted"] = metrics.mean(values[targeted], seed)
    present = metrics.evaluate(*(presence(sets) for sets in (labels, predictions)), PRESENCE, seed=seed)
    per_class = {f"{metric}/{name}" for metric in ("precision", "recall", "f1") for name in PRESENCE}
    return found | {name: metric for name, metric in present.items() if name in {*per_class, "balanced_accuracy"}}


def presence(sets: Sequence[Groups]) -> list[int]:
    """Index into :data:`PRESENCE` of each set."""
    return [int(bool(one)) for one in sets]


METRICS = ("token_f1", "bleu2", "rouge_l")


def overlaps(label: tuple[str, ...], predicted: tuple[str, ...]) -> tuple[float, float, float]:
    """Token F1, BLEU-2 and ROUGE-L (F-measure), each 0 to 1, of an answer against the best reference for that score.

    References are each group that annotators named, and all of them together; "none" where they named nobody. BLEU is
    sacrebleu's of one sentence, up to bigrams or as long as the answer is (effective order), with its exponential smoothing;
    ROUGE-L is rouge-score's without stemming.
    """
    return _overlaps(tuple(label), tuple(predicted))


@cache
def _overlaps(label: tuple[str, ...], predicted: tuple[str, ...]) -> tuple[float, float, float]:
    bleu, rouge = _scorers()
    answer = joined_groups(predicted)
    references = {joined_groups(label), *label}
    return (
        max(token_f1(answer, reference) for reference in references),
        max(bleu.sentence_score(answer, [reference]).score / 100 for reference in references),
        max(rouge.score(reference, answer)["rougeL"].fmeasure for reference in references),
    )


def joined_groups(groups: tuple[str, ...]) -> str:
    """A list of groups as an answer is written."""
    return ", ".join(groups) or "none"


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall of the answer's words, each as often as it stands there (Rajpurkar et al. 2016)."""
    ours, theirs = (Counter(re.findall(r"\w+", text.casefold())) for text in (answer, reference))
    shared = (ours & theirs).total()
    return 2 * shared / (ours.total() + theirs.total()) if shared else 0.0


@cache
def _scorers() -> tuple[Any, Any]:
    # On first use: they import for a second, and features with labels need neither.
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU

    return BLEU(max_ngram_order=2, effective_order=True), RougeScorer(["rougeL"], use_stemmer=False)
