"""Turn pairs into what an encoder takes: the tokens and segments that its tokenizer gives, truncated to a length."""

from __future__ import annotations

import inspect
from collections.abc import Sequence, Set
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from common.cli.errors import UserError
from common.models.prompt import added_ids, as_text, plain_ids
from snli_roberta.data.corpus import Pair

Encoded = dict[str, list[int]]  # without the attention mask, which padding adds
Sentences = list[int | None]  # of each token: 0 or 1; None for those around the sentences
CHUNK = 1024  # pairs that are tokenized together
# Last parts of the names of absolute position tables.
POSITIONS = ("position_embeddings", "embed_positions", "wpe")


def fit_tokenizer(tokenizer: PreTrainedTokenizerBase, model: Any, name: str) -> None:
    """Make a tokenizer give just what the model takes, and name its padding token to the model.

    The tokenizer is saved so: whoever loads it passes the same inputs, such as a BERT's ``token_type_ids``.
    """
    taken = set(inspect.signature(_core(model).forward).parameters)
    if "attention_mask" not in taken:
        raise UserError("the model has no attention mask, so that padding changes its answers", file=name)
    if getattr(model.config, "type_vocab_size", None) == 1:  # a table with one row: the second segment has none
        taken.discard("token_type_ids")
    given = [each for each in tokenizer.model_input_names if each in taken]
    given += [] if "attention_mask" in given else ["attention_mask"]
    if given != list(tokenizer.model_input_names):
        tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = given
    if model.config.pad_token_id is None:  # decoders find their last token by it
        model.config.pad_token_id = tokenizer.pad_token_id


def encode(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair], max_length: int) -> tuple[list[Encoded], int]:
    """Return the inputs of each pair, and how many pairs were truncated (longest sentence first) to ``max_length``.

    Added tokens in a sentence are plain text: ``</s>`` does not end it.
    """
    if not tokenizer.is_fast:
        return _encode_slowly(tokenizer, pairs, max_length)
    rows: list[Encoded] = []
    cut, added = 0, added_ids(tokenizer)
    for start in range(0, len(pairs), CHUNK):
        some = pairs[start : start + CHUNK]
        texts = [pair.premise for pair in some], [pair.hypothesis for pair in some]
        batch = tokenizer(*texts, split_special_tokens=True, verbose=False)
        for i in range(len(some)):
            sentences = batch.sequence_ids(i)
            row = {name: values[i] for name, values in batch.items() if name != "attention_mask"}
            row["input_ids"] = _as_text(tokenizer, row["input_ids"], sentences, added)
            if len(sentences) > max_length:
                cut += 1
                row = _truncated(row, sentences, max_length, keep_start=tokenizer.truncation_side == "right")
            rows.append(row)
    return rows, cut


def _as_text(tokenizer: PreTrainedTokenizerBase, ids: list[int], sentences: Sentences, added: Set[int]) -> list[int]:
    """Return a pair's tokens without added ones in its sentences."""
    within = [i for i, sentence in zip(ids, sentences, strict=True) if sentence is not None]
    if added.isdisjoint(within):
        return ids
    text = iter(as_text(tokenizer, within, added))
    return [i if sentence is None else next(text) for i, sentence in zip(ids, sentences, strict=True)]


def _encode_slowly(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair], max_length: int
) -> tuple[list[Encoded], int]:
    """Do what :func:`encode` does with a tokenizer that is not one of the ``tokenizers`` library."""
    rows, cut = [], 0
    for pair in pairs:
        texts = plain_ids(tokenizer, [pair.premise, pair.hypothesis])
        row = tokenizer.prepare_for_model(*texts, truncation="longest_first", max_length=max_length, verbose=False)
        cut += sum(map(len, texts)) + tokenizer.num_special_tokens_to_add(pair=True) > max_length
        rows.append({name: values for name, values in row.items() if name != "attention_mask"})
    return rows, cut


def _truncated(row: Encoded, sentences: Sentences, max_length: int, *, keep_start: bool) -> Encoded:
    """Return a pair's inputs as ``truncation="longest_first"`` leaves them.

    Fast tokenizers keep all that they cut, in combinations: two texts of 16,000 words take a minute and 11 GB. Here the surplus
    tokens are dropped from the whole pair instead, which is the same.
    """
    places: list[list[int]] = [[], []]
    for place, sentence in enumerate(sentences):
        if sentence is not None:
            places[sentence].append(place)
    special = len(sentences) - sum(map(len, places))
    dropped: set[int] = set()
    for those, kept in zip(places, kept_lengths(*map(len, places), max_length - special), strict=True):
        dropped.update(those[kept:] if keep_start else those[: len(those) - kept])
    return {name: [value for k, value in enumerate(values) if k not in dropped] for name, values in row.items()}


def kept_lengths(first: int, second: int, total: int) -> tuple[int, int]:
    """Return how many tokens of two texts the ``tokenizers`` library keeps if the longest is cut first, to ``total``."""
    shorter, longer = sorted((first, second))
    longer = shorter if shorter > total else max(shorter, total - shorter)
    if shorter + longer > total:
        shorter = total // 2
        longer = shorter + total % 2
    return (shorter, longer) if first <= second else (longer, shorter)


def longest(model: Any) -> int | None:
    """Return for how many tokens the model has absolute positions; None if its positions are relative."""
    limits = []
    for name, module in _core(model).named_modules():
        if isinstance(module, torch.nn.Embedding) and name.rpartition(".")[2] in POSITIONS:
            # BART's tables begin with two unused rows, RoBERTa's with those up to the padding token's.
            unused = getattr(module, "offset", 0 if module.padding_idx is None else module.padding_idx + 1)
            limits.append(module.num_embeddings - unused)
    return min(limits, default=None)


def check_length(model: Any, max_length: int) -> None:
    """Refuse a length for which the model has no positions."""
    limit = longest(model)
    if limit is not None and max_length > limit:
        problem = f"{max_length:,} tokens, but the model has positions for {limit:,}"
        raise UserError(problem, key="max_length", expected=f"at most {limit}")


def check_tokens(model: Any, rows: Sequence[Encoded]) -> None:
    """Refuse tokens that the model has no embeddings for: those of another model's tokenizer."""
    largest = max((max(row["input_ids"], default=0) for row in rows), default=0)
    if largest >= (known := _core(model).get_input_embeddings().num_embeddings):
        problem = f"the tokenizer gives token {largest:,}, but the model has {known:,}"
        raise UserError(problem, fix="use the tokenizer that belongs to the model")


def _core(model: Any) -> Any:
    """Return the model without a LoRA adapter around it."""
    return model.get_base_model() if hasattr(model, "peft_config") else model
