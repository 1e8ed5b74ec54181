"""Merge an adapter into its 4-bit base: one plain model that needs neither PEFT nor bitsandbytes."""

from __future__ import annotations

import copy
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.nn import Linear, Parameter
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from common.cli.errors import UserError
from common.models.load_errors import loading
from common.models.loading import load_config
from common.models.quantization import attention_for


@torch.no_grad()
def merged_model(model: PeftModel, base: str, revision: str | None, dtype: torch.dtype) -> PreTrainedModel:
    """Return the base with its active adapter merged into the weights, in ``dtype``, on the CPU.

    The adapter was trained against the 4-bit weights, so it is added to these, unpacked: added to the original weights, it
    would correct errors that they do not have, and added inside 4-bit layers, as PEFT's own ``merge`` does, it would be
    quantized again. Each sum is taken in fp32 and rounded once.

    Args:
        model: The adapter on its 4-bit base.
        base: Folder or Hub id of the base.
        revision: The base's commit on the Hub.
        dtype: Of the weights that are returned.

    Raises:
        UserError: An adapter that cannot be written as a change of the base's matrices.
    """
    config = load_config(base, revision)
    with loading(base):
        plain = AutoModelForCausalLM.from_pretrained(
            base,
            revision=revision,
            config=config,
            dtype=dtype,
            attn_implementation=attention_for(config),
            use_safetensors=True,
            trust_remote_code=False,
        )
    for name, layer in model.get_base_model().named_modules():
        if isinstance(layer, BaseTunerLayer) and not _mergeable(layer):
            raise UserError(f"its change of {name} is not a product of two matrices", expected="LoRA of linear layers")
        if isinstance(layer, LoraLayer) or (isinstance(layer, Linear4bit) and not name.endswith(".base_layer")):
            _copy(merged_weight(layer), plain, name)
    return plain.eval()


def _mergeable(layer: Any) -> bool:
    """Return whether a layer's adapter is a product of two matrices and nothing else (not DoRA, experts or a bias)."""
    linear = isinstance(layer, LoraLayer) and isinstance(layer.get_base_layer(), Linear)
    return linear and not layer.lora_variant and all(matrix.bias is None for matrix in layer.lora_B.values())


@torch.no_grad()
def merged_weight(layer: Any) -> torch.Tensor:
    """Return the weights of a linear layer with its active adapters, in fp32, shape (out, in).

    4-bit weights are unpacked in fp32 too: small changes of weights that have been rounded before would be rounded away.
    """
    base = layer.get_base_layer() if isinstance(layer, LoraLayer) else layer
    weight = base.weight.data
    if isinstance(base, Linear4bit):
        state = copy.copy(base.weight.quant_state)
        state.dtype = torch.float32
        weight = dequantize_4bit(weight, state)
    weight = weight.float().cpu()
    for adapter in layer.active_adapters if isinstance(layer, LoraLayer) and not layer.disable_adapters else ():
        if adapter in layer.lora_A:
            first, second = (matrices[adapter].weight.float().cpu() for matrices in (layer.lora_A, layer.lora_B))
            weight = torch.add(weight, second @ first, alpha=layer.scaling[adapter])
    return weight


def _copy(weight: torch.Tensor, plain: PreTrainedModel, name: str) -> None:
    target = plain.get_submodule(name)
    inputs = plain.get_input_embeddings()
    if target is plain.get_output_embeddings() and target.weight is inputs.weight:
        # An adapted output layer can no longer share its matrix with the embeddings, which are not adapted.
        target.weight = Parameter(target.weight.clone())
        for config in (plain.config, plain.config.get_text_config(decoder=True)):
            config.tie_word_embeddings = False
    target.weight.copy_(weight.T if isinstance(target, Conv1D) else weight)
