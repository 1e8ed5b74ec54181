"""``encode``: the only place where a prompt becomes tokens. Training, scoring and generation all read its pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.prompt import TAIL, following_ids, opening_ids
from sbic_llama.features import Feature

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Encoded:
    """Posts as the pieces of their prompts: ``prefix_ids + post_ids[i] + tail_ids``, then an answer.

    Attributes:
        prefix_ids: BOS and the instruction: the same for every post of a feature.
        post_ids: A list of tokens a post, none of them special.
        tail_ids: What follows a post and asks for the answer.
        cut: How many posts were longer than allowed; only the post is ever cut.
    """

    prefix_ids: list[int]
    post_ids: list[list[int]]
    tail_ids: list[int]
    cut: int


def encode(
    tokenizer: PreTrainedTokenizerBase, feature: Feature, posts: Sequence[str], *, max_post_tokens: int
) -> Encoded:
    """The pieces of the prompts of ``posts``, each post cut to its first ``max_post_tokens`` tokens."""
    (tail_ids,) = following_ids(tokenizer, [TAIL])
    whole = following_ids(tokenizer, posts)
    return Encoded(
        prefix_ids=opening_ids(tokenizer, feature.opening),
        post_ids=[ids[:max_post_tokens] for ids in whole],
        tail_ids=tail_ids,
        cut=sum(len(ids) > max_post_tokens for ids in whole),
    )


def answer_ids(tokenizer: PreTrainedTokenizerBase, answers: Sequence[str]) -> list[list[int]]:
    """Token ids of answers, each with the token that ends it (EOS)."""
    return [[*ids, tokenizer.eos_token_id] for ids in following_ids(tokenizer, answers)]
