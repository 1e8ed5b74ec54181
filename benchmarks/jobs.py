"""The jobs: what ours and the others do, how much of it a round, and how many times faster ours is meant to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.setting import Precision

Needs = Literal["llama", "adapters", "encoder", "classifier"]
Name = Literal[
    "SBIC classification",
    "SBIC three features",
    "SBIC generation",
    "QLoRA training",
    "SNLI full training",
    "SNLI LoRA training",
    "SNLI prediction",
    "start",
    "size",
    "width",
]
OURS = "ours"


@dataclass(frozen=True)
class Tool:
    """One way to do a job.

    Attributes:
        name: As it heads a row.
        load: The function that loads it, as :mod:`benchmarks.worker` finds it.
        items: What it does a round.
        quick: The same, with ``--quick``.
        target: How many times as fast ours is meant to be, in whichever precision this is; None for ours.
        precisions: In which it is run, where the CPU has them in hardware.
    """

    name: str
    load: str
    items: int
    quick: int
    target: float | None = None
    precisions: tuple[Precision, ...] = ("fp32", "bf16")

    def sides(self, *, bf16: bool) -> dict[str, tuple[Tool, Precision]]:
        """A side for each precision that the CPU has, by name."""
        if self.precisions == ("own",):
            return {self.name: (self, "own")}
        return {f"{self.name}, {each}": (self, each) for each in self.precisions if each != "bf16" or bf16}


def ours(load: str, items: int, quick: int) -> Tool:
    """The product, in the precision that it chooses itself."""
    return Tool(OURS, load, items, quick, precisions=("own",))


@dataclass(frozen=True)
class Job:
    """A job that ours and others do.

    Attributes:
        name: As ``--jobs`` takes it.
        unit: What is counted.
        needs: The model that it is done with.
        tools: Ours, then the others.
        rounds: How many times each does it.
        quick: The same, with ``--quick``.
    """

    name: Name
    unit: str
    needs: Needs
    tools: tuple[Tool, ...]
    rounds: int
    quick: int


def sides(job: Job, *, bf16: bool) -> dict[str, tuple[Tool, Precision]]:
    """A job's sides by name, ours first."""
    return {name: side for tool in job.tools for name, side in tool.sides(bf16=bf16).items()}


JOBS = (
    Job(
        "SBIC classification", "posts", "adapters",
        (
            ours("sbic_sides.annotator_labels", 640, 256),
            Tool("model.generate, a post at a time", "sbic_sides.generate_each", 40, 12, 10),
            Tool("text-generation pipeline, batches of 32 by length", "sbic_sides.pipeline", 192, 96, 4),
            Tool("lm-evaluation-harness, log-likelihood of the labels", "sbic_sides.harness", 96, 32, 2),
        ),
        rounds=5, quick=1,
    ),
    Job(
        "SBIC three features", "rows", "adapters",
        (
            ours("sbic_sides.annotate_at_once", 640, 128),
            Tool("a command for each adapter", "sbic_sides.annotate_in_turn", 640, 128, 1.5, precisions=("own",)),
        ),
        rounds=2, quick=1,
    ),
    Job(
        "SBIC generation", "posts", "adapters",
        (
            ours("sbic_sides.annotator_groups", 256, 128),
            Tool("model.generate, batches of 16 as they come", "sbic_sides.generate_batches", 128, 64, 2),
        ),
        rounds=5, quick=1,
    ),
    Job(
        "QLoRA training", "examples", "llama",
        (
            ours("training_sides.qlora", 128, 48),
            Tool("trl sft", "training_sides.trl_sft", 128, 48, 1.8),
            Tool("trl sft --dtype bfloat16", "training_sides.trl_sft_half", 128, 48, 1.8, ("bf16",)),
        ),
        rounds=3, quick=1,
    ),
    Job(
        "SNLI full training", "examples", "encoder",
        (
            ours("training_sides.full", 960, 384),
            Tool("Trainer as run_glue.py, padded to 128", "training_sides.full_padded", 960, 384, 2.5, ("fp32",)),
            Tool("Trainer with DataCollatorWithPadding", "training_sides.full_dynamic", 960, 384, 1.2),
        ),
        rounds=3, quick=1,
    ),
    Job(
        "SNLI LoRA training", "examples", "encoder",
        (
            ours("training_sides.lora", 960, 384),
            Tool("Trainer as run_glue.py, padded to 128", "training_sides.lora_padded", 960, 384, 2.5, ("fp32",)),
            Tool("Trainer with DataCollatorWithPadding", "training_sides.lora_dynamic", 960, 384, 1.2),
        ),
        rounds=3, quick=1,
    ),
    Job(
        "SNLI prediction", "pairs", "classifier",
        (
            ours("snli_sides.classifier", 4096, 512),
            Tool("text-classification pipeline, batches of 32", "snli_sides.pipeline", 2048, 256, 3),
        ),
        rounds=5, quick=3,
    ),
)  # fmt: skip
