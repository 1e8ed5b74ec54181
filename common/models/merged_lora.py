"""Merge 4-bit layers and their LoRA adapters into dense matrices for inference on a CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from peft.tuners.lora import LoraLayer

from common.models.merging import merged_weight
from common.runtime import hardware

SHARE = 0.5  # of all memory, not of free memory: otherwise parts of one file could be answered in different ways


class Dense(torch.nn.Module):
    """A linear layer with weights that are neither trained nor saved."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None):
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)


@contextlib.contextmanager
def merged_lora(model: Any) -> Iterator[None]:
    """Make 4-bit layers with active adapters dense inside the block, in the precision that they compute in.

    Otherwise every forward pass unpacks the 4-bit weights again and multiplies by the adapter's two thin matrices in fp32.
    Answers are the same up to rounding. (bitsandbytes' own packed CPU kernel is made for single tokens and is slower for
    whole prompts.) Nothing changes on a GPU, nor where dense weights would take more than half of the machine's memory.
    Do not train inside the block or change the adapter.
    """
    layers = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, LoraLayer) and isinstance(child.get_base_layer(), Linear4bit)
    ]
    if not layers or not all(_plain(child) for _, _, child in layers) or not _fits(layers):
        yield
        return
    try:
        for parent, name, child in layers:
            setattr(parent, name, _dense(child))
        yield
    finally:
        for parent, name, child in layers:
            setattr(parent, name, child)


def _plain(layer: Any) -> bool:
    """Return whether the adapters are products of two matrices and nothing else (not DoRA, no bias)."""
    return not layer.lora_variant and all(b.bias is None for b in layer.lora_B.values())


def _fits(layers: list[tuple[Any, str, Any]]) -> bool:
    bases = [child.get_base_layer() for _, _, child in layers]
    if bases[0].weight.device.type != "cpu" or hardware.shards():
        return False
    needed = sum(base.in_features * base.out_features * base.compute_dtype.itemsize for base in bases)
    return needed * hardware.local_processes() < SHARE * hardware.memory_bytes()


def _dense(layer: Any) -> Dense:
    base = layer.get_base_layer()
    return Dense(merged_weight(layer).to(base.compute_dtype), base.bias)
