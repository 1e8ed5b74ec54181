"""What a recipe would take on this machine, told without training: memory from its shapes, time from its operations."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cli.errors import UserError
from common.models.loading import base_path
from common.runtime import hardware

MINIATURE = "miniature"
ADAM_BYTES = 8  # two moments of a trained weight, in fp32
# Operations a weight and token: 2 forward, 2 backward, 2 more where it is trained, 2 where the forward pass is done again.
FULL, LORA, AGAIN = 6, 4, 2
# Of what large products reach, trainings here reached 13 to 40 % on a CPU (results/bench-cpu-2-cores.json); the range is meant
# to be wide enough for other machines too.
LEAST_USE, MOST_USE = 0.1, 0.5
STEP_SECONDS = 0.02, 0.2  # what a step takes besides, in tiny models most of it
SIDE, TIMES = 2048, 5  # rows and columns of the matrices, and how often they are multiplied


@dataclass(frozen=True)
class Forecast:
    """A recipe's needs.

    Attributes:
        recipe: Its file, seen from the repository's root.
        base: The model that it fine-tunes.
        memory: Bytes at the largest step, besides the libraries' own; None where the base is of an unknown shape.
        operations: Floating-point operations of all its trainings; None likewise.
        steps: Their optimizer steps.
        corpus: What it trains on as it stands: :data:`MINIATURE` where it names no corpus.
    """

    recipe: Path
    base: str
    memory: int | None
    operations: float | None
    steps: int
    corpus: str

    def seconds(self, rate: float) -> tuple[float, float] | None:
        """From how long to how long it takes, where large matrices are multiplied at ``rate`` operations a second."""
        if self.operations is None:
            return None
        low, high = (self.operations / rate / use for use in (MOST_USE, LEAST_USE))
        return low + self.steps * STEP_SECONDS[0], high + self.steps * STEP_SECONDS[1]


def matmul_rate(precision: hardware.Precision) -> float:
    """Operations a second in products of large matrices on this device, the best of some."""
    import torch

    device = hardware.device_type()
    left, right = (torch.randn(SIDE, SIDE).to(device, hardware.dtype(precision)) for _ in range(2))
    best = 0.0
    for turn in range(TIMES + 1):
        begun = time.perf_counter()
        torch.nn.functional.linear(left, right)
        if device != "cpu":
            torch.accelerator.synchronize()
        if turn:  # the first one sets up
            best = max(best, 2 * SIDE**3 / (time.perf_counter() - begun))
    return best


def config_of(base: str, revision: str | None, shapes: dict[str, Any]) -> Any:
    """A base's configuration: of a folder what is there, of a model on the Hub one of the known ``shapes``; None of others.

    Nothing is asked of the Hub: a base that nobody may read yet has a shape all the same.
    """
    from transformers import AutoConfig

    from common.models.loading import check_config

    place = base_path(base)
    if not Path(place).is_dir():
        return shapes.get(base)
    try:
        check_config(place, revision)
    except UserError:
        return None
    return AutoConfig.from_pretrained(place, trust_remote_code=False)
