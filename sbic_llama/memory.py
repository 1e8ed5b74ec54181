"""How much memory a training will take, told before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks

from common import hardware
from common.quantised import DTYPES

PROBE_TOKENS = 32
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
    per_token = kept_bytes(model, PROBE_TOKENS, precision) / PROBE_TOKENS
    if checkpointing:
        layers = model.config.num_hidden_layers
        per_token = per_token / layers + layers * model.config.hidden_size * model.dtype.itemsize
    return Memory(model_bytes(model), trained * TRAINED_BYTES, round(per_token * tokens))


def model_bytes(model: torch.nn.Module) -> int:
    """Bytes of a model's parameters and buffers, with the constants of 4-bit ones."""
    tensors = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        while state is not None:  # double quantisation: the constants have constants
            tensors += [state.absmax, state.code]
            state = state.state2
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def kept_bytes(model: Any, tokens: int, precision: hardware.Precision) -> int:
    """Bytes that autograd keeps in a forward pass over ``tokens`` tokens, weights not counted."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage  # held, so that no other tensor gets its address
        return tensor

    device = next(model.parameters()).device
    ids = torch.ones(1, tokens, dtype=torch.long, device=device)
    was_training = model.training
    model.eval()  # no dropout: the generator's state stays as the seed made it
    with (
        torch.enable_grad(),
        torch.autocast(device.type, dtype=DTYPES[precision], enabled=precision != "fp32"),
        saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        hidden = model.get_base_model().get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    model.train(was_training)
    del hidden
    return sum(storage.nbytes() for storage in kept.values())
