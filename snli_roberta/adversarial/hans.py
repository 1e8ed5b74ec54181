"""HANS: pairs on which it misleads that a hypothesis repeats the premise's words (McCoy, Pavlick and Linzen 2019).

Heuristics that a model may have learnt in place of reading: entailed is what is made of the premise's words (``lexical_overlap``),
what stands in it in one piece (``subsequence``), or what is a clause of it (``constituent``). Labels are two; neutral and
contradiction are both "non-entailment", as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.cli.errors import UserError, shown
from common.results.finding import Finding, Listing, Measures, Part, interval
from common.stats import metrics
from common.stats.metrics import Measure, evaluate
from common.tables.reading import read_rows
from common.tables.report import fingerprint
from snli_roberta.data.corpus import LABELS as ANSWERS
from snli_roberta.data.corpus import Pair
from snli_roberta.miniature import snli

CASES = 30_000  # of the whole set; a file of fewer is a part of it
FILE_NAME = "heuristics_evaluation_set.txt"
COLUMNS = ("gold_label", "sentence1", "sentence2", "pairID", "heuristic", "subcase", "template")
LABELS = ("entailment", "non-entailment")
HEURISTICS = ("lexical_overlap", "subsequence", "constituent")
WORST = 10  # mistakes that a finding lists
LIMITS = (
    "How a model does on sentences that people write: HANS is made of a few dozen templates, with words that are plain and "
    "sentences that are odd. Pairs of one template are right or wrong together, so true intervals are wider. A good score on "
    "non-entailment alone may be a model that seldom says entailment: look at both labels."
)


@dataclass(frozen=True)
class Case:
    """One pair.

    Attributes:
        id: Its number in the set, as ``ex33``.
        premise: The first sentence.
        hypothesis: The second.
        label: An index into :data:`LABELS`.
        heuristic: One of :data:`HEURISTICS`.
        subcase: The construction, as ``ln_passive``; empty where the file has none.
    """

    id: str
    premise: str
    hypothesis: str
    label: int
    heuristic: str
    subcase: str

    @property
    def pair(self) -> Pair:
        """What a classifier reads, which has no label of SNLI's."""
        return Pair(self.premise, self.hypothesis, label=-1, id=self.id)


def read_cases(path: Path) -> list[Case]:
    """The pairs of ``heuristics_evaluation_set.txt``, in the file's order.

    Raises:
        UserError: No such file, a missing column, an unknown label or heuristic, an empty field, or a pair that stands twice, with
            the line.
    """
    cases: list[Case] = []
    seen: set[str] = set()
    for row in read_rows(path, COLUMNS, suffix=".tsv"):
        values = {column: row.values[column].strip() for column in COLUMNS}
        for column in ("sentence1", "sentence2", "pairID"):
            if not values[column]:
                raise row.error("empty", column, expected="a value")
        for column, known in {"gold_label": LABELS, "heuristic": HEURISTICS}.items():
            if values[column] not in known:
                raise row.error(
                    f"{shown(values[column])} is no {column.replace('_', ' ')}", column, expected=", ".join(known)
                )
        if values["pairID"] in seen:
            raise row.error(f"pair {shown(values['pairID'])} stands twice", "pairID", expected="one row a pair")
        seen.add(values["pairID"])
        label = LABELS.index(values["gold_label"])
        sentences = (values["sentence1"], values["sentence2"])
        cases.append(Case(values["pairID"], *sentences, label, values["heuristic"], values["subcase"]))
    if not cases:
        raise UserError("no pairs", file=path, expected="a row a pair")
    return cases


def is_miniature(cases: Sequence[Case]) -> bool:
    """Whether the pairs are those of the miniature's grammar."""
    return all(snli.is_own(case.premise) for case in cases)


def collapsed(probabilities: np.ndarray) -> list[int]:
    """The answers of probabilities, shape (n, 3), as indices into :data:`LABELS`: any but entailment is non-entailment."""
    return [int(answer != ANSWERS.index("entailment")) for answer in probabilities.argmax(1)]


def score(cases: Sequence[Case], answers: Sequence[int], seed: int = 0) -> dict[str, Measure]:
    """How far answers agree with the set.

    Returns:
        ``accuracy``, then as far as the cases have both labels ``balanced_accuracy``, then ``entailment`` and ``non-entailment``:
        the accuracy on pairs of that label.

    Raises:
        ValueError: The two differ in length or are empty.
    """
    found = evaluate([case.label for case in cases], answers, LABELS, seed=seed)
    by_label = {name: found[f"recall/{name}"] for name in LABELS if found[f"recall/{name}"]["n"]}
    names = ["accuracy", *(["balanced_accuracy"] if len(by_label) == len(LABELS) else [])]
    return {name: found[name] for name in names} | by_label


