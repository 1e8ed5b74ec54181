"""A researcher's own file: posts without labels, and what a few people said of some of them, one row a person."""

from __future__ import annotations

import csv
import random
from pathlib import Path

from sbic_llama.miniature import sbic

LABELLED = 160  # posts that people looked at
LEVELS = {"1.0": "Offensive", "0.5": "Maybe offensive", "0.0": "Not offensive", "": ""}


def write(folder: Path, seed: int) -> None:
    """Writes ``posts.csv`` (id, post) and ``human_labels.csv`` (id, annotator, offensiveYN, targetMinority) into ``folder``."""
    people: dict[str, dict[str, dict[str, str]]] = {}
    for row in sbic.draw_splits(seed)["test"]:
        said = people.setdefault(row["post"], {}).setdefault(
            row["WorkerId"], {"level": row["offensiveYN"], "groups": ""}
        )
        said["groups"] = ", ".join(filter(None, [said["groups"], row["targetMinority"]]))
    posts = list(people)
    with open(folder / "posts.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "post"])
        writer.writerows(enumerate(posts, 1))
    chosen = sorted(random.Random(f"own file {seed}").sample(range(len(posts)), LABELLED))
    with open(folder / "human_labels.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "annotator", "offensiveYN", "targetMinority"])
        for number in chosen:
            for annotator, said in people[posts[number]].items():
                writer.writerow([number + 1, annotator, LEVELS[said["level"]], said["groups"] or "none"])
