"""ChaosNLI: a hundred people's labels of pairs on which the five of SNLI barely agreed (Nie, Zhou and Bansal 2020).

Its SNLI pairs are of the official *dev* split, in which models choose their checkpoints and fit their temperatures.
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
    "uid",
    "label_counter",
    "majority_label",
    "label_dist",
    "label_count",
    "entropy",
    "example",
    "old_label",
    "old_labels",
)
LETTERS = {label[0]: place for place, label in enumerate(LABELS)}  # e, n, c: the order of its lists, too
PEOPLE = 100
ITEMS = 1514  # of SNLI; a file of fewer is a part of it
# Mean distances to the hundred's distribution, and shares of right answers, on all items.
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
    """A pair that a hundred people labelled.

    Attributes:
        pair: The pair; its label is the old majority label, its annotators' labels are SNLI's five (a few have four).
        counts: How many of the hundred gave each of :data:`snli_roberta.data.corpus.LABELS`.
        majority: The hundred's majority label, as an index into them.
    """

    pair: Pair
    counts: tuple[int, int, int]
    majority: int


def read_items(path: Path) -> list[Item]:
    """The items of ``chaosNLI_snli.jsonl``, in the file's order.

    Raises:
        UserError: No such file, a missing or unknown value, an item that stands twice, or one whose numbers disagree with each
            other (with the line).
    """
    items: list[Item] = []
    seen: set[str] = set()
    for row in read_rows(path, COLUMNS):
        item = _item(row)
        if item.pair.id in seen:
            raise row.error(f"{shown(item.pair.id)} stands twice", "uid", expected="one row an item")
        seen.add(item.pair.id)
        items.append(item)
    if not items:
        raise UserError("no items", file=path, expected="a row an item")
    return items


def _item(row: Row) -> Item:
    values = row.values
    counts = _counts(row)
    most = [letter for letter, place in LETTERS.items() if counts[place] == max(counts)]
    if values["majority_label"] not in most:
        raise row.error(
            f"{shown(values['majority_label'])} is not the commonest label", "majority_label", expected=_either(most)
        )
    example = values["example"] if isinstance(values["example"], dict) else {}
    premise, hypothesis, uid = (_text(row, example, key) for key in ("premise", "hypothesis", "uid"))
    if values["uid"] != uid:
        raise row.error(f"{shown(values['uid'])}, but {shown(uid)} in example", "uid", expected="the same id")
    if not str(example.get("source")).startswith("snli"):
        raise row.error(
            f"{shown(example.get('source'))}, so no pair of SNLI", "example.source", expected=f"the file {FILE_NAME}"
        )
    old = values["old_labels"]
    if not isinstance(old, list) or not old or not all(label in LABELS for label in old):
        raise row.error(f"{shown(old)} are no labels", "old_labels", expected=f"a list of {', '.join(LABELS)}")
    commonest = [label[0] for label in old if old.count(label) == max(map(old.count, old))]
    if values["old_label"] not in commonest:
        raise row.error(
            f"{shown(values['old_label'])} is not the commonest of old_labels", "old_label", expected=_either(commonest)
        )
    pair = Pair(premise, hypothesis, LETTERS[values["old_label"]], tuple(old), uid)
    return Item(pair, counts, LETTERS[values["majority_label"]])


def _counts(row: Row) -> tuple[int, int, int]:
    """How many people gave each label, which a row says three times over, and its entropy a fourth time."""
    counter = row.values["label_counter"]
    if not isinstance(counter, dict) or set(counter) - set(LETTERS):
        raise row.error(f"{shown(counter)} are no counts of labels", "label_counter", expected="counts of e, n and c")
    counts = [counter.get(letter, 0) for letter in LETTERS]
    if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != PEOPLE:
        raise row.error(f"{shown(counter)}", "label_counter", expected=f"whole numbers that sum to {PEOPLE}")
    if row.values["label_count"] != counts:
        raise row.error(
            f"{shown(row.values['label_count'])} disagrees with label_counter",
            "label_count",
            expected=f"{counts}, in the order e, n, c",
        )
    shares = [count / PEOPLE for count in counts]
    if not _near(row.values["label_dist"], shares):
        raise row.error(
            f"{shown(row.values['label_dist'])} disagrees with label_counter",
            "label_dist",
            expected=f"{shares}, in the order e, n, c",
        )
    entropy = sum(-share * math.log2(share) for share in shares if share)
    if not _near([row.values["entropy"]], [entropy]):
        raise row.error(
            f"{shown(row.values['entropy'])} disagrees with label_counter", "entropy", expected=f"{entropy:.6f} bits"
        )
    return tuple(counts)


def _near(found: Any, expected: Sequence[float]) -> bool:
    """Whether a value is a list of these numbers, but for rounding."""
    return (
        isinstance(found, list)
        and len(found) == len(expected)
        and all(type(x) in (int, float) and y - 1e-6 < x < y + 1e-6 for x, y in zip(found, expected, strict=True))
    )


def _text(row: Row, example: dict[str, Any], key: str) -> str:
    value = example.get(key)
    if not isinstance(value, str) or not value.strip():
        raise row.error(f"{shown(value)} is no text", f"example.{key}", expected="text")
    return value.strip()


def _either(letters: Sequence[str]) -> str:
    return " or ".join(letter for letter in LETTERS if letter in letters)


def pair_key(pair: Pair) -> tuple[str, str]:
    """What two pairs of the same sentences share: ChaosNLI has " where SNLI has ', and spaces of its own."""
    premise, hypothesis = (re.sub(r"[\"'`’‘“”]", "'", text) for text in (pair.premise, pair.hypothesis))
    return " ".join(premise.casefold().split()), " ".join(hypothesis.casefold().split())


def standing_in(pairs: Iterable[Pair], others: Iterable[Pair]) -> list[bool]:
    """Whether each pair is one of others, by its id or by its sentences."""
    known = list(others)
    ids, keys = {other.id for other in known} - {""}, set(map(pair_key, known))
    return [pair.id in ids or pair_key(pair) in keys for pair in pairs]


def is_miniature(items: Sequence[Item]) -> bool:
    """Whether the items are the miniature's, by their ids."""
    return all(item.pair.id.startswith("miniature-") for item in items)


def item_fingerprint(items: Sequence[Item]) -> str:
    return fingerprint([item.pair.premise, item.pair.hypothesis, item.counts] for item in items)
