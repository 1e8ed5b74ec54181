"""Estimate the memory of a training before its base model is loaded.

A step runs on fake tensors (see :mod:`common.models.step_memory`), through the code of the model, PEFT, bitsandbytes,
autograd and activation checkpointing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from bitsandbytes.functional import QuantState
from bitsandbytes.nn import Linear4bit
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PretrainedConfig
from transformers.integrations.bitsandbytes import replace_with_bnb_linear
from transformers.quantizers.base import HfQuantizer

from common.cli.console import log
from common.cli.errors import UserError
from common.models.loading import base_path
from common.models.quantization import adapters_to_fp32, attention_for, base_config, disable_cpu_repacking
from common.models.step_memory import by_depth, layers_alike, make_fake, model_bytes, peak_bytes
from common.results.record import count_parameters
from common.runtime import hardware
from sbic_llama.model.adapter import lora_config
from sbic_llama.model.attention import add_blocks
from sbic_llama.model.masks import attention_masks, takes_masks
from sbic_llama.training.arguments import TrainArguments

if TYPE_CHECKING:  # TRL takes a second to import, and common.doctor does without
    from sbic_llama.training.trainer import TrainingRows

GRADIENT_BYTES = 4  # per trained weight, in fp32
MOMENTS_BYTES = {"adamw_torch": 8, "paged_adamw_32bit": 8, "paged_adamw_8bit": 2}  # Adam's two, per trained weight


@dataclass(frozen=True)
class Memory:
    """Bytes in use at a training's largest step, without the some hundred MB of the libraries themselves."""

    model: int  # base (4-bit weights with their constants, other weights) and adapter
    optimizer: int  # gradients and moments of trained weights
    # Peak of a forward and backward pass: what is saved for the backward pass, and temporary tensors, such as recomputed
    # layers, dequantized weights, gradients of activations, and the answers' logits.
    activations: int

    @property
    def total(self) -> int:
        return self.model + self.optimizer + self.activations

    def line(self) -> str:
        parts = ", ".join(f"{name} {size / 1e6:,.0f}" for name, size in vars(self).items())
        return f"estimated memory {self.total / 1e6:,.0f} MB ({parts}), plus that of the libraries"


@dataclass(frozen=True)
class Step:
    """Shape of one forward and backward pass."""

    rows: int  # sequences; 1 where posts share one instruction
    tokens: int  # of each sequence, with padding
    answers: int  # learned tokens of all rows
    packed: bool  # whether a 4-D mask separates the posts of a row
    posts: tuple[int, ...] = ()  # tokens of each post of such a row, behind the instruction

    @property
    def size(self) -> int:
        return self.rows * self.tokens


def largest_step(
    lengths: Sequence[int], answers: Sequence[int], *, prefix: int, size: int, packed: bool, seed: int
) -> Step:
    """Return the largest step of one shuffled pass, an estimate of the run's, with the most answer tokens of any step.

    Args:
        lengths: Tokens of each post's prompt and answer, without the instruction.
        answers: Tokens of each post's answer.
        prefix: Tokens of the instruction.
        size: Posts per forward pass.
        packed: Whether they share one instruction.
        seed: Seed of the order.
    """
    order = np.random.default_rng(seed).permutation(len(lengths))
    steps = [order[start : start + size] for start in range(0, len(order), size)]
    most = max(int(np.asarray(answers)[step].sum()) for step in steps)
    chosen = [np.asarray(lengths)[step] for step in steps]
    if packed:
        posts = tuple(max(chosen, key=lambda step: int(step.sum())).tolist())
        return Step(1, prefix + sum(posts), most, packed=True, posts=posts)
    largest = max(chosen, key=lambda step: len(step) * (prefix + int(step.max())))
    return Step(len(largest), prefix + int(largest.max()), most, packed=False)


def estimate_memory(
    model: PeftModel, step: Step, *, precision: hardware.Precision, checkpointing: bool, optim: str = "adamw_torch"
) -> Memory:
    """Estimate a training's memory; for a :func:`fake_model`, no memory is used.

    Counts all tensors of a step, in the sizes in which PyTorch allocates memory, and the weights that bitsandbytes
    dequantizes for a multiplication. Does not count kernels' workspace, fragmentation, memory of PyTorch and CUDA
    themselves, and what AdamW holds briefly after the backward pass, when activations are freed. Each of several processes
    needs this much, less with FSDP. Fused GPU kernels of attention save the same tensors as PyTorch's on the CPU.
    """
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    passing = peak_bytes(model, lambda: step_loss(model, step, precision=precision), checkpointing=checkpointing)
    return Memory(model_bytes(model), trained * (GRADIENT_BYTES + MOMENTS_BYTES[optim]), passing)


