"""One measurement of benchmarks.gpu, in a process of its own: ``python -m benchmarks.gpu_jobs --job qlora-training …``"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    EarlyStoppingCallback,
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
)
from transformers.trainer_utils import IntervalStrategy

import sbic_llama.training.run as sbic_training
import snli_roberta.training.run as snli_training
from benchmarks.gpu import T4_BYTES, WARM_UP, Job, Measured, sbic_of, snli_of
from benchmarks.random_models import Shapes, llama_base, random_adapter, roberta_base
from common.cli.arguments import option, parse
from common.cli.console import log, quiet_libraries, stage
from common.cli.errors import UserError, run
from common.models import quantization
from common.results.record import count_parameters
from common.runtime import hardware
from common.training import run as training
from common.training.callbacks import ProgressLog
from common.training.checkpoints import Checkpoints
from sbic_llama.data.corpus import labeled, load_splits
from sbic_llama.data.encoding import answer_ids, encode
from sbic_llama.data.features import FEATURES
from sbic_llama.model.annotator import Annotator
from sbic_llama.model.answering import MAX_NEW_TOKENS
from sbic_llama.training.arguments import TrainArguments
from snli_roberta.training.arguments import TrainArguments as ClassifierArguments

RECIPES = Path(__file__).parents[1]
QLORA = RECIPES / "sbic_llama" / "recipes" / "llama2_7b_t4.yaml"
CLASSIFIERS = {
    "base-full": "full",
    "base-lora": "lora",
    "large-full": "large_full",
    "large-lora": "large_lora",
}


@dataclass(kw_only=True)
class JobArguments(Measured):
    """One measurement of benchmarks.gpu, in a process of its own."""

    job: Job = option(help="which one")
    result: Path = option(help="JSON file for what was measured")


def measure(job: Job, arguments: Measured, shapes: Shapes | None = None) -> dict[str, Any]:
    """A job's numbers: rates as median, least and most of the repeats; bytes; None for what the device does not tell."""
    shapes = shapes or Shapes()
    if job in CLASSIFIERS:
        return classifier_training(job, arguments, shapes)
    if job.startswith("annotation"):
        return annotation(arguments, shapes, "offensiveYN" if job == "annotation-labels" else "targetMinority")
    if job == "qlora-training":
        return qlora_training(arguments, shapes)
    # What a T4 would do: its precision in its memory.
    try:
        if hardware.device_type() == "cuda":
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, T4_BYTES / total))
        return qlora_training(arguments, shapes, precision="fp16") | {"cap_bytes": T4_BYTES, "fits": True}
    except (torch.OutOfMemoryError, UserError) as error:
        if isinstance(error, UserError) and "memory" not in error.problem:
            raise
        return {"precision": "fp16", "cap_bytes": T4_BYTES, "fits": False, "said": str(error).splitlines()[0]}


# ---- training


def qlora_training(arguments: Measured, shapes: Shapes, precision: str = "auto") -> dict[str, Any]:
    """Training on a base of Llama 2's shape as the T4's recipe has it."""
    declared = FEATURES["offensiveYN"]
    base = llama_base(arguments, shapes)
    with tempfile.TemporaryDirectory() as folder:
        words = ["--config", str(QLORA), "--model_name_or_path", str(base), "--data_dir", str(sbic_of(arguments))]
        words += ["--output_dir", folder, "--precision", precision if hardware.device_type() == "cuda" else "auto"]
        options = parse(TrainArguments, words)
        setup = training.prepare(options, options.model_name_or_path)
        splits = load_splits(data_dir=sbic_of(arguments))
        posts, dev = (labeled(splits[name], declared.label_of) for name in ("train", "dev"))
        _, trainer, rows = sbic_training.build_trainer(options, setup, declared, None, posts, dev[:1])
        expected = sbic_training.estimated_memory(options, setup.precision, rows, None)
        loading = peak()
        found = timed_training(
            trainer, arguments, forward_backward=4, prefix=len(rows.encoded.prefix_ids), shapes=shapes
        )
    return found | {
        "precision": setup.precision,
        "loading_peak_bytes": loading,
        "estimate_bytes": expected and expected[1].total,
        "estimate": expected and vars(expected[1]),
    }


