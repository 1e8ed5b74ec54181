"""Breaking NLI: pairs that differ in one word, which a dictionary would tell apart (Glockner, Shwartz and Goldberg 2018)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.cli.errors import UserError, shown
from common.results.finding import Finding, Listing, Measures, Part, interval
from common.stats import metrics
from common.stats.metrics import Measure, evaluate
from common.tables.reading import Row, read_rows
from common.tables.report import fingerprint
from snli_roberta.data.corpus import LABELS, Pair
from snli_roberta.miniature import snli

ITEMS = 8193  # of the whole set; a file of fewer is a part of it
FILE_NAME = "dataset.jsonl"
COLUMNS = ("sentence1", "sentence2", "gold_label", "category", "pairID")
WORST = 10  # mistakes that a finding lists
LIMITS = (
    "Whether a model knows other words than these, a list of replacements in sentences of SNLI's train split; and a model that "
    "was trained on that split has read the premises. Nearly all pairs are contradictions, so a model that likes to say so does "
    "well: look at balanced accuracy and at the labels one by one. Many labels hold only where both sentences are of one scene, as "
    "the corpus takes them to be. Pairs of one premise, or of the same two words, are right or wrong together, so true intervals "
    "are wider."
)


@dataclass(frozen=True)
class Item:
    """One pair.

    Attributes:
        id: Its number in the set.
        pair: The sentences and their label.
        category: What kind of word was replaced, as ``colors``.
    """

    id: str
    pair: Pair
    category: str


def read_items(path: Path) -> list[Item]:
    """The pairs of ``dataset.jsonl``, in the file's order.

    Raises:
        UserError: No such file, a missing key, an unknown label, an empty sentence or category, or a row that stands twice, with
            the line.
    """
    items: list[Item] = []
    seen: dict[tuple[str, str, str], int | None] = {}
    for row in read_rows(path, COLUMNS, suffix=".jsonl"):
        premise, hypothesis, category = (_text(row, column) for column in ("sentence1", "sentence2", "category"))
        if row.values["gold_label"] not in LABELS:
            raise row.error(
                f"{shown(row.values['gold_label'])} is no label", "gold_label", expected=f"{', '.join(LABELS)}"
            )
        number = row.values["pairID"]
        if isinstance(number, bool) or not isinstance(number, (int, str)) or not str(number).strip():
            raise row.error(f"{shown(number)} is no id", "pairID", expected="a whole number")
        key = (str(number), premise, hypothesis)
        if key in seen:
            raise row.error(f"stands in line {seen[key]} already", expected="one row a pair")
        seen[key] = row.line
        pair = Pair(premise, hypothesis, LABELS.index(row.values["gold_label"]), id=str(number))
        items.append(Item(pair.id, pair, category))
    if not items:
        raise UserError("no pairs", file=path, expected="a row a pair")
    return items


def _text(row: Row, column: str) -> str:
    value = row.values[column]
    if not isinstance(value, str) or not value.strip():
        raise row.error(f"{shown(value)} is no text", column, expected="text")
    return value.strip()


def is_miniature(items: Sequence[Item]) -> bool:
    """Whether the pairs are those of the miniature's grammar."""
    return all(snli.is_own(item.pair.premise) for item in items)


def by_category(items: Sequence[Item], answers: Sequence[int], seed: int = 0) -> dict[str, Measure]:
    """Accuracy by category, the largest first."""
    right: dict[str, list[bool]] = {}
    for item, answer in zip(items, answers, strict=True):
        right.setdefault(item.category, []).append(answer == item.pair.label)
    return {
        name: metrics.share(right[name], seed) for name in sorted(right, key=lambda name: (-len(right[name]), name))
    }


def breaking_nli_finding(items: Sequence[Item], probabilities: np.ndarray, *, seed: int, **about: Any) -> Finding:
    """What a classifier's answers to the pairs say.

    Args:
        items: The pairs.
        probabilities: Shape (n, 3), columns as :data:`snli_roberta.data.corpus.LABELS`.
        seed: Seed of the bootstrap.
        about: ``task``, ``model``, ``miniature``, ``command`` of the finding.
    """
    labels, answers = [item.pair.label for item in items], probabilities.argmax(1).tolist()
    scores = evaluate(labels, answers, LABELS, seed=seed)
    gold, given = Counter(labels), Counter(answers)
    by_label = {name: scores[f"recall/{name}"] for number, name in enumerate(LABELS) if gold[number]}
    categories = by_category(items, answers, seed)
    commonest, preferred = (max(range(len(LABELS)), key=counts.__getitem__) for counts in (gold, given))
    worst = sorted(categories, key=lambda name: categories[name]["value"])[:3]
    share = metrics.share([answer == preferred for answer in answers], seed)
    part = len(items) < ITEMS and not is_miniature(items)
    some = f"{len(items):,} of Breaking NLI's {ITEMS:,} pairs" if part else f"{len(items):,} pairs"
    summary = [
        f'{some}, which differ in one word. A model that always answers "{LABELS[commonest]}" is right in '
        f"{gold[commonest] / len(items):.4f}.",
        f"This one: accuracy {interval(scores['accuracy'])}; balanced accuracy {interval(scores['balanced_accuracy'])}, where one "
        f"answer for all has {1 / len(by_label):.4f}.",
        f'It likes "{LABELS[preferred]}" best, its answer to {interval(share)} of the pairs; '
        f"{gold[preferred] / len(items):.4f} have that label.",
        "Hardest are " + ", ".join(f"{name} ({categories[name]['value']:.3f})" for name in worst) + ".",
    ]
    sureness = probabilities.max(1)
    wrong = sorted((i for i in range(len(items)) if answers[i] != labels[i]), key=lambda i: -sureness[i])
    rows = [
        [items[i].id, items[i].category, LABELS[labels[i]], LABELS[answers[i]], round(float(sureness[i]), 4)]
        for i in wrong[:WORST]
    ]
    parts: list[Part] = [
        Measures(
            "Breaking NLI: accuracy by category",
            "category",
            "accuracy",
            categories,
            reference=scores["accuracy"]["value"],
            reference_name="all pairs",
        ),
        Measures("Breaking NLI: accuracy by label", "label", "accuracy", by_label),
        Listing(
            "Breaking NLI: labels and answers",
            ["", *LABELS],
            [
                [name, *(counts[i] for i in range(len(LABELS)))]
                for name, counts in (("labels", gold), ("answers", given))
            ],
        ),
    ]
    if rows:
        columns = ["pair", "category", "label", "answer", "probability"]
        parts.append(Listing(f"Breaking NLI: the surest of {len(wrong):,} mistakes", columns, rows))
    invented = is_miniature(items)
    return Finding(
        name="breaking-nli",
        title="Does it notice one other word? (Breaking NLI)",
        summary=summary,
        parts=parts,
        limits=LIMITS,
        data={
            "name": "the Breaking NLI miniature" if invented else "Breaking NLI",
            "split": "evaluation",
            "fingerprint": fingerprint([i.id, i.pair.premise, i.pair.hypothesis, i.pair.label] for i in items),
        },
        **{**about, "miniature": about["miniature"] or invented},
    )
