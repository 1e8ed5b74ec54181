"""The instruction template, and the tokens of prompts and answers.

A prompt has the tokens of its whole text, which is what other programs send to a model. Tokens of pieces would differ:
many tokenizers join the end of a post and the line breaks behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HEAD = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{}\n\nInput:\n"
)
TAIL = "\n\n### Response:\n"


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of whole prompts, with BOS where the tokenizer itself adds it.

    Special tokens in a text are plain text: ``</s>`` in a post is a few characters, not the end of the answer.
    """
    start = bos_ids(tokenizer)
    return [[*start, *ids] for ids in plain_ids(tokenizer, prompts)]


def answer_ids(tokenizer: PreTrainedTokenizerBase, answers: Sequence[str]) -> list[list[int]]:
    """Return the token ids of answers as they continue a prompt, each followed by EOS."""
    # Some tokenizers put a space at the start of a text, so an answer alone would get other tokens than behind a prompt.
    before, *rows = plain_ids(tokenizer, [TAIL, *(TAIL + answer for answer in answers)])
    joined = any(row[: len(before)] != before for row in rows)
    rows = plain_ids(tokenizer, answers) if joined else [row[len(before) :] for row in rows]
    return [[*row, tokenizer.eos_token_id] for row in rows]


def bos_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the BOS token that a tokenizer puts in front of a text; nothing if it puts none."""
    added = tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    return [tokenizer.bos_token_id] if added and plain_ids(tokenizer, ["a"])[0][:1] != [tokenizer.bos_token_id] else []


def plain_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of texts without BOS and EOS; special tokens in them are plain text."""
    return tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True).input_ids if texts else []


def token_places(tokenizer: PreTrainedTokenizerBase, text: str) -> list[tuple[int, int]]:
    """Return the first character of each of a text's tokens, and the one behind it; not for slow tokenizers."""
    tokens = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    return tokens.offset_mapping
