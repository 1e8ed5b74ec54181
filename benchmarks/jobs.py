"""Jobs of the benchmark: what each side does, how much of it per round, the target speedup, and the table of results."""

from __future__ import annotations

import dataclasses
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

from benchmarks.processes import Measured, Precision, middle
from common.cli.arguments import option
from common.cli.errors import UserError
from common.results.finding import Listing
from common.runtime import hardware
from common.runtime.project import miniature_corpora

Needs = Literal["llama", "adapters", "encoder", "classifier"]
Name = Literal[
    "SBIC classification", "SBIC three features", "SBIC generation", "QLoRA training", "SNLI full training",
    "SNLI LoRA training", "SNLI prediction", "start", "size", "width", "growth",
]  # fmt: skip
OURS = "ours"
AGREEMENT = 0.9  # least share of items on which another tool in fp32 must answer as ours
TIES = 2  # different answers that a few items may have, because two labels are nearly as likely
SAME_LOSS = 0.1  # largest relative difference of a loss in fp32: the order of rows differs
COLUMNS = ["job", "theirs", "ratio (from–to)", "ours/s", "theirs/s", "MFU of ours", "same", "target", "met"]


@dataclass(frozen=True)
class Tool:
    """One way to do a job."""

    name: str
    load: str  # function of this package that loads it, as "inference.harness"
    items: int  # per round
    quick: int  # per round with --quick; 0: left out
    target: float | None = None  # how many times as fast ours is meant to be, in every precision; None for ours
    precisions: tuple[Precision, ...] = ("fp32", "bf16")  # bf16 only where the CPU has it in hardware
    package: str = ""  # without which it is left out

    @property
    def installed(self) -> bool:
        return not self.package or importlib.util.find_spec(self.package) is not None


def ours(load: str, items: int, quick: int) -> Tool:
    return Tool(OURS, load, items, quick, precisions=("own",))


@dataclass(frozen=True)
class Job:
    """A job that the product and other tools do."""

    name: Name
    unit: str
    needs: Needs
    rounds: int
    quick: int  # rounds with --quick
    tools: tuple[Tool, ...]  # ours first

    def sides(self, *, bf16: bool) -> dict[str, tuple[Tool, Precision]]:
        """Return the sides by name, ours first: each tool in each precision that the CPU has."""
        return {
            tool.name if precision == "own" else f"{tool.name}, {precision}": (tool, precision)
            for tool in self.tools
            for precision in tool.precisions
            if tool.installed and (bf16 or precision != "bf16")
        }


