"""Fixtures: a 4-bit tiny Llama with a random adapter, and trained adapters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import get_peft_model

from common.miniature.pretrain import MODELS
from common.models.quantization import load_base, load_tokenizer
from sbic_llama.model.adapter import lora_config
from sbic_llama.training.arguments import TrainArguments
from tests.once import once


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def adapted_model() -> torch.nn.Module:
    """Build an NF4 model with a random adapter, which changes every answer."""
    torch.manual_seed(0)
    base = load_base(str(MODELS / "tiny_llama"), None, precision="fp32")
    arguments = TrainArguments(output_dir=Path(), learning_rate=1.0, r=4, lora_alpha=8)
    model = get_peft_model(base, lora_config(arguments, base, None))
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


@pytest.fixture(scope="session")
def trained_adapters(tmp_path_factory) -> Path:
    """A folder of adapters for three features, trained just long enough to tell labels apart; do not modify."""
    from sbic_llama.training.run import train

    def make(folder: Path) -> None:
        for name, steps in {"hasBiasedImplication": 40, "offensiveYN": 60, "targetMinority": 120}.items():
            train(TrainArguments(output_dir=folder, learning_rate=2e-3, max_steps=steps, evaluations=1), name)

    return once(tmp_path_factory, "adapters", make)
