"""How far the text of a list of groups overlaps with what annotators wrote: token F1, BLEU-2 and ROUGE-L, as such answers are
scored where they count as text (Sap et al. 2020 report BLEU-2 and ROUGE-L)."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from typing import Any

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
    answer = text_of(predicted)
    references = {text_of(label), *label}
    return (
        max(token_f1(answer, reference) for reference in references),
        max(bleu.sentence_score(answer, [reference]).score / 100 for reference in references),
        max(rouge.score(reference, answer)["rougeL"].fmeasure for reference in references),
    )


def text_of(groups: tuple[str, ...]) -> str:
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
