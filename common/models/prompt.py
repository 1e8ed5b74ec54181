"""The instruction template, tokenized in pieces that get the same tokens as in the whole prompt.

Pieces that are tokenized separately never merge across a boundary, whatever a post contains. But tokenizers treat the
start of a text specially (Llama's puts a space there), so a piece alone would get other tokens than in the middle of a
prompt. Every later piece here follows or begins with a line break: it is tokenized behind one, which is then cut off.
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
    """Return the token ids of a prompt's first piece, with BOS where the tokenizer has one."""
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return bos + _token_ids(tokenizer, [text])[0]


def following_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of pieces that follow or begin with a line break. Special tokens in them are plain text."""
    if not texts:
        return []
    line_break, two = _token_ids(tokenizer, ["\n", "\n\n"])
    if two != [
        *line_break,
        line_break[-1],
    ]:  # the tokenizer joins line breaks; such ones do not treat a start specially
        return _token_ids(tokenizer, texts)
    return [ids[len(line_break) :] for ids in _token_ids(tokenizer, [f"\n{text}" for text in texts])]


def _token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    # split_special_tokens: `</s>` in a post is a few characters, not the end of the answer.
    return tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True).input_ids
