"""ChaosNLI in miniature: a hundred labels a pair, in the exact upstream JSONL format (Nie, Zhou and Bansal 2020).

As upstream, the pairs are those that a bare majority of five agreed on. A hundred others are asked as the five were: whether a
vague word follows is a matter of opinion, and on a clear pair each of them errs now and then.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

from snli_roberta.miniature import snli

FILE_NAME = "chaosNLI_snli.jsonl"
SPLIT = "test"
AGREED = 3  # of five, on the pairs that are asked again
PEOPLE = 100


def draw_items(seed: int) -> list[dict[str, Any]]:
    """The rows of the file, in the order of the pairs."""
    rng = random.Random(f"chaosnli {seed}")
    return [
        _item(rng, row) for row in snli.pairs(SPLIT, seed) if row["annotator_labels"].count(row["gold_label"]) == AGREED
    ]


def _item(rng: random.Random, row: dict[str, Any]) -> dict[str, Any]:
    meant = author(row)
    labels = [label for _ in range(PEOPLE // 5) for label in snli.opinions(rng, meant)]
    # Upstream calls a label by its first letter, and its counter holds no zeros.
    counter = Counter(label[0] for label in labels)
    counts = [counter[name[0]] for name in snli.LABELS]
    shares = [count / PEOPLE for count in counts]
    return {
        "uid": row["pairID"],
        "label_counter": dict(counter.most_common()),
        "majority_label": counter.most_common(1)[0][0],
        "label_dist": shares,
        "label_count": counts,
        "entropy": sum(-share * math.log2(share) for share in shares if share),
        "example": {
            "uid": row["pairID"],
            "premise": row["sentence1"],
            "hypothesis": row["sentence2"],
            "source": f"snli_agree_{AGREED}",
        },
        "old_label": row["gold_label"][0],
        "old_labels": row["annotator_labels"],
    }


def author(row: dict[str, Any]) -> str | None:
    """The label that a pair was made for, which its id ends in; None where its hypothesis is a matter of opinion."""
    if any(word in snli.VAGUE for word in snli.words(row["sentence2"])):
        return None
    return next(label for label in snli.LABELS if label[0] == row["pairID"][-1])


def write(folder: Path, seed: int) -> None:
    """Writes ``chaosNLI_snli.jsonl`` into ``folder``."""
    with open(folder / FILE_NAME, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in draw_items(seed))
