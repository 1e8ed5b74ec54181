"""ChaosNLI: a hundred people's labels of pairs on which the five of SNLI barely agreed (Nie, Zhou and Bansal 2020).

Its SNLI pairs are from the official dev split, on which models choose their checkpoints and fit their temperatures.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cli.errors import UserError, shown
from common.tables.reading import Row, read_rows
from common.tables.report import fingerprint
from snli_roberta.data.corpus import LABELS, Pair

FILE_NAME = "chaosNLI_snli.jsonl"
COLUMNS = (
    *("uid", "label_counter", "majority_label", "label_dist", "label_count", "entropy", "example"),
    *("old_label", "old_labels"),
)
LETTERS = {label[0]: place for place, label in enumerate(LABELS)}  # e, n, c: also the order of its lists
PEOPLE = 100
ITEMS = 1514  # SNLI items of the whole set
# Mean distances to the hundred's distribution, and accuracies, on all items.
PUBLISHED = {
    "model": "RoBERTa-base",
    "source": "Nie, Zhou and Bansal 2020",
    "items": ITEMS,
    "jsd": 0.2294,
    "kl": 0.5045,
    "old_accuracy": 0.7272,
    "new_accuracy": 0.7536,
}


@dataclass(frozen=True)
class Item:
    """A pair that a hundred people labeled."""

    pair: Pair  # with SNLI's label, and the labels of its five (sometimes four) annotators
    counts: tuple[int, int, int]  # how many of the hundred gave each of LABELS
    majority: int  # the hundred's majority label, an index into LABELS


def read_items(path: Path) -> list[Item]:
    """Read ``chaosNLI_snli.jsonl``; a wrong value, or numbers that contradict each other, are refused with their line."""
    items: list[Item] = []
    seen: set[str] = set()
    for row in read_rows(path, COLUMNS):
        item = _item(row)
        if item.pair.id in seen:
            raise row.error(f"{shown(item.pair.id)} occurs twice", "uid", expected="one row per item")
        seen.add(item.pair.id)
        items.append(item)
    if not items:
        raise UserError("no items", file=path, expected="one row per item")
    return items


def _item(row: Row) -> Item:
    values = row.values
    counts = _counts(row)
    most = [letter for letter, place in LETTERS.items() if counts[place] == max(counts)]
    if (majority := values["majority_label"]) not in most:
        raise row.error(f"{shown(majority)} is not the most common label", "majority_label", expected=" or ".join(most))
    example = values["example"] if isinstance(values["example"], dict) else {}
    premise, hypothesis, uid = (_text(row, example, key) for key in ("premise", "hypothesis", "uid"))
    if values["uid"] != uid:
        raise row.error(f"{shown(values['uid'])}, but {shown(uid)} in example", "uid", expected="the same ID")
    if not str(source := example.get("source")).startswith("snli"):
        raise row.error(f"not a pair of SNLI: {shown(source)}", "example.source", expected=f"the file {FILE_NAME}")
    old = values["old_labels"]
    if not isinstance(old, list) or not old or not all(label in LABELS for label in old):
        raise row.error(f"not labels: {shown(old)}", "old_labels", expected=f"a list of {', '.join(LABELS)}")
    most = [letter for letter, place in LETTERS.items() if old.count(LABELS[place]) == max(map(old.count, old))]
    if (old_label := values["old_label"]) not in most:
        problem = f"{shown(old_label)} is not the most common of old_labels"
        raise row.error(problem, "old_label", expected=" or ".join(most))
    pair = Pair(premise, hypothesis, LETTERS[old_label], tuple(old), uid)
    return Item(pair, counts, LETTERS[majority])


def _counts(row: Row) -> tuple[int, int, int]:
    """Return how many people gave each label; a row says so three times, and their entropy as well."""
    counter = row.values["label_counter"]
    if not isinstance(counter, dict) or set(counter) - set(LETTERS):
        raise row.error(f"not counts of labels: {shown(counter)}", "label_counter", expected="counts of e, n and c")
    counts = [counter.get(letter, 0) for letter in LETTERS]
    if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != PEOPLE:
        raise row.error(f"{shown(counter)}", "label_counter", expected=f"integers that sum to {PEOPLE}")
    shares = [count / PEOPLE for count in counts]
    entropy = sum(-share * math.log2(share) for share in shares if share)
    for column, agrees, expected in (
        ("label_count", row.values["label_count"] == counts, f"{counts}, in the order e, n, c"),
        ("label_dist", _near(row.values["label_dist"], shares), f"{shares}, in the order e, n, c"),
        ("entropy", _near([row.values["entropy"]], [entropy]), f"{entropy:.6f} bits"),
    ):
        if not agrees:
            raise row.error(f"{shown(row.values[column])} contradicts label_counter", column, expected=expected)
    return tuple(counts)


def _near(value: Any, expected: Sequence[float]) -> bool:
    """Return whether a value is a list of these numbers, up to rounding."""
    return (
        isinstance(value, list)
        and len(value) == len(expected)
        and all(type(x) in (int, float) and y - 1e-6 < x < y + 1e-6 for x, y in zip(value, expected, strict=True))
    )


def _text(row: Row, example: dict[str, Any], key: str) -> str:
    value = example.get(key)
    if not isinstance(value, str) or not value.strip():
        raise row.error(f"not text: {shown(value)}", f"example.{key}", expected="text")
    return value.strip()


def pair_key(pair: Pair) -> tuple[str, str]:
    """Return a key that pairs of the same sentences share: ChaosNLI has " where SNLI has ', and other spaces."""
    premise, hypothesis = (re.sub(r"[\"'`’‘“”]", "'", text) for text in (pair.premise, pair.hypothesis))
    return " ".join(premise.casefold().split()), " ".join(hypothesis.casefold().split())


def contained_in(pairs: Iterable[Pair], others: Iterable[Pair]) -> list[bool]:
    """Return for each pair whether it is among the others, by ID or by sentences."""
    known = list(others)
    ids, keys = {other.id for other in known} - {""}, set(map(pair_key, known))
    return [pair.id in ids or pair_key(pair) in keys for pair in pairs]


def is_miniature(items: Sequence[Item]) -> bool:
    return all(item.pair.id.startswith("miniature-") for item in items)


def item_fingerprint(items: Sequence[Item]) -> str:
    return fingerprint([item.pair.premise, item.pair.hypothesis, item.counts] for item in items)
