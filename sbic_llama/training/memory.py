"""How much memory a training will take, told before its base model is loaded.

The step runs on fake tensors (``common.models.step_memory``): the model's own code, PEFT's, bitsandbytes' 4-bit functions,
autograd and activation checkpointing say what is held, and for how long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from bitsandbytes.functional import QuantState
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PretrainedConfig
from transformers.integrations.bitsandbytes import replace_with_bnb_linear
from transformers.quantizers.base import HfQuantizer

from common.models.loading import check_config, loading
from common.models.quantization import adapters_to_fp32, disable_cpu_repacking
from common.models.step_memory import make_fake, model_bytes, peak_bytes
from common.runtime import hardware
from sbic_llama.model.scoring import decoder_of

GRADIENT_BYTES = 4  # of a trained weight, in fp32
MOMENTS_BYTES = {"adamw_torch": 8, "paged_adamw_32bit": 8, "paged_adamw_8bit": 2}  # Adam's two, of a trained weight


@dataclass(frozen=True)
class Memory:
    """Bytes that a training holds at its largest step. The libraries' own (some hundred MB) come on top.

    Attributes:
        model: Base (4-bit weights with their constants, the other weights) and adapter.
        optimizer: Gradients and moments of what is trained.
        activations: The most that a forward and backward pass hold besides: what is kept for the backward pass, and what lives for
            a moment, as a layer that is computed again, dequantised weights, gradients of activations, and the answers' logits.
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


@dataclass(frozen=True)
class Step:
    """Shape of one forward and backward pass.

    Attributes:
        rows: Sequences: 1 where posts stand behind one instruction.
        tokens: Tokens of each, padding included.
        answers: Tokens that are learnt, of all rows.
        packed: Whether a 4-D mask keeps posts of a row apart.
    """

    rows: int
    tokens: int
    answers: int
    packed: bool

    @property
    def size(self) -> int:
        return self.rows * self.tokens


def largest_step(
    lengths: Sequence[int], answers: Sequence[int], *, prefix: int, size: int, packed: bool, seed: int
) -> Step:
    """The largest step of one shuffled pass, which stands for that of the run, with the most answers that a step has.

    Args:
        lengths: Tokens of each post with what follows it.
        answers: Tokens of each post's answer.
        prefix: Tokens of the instruction.
        size: Posts a forward pass.
        packed: Whether they stand behind one instruction.
        seed: Of the order.
    """
    order = np.random.default_rng(seed).permutation(len(lengths))
    steps = [order[start : start + size] for start in range(0, len(order), size)]
    most = max(int(np.asarray(answers)[step].sum()) for step in steps)
    chosen = [np.asarray(lengths)[step] for step in steps]
    if packed:
        return Step(1, prefix + max(int(step.sum()) for step in chosen), most, packed=True)
    largest = max(chosen, key=lambda step: len(step) * (prefix + int(step.max())))
    return Step(len(largest), prefix + int(largest.max()), most, packed=False)


def estimate(
    model: PeftModel, step: Step, *, precision: hardware.Precision, checkpointing: bool, optim: str = "adamw_torch"
) -> Memory:
    """Estimates a training's memory; of a model that :func:`pretended` made, without using any.

    Counted are all tensors that a step makes, in the size in which PyTorch gives memory, and the weight that bitsandbytes
    dequantises inside a multiplication. Not counted: kernels' work space, gaps between blocks of memory, PyTorch's and CUDA's own,
    and what AdamW holds for a moment after the backward pass, when activations are gone. Several processes each hold all of this,
    with FSDP less of the model. Attention is that of PyTorch on the CPU; fused kernels on a GPU keep the same tensors.

    Args:
        model: The base with its adapter in fp32.
        step: Shape of the largest pass.
        precision: Compute precision.
        checkpointing: Whether activations are computed twice.
        optim: The optimizer's name.
    """
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    passing = peak_bytes(model, lambda: loss(model, step, precision=precision), checkpointing=checkpointing)
    return Memory(model_bytes(model), trained * (GRADIENT_BYTES + MOMENTS_BYTES[optim]), passing)


def base_config(name: str, revision: str | None) -> PretrainedConfig:
    """A base model's configuration.

    Args:
        name: Folder or Hub id.
        revision: Its branch, tag or commit.

    Raises:
        UserError: No such model, or no access to it.
    """
    check_config(name, revision)
    with loading(name):
        return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)


def pretended(config: PretrainedConfig, lora: LoraConfig, *, precision: hardware.Precision) -> PeftModel:
    """The model that a training would load, with its adapter, made of fake tensors.

    Args:
        config: The base's.
        lora: The adapter.
        precision: Compute precision, in which weights that are not quantised are kept.
    """
    with torch.device("meta"):
        model = get_peft_model(_four_bit(config, precision), lora, autocast_adapter_dtype=False)
    adapters_to_fp32(model)
    make_fake(model, _fake_weight)
    return model


def _four_bit(config: PretrainedConfig, precision: hardware.Precision) -> Any:
    """The layers that :func:`common.models.quantization.load_base` loads, without weights."""
    model = AutoModelForCausalLM.from_config(
        config,
        dtype=hardware.dtype(precision),
        attn_implementation=hardware.ATTENTION,
        trust_remote_code=False,
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
    """A weight in 4 bits where the layer is quantised."""
    quantised = isinstance(module, Linear4bit) and name == "weight"
    return _four_bit_weight(parameter.shape, module.compute_dtype) if quantised else None


def _four_bit_weight(shape: torch.Size, dtype: torch.dtype) -> torch.nn.Parameter:
    """What bitsandbytes makes of a weight: NF4 with a scale for every 64, which are 8-bit numbers with a scale for every 256."""
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
    # What Params4bit carries, which can't be made of a fake tensor.
    vars(weight).update(quant_state=state, compress_statistics=True, quant_type="nf4")
    return weight


def loss(model: PeftModel, step: Step, *, precision: hardware.Precision) -> torch.Tensor:
    """A pass over some tokens as :class:`sbic_llama.training.trainer.FeatureTrainer` does it under Trainer's autocast."""
    ids = torch.ones(step.rows, step.tokens, dtype=torch.long)
    mask = torch.ones(1, 1, step.tokens, step.tokens, dtype=torch.bool) if step.packed else torch.ones_like(ids)
    positions = {"position_ids": ids} if step.packed else {}
    learnt = torch.zeros(step.answers, dtype=torch.long)
    with torch.autocast("cpu", dtype=hardware.dtype(precision), enabled=precision != "fp32"):
        hidden = decoder_of(model)(input_ids=ids, attention_mask=mask, use_cache=False, **positions).last_hidden_state
        logits = model.get_output_embeddings()(hidden.flatten(0, 1)[learnt])
    return torch.nn.functional.cross_entropy(logits.float(), learnt, reduction="sum")
