"""The instruction dataset of a feature: as token ids for the trainer, and as text for use elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.files import written_aside
from common.stages import say
from sbic_llama.corpus import Post, Split, labelled
from sbic_llama.encoding import Encoded, answer_ids, encode
from sbic_llama.features import Feature
from sbic_llama.packing import IGNORED

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TrainingRows:
    """What the trainer reads: posts in pieces, and the token ids of each one's answer."""

    encoded: Encoded
    answers: list[list[int]]

    @property
    def input_ids(self) -> list[list[int]]:
        """Post, tail and answer of each."""
        return [prompt + answer for prompt, answer in zip(self._prompts, self.answers, strict=True)]

    @property
    def labels(self) -> list[list[int]]:
        """The same length: only the answer and its EOS are learnt."""
        return [[IGNORED] * len(prompt) + answer for prompt, answer in zip(self._prompts, self.answers, strict=True)]

    @property
    def _prompts(self) -> list[list[int]]:
        return [post_ids + self.encoded.tail_ids for post_ids in self.encoded.post_ids]


def training_rows(
    tokenizer: PreTrainedTokenizerBase, declared: Feature, posts: Sequence[Post], *, max_post_tokens: int
) -> TrainingRows:
    """Posts with their answers as token ids."""
    return TrainingRows(
        encode(tokenizer, declared, [post.text for post in posts], max_post_tokens=max_post_tokens),
        answer_ids(tokenizer, [declared.target(post) for post in posts]),
    )


def dump_dataset(declared: Feature, split: Split, path: Path) -> None:
    """Writes a feature's training posts as prompt, completion and label, one JSON object a line."""
    posts = labelled(split, declared.label_of)
    with written_aside(path) as part, part.open("w", encoding="utf-8") as file:
        for post in posts:
            label = declared.label_of(post)
            row = {
                "prompt": declared.prompt(post),
                "completion": declared.target(post),
                "label": declared.labels[label] if isinstance(label, int) else list(label),
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    say(f"{len(posts):,} training posts of {declared.name}: {path}")
