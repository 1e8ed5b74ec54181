"""Measurements of benchmarks.gpu, and their models: published shapes with random weights, which cost what real ones do."""

from __future__ import annotations

import itertools
import json
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from huggingface_hub import split_torch_state_dict_into_shards
from peft import get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file

import sbic_llama.training.run as sbic_training
import snli_roberta.training.run as snli_training
from benchmarks.flops import matmul_rate, synchronize
from benchmarks.jobs import T4_BYTES, WARM_UP, GpuJob, GpuSettings
from common.cli.arguments import parse
from common.cli.console import quiet_libraries, stage
from common.cli.errors import UserError
from common.models import quantization
from common.models.prompt import answer_ids
from common.results.record import count_parameters
from common.runtime import hardware
from common.runtime.project import MINIATURE_MODELS, ROOT
from common.training import classification
from common.training.callbacks import Checkpoints, ProgressLog
from common.training.run import prepare
from sbic_llama.data.corpus import load_splits
from sbic_llama.data.encoding import encode
from sbic_llama.data.features import FEATURES
from sbic_llama.model import adapter, description
from sbic_llama.model.annotator import Annotator
from sbic_llama.model.answering import MAX_NEW_TOKENS
from sbic_llama.training.arguments import TrainArguments
from sbic_llama.training.memory import estimate_run
from snli_roberta.training.arguments import TrainArguments as ClassifierArguments

QLORA = ROOT / "sbic_llama" / "recipes" / "llama2_7b_t4.yaml"
CLASSIFIERS = {"base-full": "full", "base-lora": "lora", "large-full": "large_full", "large-lora": "large_lora"}
SHARD = 2**30  # bytes per file of weights, about


def roberta(width: int, layers: int, **changes: Any) -> transformers.RobertaConfig:
    """Return RoBERTa's shape, with heads of 64."""
    shape = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    shape |= {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": width // 64}
    return transformers.RobertaConfig(**{**shape, "intermediate_size": 4 * width, **changes})


class Shapes(NamedTuple):
    """Configurations of the models, and the size of the matrices that measure the device."""

    llama: transformers.PretrainedConfig
    base: transformers.PretrainedConfig
    large: transformers.PretrainedConfig
    matmul: int = 8192


PUBLISHED = Shapes(transformers.LlamaConfig(max_position_embeddings=4096), roberta(768, 12), roberta(1024, 24))


def measure(job: GpuJob, settings: GpuSettings, shapes: Shapes = PUBLISHED) -> dict[str, Any]:
    """Return median, minimum and maximum rates of the repeats, and bytes; None for what the device does not report."""
    quiet_libraries()
    if job in CLASSIFIERS:
        return classifier_training(job, settings, shapes)
    if job.startswith("annotation"):
        return annotation(settings, shapes, "offensiveYN" if job == "annotation-labels" else "targetMinority")
    if job == "qlora-training":
        return qlora_training(settings, shapes)
    # As on a T4: its precision in its memory.
    try:
        if hardware.device_type() == "cuda":
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, T4_BYTES / total))
        return qlora_training(settings, shapes, precision="fp16") | {"cap_bytes": T4_BYTES, "fits": True}
    except (torch.OutOfMemoryError, UserError) as error:
        if isinstance(error, UserError) and "memory" not in error.problem:
            raise
        return {"precision": "fp16", "cap_bytes": T4_BYTES, "fits": False, "said": str(error).splitlines()[0]}


# ---- training


def qlora_training(settings: GpuSettings, shapes: Shapes, precision: str = "auto") -> dict[str, Any]:
    """Train as the T4's recipe does."""
    base, corpus = str(llama_base(settings, shapes)), str(settings.corpora()[0])
    precision = precision if hardware.device_type() == "cuda" else "auto"
    with tempfile.TemporaryDirectory() as folder:
        words = ["--config", str(QLORA), "--model_name_or_path", base, "--data_dir", corpus]
        words += ["--output_dir", folder, "--precision", precision]
        arguments = parse(TrainArguments, words)
        context = sbic_training.prepare_device(arguments)
        data = sbic_training.load_data(arguments, FEATURES["offensiveYN"])
        trainer = sbic_training.build_trainer(arguments, context, replace(data, dev_posts=data.dev_posts[:1]))
        expected = estimate_run(arguments, context.precision, trainer.rows, None)
        loading, prefix = peak(), len(trainer.rows.encoded.prefix_ids)
        measured = timed_training(trainer, settings, forward_backward=4, prefix=prefix, shapes=shapes)
    return measured | {
        "precision": context.precision,
        "loading_peak_bytes": loading,
        "estimate_bytes": expected and expected[1].total,
        "estimate": expected and vars(expected[1]),
    }


