"""A 4-bit tiny Llama with an adapter that says something, shared by the tests of this folder that change no weight."""

from __future__ import annotations

import pytest
import torch
from peft import get_peft_model

from common.miniature.pretrain import MODELS
from common.quantised import load_base, load_tokenizer
from sbic_llama.model import lora_config


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def adapted_model() -> torch.nn.Module:
    """An NF4 model whose adapter has random weights, so that it changes every answer."""
    torch.manual_seed(0)
    base = load_base(str(MODELS / "tiny_llama"), None, precision="fp32")
    model = get_peft_model(base, lora_config(rank=4, alpha=8, dropout=0.0, revision=None))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


@pytest.fixture(scope="session")
def tokenizer():
    return load_tokenizer(str(MODELS / "tiny_llama"))


@pytest.fixture
def fresh_model():
    return adapted_model()


@pytest.fixture(scope="session")
def model():
    return adapted_model().eval()
