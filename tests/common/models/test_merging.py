"""Test merging: a plain model gives the numbers of the adapter on its 4-bit base, saved and loaded again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from common.cli.errors import UserError
from common.models.merging import merged_model
from common.models.quantization import load_base
from tests.bases import build

IDS = torch.arange(1, 41)[None]


def adapted(base: str, **settings) -> torch.nn.Module:
    """Put a random adapter on a 4-bit base."""
    torch.manual_seed(0)
    model = get_peft_model(load_base(base, None, precision="fp32"), LoraConfig(r=4, task_type="CAUSAL_LM", **settings))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@torch.inference_mode()
def logits(model: torch.nn.Module) -> np.ndarray:
    return model(input_ids=IDS).logits.numpy()


def saved(model: torch.nn.Module, folder) -> torch.nn.Module:
    model.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3"])  # GPT-2's matrices are transposed
def test_a_merged_model_gives_the_numbers_of_the_adapter(name, tmp_path):
    base = build(tmp_path / "base", name)
    model = adapted(base, target_modules="all-linear")
    merged = saved(merged_model(model, base, None, torch.float32), tmp_path / "merged")
    assert not hasattr(merged.config, "quantization_config")
    np.testing.assert_allclose(logits(merged), logits(model), atol=2e-4)
    with model.disable_adapter():
        assert np.abs(logits(merged) - logits(model)).max() > 0.1, "the adapter changes something"
    original = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    assert np.abs(logits(original) - logits(model)).max() > 0.1, "the 4-bit weights are others than the original ones"


def test_layers_without_an_adapter_are_those_of_the_4_bit_base_too(tmp_path):
    base = build(tmp_path / "base", "qwen2")
    model = adapted(base, target_modules=["q_proj"])
    np.testing.assert_allclose(logits(merged_model(model, base, None, torch.float32)), logits(model), atol=2e-4)


def test_an_adapted_output_layer_leaves_tied_embeddings_alone(tmp_path):
    base = build(tmp_path / "base", "qwen2")
    config = AutoConfig.from_pretrained(base, tie_word_embeddings=True)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    model = adapted(base, target_modules=["lm_head", "q_proj"])
    merged = saved(merged_model(model, base, None, torch.float32), tmp_path / "merged")
    np.testing.assert_allclose(logits(merged), logits(model), atol=2e-4)
    untouched = saved(merged_model(adapted(base, target_modules=["q_proj"]), base, None, torch.float32), tmp_path / "b")
    assert untouched.config.tie_word_embeddings
    assert not merged.config.tie_word_embeddings


def test_what_is_no_product_of_two_matrices_is_refused(tmp_path):
    base = build(tmp_path / "base", "llama")
    with pytest.raises(UserError, match=r"its change of .*q_proj is not a product of two matrices"):
        merged_model(adapted(base, target_modules=["q_proj"], use_dora=True), base, None, torch.float32)
    with pytest.raises(UserError, match=r"expected LoRA of linear layers"):
        merged_model(adapted(base, target_modules=["embed_tokens"]), base, None, torch.float32)
