"""Turn texts or pairs of texts into what an encoder takes: tokens and segments, truncated to a length."""

from __future__ import annotations

import inspect
from array import array
from collections.abc import Iterator, Sequence, Set
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from common.cli.console import bar
from common.cli.errors import UserError
from common.models.prompt import added_ids, as_text, plain_ids

Texts = Sequence[str]  # of an item: one text, or a pair
Encoded = dict[str, list[int]]  # without the attention mask, which padding adds
Places = list[int | None]  # of each token: its text, 0 or 1; None for those around the texts
CHUNK = 1024  # items that are tokenized together
SILENT = 2.0  # seconds that tokenizing takes before it shows its progress
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


class EncodedItems:
    """Inputs of many items in few flat arrays of 32-bit integers: lists of half a million pairs take gigabytes.

    Attributes:
        lengths: Tokens of each item.
    """

    def __init__(self) -> None:
        self.lengths = array("i")
        self._ends = array("q", [0])  # where each item's values end
        self._values: dict[str, array[int]] = {}

    def append(self, row: Encoded) -> None:
        if not self.lengths:
            self._values = {name: array("i") for name in row}
        for name, values in self._values.items():
            values.extend(row[name])
        self.lengths.append(len(row["input_ids"]))
        self._ends.append(self._ends[-1] + self.lengths[-1])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Encoded:
        index = range(len(self))[index]
        start, end = self._ends[index], self._ends[index + 1]
        return {name: values[start:end].tolist() for name, values in self._values.items()}

    @property
    def largest(self) -> int:
        """The largest token; 0 if there is none."""
        return max(self._values.get("input_ids", ()), default=0)


def encode(
    tokenizer: PreTrainedTokenizerBase, items: Sequence[Texts], max_length: int, *, progress: bool = False
) -> tuple[EncodedItems, int]:
    """Return the inputs of each item, and how many items were truncated (longest text first) to ``max_length``.

    Added tokens in a text are plain text: ``</s>`` does not end it. ``progress`` shows a bar if it takes long.
    """
    rows, cut = EncodedItems(), 0
    chunks = _chunks if tokenizer.is_fast else _slow_chunks
    unit = "pair" if items and len(items[0]) == 2 else "text"
    with bar(len(items), unit, show=progress, title="tokenizing", delay=SILENT) as done:
        for chunk, truncated in chunks(tokenizer, items, max_length):
            for row in chunk:
                rows.append(row)
            cut += truncated
            done.update(len(chunk))
    return rows, cut


def _chunks(
    tokenizer: PreTrainedTokenizerBase, items: Sequence[Texts], max_length: int
) -> Iterator[tuple[list[Encoded], int]]:
    """Yield the inputs of successive items, and how many of them were truncated."""
    added = added_ids(tokenizer)
    for start in range(0, len(items), CHUNK):
        rows, cut = [], 0
        columns = [list(column) for column in zip(*items[start : start + CHUNK], strict=True)]
        batch = tokenizer(*columns, split_special_tokens=True, return_attention_mask=False, verbose=False)
        for i in range(len(columns[0])):
            places = batch.sequence_ids(i)
            row = {name: values[i] for name, values in batch.items()}
            row["input_ids"] = _as_text(tokenizer, row["input_ids"], places, added)
            if len(places) > max_length:
                cut += 1
                row = _truncated(row, places, max_length, keep_start=tokenizer.truncation_side == "right")
            rows.append(row)
        yield rows, cut


def _as_text(tokenizer: PreTrainedTokenizerBase, ids: list[int], places: Places, added: Set[int]) -> list[int]:
    """Return an item's tokens without added ones in its texts."""
    within = [i for i, place in zip(ids, places, strict=True) if place is not None]
    if added.isdisjoint(within):
        return ids
    text = iter(as_text(tokenizer, within, added))
    return [i if place is None else next(text) for i, place in zip(ids, places, strict=True)]


def _slow_chunks(
    tokenizer: PreTrainedTokenizerBase, items: Sequence[Texts], max_length: int
) -> Iterator[tuple[list[Encoded], int]]:
    """Do what :func:`_chunks` does with a tokenizer that is not one of the ``tokenizers`` library."""
    for item in items:
        texts = plain_ids(tokenizer, item)
        row = tokenizer.prepare_for_model(*texts, truncation="longest_first", max_length=max_length, verbose=False)
        whole = sum(map(len, texts)) + tokenizer.num_special_tokens_to_add(pair=len(texts) == 2)
        yield [{name: values for name, values in row.items() if name != "attention_mask"}], int(whole > max_length)


def _truncated(row: Encoded, places: Places, max_length: int, *, keep_start: bool) -> Encoded:
    """Return an item's inputs as ``truncation="longest_first"`` leaves them.

    Fast tokenizers keep all that they cut, in combinations: two texts of 16,000 words take a minute and 11 GB. Here the surplus
    tokens are dropped from the whole item instead, which is the same.
    """
    texts: list[list[int]] = [[], []]  # the second stays empty for a single text
    for token, place in enumerate(places):
        if place is not None:
            texts[place].append(token)
    special = len(places) - sum(map(len, texts))
    dropped: set[int] = set()
    for those, kept in zip(texts, kept_lengths(*map(len, texts), max_length - special), strict=True):
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


def check_tokens(model: Any, rows: EncodedItems) -> None:
    """Refuse tokens that the model has no embeddings for: those of another model's tokenizer."""
    if (largest := rows.largest) >= (known := _core(model).get_input_embeddings().num_embeddings):
        problem = f"the tokenizer gives token {largest:,}, but the model has {known:,}"
        raise UserError(problem, fix="use the tokenizer that belongs to the model")


def _core(model: Any) -> Any:
    """Return the model without a LoRA adapter around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