def classifier_training(job: GpuJob, settings: GpuSettings, shapes: Shapes) -> dict[str, Any]:
    """Train a classifier as its recipe does."""
    size, _, method = job.partition("-")
    recipe = ROOT / "snli_roberta" / "recipes" / f"{CLASSIFIERS[job]}.yaml"
    fraction = "0.02" if settings.snli_dir else "1"  # reading all of SNLI takes minutes
    with tempfile.TemporaryDirectory() as folder:
        words = ["--config", str(recipe), "--model_name_or_path", str(roberta_base(settings, size, shapes))]
        words += ["--data_dir", str(settings.corpora()[1]), "--train_fraction", fraction, "--output_dir", folder]
        arguments = parse(ClassifierArguments, words)
        context = prepare(arguments, arguments.model_name_or_path)
        trainer, _ = classification.build_trainer(arguments, context, snli_training.load_data(arguments))
        operations = 6 if method == "full" else 4
        measured = timed_training(trainer, settings, forward_backward=operations, prefix=0, shapes=shapes)
    return measured | {"precision": context.precision, "loading_peak_bytes": None, "estimate_bytes": None}


class CountingCollator:
    """Records the number of examples and tokens of each batch; padding does not count."""

    def __init__(self, collator: Any):
        self.collator = collator
        self.batches: list[tuple[int, int]] = []

    def __call__(self, examples: Sequence[Any]) -> Any:
        batch = self.collator(examples)
        mask = batch["attention_mask"]
        self.batches.append((len(examples), batch["input_ids"].numel() if mask.ndim == 4 else int(mask.sum())))
        return batch


