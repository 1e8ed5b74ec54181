"""Floating-point operations that a method needs, from a model's shape: what a model FLOPs utilisation (MFU) counts.

Counted are the matrix products of the linear layers, 2 operations a weight and token (Kaplan et al. 2020; Chowdhery et al. 2022).
Attention's own products, adapters, embeddings and padding are not, so a utilisation from these numbers is rather too low.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FORWARD = 1
TRAINING = 3  # forward, and backward twice: to activations and to weights
LORA_TRAINING = 2  # frozen weights get no gradient


def read_shape(folder: str) -> dict[str, Any]:
    """A model's ``config.json``."""
    return json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))


def llama(shape: dict[str, Any], tokens: int, logits: int) -> int:
    """A forward pass of a Llama over ``tokens``, with the output layer at ``logits`` positions."""
    width, inner = shape["hidden_size"], shape["intermediate_size"]
    key_value = width // shape["num_attention_heads"] * shape.get("num_key_value_heads", shape["num_attention_heads"])
    layer = 2 * width * width + 2 * width * key_value + 3 * width * inner
    return 2 * (shape["num_hidden_layers"] * layer * tokens + width * shape["vocab_size"] * logits)


def encoder(shape: dict[str, Any], tokens: int, pairs: int, classes: int = 3) -> int:
    """A forward pass of a RoBERTa that classifies ``pairs`` of ``tokens`` in all, by its head of two layers."""
    width, inner = shape["hidden_size"], shape["intermediate_size"]
    layer = 4 * width * width + 2 * width * inner
    return 2 * (shape["num_hidden_layers"] * layer * tokens + (width * width + width * classes) * pairs)
