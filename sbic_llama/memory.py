"""How much memory a training will take, told before it starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from common import hardware
from common.quantised import DTYPES
from sbic_llama.prefix_cache import decoder_of

PROBES = (32, 96)  # tokens
TRAINED_BYTES = 4 + 8  # a trained weight's gradient, and Adam's two moments, in fp32


@dataclass(frozen=True)
class Memory:
    """Bytes that a training holds at its largest step. The libraries' own (some hundred MB) come on top.

    Attributes:
        model: Base (4-bit weights with their constants, the other weights) and adapter.
        optimizer: Gradients and moments of what is trained.
        activations: What the backward pass needs of the largest forward pass, as far as tensors are kept.
    """

    model: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.model + self.optimizer + self.activations

    def line(self) -> str:
        """The estimate in words."""
        parts = ", ".join(f"{name} {size / 1e6:,.0f}" for name, size in vars(self).items())
        return f"estimated memory {self.total / 1e6:,.0f} MB ({parts}), besides the libraries' own"


def estimate(model: Any, tokens: int, *, precision: hardware.Precision, checkpointing: bool) -> Memory:
    """Estimates from the model as it is, and from what a short forward pass keeps for its backward pass.

    Args:
        model: The model with its adapter, before training.
        tokens: Tokens of the largest forward pass, padding included.
        precision: Compute precision.
        checkpointing: Whether activations are computed twice; then a layer's input is kept of each layer, and all of one layer.
    """
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    # Two probes tell what grows with the tokens from what does not, as copies of the adapter in half precision.
    few, many = (_probe(model, probe, precision) for probe in PROBES)
    per_token = (many - few) / (PROBES[1] - PROBES[0])
    fixed = few - per_token * PROBES[0]
    layers, width = model.config.num_hidden_layers, model.config.hidden_size
    itemsize = DTYPES[precision].itemsize
    mask = tokens**2 * itemsize  # as attention keeps it in every layer
    activations = per_token * tokens + mask * layers
    if checkpointing:
        inputs = layers * tokens * width * model.dtype.itemsize
        activations = activations / layers + inputs
    return Memory(model_bytes(model), trained * TRAINED_BYTES, round(fixed + activations))


def model_bytes(model: torch.nn.Module) -> int:
    """Bytes of a model's parameters and buffers, with the constants of 4-bit ones."""
    tensors = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        while state is not None:  # double quantisation: the constants have constants
            tensors += [state.absmax, state.code]
            state = state.state2
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def kept_bytes(model: torch.nn.Module, forward: Callable[[], Any]) -> int:
    """Bytes that autograd keeps of a forward pass for the backward pass, weights not counted."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that no other tensor gets its address
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    del result
    return sum(storage.nbytes() for storage in kept.values())


def _probe(model: Any, tokens: int, precision: hardware.Precision) -> int:
    """Bytes kept of a pass over ``tokens`` tokens."""
    device = next(model.parameters()).device
    ids = torch.ones(1, tokens, dtype=torch.long, device=device)
    decoder = decoder_of(model)
    was_training = model.training
    model.eval()  # no dropout: the generator's state stays as the seed made it
    with torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32"):
        kept = kept_bytes(model, lambda: decoder(input_ids=ids, use_cache=False).last_hidden_state)
    model.train(was_training)
    return kept
