"""``encode``: the only place where a prompt becomes tokens. Training, scoring and generation all read its pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.cli.errors import UserError
from common.models.prompt import TAIL, following_ids, opening_ids
from sbic_llama.data.features import Feature

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


BATCH_TOKENS = 4096  # a forward pass: the keys and values of Llama-2-7B then take some 2 GB


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

    def batches(self, size: int) -> Iterator[list[int]]:
        """Indices of posts for one forward pass after another: at most ``size`` posts of like length, and not so many that
        their tokens and the instruction's, padding included, exceed :data:`BATCH_TOKENS`."""
        order = sorted(range(len(self.post_ids)), key=lambda i: len(self.post_ids[i]))
        around = len(self.prefix_ids) + len(self.tail_ids)
        batch: list[int] = []
        for index in order:
            width = len(self.post_ids[index]) + around  # the longest so far
            if batch and (len(batch) == size or (len(batch) + 1) * width > BATCH_TOKENS):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def require_context(self, answer_tokens: int, context: int) -> None:
        """Checks that the longest post, with its instruction and an answer, fits what the base model reads.

        Args:
            answer_tokens: Tokens of the longest answer.
            context: Positions that the base model knows.

        Raises:
            UserError: It does not fit.
        """
        longest = max(map(len, self.post_ids), default=0)
        room = context - len(self.prefix_ids) - len(self.tail_ids) - answer_tokens
        if longest > room:
            raise UserError(
                f"a post of {longest} tokens, with its instruction and answer, is more than the model's {context}",
                key="max_post_tokens",
                expected=f"at most {room}",
            )


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
