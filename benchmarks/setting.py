"""What every side of a job is given: the data, the models, and where it may write."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).parents[1]
# fp32 and bf16 are what a tool is told; "own" is what a command of the product chooses.
Precision = Literal["fp32", "bf16", "own"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One side's share of a run; it travels to the side's process as JSON.

    Attributes:
        sbic_dir: Folder of SBIC's official files.
        snli_dir: Folder of SNLI's.
        scratch: A folder for this run's files.
        llama: The language model that both sides use.
        adapters: Feature → folder of a trained adapter on it.
        encoder: The encoder that both sides fine-tune.
        classifier: A classifier made from it.
        most: Items that the job's largest side takes a round: the others take theirs from among these.
        precision: In what this side computes.
    """

    sbic_dir: str
    snli_dir: str
    scratch: str
    llama: str = ""
    adapters: dict[str, str] = field(default_factory=dict)
    encoder: str = ""
    classifier: str = ""
    most: int = 0
    precision: Precision = "own"


@dataclass(frozen=True)
class Measured:
    """One side in one round.

    Attributes:
        items: Posts, pairs or training examples that were done.
        seconds: How long they took.
        flops: What this side's method needs for them: see :mod:`benchmarks.flops`.
        precision: In what it computed.
        answers: Item → its label text, where sides can be compared.
        facts: Whatever else belongs in the record, as the training loss.
    """

    items: int
    seconds: float
    flops: int
    precision: str
    answers: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Items a second."""
        return self.items / self.seconds


Measure = Callable[[int], Measured]  # how many items → how it went


def environment(cores: int) -> dict[str, str]:
    """What the processes of both sides run in: every core, no GPU, no Hub."""
    more = {"OMP_NUM_THREADS": str(cores), "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **more, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def spread(items: list, count: int) -> list:
    """``count`` of the items, evenly over their order; all of them where there are no more."""
    if count >= len(items):
        return list(items)
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]
