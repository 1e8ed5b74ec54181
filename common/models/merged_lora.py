"""Answering on a CPU: each quantised layer and its adapter as one dense matrix, for as long as there is something to answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft.tuners.lora import LoraLayer

from common.runtime import hardware

SHARE = 0.5  # of the machine's memory: not of what is free just now, or one part of a file would be answered so, another otherwise


class Dense(torch.nn.Module):
    """A linear layer whose weights are neither trained nor saved."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None):
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x.to(self.weight.dtype), self.weight, self.bias).to(x.dtype)


@contextlib.contextmanager
def merged_lora(model: Any) -> Iterator[None]:
    """Inside the block, 4-bit layers under a model's active adapters are dense, in the precision that they compute in.

    A forward pass otherwise unpacks every 4-bit weight again, and multiplies by an adapter's two thin matrices in two steps more,
    in fp32. One dense matrix holds both, made once for all forward passes of the block; answers are the same but for rounding.
    (bitsandbytes' own packed kernel for such CPUs is made for single tokens and is slower than this for whole prompts.)

    On a GPU, where the point of 4 bits is that nothing else fits, and where dense weights would take more than half of the
    machine's memory, nothing is done. Weights must not be trained inside the block, and the adapter not changed.
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
    """Whether the adapters are a product of two matrices and nothing else (not DoRA, no bias)."""
    return not layer.lora_variant and all(b.bias is None for b in layer.lora_B.values())


def _fits(layers: list[tuple[Any, str, Any]]) -> bool:
    bases = [child.get_base_layer() for _, _, child in layers]
    if bases[0].weight.device.type != "cpu" or hardware.shards():
        return False
    needed = sum(base.in_features * base.out_features * base.compute_dtype.itemsize for base in bases)
    return needed * hardware.local_processes() < SHARE * hardware.memory_bytes()


@torch.no_grad()
def _dense(layer: Any) -> Dense:
    base = layer.get_base_layer()
    weight = dequantize_4bit(base.weight.data, base.weight.quant_state).to(base.compute_dtype)
    if not layer.disable_adapters:
        for adapter in set(layer.active_adapters) & set(layer.lora_A):
            change = layer.lora_B[adapter].weight.float() @ layer.lora_A[adapter].weight.float()
            weight = torch.add(weight, change, alpha=layer.scaling[adapter]).to(base.compute_dtype)
    return Dense(weight, base.bias)