def estimate_run(
    arguments: TrainArguments, precision: hardware.Precision, rows: TrainingRows, revision: str | None
) -> tuple[dict[str, int], Memory] | None:
    """Return a run's parameter counts and its memory; None if fake tensors cannot run the base."""
    config, prefix = base_config(base_path(arguments.model_name_or_path), revision), len(rows.encoded.prefix_ids)
    step = largest_step(
        [len(ids) - prefix for ids in rows.input_ids],
        [len(ids) for ids in rows.answers],
        prefix=prefix,
        size=arguments.per_device_train_batch_size,
        packed=arguments.shares_instruction and takes_masks(config),
        seed=arguments.seed,
    )
    again, optim = arguments.activation_checkpointing, arguments.optim

    def measure(config: PretrainedConfig) -> list[int]:
        fewer = fake_model(config, arguments, precision=precision)
        memory = estimate_memory(fewer, step, precision=precision, checkpointing=again, optim=optim)
        return [count_parameters(fewer)["total"], *vars(memory).values()]

    try:
        counts = count_parameters(fake_model(config, arguments, precision=precision))
        total, *parts = by_depth(config, measure) if layers_alike(config) else measure(config)
        if total != counts["total"]:  # layers differ in what no list says, such as experts in some of them
            _, *parts = measure(config)
        return counts, Memory(*parts)
    except UserError:
        raise
    except Exception as error:  # whatever the base does that fake tensors cannot; if it is invalid, loading says why
        log(f"memory cannot be estimated for this base model ({type(error).__name__})")
        return None


def fake_model(config: PretrainedConfig, arguments: TrainArguments, *, precision: hardware.Precision) -> PeftModel:
    """Return the model that a training would load, with its adapter, made of fake tensors."""
    with torch.device("meta"):
        base = _four_bit(config, precision)
        model = get_peft_model(base, lora_config(arguments, base, None), autocast_adapter_dtype=False)
    adapters_to_fp32(model)
    make_fake(model, _fake_weight)
    return model


def _four_bit(config: PretrainedConfig, precision: hardware.Precision) -> Any:
    """Return the layers that :func:`common.models.quantization.load_base` loads, without weights."""
    model = AutoModelForCausalLM.from_config(
        config, dtype=hardware.dtype(precision), attn_implementation=attention_for(config), trust_remote_code=False
    )
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=hardware.dtype(precision),
    )
    plain = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    model = replace_with_bnb_linear(model, plain, settings)
    disable_cpu_repacking(model)
    model.is_loaded_in_4bit = True
    return model


def _fake_weight(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter) -> torch.nn.Parameter | None:
    quantized = isinstance(module, Linear4bit) and name == "weight"
    return _four_bit_weight(parameter.shape, module.compute_dtype) if quantized else None


def _four_bit_weight(shape: torch.Size, dtype: torch.dtype) -> torch.nn.Parameter:
    """Return what bitsandbytes makes of a weight: NF4, an 8-bit scale per 64 weights, and a scale per 256 of those."""
    scales = math.ceil(shape.numel() / 64)
    second = QuantState(torch.empty(math.ceil(scales / 256)), code=torch.empty(256), blocksize=256, dtype=torch.float32)
    state = QuantState(
        torch.empty(scales, dtype=torch.uint8),
        shape=shape,
        code=torch.empty(16),
        blocksize=64,
        quant_type="nf4",
        dtype=dtype,
        offset=torch.empty(()),
        state2=second,
    )
    weight = torch.nn.Parameter(torch.empty(shape.numel() // 2, 1, dtype=torch.uint8), requires_grad=False)
    # The attributes of Params4bit, which cannot be built from a fake tensor.
    vars(weight).update(quant_state=state, compress_statistics=True, quant_type="nf4")
    return weight


def step_loss(model: PeftModel, step: Step, *, precision: hardware.Precision) -> torch.Tensor:
    """Compute a loss as :class:`sbic_llama.training.trainer.FeatureTrainer` does under Trainer's autocast."""
    ids = torch.ones(step.rows, step.tokens, dtype=torch.long)
    each = torch.zeros(step.rows, math.ceil(step.answers / step.rows), dtype=torch.long)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if step.packed:
        visible = torch.ones(1, step.tokens, step.tokens, dtype=torch.bool)
        masks = attention_masks(model.config, visible, ids, ids, dtype=model.dtype)
        if step.posts and hardware.device_type() == "cpu" and model.config._attn_implementation == "sdpa":
            for mask in masks.values() if isinstance(masks, dict) else [masks]:
                add_blocks(mask, step.tokens - sum(step.posts), step.posts)
        inputs |= {"position_ids": ids, "attention_mask": masks}
    with torch.autocast("cpu", dtype=hardware.dtype(precision), enabled=precision != "fp32"):
        logits = model(**inputs, use_cache=False, logits_to_keep=each).logits
    return torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), each.flatten(), reduction="sum")
