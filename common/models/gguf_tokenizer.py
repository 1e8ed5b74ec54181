"""A tokenizer in GGUF's terms, so that llama.cpp reads texts into the same tokens."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gguf import TokenType
from transformers import PreTrainedTokenizerBase

from common.cli.errors import UserError
from common.models.prompt import added_ids

SPACE = "\u2581"  # how SentencePiece writes a space
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SPACES = {  # how the first conversions of Llama 2 to transformers write spaces
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": SPACE},
        {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
    ],
}
# llama.cpp's names of the ways to cut a text into words before it is tokenized, by the regular expression. They are those of
# `llm_tokenizer_bpe` in its src/llama-vocab.cpp.
LLAMA_3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS = {LLAMA_3: "llama-bpe", LLAMA_3.replace("{1,3}", ""): "qwen2"}


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says about a tokenizer."""

    model: str  # llama.cpp's name of the algorithm
    words: str  # its name of the way to cut a text into words
    tokens: list[str]
    types: list[int]
    scores: list[float] | None  # of SentencePiece's tokens
    merges: list[str] | None  # of byte-level BPE
    space_prefix: bool  # whether a text gets a space in front, also behind a control token
    explicit_space: bool  # whether a prompt that begins with text must have that space itself
    renamed: dict[str, str]  # control tokens by name, and what they are called in the file


def vocabulary(tokenizer: PreTrainedTokenizerBase, size: int, *, chat: bool) -> Vocabulary:
    """Describe a tokenizer for a GGUF file of a model with ``size`` embeddings; ``chat`` says whether prompts have control tokens.

    Programs around llama.cpp fill a template with a text and tokenize the result, where ``</s>`` in the text would be the
    control token. So control tokens get names in the file that no text has by chance: whatever a text contains stays text.

    Raises:
        UserError: Neither byte-level BPE as of GPT-2, Llama 3 or Qwen, nor SentencePiece's BPE as of Llama 2.
    """
    model, kind = require_known(tokenizer)
    suffix, added = secrets.token_hex(8), added_ids(tokenizer)
    tokens = [f"[PAD{i}]" for i in range(size)]
    types = [int(TokenType.UNUSED)] * size
    renamed = {}
    for text, i in tokenizer.get_vocab().items():
        if i >= size:
            continue  # a token without an embedding, which no text becomes
        tokens[i], types[i] = text, int(TokenType.NORMAL)
        if kind[0] == "llama" and text in BYTES:
            types[i] = int(TokenType.BYTE)
        if i in tokenizer.added_tokens_decoder:
            types[i] = int(TokenType.CONTROL if i in added else TokenType.USER_DEFINED)
            if i == tokenizer.unk_token_id:
                types[i] = int(TokenType.UNKNOWN)
            if len(text.strip()) > 1:
                tokens[i] = renamed[text] = f"{text}{suffix}"
    merges = [each if isinstance(each, str) else " ".join(each) for each in model["merges"]]
    if kind[0] == "gpt2":
        return Vocabulary(*kind, tokens, types, None, merges, False, False, renamed)
    # llama.cpp puts a space in front of each run of text, many tokenizers in front of the first one only.
    splitter = tokenizer.backend_tokenizer.pre_tokenizer
    scheme = "always" if splitter is None else splitter.prepend_scheme
    prefix, explicit = (not chat, chat) if scheme == "first" else (scheme == "always", False)
    return Vocabulary(*kind, tokens, types, _scores(merges, tokenizer, size), None, prefix, explicit, renamed)


def require_known(tokenizer: PreTrainedTokenizerBase) -> tuple[dict[str, Any], tuple[str, str]]:
    """Return a tokenizer's model, and llama.cpp's names of the algorithm and of the way to cut a text into words."""
    facts = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {}
    kind = _kind(facts)
    if kind is None:
        problem = "its tokenizer cannot be written into a GGUF file"
        expected = "byte-level BPE as of GPT-2, Llama 3 or Qwen, or SentencePiece's BPE as of Llama 2"
        raise UserError(problem, file=tokenizer.name_or_path, expected=expected, fix="use --to merged")
    return facts["model"], kind


def _kind(facts: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return llama.cpp's names of the algorithm and of the way to cut words; None for others."""
    model, normalizer, splitter = (facts.get(name) or {} for name in ("model", "normalizer", "pre_tokenizer"))
    if model.get("type") != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return None
    steps = splitter.get("pretokenizers", [splitter])
    names = [step.get("type") for step in steps]
    if model.get("byte_fallback"):
        metaspace = names == ["Metaspace"] and not normalizer and steps[0]["split"] is False
        return ("llama", "default") if metaspace or (normalizer == SPACES and names == [None]) else None
    # llama.cpp does not bring texts into NFC, as Qwen does: those outside of it have other tokens there.
    if names[-1] != "ByteLevel" or steps[-1]["add_prefix_space"] or (normalizer and normalizer["type"] != "NFC"):
        return None
    words = None
    if names == ["ByteLevel"] and steps[0]["use_regex"]:
        words = "gpt-2"
    elif names == ["Digits", "ByteLevel"] and steps[0]["individual_digits"] and steps[1]["use_regex"]:
        words = "smollm"
    elif names == ["Split", "ByteLevel"] and not steps[1]["use_regex"]:
        words = WORDS.get(steps[0]["pattern"].get("Regex"))
    whole = model.get("ignore_merges", False)  # whether a word that is a token is not taken apart first
    return ("gpt2", words) if words and whole == (words == "llama-bpe") else None


def _scores(merges: list[str], tokenizer: PreTrainedTokenizerBase, size: int) -> list[float]:
    """Return scores for SentencePiece's algorithm, which joins the pair whose joined token has the highest one."""
    scores, ids = [-1e9] * size, tokenizer.get_vocab()
    for rank, merge in enumerate(merges):
        i = ids.get(merge.replace(" ", ""))
        if i is not None and scores[i] < -rank:
            scores[i] = float(-rank)
    return scores
