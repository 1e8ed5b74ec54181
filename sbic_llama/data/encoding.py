"""Turn prompts into tokens, in one place: training, scoring and generation all read the pieces of ``encode``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.cli.errors import UserError
from common.models.prompt import TAIL, following_ids, opening_ids
from sbic_llama.data.features import Feature

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BATCH_TOKENS = 4096  # per forward pass: the keys and values of Llama-2-7B then take some 2 GB


@dataclass(frozen=True)
class Encoded:
    """Posts as the pieces of their prompts: ``prefix_ids + post_ids[i] + tail_ids``, then an answer."""

    prefix_ids: list[int]  # BOS and the instruction, the same for every post of a feature
    post_ids: list[list[int]]  # a list of tokens per post, none of them special
    tail_ids: list[int]  # follows a post and asks for the answer
    cut: int  # how many posts were truncated; nothing but the post is ever truncated

    def batches(self, size: int) -> Iterator[list[int]]:
        """Yield the indices of posts for each forward pass: at most ``size`` posts of similar length.

        The tokens of a batch, with the instruction and padding, do not exceed :data:`BATCH_TOKENS`.
        """
        around = len(self.prefix_ids) + len(self.tail_ids)
        batch: list[int] = []
        for index in sorted(range(len(self.post_ids)), key=lambda i: len(self.post_ids[i])):
            width = len(self.post_ids[index]) + around  # the longest so far
            if batch and (len(batch) == size or (len(batch) + 1) * width > BATCH_TOKENS):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def require_context(self, answer_tokens: int, context: int) -> None:
        """Check that the longest post, its instruction and its answer fit the base model's context."""
        longest = max(map(len, self.post_ids), default=0)
        room = context - len(self.prefix_ids) - len(self.tail_ids) - answer_tokens
        if longest > room:
            raise UserError(
                f"a post of {longest} tokens, with its instruction and answer, exceeds the model's context of {context}",
                key="max_post_tokens",
                expected=f"at most {room}",
            )


def encode(
    tokenizer: PreTrainedTokenizerBase, feature: Feature, posts: Sequence[str], *, max_post_tokens: int
) -> Encoded:
    """Tokenize the prompts of ``posts``, truncating each post to ``max_post_tokens`` tokens."""
    (tail_ids,) = following_ids(tokenizer, [TAIL])
    whole = following_ids(tokenizer, posts)
    return Encoded(
        prefix_ids=opening_ids(tokenizer, feature.opening),
        post_ids=[ids[:max_post_tokens] for ids in whole],
        tail_ids=tail_ids,
        cut=sum(len(ids) > max_post_tokens for ids in whole),
    )


def answer_ids(tokenizer: PreTrainedTokenizerBase, answers: Sequence[str]) -> list[list[int]]:
    """Tokenize answers, each followed by EOS."""
    return [[*ids, tokenizer.eos_token_id] for ids in following_ids(tokenizer, answers)]
