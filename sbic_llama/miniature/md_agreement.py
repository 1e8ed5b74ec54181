"""MD-Agreement in miniature: posts about invented groups with five named annotators each, in the exact upstream JSON format.

As upstream (Leonardelli et al. 2021, "Agreeing to Disagree"), an annotator says whether a post is offensive, 1 or 0.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from sbic_llama.miniature import sbic

SPLIT_SIZES = {"train": 200, "dev": 200}  # posts
ANNOTATORS = 12
ANNOTATIONS = 5  # a post, by as many annotators
DOMAINS = ("Market", "River", "Trams")


def draw_splits(seed: int) -> dict[str, dict[str, dict[str, Any]]]:
    """Split → number → item. No post is in the SBIC miniature, or twice."""
    rng = random.Random(f"md-agreement {seed}")
    # How strict each is: added to a post's level before it is taken as offensive from .5 on.
    strictness = {f"Ann{n}": rng.choice((-0.25, -0.1, 0.0, 0.0, 0.1, 0.25)) for n in range(1, ANNOTATORS + 1)}
    seen = {sbic.normalised(row["post"]) for rows in sbic.draw_splits(seed).values() for row in rows}
    splits: dict[str, dict[str, dict[str, Any]]] = {}
    for split, size in SPLIT_SIZES.items():
        items: dict[str, dict[str, Any]] = {}
        while len(items) < size:
            post = sbic.draw_post(rng)
            text = sbic.dress(rng, post.text)
            if sbic.normalised(text) in seen:
                continue
            seen.add(sbic.normalised(text))
            names = rng.sample(list(strictness), ANNOTATIONS)
            # A post of the middle level divides people; the others do so now and then.
            given = [int(post.offensive + strictness[name] + rng.gauss(0, 0.3) >= 0.5) for name in names]
            share = sum(given) / ANNOTATIONS
            items[str(len(items) + 1)] = {
                "text": text,
                "annotation task": "offensiveness detection",
                "number of annotations": ANNOTATIONS,
                "annotations": ",".join(map(str, given)),
                "annotators": ",".join(names),
                "lang": "en",
                "hard_label": str(int(share > 0.5)),
                "soft_label": {"0": round(1 - share, 1), "1": round(share, 1)},
                "split": split,
                "other_info": {"domain": rng.choice(DOMAINS)},
            }
        splits[split] = items
    return splits


def write(folder: Path, seed: int) -> None:
    """Writes ``MD-Agreement_{train,dev}.json`` into ``folder``."""
    for split, items in draw_splits(seed).items():
        text = json.dumps(items, indent=4, ensure_ascii=False)
        (folder / f"MD-Agreement_{split}.json").write_text(text + "\n", encoding="utf-8")
