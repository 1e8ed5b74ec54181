"""Breaking NLI in miniature: pairs that differ in one word, in the exact format of ``dataset.jsonl``.

As upstream (Glockner, Shwartz and Goldberg 2018), the hypothesis is the premise with a word replaced and most pairs are
contradictions. The replaced word is a fact of the SNLI miniature: by its antonym (contradiction; a category a pair of antonyms), by
its synonym (entailment) or by a fact of which the premise says nothing (neutral).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from snli_roberta.miniature import snli

FILE_NAME = "dataset.jsonl"
ANTONYMS, SYNONYMS, UNRELATED = 20, 60, 20  # pairs a category
ANNOTATORS = 3


def draw_items(seed: int) -> list[dict[str, object]]:
    """The rows of the file, in order; no pair stands twice."""
    rng = random.Random(f"breaking nli {seed}")
    seen: set[tuple[str, str]] = set()
    rows: list[dict[str, object]] = []
    for category, label, number, count in _categories():
        wanted = len(rows) + count
        while len(rows) < wanted:
            premise, _, facts = snli.premise(rng)
            found = _replaced(rng, premise, facts, label, number)
            if found is None or (premise, found) in seen:
                continue
            seen.add((premise, found))
            labels = [label] * ANNOTATORS
            if rng.random() < snli.SLIP * ANNOTATORS:  # the gold label is that of the majority all the same
                labels[rng.randrange(ANNOTATORS)] = rng.choice([name for name in snli.LABELS if name != label])
            rows.append(
                {
                    "sentence1": premise,
                    "category": category,
                    "gold_label": label,
                    "annotator_labels": labels,
                    "pairID": len(rows),
                    "sentence2": found,
                }
            )
    return rows


def _categories() -> Iterator[tuple[str, str, int | None, int]]:
    """Category, label, the pair of antonyms that it is about if there is one, and how many pairs of sentences it has."""
    for number, (one, other) in enumerate(snli.FACTS):
        yield f"{one[0]}_{other[0]}", "contradiction", number, ANTONYMS
    yield "synonyms", "entailment", None, SYNONYMS
    yield "unrelated", "neutral", None, UNRELATED


def _replaced(rng: random.Random, premise: str, facts: dict[int, int], label: str, number: int | None) -> str | None:
    """The premise with one fact replaced so that it stands in relation ``label`` to what it was; None where it can't be."""
    pair = rng.choice(list(facts)) if number is None else number
    if pair not in facts:
        return None
    words = premise.rstrip(".").replace(",", " ").split()
    word = next(word for word in snli.FACTS[pair][facts[pair]] if word in words)
    if label == "neutral":
        other = rng.choice([one for one in range(len(snli.FACTS)) if one not in facts])
        choices = list(snli.FACTS[other][rng.randrange(2)])
    else:
        choices = list(snli.FACTS[pair][facts[pair] if label == "entailment" else 1 - facts[pair]])
    choices = [choice for choice in choices if choice != word]
    return premise.replace(f" {word}", f" {rng.choice(choices)}") if choices else None


def write(folder: Path, seed: int) -> None:
    """Writes ``dataset.jsonl`` into ``folder``."""
    with open(folder / FILE_NAME, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in draw_items(seed))
