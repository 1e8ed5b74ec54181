"""Floating-point operations that a method needs, and how many this CPU can do per second: ``python -m benchmarks.flops``

Model FLOPs utilization (MFU) is their ratio. Counted are the matrix products of the linear layers, 2 operations per weight and
token (Kaplan et al. 2020; Chowdhery et al. 2022); products inside attention, adapters, embeddings and padding are not, so these
utilizations are slightly too low.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.runtime import hardware

if TYPE_CHECKING:
    import torch

TRAINING = 3  # forward, and backward twice: to activations and to weights
LORA_TRAINING = 2  # frozen weights get no gradient
MATRICES = ((2048, 2048, 2048), (2048, 2048, 4096), (4096, 2048, 2048))  # rows, inner, columns
REPEATS = 5


def read_shape(folder: str) -> dict[str, Any]:
    """Read a model's ``config.json``."""
    return json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))


def llama(shape: dict[str, Any], tokens: int, logits: int) -> int:
    """Count a Llama's forward pass over ``tokens``, with the output layer at ``logits`` positions."""
    width, inner = shape["hidden_size"], shape["intermediate_size"]
    key_value = width // shape["num_attention_heads"] * shape.get("num_key_value_heads", shape["num_attention_heads"])
    layer = 2 * width * width + 2 * width * key_value + 3 * width * inner
    return 2 * (shape["num_hidden_layers"] * layer * tokens + width * shape["vocab_size"] * logits)


def encoder(shape: dict[str, Any], tokens: int, pairs: int, classes: int = 3) -> int:
    """Count the forward pass of a RoBERTa with a two-layer head over ``pairs`` of ``tokens`` in total."""
    width, inner = shape["hidden_size"], shape["intermediate_size"]
    layer = 4 * width * width + 2 * width * inner
    return 2 * (shape["num_hidden_layers"] * layer * tokens + (width * width + width * classes) * pairs)


def matmul_rate(dtype: torch.dtype, shapes: Sequence[Sequence[int]] = MATRICES, device: str = "cpu") -> float:
    """Measure the operations per second of matrix products: the best of several."""
    import torch

    best = 0.0
    for rows, inner, columns in shapes:
        left, right = (torch.randn(count, inner, device=device).to(dtype) for count in (rows, columns))
        for _ in range(1 + REPEATS):  # the first warms up
            synchronize(device)
            start = time.perf_counter()
            torch.nn.functional.linear(left, right)
            synchronize(device)
            best = max(best, 2 * rows * inner * columns / (time.perf_counter() - start))
    return best


def synchronize(device: str) -> None:
    """Wait until a GPU has finished; a CPU always has."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def main() -> None:
    import torch

    dtypes = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if hardware.cpu_has_bf16() else {})
    rates = {name: matmul_rate(dtype) for name, dtype in dtypes.items()}
    print(json.dumps({"rates": rates, "hardware": hardware.describe()}))


if __name__ == "__main__":
    main()
