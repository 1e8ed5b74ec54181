"""The corpora that jobs read: whole, and cut to what a training job of seconds needs, in their official formats."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from common.errors import UserError
from sbic_llama.corpus import FILE_NAMES, Post, clean, load_splits
from sbic_llama.features import OFFENSIVE_YN
from snli_roberta.corpus import LABELS


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


def cut_snli(source: Path, target: Path, *, train: int, dev: int) -> None:
    """Writes SNLI's files with the first so many labelled pairs of train and dev, and as many of test as of dev.

    Raises:
        UserError: The corpus has fewer.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", train), ("dev", dev), ("test", dev)):
        path, kept = source / f"snli_1.0_{name}.jsonl", []
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if row["gold_label"] in LABELS and row["sentence1"].strip() and row["sentence2"].strip():
                    kept.append(line)
                if len(kept) == count:
                    break
        if len(kept) < count:
            raise UserError(f"{len(kept):,} labelled pairs", file=path, expected=f"at least {count:,}")
        (target / path.name).write_text("".join(kept), encoding="utf-8")
