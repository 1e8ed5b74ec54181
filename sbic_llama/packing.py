"""Batches for training: many posts behind one copy of their instruction, as if each had its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

IGNORED = -100


class SharedInstruction:
    """Collates posts into one sequence: the instruction once, then post, tail and answer of each.

    A 4-D mask lets every token see the instruction and, of the rest, what stands before it in its own post; positions start
    again after the instruction. Loss and gradients equal those of separate sequences. Dropout inside an adapter would fall on
    the shared instruction once for all its posts, which is not the same, so ``share=False`` makes separate, padded sequences.

    An example holds ``input_ids`` (post, tail and answer) and ``labels`` (the answer, the rest :data:`IGNORED`).
    """

    def __init__(self, prefix_ids: list[int], pad_token_id: int, *, share: bool):
        self.prefix = torch.tensor(prefix_ids)
        self.pad_token_id = pad_token_id
        self.share = share

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return self._shared(examples) if self.share else self._separate(examples)

    def _shared(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        start = len(self.prefix)
        lengths = [len(example["input_ids"]) for example in examples]
        ids = torch.cat([self.prefix, *(torch.tensor(example["input_ids"]) for example in examples)])
        nothing = torch.full((start,), IGNORED)
        labels = torch.cat([nothing, *(torch.tensor(example["labels"]) for example in examples)])
        positions = torch.cat([torch.arange(start), *(torch.arange(start, start + length) for length in lengths)])
        owner = torch.repeat_interleave(torch.arange(len(lengths) + 1), torch.tensor([start, *lengths]))
        visible = (owner[None, :] == 0) | (owner[None, :] == owner[:, None])
        mask = visible & torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
        return {
            "input_ids": ids[None],
            "labels": labels[None],
            "position_ids": positions[None],
            "attention_mask": mask[None, None],
        }

    def _separate(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        nothing = torch.full((len(self.prefix),), IGNORED)
        ids = [torch.cat([self.prefix, torch.tensor(example["input_ids"])]) for example in examples]
        labels = [torch.cat([nothing, torch.tensor(example["labels"])]) for example in examples]
        mask = [torch.ones_like(row) for row in ids]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.pad_token_id),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
            "attention_mask": pad_sequence(mask, batch_first=True),
        }