def classifier_training(job: Job, arguments: Measured, shapes: Shapes) -> dict[str, Any]:
    """Training of a classifier of RoBERTa's shape, as its recipe has it."""
    size, _, method = job.partition("-")
    base = roberta_base(arguments, size, shapes)
    recipe = RECIPES / "snli_roberta" / "recipes" / f"{CLASSIFIERS[job]}.yaml"
    # All of SNLI would only be read for minutes.
    fraction = ["--train_fraction", "0.02" if arguments.snli_dir else "1"]
    with tempfile.TemporaryDirectory() as folder:
        words = ["--config", str(recipe), "--model_name_or_path", str(base), "--data_dir", str(snli_of(arguments))]
        options = parse(ClassifierArguments, [*words, *fraction, "--output_dir", folder, "--estimate_only"])
        prepared = snli_training._prepare(options)
        assert prepared is not None
        whole = 6 if method == "full" else 4
        found = timed_training(prepared.trainer, arguments, forward_backward=whole, prefix=0, shapes=shapes)
    return found | {"precision": prepared.setup.precision, "loading_peak_bytes": None, "estimate_bytes": None}


class Counted:
    """A collator that keeps how many examples and tokens its batches had; padding is not counted."""

    def __init__(self, collator: Any):
        self.collator = collator
        self.batches: list[tuple[int, int]] = []

    def __call__(self, examples: Sequence[Any]) -> Any:
        batch = self.collator(examples)
        mask = batch["attention_mask"]
        self.batches.append((len(examples), batch["input_ids"].numel() if mask.ndim == 4 else int(mask.sum())))
        return batch


