"""Rows of training: posts behind one copy of the instruction, and the loss over their answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from sbic_llama.data.encoding import begins_with
from sbic_llama.model.attention import add_blocks
from sbic_llama.model.masks import attention_masks

IGNORED = -100  # label of a token that is not learned


class SharedInstruction:
    """Collate posts into one sequence: the instruction once, then the rest of each prompt with its answer.

    A 4-D mask lets every token attend to the instruction and to earlier tokens of its own post; positions restart after
    the instruction. Loss and gradients equal those of separate sequences. With dropout inside an adapter they would not,
    as all posts would share the instruction's dropout; then use ``share=False`` for separate, padded sequences. A prompt
    that does not begin with the instruction's tokens has a part of the sequence to itself.

    Examples hold ``input_ids`` (prompt and answer) and ``labels`` (the answer; :data:`IGNORED` elsewhere). A shared row comes
    with ``part_lengths``: the tokens of the instruction, then those of each post. Where examples have a ``weight``, the batch
    has ``weights``, one for each learned token.
    """

    def __init__(self, prefix_ids: Sequence[int], pad_token_id: int, *, share: bool):
        self.prefix = torch.tensor(prefix_ids)
        self.pad_token_id = pad_token_id
        self.share = share

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self._shared(examples) if self.share else self._separate(examples)
        if "weight" in examples[0]:
            learned = [sum(label != IGNORED for label in example["labels"]) for example in examples]
            weights = torch.tensor([float(example["weight"]) for example in examples])
            batch["weights"] = torch.repeat_interleave(weights, torch.tensor(learned))
        return batch

    def _shared(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        prefix = self.prefix.tolist()
        # Tokens that a prompt has in common with the others; none where it begins differently.
        common = [len(prefix) * begins_with(example["input_ids"], prefix) for example in examples]
        ends = [len(example["input_ids"]) for example in examples]
        pairs = list(zip(examples, common, strict=True))
        ids = torch.cat([self.prefix, *(torch.tensor(each["input_ids"][start:]) for each, start in pairs)])
        ignored = torch.full((len(prefix),), IGNORED)
        labels = torch.cat([ignored, *(torch.tensor(each["labels"][start:]) for each, start in pairs)])
        ranges = [torch.arange(start, end) for start, end in zip(common, ends, strict=True)]
        positions = torch.cat([torch.arange(len(prefix)), *ranges])
        sizes = torch.tensor([len(prefix), *map(len, ranges)])
        owner = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        behind = torch.repeat_interleave(torch.tensor([True, *map(bool, common)]), sizes)  # the instruction
        visible = (owner[:, None] == owner[None, :]) | ((owner[None, :] == 0) & behind[:, None])
        mask = visible & torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
        batch = {"input_ids": ids, "labels": labels, "position_ids": positions, "attention_mask": mask[None]}
        return {name: tensor[None] for name, tensor in batch.items()} | {"part_lengths": sizes}

    def _separate(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids, labels = ([torch.tensor(each[name]) for each in examples] for name in ("input_ids", "labels"))
        mask = [torch.ones_like(row) for row in ids]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.pad_token_id),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
            "attention_mask": pad_sequence(mask, batch_first=True),
        }


def answer_losses(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the loss of each learned token of a collated batch, in order, computing logits for these alone.

    ``model`` may be wrapped, by PEFT or for several processes.
    """
    labels = batch["labels"][:, 1:]
    answers = torch.nn.functional.pad(labels != IGNORED, (0, 1))  # the positions before them
    inputs = {name: tensor for name, tensor in batch.items() if name not in ("labels", "part_lengths", "weights")}
    if inputs["attention_mask"].ndim == 4:
        config, dtype = unwrapped(model).config, unwrapped(model).dtype
        places = inputs["position_ids"]
        masks = attention_masks(config, inputs["attention_mask"][:, 0], places, places, dtype=dtype)
        if labels.device.type == "cpu" and config._attn_implementation == "sdpa":
            prefix, *lengths = batch["part_lengths"].tolist()
            for mask in masks.values() if isinstance(masks, dict) else [masks]:
                add_blocks(mask, prefix, lengths)
        inputs["attention_mask"] = masks
    logits = model(**inputs, use_cache=False, logits_to_keep=answers).logits
    return torch.nn.functional.cross_entropy(logits.float(), labels[labels != IGNORED], reduction="none")


def unwrapped(model: Any) -> Any:
    """Return a model without the wrapper for several processes."""
    return getattr(model, "module", model)