def by_kind(cases: Sequence[Case], answers: Sequence[int], label: int, kind: str, seed: int = 0) -> dict[str, Measure]:
    """Accuracy on the pairs of a label, by their ``heuristic`` or ``subcase``; pairs without one are left out."""
    right: dict[str, list[bool]] = {}
    for case, answer in zip(cases, answers, strict=True):
        name = getattr(case, kind)
        if name and case.label == label:
            right.setdefault(name, []).append(answer == label)
    return {name: metrics.share(values, seed) for name, values in right.items()}


def hans_finding(cases: Sequence[Case], probabilities: np.ndarray, *, seed: int, **about: Any) -> Finding:
    """What a classifier's answers to the pairs say.

    Args:
        cases: The pairs.
        probabilities: Shape (n, 3), columns as :data:`snli_roberta.data.corpus.LABELS`.
        seed: Seed of the bootstrap.
        about: ``task``, ``model``, ``miniature``, ``command`` of the finding.
    """
    answers = collapsed(probabilities)
    always, found = score(cases, [0] * len(cases), seed), score(cases, answers, seed)
    by_heuristic = {
        f"{heuristic}, {label}": score([cases[i] for i in chosen], [answers[i] for i in chosen], seed)["accuracy"]
        for heuristic in HEURISTICS
        for number, label in enumerate(LABELS)
        if (chosen := [i for i, c in enumerate(cases) if (c.heuristic, c.label) == (heuristic, number)])
    }
    parts: list[Part] = [
        Measures(
            "HANS: all pairs",
            "score",
            "score",
            {name.replace("_", " ") if "accuracy" in name else f"accuracy, {name}": m for name, m in found.items()},
            reference=always["accuracy"]["value"],
            reference_name='accuracy of "entailment" always',
        ),
        Measures("HANS: accuracy by heuristic and label", "heuristic, label", "accuracy", by_heuristic),
    ]
    for number, label in enumerate(LABELS):
        if rows := by_kind(cases, answers, number, "subcase", seed):
            parts.append(Measures(f"HANS: accuracy by subcase, {label}", "subcase", "accuracy", rows))
    sureness = [_sureness(row, answer) for row, answer in zip(probabilities, answers, strict=True)]
    wrong = sorted((i for i, case in enumerate(cases) if answers[i] != case.label), key=lambda i: -sureness[i])
    rows = [
        [cases[i].id, cases[i].heuristic, LABELS[cases[i].label], LABELS[answers[i]], round(sureness[i], 4)]
        for i in wrong[:WORST]
    ]
    if rows:
        columns = ["pair", "heuristic", "label", "answer", "probability"]
        parts.append(Listing(f"HANS: the surest of {len(wrong):,} mistakes", columns, rows))
    invented = is_miniature(cases)
    return Finding(
        name="hans",
        title="Does it go by the words that two sentences share? (HANS)",
        summary=_sentences(cases, always, found, by_heuristic),
        parts=parts,
        limits=LIMITS,
        data={
            "name": "the HANS miniature" if invented else "HANS",
            "split": "evaluation",
            "fingerprint": fingerprint([c.id, c.premise, c.hypothesis, c.label] for c in cases),
        },
        **{**about, "miniature": about["miniature"] or invented},
    )


def _sentences(
    cases: Sequence[Case],
    always: dict[str, Measure],
    found: dict[str, Measure],
    by_heuristic: dict[str, Measure],
) -> list[str]:
    constant = f"right in {always['accuracy']['value']:.4f}"
    if "balanced_accuracy" in always:
        ns = [always[name]["n"] for name in LABELS]
        constant += f": in all {ns[0]:,} of entailment, in none of the {ns[1]:,} others; its balanced accuracy is 0.5"
    scored = [f"{name.replace('_', ' ')} {interval(measure)}" for name, measure in found.items() if "accuracy" in name]
    scored += [f"on {name} {interval(found[name])}" for name in LABELS if name in found]
    some = (
        f"{len(cases):,} of HANS's {CASES:,} pairs"
        if len(cases) < CASES and not is_miniature(cases)
        else f"{len(cases):,} pairs"
    )
    sentences = [
        f'{some}. A model that always answers "entailment" is {constant}.',
        f"This one: {'; '.join(scored)}. Neutral and contradiction both count as non-entailment.",
    ]
    misled = {name: m for name, m in by_heuristic.items() if name.endswith(", non-entailment")}
    if len(misled) > 1:
        named = ", ".join(f"{name.split(',')[0]} {interval(measure)}" for name, measure in misled.items())
        sentences.append(f"Where the heuristic misleads, on non-entailment: {named}.")
    return sentences


def _sureness(probabilities: np.ndarray, answer: int) -> float:
    """The probability of an answer of two labels."""
    entailed = float(probabilities[ANSWERS.index("entailment")])
    return entailed if answer == 0 else 1 - entailed
