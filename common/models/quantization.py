"""Load base models in 4 bits (NF4), 8 bits or unquantized, without the traps that fail silently."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from common.cli.errors import UserError
from common.models import loading as models
from common.models.load_errors import loading
from common.models.loading import check_loaded, check_no_adapter, load_config
from common.runtime import hardware

Quantization = Literal["nf4", "int8", "none"]


def load_base(
    name: str, revision: str | None, *, precision: hardware.Precision, quantization: Quantization = "nf4"
) -> PreTrainedModel:
    """Load a causal language model onto this process's device, usually in NF4 (Dettmers et al. 2023).

    ``precision`` is that of products with quantized weights, and of the other weights. int8 is that of Dettmers et al. 2022.
    """
    # 4-bit weights can't be moved afterwards: each process loads them onto its own device.
    device = "cpu" if hardware.device_type() == "cpu" else f"cuda:{torch.cuda.current_device()}"
    four_bits = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": hardware.dtype(precision),
    }
    if hardware.shards():
        # FSDP shards only types that can have gradients: the same 4-bit numbers, eight in what looks like one fp32.
        four_bits["bnb_4bit_quant_storage"] = torch.float32
    settings = {"nf4": four_bits, "int8": {"load_in_8bit": True}, "none": {}}[quantization]
    config = base_config(name, revision)
    with loading(name):
        model, report = AutoModelForCausalLM.from_pretrained(
            name,
            revision=revision,
            config=config,
            quantization_config=BitsAndBytesConfig(**settings) if settings else None,
            device_map={"": device},
            dtype=hardware.dtype(precision),
            attn_implementation=attention_for(config),
            use_safetensors=True,  # pickles run code
            trust_remote_code=False,  # the default asks on the terminal
            output_loading_info=True,
        )
        check_loaded(model, _with_quantized_shapes(model, report), name)
    if settings and not any(isinstance(module, (Linear4bit, Linear8bitLt)) for module in model.modules()):
        raise UserError("no layer that can be quantized", file=name, expected="a model such as Llama 2")
    disable_cpu_repacking(model)
    # The base's own may penalize repeated tokens or sample.
    own = model.generation_config
    model.generation_config = GenerationConfig(eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id)
    with torch.inference_mode():
        token = torch.zeros(1, 1, dtype=torch.long, device=device)
        if getattr(model.get_decoder()(input_ids=token, use_cache=True), "past_key_values", None) is None:
            raise UserError("not a causal language model", file=name, expected="a model such as Llama 2")
    return model


def _with_quantized_shapes(model: torch.nn.Module, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a loading report with the shapes of 4-bit weights, which transformers does not compare."""
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, Linear4bit)]
    other = [
        (f"{name}.weight", tuple(state.shape), (layer.out_features, layer.in_features))
        for name, layer in layers
        if (state := getattr(layer.weight, "quant_state", None)) is not None
        and sorted(state.shape) != sorted((layer.out_features, layer.in_features))  # GPT-2's are transposed
    ]
    return {**report, "mismatched_keys": [*report["mismatched_keys"], *other]}


def base_config(name: str, revision: str | None) -> PretrainedConfig:
    """Load a base's configuration, with its own dropout switched off.

    A frozen base's dropout (GPT-2's is .1) would be noise in training, and the same noise for all posts of a row.
    """
    check_no_adapter(name, revision)
    config = load_config(name, revision)
    for part in (config, config.get_text_config(decoder=True)):
        for key, value in list(vars(part).items()):
            if ("dropout" in key or key.endswith("pdrop")) and isinstance(value, float):
                setattr(part, key, 0.0)
    return config


def attention_for(config: PretrainedConfig) -> str:
    """Return the fastest attention that takes block masks and that a base's class has."""
    model: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return "eager" if model is not None and not model._supports_sdpa else hardware.ATTENTION


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load a language model's tokenizer. Llama 2's has no padding token; ``<unk>`` serves, so that none is added."""
    tokenizer = models.load_tokenizer(name, revision)
    if tokenizer.eos_token_id is None:
        raise UserError("its tokenizer has no end-of-text token", file=name, expected="a model such as Llama 2")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def disable_cpu_repacking(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights in the first forward pass in ``eval()`` mode.

    On a CPU with AVX512-BF16 it changes the weights for good, for a bf16 kernel without gradients: a training that has
    validated once continues silently with wrong losses and gradients.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def adapters_to_fp32(model: torch.nn.Module) -> None:
    """Cast trained parameters back to fp32, after TRL has cast them to bf16 for a quantized base.

    With bf16 adapters fp16 training fails (its gradient scaler refuses them), small updates are rounded away, and a
    resumed run, which loads fp32 weights, differs from an uninterrupted one.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
