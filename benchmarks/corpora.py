"""The corpora that jobs read: whole, and cut to what a training job of seconds needs, in their official formats."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path

from common.cli.errors import UserError
from sbic_llama.data.corpus import FILE_NAMES, Post, clean, load_splits
from sbic_llama.data.features import OFFENSIVE_YN
from snli_roberta.data.corpus import LABELS


def cut_sbic(source: Path, target: Path, *, train: int, dev: int) -> list[Post]:
    """Writes the annotators' files with so many posts of train and dev that have a level of offence, and as many test posts as dev.

    Returns:
        The training posts, as a command that reads ``target`` gets them.

    Raises:
        UserError: The corpus has fewer.
    """
    splits = load_splits(data_dir=source)
    target.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", train), ("dev", dev), ("test", dev)):
        chosen = [post.text for post in splits[name].posts if OFFENSIVE_YN.label_of(post) is not None][:count]
        if len(chosen) < count:
            raise UserError(f"{len(chosen):,} labelled {name} posts", file=source, expected=f"at least {count:,}")
        wanted, file_name = set(chosen), f"SBIC.v2.{FILE_NAMES[name]}.csv"
        with (
            open(source / file_name, encoding="utf-8", newline="") as whole,
            open(target / file_name, "w", encoding="utf-8", newline="") as part,
        ):
            rows = csv.DictReader(whole)
            writer = csv.DictWriter(part, rows.fieldnames or [])
            writer.writeheader()
            writer.writerows(row for row in rows if clean(row["post"]) in wanted)
    return [post for post in load_splits(data_dir=target)["train"].posts if OFFENSIVE_YN.label_of(post) is not None]


def cut_snli(source: Path, target: Path, *, train: int, dev: int, by_words: bool = False) -> None:
    """Writes SNLI's files with the first so many labelled pairs of train and dev, and as many of test as of dev.

    Args:
        source: Folder of the official files.
        target: Folder to write to.
        train: How many training pairs.
        dev: How many of the others.
        by_words: Labels are the parts by a common word of the hypothesis (:func:`parts`) in place of the annotators': what even
            a model without pretraining learns in a moment.

    Raises:
        UserError: The corpus has fewer.
    """
    target.mkdir(parents=True, exist_ok=True)
    files: dict[Path, list[dict[str, str]]] = {}
    for name, count in (("train", train), ("dev", dev), ("test", dev)):
        path = source / f"snli_1.0_{name}.jsonl"
        kept = files[target / path.name] = []
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if row["gold_label"] in LABELS and row["sentence1"].strip() and row["sentence2"].strip():
                    kept.append(row)
                if len(kept) == count:
                    break
        if len(kept) < count:
            raise UserError(f"{len(kept):,} labelled pairs", file=path, expected=f"at least {count:,}")
    if by_words:  # the same words in all three files
        rows = [row for kept in files.values() for row in kept]
        for row, part in zip(rows, parts([row["sentence2"].split() for row in rows], len(LABELS)), strict=True):
            row["gold_label"] = LABELS[part]
    for path, kept in files.items():
        path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")


def parts(texts: Sequence[Sequence[Hashable]], count: int) -> list[int]:
    """For each text, in tokens or words, the number of its part, of ``count`` parts of about one size.

    Texts with one common token are the first part, of the rest those with another are the second, and so on.
    """
    found, rest = [count - 1] * len(texts), list(range(len(texts)))
    for part in range(count - 1):
        within = Counter(token for i in rest for token in dict.fromkeys(texts[i]))
        cue = min(within, key=lambda token: abs(within[token] * (count - part) - len(rest)))
        for i in rest:
            if cue in texts[i]:
                found[i] = part
        rest = [i for i in rest if cue not in texts[i]]
    return found