JOBS = (
    Job("SBIC classification", "posts", "adapters", rounds=5, quick=1, tools=(
        ours("inference.annotator_labels", 640, 64),
        Tool("model.generate, a post at a time", "inference.generate_each", 40, 8, 10),
        Tool("text-generation pipeline, batches of 32 by length", "inference.post_pipeline", 192, 16, 4),
        Tool("lm-evaluation-harness, log-likelihood of the labels", "inference.harness", 96, 16, 2),
        Tool("llama.cpp, Q8_0, a label by grammar", "engines.llama_cpp_8_label", 96, 16, 6, ("own",), "xllamacpp"),
        Tool("llama.cpp, Q8_0, the first token", "engines.llama_cpp_8_token", 96, 16, 4, ("own",), "xllamacpp"),
        Tool("llama.cpp, Q4_1, a label by grammar", "engines.llama_cpp_4_label", 96, 0, 6, ("own",), "xllamacpp"),
        Tool("llama.cpp, Q4_1, the first token", "engines.llama_cpp_4_token", 96, 0, 4, ("own",), "xllamacpp"),
    )),
    Job("SBIC three features", "rows", "adapters", rounds=2, quick=1, tools=(
        ours("inference.annotate_at_once", 640, 16),
        Tool("a command for each adapter", "inference.annotate_in_turn", 640, 16, 1.5, precisions=("own",)),
    )),
    Job("SBIC generation", "posts", "adapters", rounds=5, quick=1, tools=(
        ours("inference.annotator_groups", 256, 128),
        Tool("model.generate, batches of 16 as they come", "inference.generate_batches", 128, 64, 2),
    )),
    Job("QLoRA training", "examples", "llama", rounds=3, quick=1, tools=(
        ours("training.qlora", 96, 16),
        Tool("trl sft", "training.trl_sft", 96, 16, 1.8),
        Tool("trl sft --dtype bfloat16", "training.trl_sft_half", 96, 16, 1.8, ("bf16",)),
    )),
    Job("SNLI full training", "examples", "encoder", rounds=3, quick=1, tools=(
        ours("training.full", 960, 96),
        Tool("Trainer as run_glue.py, padded to 128", "training.full_padded", 960, 96, 2.5, ("fp32",)),
        Tool("Trainer with DataCollatorWithPadding", "training.full_dynamic", 960, 96, 1.2),
    )),
    Job("SNLI LoRA training", "examples", "encoder", rounds=3, quick=1, tools=(
        ours("training.lora", 960, 96),
        Tool("Trainer as run_glue.py, padded to 128", "training.lora_padded", 960, 96, 2.5, ("fp32",)),
        Tool("Trainer with DataCollatorWithPadding", "training.lora_dynamic", 960, 96, 1.2),
    )),
    Job("SNLI prediction", "pairs", "classifier", rounds=5, quick=1, tools=(
        ours("inference.classifier", 4096, 512),
        Tool("text-classification pipeline, batches of 32", "inference.pair_pipeline", 2048, 256, 3),
        Tool("ONNX Runtime, batches of 32 by length", "engines.onnx_runtime", 2048, 256, 1.2, ("fp32",), "onnxruntime"),
        Tool("ONNX Runtime, dynamic int8", "engines.onnx_runtime_int8", 2048, 256, 1.2, ("own",), "onnxruntime"),
    )),
)  # fmt: skip

# ---- results


@dataclass(frozen=True)
class JobResult:
    """A job's rounds, and by side how far its answers agree with ours: see :func:`agreement`."""

    job: Job
    rounds: list[dict[str, Measured]]
    agreement: dict[str, float]

    def rows(self, rates: dict[str, float]) -> list[list[Any]]:
        """Return a row of the table for each other side; ``rates`` are the machine's operations per second by precision."""
        own, ratios = [each[OURS] for each in self.rounds], self.ratios()
        use = median(each.flops / each.seconds / rates[each.precision] for each in own)
        rows = []
        for name, (tool, _) in self.job.sides(bf16=hardware.cpu_has_bf16()).items():
            if name in ratios:
                same = self.agreement[name]
                rows.append([
                    f"{self.job.name}, {self.job.unit}",
                    name,
                    middle(ratios[name]),
                    _three_digits(median(each.rate for each in own)),
                    _three_digits(median(each[name].rate for each in self.rounds)),
                    f"{use:.0%} of {own[0].precision}",
                    f"loss × {same:.2f}" if "loss" in own[0].facts else f"{same:.1%}".replace(".0%", "%"),
                    f"≥ {tool.target:g}",
                    median(ratios[name]) >= tool.target,
                ])  # fmt: skip
        return rows

    def timings(self) -> dict[str, list[dict[str, Any]]]:
        """Return every measurement by side, without the answers."""
        return {
            name: [{k: v for k, v in dataclasses.asdict(each[name]).items() if k != "answers"} for each in self.rounds]
            for name in self.rounds[0]
        }

    def ratios(self) -> dict[str, list[float]]:
        """Return our speed relative to each other side in every round."""
        others = [name for name in self.rounds[0] if name != OURS]
        return {name: [each[OURS].rate / each[name].rate for each in self.rounds] for name in others}


