"""Turn prompts into tokens, in one place: training, scoring and generation all read what ``encode`` returns."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from common.cli.errors import UserError
from common.models.prompt import Frame, frame_of, token_places
from sbic_llama.data.features import Feature

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKEN_CHARACTERS = 64  # what a token stands for at most; the rest of a long post is cut before it is tokenized
GROUP_CHARACTERS = 250_000
BATCH_TOKENS = 4096  # per forward pass: the keys and values of Llama-2-7B then take some 2 GB
STARTS = ("a", "The", "7", "@", "#", '"', "é", "😂")  # of posts; what their prompts have in common is the prefix


@dataclass(frozen=True)
class Encoded:
    """The tokens of posts' prompts, which an answer follows."""

    prefix_ids: list[int]  # BOS and the instruction: the tokens that prompts of a feature have in common
    prompts: list[list[int]]  # all tokens of each prompt
    around: int  # tokens of a prompt besides those of its post
    cut: int  # how many posts were truncated; nothing but the post is ever truncated
    end: int  # token that ends an answer

    def shares(self, index: int) -> bool:
        """Return whether a prompt begins with the prefix, as nearly all do."""
        return begins_with(self.prompts[index], self.prefix_ids)

    def select(self, indices: Sequence[int]) -> Encoded:
        """Return the prompts of some posts."""
        return replace(self, prompts=[self.prompts[i] for i in indices])

    def batches(self, size: int) -> Iterator[list[int]]:
        """Yield the indices of posts for each forward pass: at most ``size`` posts of similar length.

        The tokens of a batch, with padding, do not exceed :data:`BATCH_TOKENS`. Either all prompts of a batch begin with the
        prefix, or none does.
        """
        batch: list[int] = []
        for index in sorted(range(len(self.prompts)), key=lambda i: (self.shares(i), len(self.prompts[i]))):
            width = len(self.prompts[index])  # the longest so far
            full = len(batch) == size or (len(batch) + 1) * width > BATCH_TOKENS
            if batch and (full or self.shares(batch[0]) != self.shares(index)):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def require_context(self, answer_tokens: int, context: int) -> None:
        """Check that the longest post, its instruction and its answer fit the base model's context."""
        longest = max(map(len, self.prompts), default=0)
        if longest + answer_tokens > context:
            raise UserError(
                f"a post of {longest - self.around} tokens, with its instruction and answer, exceeds the model's context "
                f"of {context}",
                key="max_post_tokens",
                expected=f"at most {context - answer_tokens - self.around}",
            )


def begins_with(ids: Sequence[int], prefix: Sequence[int]) -> bool:
    return list(ids[: len(prefix)]) == list(prefix)


def encode(
    tokenizer: PreTrainedTokenizerBase, feature: Feature, posts: Sequence[str], *, max_post_tokens: int
) -> Encoded:
    """Tokenize the prompts of ``posts``, truncating each post to ``max_post_tokens`` tokens."""
    frame = frame_of(tokenizer, feature.template, feature.instruction)
    starts = frame.prompts(STARTS)
    around = min(map(len, starts)) - 1  # the shortest start is one token
    most = max_post_tokens * TOKEN_CHARACTERS
    limit, cut = around + max_post_tokens, 0
    prompts: list[list[int]] = []
    for group in _groups([post[: most + 1] for post in posts]):
        for post, ids in zip(group, frame.prompts([post[:most] for post in group]), strict=True):
            too_long = len(ids) > limit or len(post) > most
            prompts.append(_truncated(frame, post[:most], limit) if too_long else ids)
            cut += too_long
    prefix = [ids[0] for ids in itertools.takewhile(lambda ids: len(set(ids)) == 1, zip(*starts, strict=False))]
    return Encoded(prefix, prompts, around, cut, frame.end)


def _groups(posts: Sequence[str]) -> Iterator[list[str]]:
    """Yield posts that are tokenized together: until a long post is cut, each of its tokens takes some hundred bytes."""
    group: list[str] = []
    size = 0
    for post in posts:
        if group and size + len(post) > GROUP_CHARACTERS:
            yield group
            group, size = [], 0
        group.append(post)
        size += len(post)
    if group:
        yield group


def _truncated(frame: Frame, post: str, limit: int) -> list[int]:
    """Return at most ``limit`` tokens of a prompt, whose post is shortened at its end."""
    if not frame.reader.is_fast:
        raise UserError("a post is too long, and this tokenizer cannot tell where to cut it", key="max_post_tokens")
    while True:
        (ids,) = frame.prompts([post])
        excess = len(ids) - limit
        if excess <= 0 or not post:
            return ids
        start, end = len(frame.opening), len(frame.opening) + len(post)
        places = token_places(frame.reader, f"{frame.opening}{post}{frame.closing}")
        begins = [begin for begin, stop in places if start < stop <= end]  # of the tokens that lie in the post
        post = post[: max(0, begins[-excess] - start)] if excess <= len(begins) else ""
