"""The instruction template, and its tokenisation in pieces, each with the tokens that it has in its place in the whole prompt.

Pieces that are tokenised apart never merge across a boundary, whatever a post holds. But a tokenizer treats the start of a
text in a way of its own (Llama's puts a space there), so a piece by itself would get other tokens than the same words get
in the middle of a prompt. Every later piece here stands after a line break or begins with one: it is tokenised behind a
line break, whose own tokens are then taken away.
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


def opening_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a prompt's first piece, with the token that opens a text (BOS) where the tokenizer has one."""
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return bos + _plain(tokenizer, [text])[0]


def following_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of pieces that stand after a line break, or begin with one. Special tokens in them are mere text."""
    if not texts:
        return []
    line_break, two = _plain(tokenizer, ["\n", "\n\n"])
    if two != [*line_break, line_break[-1]]:
        return _plain(
            tokenizer, texts
        )  # a tokenizer that joins line breaks; such ones treat no start in a way of its own
    return [ids[len(line_break) :] for ids in _plain(tokenizer, [f"\n{text}" for text in texts])]


def _plain(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    # split_special_tokens: `</s>` in a post is a few characters, not the end of the answer.
    return tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True).input_ids