def agreement(job: str, sides: dict[str, Measured]) -> dict[str, float]:
    """Compare each side with ours: the share of common items with the same answer, or the relative loss.

    Raises:
        UserError: A side in fp32 agrees too rarely, or its loss differs: it does not do the same job. Or ours gives all items
            the same answer, so agreement would mean nothing.
    """
    own = sides[OURS]
    if len(own.answers) > 1 and len(set(own.answers.values())) == 1:
        raise UserError(f"{job}: ours gives all {len(own.answers)} items the same answer", expected="different answers")
    return {name: _same(f"{job}: {name}", side, own) for name, side in sides.items() if name != OURS}


def _same(name: str, side: Measured, own: Measured) -> float:
    problem = "so the two do not do the same job"
    if "loss" in own.facts:
        theirs, ours = side.facts["loss"], own.facts["loss"]
        if side.precision == "fp32" and abs(theirs / ours - 1) > SAME_LOSS:
            losses, expected = f"{theirs:.3f} and ours {ours:.3f}", f"a difference of at most {SAME_LOSS:.0%}"
            raise UserError(f"{name} has a loss of {losses}, {problem}", expected=expected)
        return theirs / ours
    both = side.answers.keys() & own.answers.keys()
    different = sum(side.answers[item] != own.answers[item] for item in both)
    same = 1 - different / max(1, len(both))
    if side.precision == "fp32" and (not both or (same < AGREEMENT and different > TIES)):
        share = f"{same:.0%} of {len(both)} items"
        raise UserError(f"{name} answers as ours on {share}, {problem}", expected=f"at least {AGREEMENT:.0%}")
    return same


def _three_digits(number: float) -> str:
    """Format as ``1,230``, ``45.6`` or ``0.789``."""
    return f"{float(f'{number:.3g}'):,.0f}" if number >= 100 else f"{number:.3g}"


def targets(parts: list[Listing]) -> dict[str, Any]:
    """Count the targets of all tables, and name those that were missed."""
    rows = [(part, row) for part in parts for row in part.rows]
    missed = [
        f"{row[0]}, {row[1]} ({row[2]})" if part.columns == COLUMNS else f"{part.title}, {row[0]}"
        for part, row in rows
        if not row[-1]
    ]
    return {"met": len(rows) - len(missed), "total": len(rows), "missed": missed}


# ---- measurements on a GPU

GpuJob = Literal[
    "qlora-training", "qlora-training-t4", "annotation-labels", "annotation-lists",
    "base-full", "base-lora", "large-full", "large-lora",
]  # fmt: skip
GPU_JOBS: tuple[GpuJob, ...] = get_args(GpuJob)
WARM_UP = 3  # steps
# Of a T4's 15,360 MiB the driver takes about 450 (PyTorch sees 14.56 GiB), and a process's CUDA context about 300 more, which
# PyTorch's allocator does not count.
T4_BYTES = (15_360 - 450 - 310) * 2**20


@dataclass(kw_only=True)
class GpuSettings:
    """How much to measure, and on what."""

    steps: int = option(5, "training steps per repeat", minimum=1)
    repeats: int = option(5, "repeats of each measurement", minimum=1)
    posts: int = option(128, "posts to annotate per repeat", minimum=1)
    sbic_dir: Path | None = option(None, "folder with SBIC.v2.{trn,dev,tst}.csv (default: the miniature)")
    snli_dir: Path | None = option(None, "folder with snli_1.0_{train,dev,test}.jsonl (default: the miniature)")
    llama_tokenizer: Path | None = option(None, "folder of Llama 2's tokenizer (default: the miniature's)")
    models_dir: Path = option(Path("output/bench_gpu"), "folder for the models with random weights (14 GB), made once")

    def corpora(self) -> tuple[Path, Path]:
        """Return the folders of SBIC and SNLI."""
        own = miniature_corpora()
        return self.sbic_dir or own / "SBIC.v2", self.snli_dir or own / "snli_1.0"
