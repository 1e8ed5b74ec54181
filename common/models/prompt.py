"""The instruction template, and the tokens of prompts and answers.

A prompt has the tokens of its whole text, which is what other programs send to a model. Tokens of pieces would differ:
many tokenizers join the end of a post and the line breaks behind it.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HEAD = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{}\n\nInput:\n"
)
TAIL = "\n\n### Response:\n"
PLAIN: dict[str, bool] = {"add_special_tokens": False, "split_special_tokens": True}  # how a tokenizer reads mere text


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of whole prompts, with BOS where the tokenizer itself adds it.

    Added tokens in a text are plain text: ``</s>`` in a post is a few characters, not the end of the answer.
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
    """Return the token ids of texts without BOS and EOS; added tokens in them are plain text."""
    if not texts:
        return []
    rows, added = tokenizer(list(texts), **PLAIN).input_ids, added_ids(tokenizer)
    return [as_text(tokenizer, ids, added) for ids in rows]


def token_places(tokenizer: PreTrainedTokenizerBase, text: str) -> list[tuple[int, int]]:
    """Return the first character of each of a text's tokens, and the one behind it; not for slow tokenizers."""
    return tokenizer(text, **PLAIN, return_offsets_mapping=True).offset_mapping


def mark_added(tokenizer: PreTrainedTokenizerBase) -> None:
    """Mark all added tokens as special, so that ``split_special_tokens`` splits each; the tokenizer is saved so, too."""
    if tokenizer.is_fast:
        tokens = [tokenizer.added_tokens_decoder[i] for i in sorted(added_ids(tokenizer))]
        for token in (others := [token for token in tokens if not token.special]):
            token.special = True
        tokenizer.backend_tokenizer.add_special_tokens(others)


def added_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids of the added tokens that no text may have: control tokens such as ``</s>``, and any others.

    White space and single characters are text anyway, and the unknown token stands for any text.
    """
    names = {i: token.content.replace("\u2581", " ").strip() for i, token in tokenizer.added_tokens_decoder.items()}
    control = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.cls_token_id}
    added = {i for i, name in names.items() if len(name) > 1 or (name and i in control)}
    return added - ({tokenizer.unk_token_id} - control)


def as_text(tokenizer: PreTrainedTokenizerBase, ids: list[int], added: Set[int]) -> list[int]:
    """Return the tokens of a text with the unknown token in place of ``added`` ones.

    ``split_special_tokens`` leaves those that the vocabulary has, too: Unigram models find them there, even in text that
    only a normalizer makes equal to them.
    """
    if added.isdisjoint(ids):
        return ids
    candidates = (tokenizer.unk_token_id, *tokenizer("_", **PLAIN).input_ids, *range(len(tokenizer)))
    unknown = next(i for i in candidates if i is not None and i not in added)
    return [unknown if i in added else i for i in ids]
