"""Base models in 4 bits (NF4), 8 bits or none: how they load, and the only place that knows what goes wrong in silence."""

from __future__ import annotations

from typing import Literal

import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from common.cli.errors import UserError
from common.models.loading import check_config, loading
from common.runtime import hardware

Quantization = Literal["nf4", "int8", "none"]


def load_base(
    name: str, revision: str | None, *, precision: hardware.Precision, quantization: Quantization = "nf4"
) -> PreTrainedModel:
    """A causal language model on this process's device, usually in NF4 with double quantisation (Dettmers et al. 2023).

    Args:
        name: Folder or Hub id.
        revision: Its branch, tag or commit.
        precision: In which the 4-bit weights are multiplied, and the other weights kept.
        quantisation: How the linear layers' weights are kept: ``nf4``, ``int8`` (Dettmers et al. 2022) or ``none``.

    Raises:
        UserError: No such model, no access to it, too little memory, or a model that does not continue text.
    """
    on_cpu = hardware.device_type() == "cpu"
    # 4-bit weights can't be moved afterwards: each process loads them onto its own device.
    device = "cpu" if on_cpu else f"cuda:{torch.cuda.current_device()}"
    four_bits = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": hardware.dtype(precision),
    }
    if hardware.shards():
        # FSDP cuts tensors of numbers that can have gradients: the same 4-bit numbers, eight in what looks like one fp32.
        four_bits["bnb_4bit_quant_storage"] = torch.float32
    settings = {"nf4": four_bits, "int8": {"load_in_8bit": True}, "none": {}}[quantization]
    check_config(name, revision)
    try:
        with loading(name):
            model = AutoModelForCausalLM.from_pretrained(
                name,
                revision=revision,
                quantization_config=BitsAndBytesConfig(**settings) if settings else None,
                device_map={"": device},
                dtype=hardware.dtype(precision),
                attn_implementation=hardware.ATTENTION,
                use_safetensors=True,  # pickles run code
                trust_remote_code=False,  # or a terminal is asked whether to run a repository's own
            )
    except UserError as error:
        if isinstance(error.__cause__, torch.OutOfMemoryError):
            raise UserError("the GPU's memory is too small for it", file=name, fix="use a smaller base model") from None
        raise
    if settings and not any(isinstance(module, (Linear4bit, Linear8bitLt)) for module in model.modules()):
        raise UserError("it has no layer that can be quantised", file=name, expected="a model such as Llama 2")
    disable_cpu_repacking(model)
    with torch.inference_mode():
        one = torch.zeros(1, 1, dtype=torch.long, device=device)
        if getattr(model.get_decoder()(input_ids=one, use_cache=True), "past_key_values", None) is None:
            raise UserError("it reads whole texts", file=name, expected="a model that continues text, such as Llama 2")
    return model


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """A language model's tokenizer. Llama 2's has no padding token; its ``<unk>`` takes the part, so none is added.

    Raises:
        UserError: No such model, no access to it, or a tokenizer that can't end an answer.
    """
    with loading(name):
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    if tokenizer.eos_token_id is None:
        raise UserError("its tokenizer has no token that ends a text", file=name, expected="a model such as Llama 2")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def disable_cpu_repacking(model: torch.nn.Module) -> None:
    """Forbids the repacking of 4-bit weights that bitsandbytes does in the first forward pass in ``eval()`` mode.

    On a CPU with AVX512-BF16 it changes the weights, for good, for a bf16 kernel without gradients: a training that has
    validated once goes on with wrong losses and gradients, and says nothing.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def adapters_to_fp32(model: torch.nn.Module) -> None:
    """Makes what is trained fp32 again, which TRL turns into bf16 when the base is quantised.

    With bf16 adapters fp16 training fails (its gradient scaler refuses them), small updates are rounded away, and a
    continued run, whose weights are loaded as fp32, differs from an uninterrupted one.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