class Clock(transformers.TrainerCallback):
    """Records when the device has finished each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        synchronize(hardware.device_type())
        self.times.append(time.perf_counter())


def timed_training(
    trainer: transformers.Trainer, settings: GpuSettings, *, forward_backward: int, prefix: int, shapes: Shapes
) -> dict[str, Any]:
    """Return the rates of training steps after the first few, and the peak memory.

    ``forward_backward`` is the number of operations per token and weight of a linear layer: 2 forward, 2 for gradients of
    activations, and 2 for those of weights where they are trained; what activation checkpointing repeats does not count.
    ``prefix`` is the length of the instruction, of which a batch has one copy; 0 if there is none.
    """
    clock, collator = Clock(), CountingCollator(trainer.data_collator)
    theirs = transformers.EarlyStoppingCallback, transformers.PrinterCallback, transformers.ProgressCallback
    for callback in (Checkpoints, ProgressLog, *theirs):
        trainer.remove_callback(callback)
    trainer.add_callback(clock)
    trainer.data_collator = collator
    trainer.args.max_steps = WARM_UP + settings.repeats * settings.steps
    trainer.args.eval_strategy = trainer.args.save_strategy = "no"
    trainer.args.load_best_model_at_end = False
    weights, trained = linear_weights(trainer.model), count_parameters(trainer.model)["trainable"]
    peak()
    with stage(f"measuring {trainer.args.max_steps} steps"):
        trainer.train()
    several = trainer.args.gradient_accumulation_steps
    repeats = []
    for start in range(WARM_UP, trainer.args.max_steps, settings.steps):
        end = start + settings.steps
        batches = collator.batches[start * several : end * several]
        examples, tokens = map(sum, zip(*batches, strict=True))
        apart = tokens + (examples - len(batches)) * prefix if prefix else tokens
        repeats.append((clock.times[end - 1] - clock.times[start - 1], examples, tokens, apart))
    # With LoRA, the adapter's weights are trained: six operations each.
    operations = forward_backward * weights + (6 * trained if forward_backward == 4 else 0)
    dtype = torch.bfloat16 if trainer.args.bf16 else torch.float16 if trainer.args.fp16 else torch.float32
    return rates(repeats, operations, dtype, shapes)


# ---- annotation


def annotation(settings: GpuSettings, shapes: Shapes, feature_name: str) -> dict[str, Any]:
    """Annotate posts that all differ with an adapter of random weights, so generated lists are hardly ever shorter than the cut."""
    feature = FEATURES[feature_name]
    base = llama_base(settings, shapes)
    texts = [post.text for post in load_splits(data_dir=settings.corpora()[0])["test"].posts]
    numbered = (f"{text} {number}" for number, text in enumerate(itertools.cycle(texts)))
    with tempfile.TemporaryDirectory() as folder:
        words = ["--config", str(QLORA), "--model_name_or_path", str(base), "--output_dir", folder]
        random_adapter(Path(folder), parse(TrainArguments, words), feature_name, shapes)
        annotator = Annotator(folder)
    length = annotator.adapters[0].description.max_post_tokens
    tokenizer = quantization.load_tokenizer(str(base))
    after = MAX_NEW_TOKENS - 1
    if feature.classifies:
        after = sum(len(ids) - 1 for ids in answer_ids(tokenizer, feature.labels))
    loading = peak()
    repeats = []
    for _ in range(settings.repeats + 1):
        posts = list(itertools.islice(numbered, settings.posts))
        encoded = encode(tokenizer, feature, posts, max_post_tokens=length)
        apart = sum(map(len, encoded.prompts)) + len(posts) * after
        synchronize(hardware.device_type())
        start = time.perf_counter()
        for _ in annotator.annotate(posts):
            pass
        synchronize(hardware.device_type())
        shared = apart - len(posts) * len(encoded.prefix_ids)
        repeats.append((time.perf_counter() - start, len(posts), shared, apart))
    precision = annotator.precision.value
    operations = 2 * linear_weights(annotator._model)
    measured = rates(repeats[1:], operations, hardware.dtype(precision), shapes)  # the first warms up
    return measured | {"precision": precision, "loading_peak_bytes": loading, "estimate_bytes": None}


# ---- rates and memory


def rates(
    repeats: Sequence[tuple[float, int, int, int]], operations: int, dtype: torch.dtype, shapes: Shapes
) -> dict[str, Any]:
    """Summarize repeats, each given as seconds, examples, tokens, and tokens if each example had its own instruction."""
    peak_bytes = peak()
    seconds, examples, tokens, apart = zip(*repeats, strict=True)
    fastest = matmul_rate(dtype, [[shapes.matmul] * 3], hardware.device_type())

    def each(values: Sequence[float]) -> dict[str, float]:
        per_second = [value / second for value, second in zip(values, seconds, strict=True)]
        return {"median": statistics.median(per_second), "min": min(per_second), "max": max(per_second)}

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


def linear_weights(model: Any) -> int:
    """Count the weights of linear layers below the head, which multiply every token; adapters do not count."""
    total = 0
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and not any(part in name for part in ("lora_", "lm_head", "classifier")):
            state = getattr(module.weight, "quant_state", None)
            total += math.prod(state.shape) if state is not None else module.weight.numel()
    return total


def peak() -> int | None:
    """Return the peak bytes of tensors on the GPU since the last call; None without one."""
    if hardware.device_type() != "cuda":
        return None
    peak_bytes = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return peak_bytes


# ---- models


def llama_base(settings: GpuSettings, shapes: Shapes) -> Path:
    """Return a Llama in half precision, written one file of about 1 GB after the other, as on the Hub."""
    folder = settings.models_dir / "llama"
    tokenizer = quantization.load_tokenizer(str(settings.llama_tokenizer or MINIATURE_MODELS / "tiny_llama"))
    if len(tokenizer) > shapes.llama.vocab_size:
        raise UserError(f"a tokenizer of {len(tokenizer):,} tokens", key="--llama_tokenizer", expected="Llama 2's")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    if (folder / "config.json").is_file():
        return folder
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(shapes.llama, dtype=torch.float16)
    state = model.state_dict()
    plan = split_torch_state_dict_into_shards(state, max_shard_size=SHARD)
    with stage(f"writing random weights: {folder}"):
        for file, names in plan.filename_to_tensors.items():
            save_file({name: _random(state[name]) for name in names}, folder / file, metadata={"format": "pt"})
        if plan.is_sharded:
            text = json.dumps({"metadata": plan.metadata, "weight_map": plan.tensor_to_filename})
            (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    model.config.save_pretrained(folder)  # last: now the folder is complete
    return folder


def _random(like: torch.Tensor) -> torch.Tensor:
    """Return normal weights with deviation .02, as Llama is initialized; norms are ones."""
    if like.ndim == 1:
        return torch.ones(like.shape, dtype=like.dtype)
    return (0.02 * torch.randn(like.shape, device=hardware.device_type())).to(like.dtype).cpu()


def roberta_base(settings: GpuSettings, size: str, shapes: Shapes) -> Path:
    folder = settings.models_dir / f"roberta-{size}"
    if not (folder / "tokenizer.json").is_file():
        with stage(f"writing random weights: {folder}"):
            transformers.AutoModelForMaskedLM.from_config(getattr(shapes, size)).save_pretrained(folder)
            quantization.load_tokenizer(str(MINIATURE_MODELS / "tiny_roberta")).save_pretrained(folder)
    return folder


def random_adapter(folder: Path, arguments: TrainArguments, feature: str, shapes: Shapes) -> None:
    """Write an adapter as a training with these arguments would save it."""
    with torch.device("meta"):
        base = transformers.AutoModelForCausalLM.from_config(shapes.llama)
        adapted = get_peft_model(base, adapter.lora_config(arguments, base, None))
    config = adapted.peft_config["default"]
    config.base_model_name_or_path = arguments.model_name_or_path
    config.save_pretrained(str(folder))
    state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    tensors = {name: 0.01 * torch.randn(tensor.shape) for name, tensor in state.items()}
    save_file(tensors, folder / adapter.WEIGHTS_FILE, metadata={"format": "pt"})
    description.describe(arguments, FEATURES[feature], None).write(folder)