class Clock(TrainerCallback):
    """When training began, and when the device had ended each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        synchronise()
        self.times.append(time.perf_counter())


def timed_training(
    trainer: Trainer, arguments: Measured, *, forward_backward: int, prefix: int, shapes: Shapes
) -> dict[str, Any]:
    """Rates of training steps after the first few, and the most memory that they take.

    Args:
        trainer: Ready to train.
        arguments: How many steps.
        forward_backward: Operations a token and weight of a linear layer: 2 forward, 2 for gradients of activations, and 2 for
            those of weights, where they are trained. What activation checkpointing repeats does not count.
        prefix: Tokens of the instruction, of which a batch has one copy; 0 where there is none.
        shapes: For the device's own speed.
    """
    clock, counted = Clock(), Counted(trainer.data_collator)
    for callback in (EarlyStoppingCallback, Checkpoints, ProgressLog, PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(clock)
    trainer.data_collator = counted
    trainer.args.max_steps = WARM_UP + arguments.repeats * arguments.steps
    trainer.args.eval_strategy = trainer.args.save_strategy = IntervalStrategy.NO
    trainer.args.load_best_model_at_end = False
    weights, trained = linear_weights(trainer.model), count_parameters(trainer.model)["trainable"]
    forget_peak()
    with stage(f"measuring {trainer.args.max_steps} steps"):
        trainer.train()
    several = trainer.args.gradient_accumulation_steps
    repeats = []
    for number in range(arguments.repeats):
        start = WARM_UP + number * arguments.steps
        batches = counted.batches[start * several : (start + arguments.steps) * several]
        examples, tokens = map(sum, zip(*batches, strict=True))
        apart = tokens + (examples - len(batches)) * prefix if prefix else tokens
        repeats.append((clock.times[start + arguments.steps - 1] - clock.times[start - 1], examples, tokens, apart))
    # Of LoRA, the adapter's weights are trained: six operations each.
    operations = forward_backward * weights + (6 * trained if forward_backward == 4 else 0)
    return rates(repeats, operations, peak(), dtype_of(trainer), shapes)


# ---- annotation


def annotation(arguments: Measured, shapes: Shapes, feature: str) -> dict[str, Any]:
    """Annotating posts that all differ, with an adapter of random weights: its lists hardly ever end before they are cut."""
    declared = FEATURES[feature]
    base = llama_base(arguments, shapes)
    splits = load_splits(data_dir=sbic_of(arguments))
    texts = [post.text for post in splits["test"].posts]
    numbered = (f"{text} {number}" for number, text in enumerate(itertools.cycle(texts)))
    with tempfile.TemporaryDirectory() as folder:
        words = ["--config", str(QLORA), "--model_name_or_path", str(base), "--output_dir", folder]
        random_adapter(Path(folder), parse(TrainArguments, words), feature, shapes)
        annotator = Annotator(folder)
    length = annotator.adapters[0].description.max_post_tokens
    tokenizer = quantization.load_tokenizer(str(base))
    behind = (
        sum(len(ids) - 1 for ids in answer_ids(tokenizer, declared.labels))
        if declared.classifies
        else MAX_NEW_TOKENS - 1
    )
    loading = peak()
    forget_peak()
    repeats = []
    for _ in range(arguments.repeats + 1):
        posts = list(itertools.islice(numbered, arguments.posts))
        encoded = encode(tokenizer, declared, posts, max_post_tokens=length)
        tokens = sum(map(len, encoded.post_ids)) + len(posts) * (len(encoded.tail_ids) + behind)
        apart = tokens + len(posts) * len(encoded.prefix_ids)
        synchronise()
        start = time.perf_counter()
        for _ in annotator.annotate(posts):
            pass
        synchronise()
        repeats.append((time.perf_counter() - start, len(posts), tokens, apart))
    operations = 2 * linear_weights(annotator._model)
    precision = annotator.precision.value
    found = rates(repeats[1:], operations, peak(), hardware.dtype(precision), shapes)  # the first warms up
    return found | {"precision": precision, "loading_peak_bytes": loading, "estimate_bytes": None}


# ---- rates


def rates(
    repeats: Sequence[tuple[float, int, int, int]],
    operations: int,
    peak_bytes: int | None,
    dtype: torch.dtype,
    shapes: Shapes,
) -> dict[str, Any]:
    """Numbers of repeats, each given as seconds, examples, tokens, and tokens if each example had its own instruction."""
    seconds, examples, tokens, apart = zip(*repeats, strict=True)
    fastest = matmul_rate(dtype, shapes.matmul)

    def each(values: Sequence[float]) -> dict[str, float]:
        found = [value / second for value, second in zip(values, seconds, strict=True)]
        return {"median": statistics.median(found), "min": min(found), "max": max(found)}

    return {
        "examples_per_second": each(examples),
        "tokens_per_second": each(tokens),
        "tokens_per_second_apart": each(apart),
        "mfu": {name: value * operations / fastest for name, value in each(tokens).items()},
        "operations_per_token": operations,
        "matmul_operations_per_second": fastest,
        "seconds": list(seconds),
        "peak_bytes": peak_bytes,
    }


def matmul_rate(dtype: torch.dtype, size: int, repeats: int = 10) -> float:
    """Operations a second of the device's fastest product of square matrices among some."""
    one, other = (torch.randn(size, size, device=hardware.device_type()).to(dtype) for _ in range(2))
    best = math.inf
    for _ in range(repeats):
        synchronise()
        start = time.perf_counter()
        one @ other
        synchronise()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def linear_weights(model: Any) -> int:
    """Weights of the linear layers under the head: those that every token is multiplied with, adapters not counted."""
    total = 0
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and not any(part in name for part in ("lora_", "lm_head", "classifier")):
            state = getattr(module.weight, "quant_state", None)
            total += math.prod(state.shape) if state is not None else module.weight.numel()
    return total


def dtype_of(trainer: Trainer) -> torch.dtype:
    return torch.bfloat16 if trainer.args.bf16 else torch.float16 if trainer.args.fp16 else torch.float32


def synchronise() -> None:
    if hardware.device_type() == "cuda":
        torch.cuda.synchronize()


def peak() -> int | None:
    """The most bytes that tensors held on the GPU; None without one."""
    return torch.cuda.max_memory_allocated() if hardware.device_type() == "cuda" else None


def forget_peak() -> None:
    if hardware.device_type() == "cuda":
        torch.cuda.reset_peak_memory_stats()


def main() -> None:
    arguments = parse(JobArguments, prog="python -m benchmarks.gpu_jobs")
    quiet_libraries()
    log(f"{arguments.job} …")
    found = measure(arguments.job, arguments)
    arguments.result.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    run(main)
