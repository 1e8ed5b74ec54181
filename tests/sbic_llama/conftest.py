"""Fixtures: a 4-bit tiny Llama with a random adapter, and trained adapters."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from peft import get_peft_model

from common.miniature.pretrain import MODELS
from common.models.quantization import load_base, load_tokenizer
from sbic_llama.model.adapter import lora_config
from sbic_llama.training.arguments import TrainArguments


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
    """A folder of adapters for three features, trained just long enough to tell labels apart; do not modify.

    The first of a run's workers that needs it trains them for all.
    """
    from sbic_llama.training.run import train

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "adapters"
    done = folder.with_suffix(".done")
    with FileLock(folder.with_suffix(".lock")):
        if not done.is_file():
            for name, steps in {"hasBiasedImplication": 40, "offensiveYN": 60, "targetMinority": 120}.items():
                train(TrainArguments(output_dir=folder, learning_rate=2e-3, max_steps=steps, evaluations=1), name)
            done.touch()
    return folder
