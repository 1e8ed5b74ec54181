"""Building a trainer reports to nobody, unless the user asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
# A process of its own, because the variable is read on import. It refuses and prints what would leave this machine.
CODE = """
import sys

def refuse(event, given):
    host = {"socket.connect": lambda: given[1], "socket.getaddrinfo": lambda: given}.get(event, lambda: None)()
    if isinstance(host, tuple) and host[0] not in ("127.0.0.1", "::1", "localhost", None):
        print("ATTEMPT", host[0], flush=True)
        raise OSError("refused by this test")

sys.addaudithook(refuse)
from common.models.quantization import load_base, load_tokenizer
from common.runtime.project import MINIATURE_MODELS
from datasets import Dataset
from huggingface_hub.utils import _telemetry
from transformers import Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer

name, folder = str(MINIATURE_MODELS / "tiny_llama"), sys.argv[1]
rows = Dataset.from_dict({"input_ids": [[1, 300, 301, 2]] * 4, "labels": [[-100, -100, 301, 2]] * 4})
options = {"use_cpu": True, "bf16": False, "report_to": "none"}
model = load_base(name, None, precision="fp32", quantization="none")
Trainer(model, TrainingArguments(folder, **options), train_dataset=rows)
prepared = {"dataset_kwargs": {"skip_prepare_dataset": True}}
SFTTrainer(model, SFTConfig(folder, **options, **prepared), train_dataset=rows, processing_class=load_tokenizer(name))
_telemetry._TELEMETRY_QUEUE.join()
print("BUILT")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "attempts"), [(None, set()), ("0", {"ATTEMPT huggingface.co"})], ids=["unset", "allowed"]
)
def test_a_trainer_reports_only_if_the_user_allows_it(value, attempts, tmp_path):
    # Neither the test Hub, nor CI, where TRL reports nothing by itself.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and k != "CI"} | {
        "HF_HOME": str(tmp_path)
    }
    environment |= {} if value is None else {"HF_HUB_DISABLE_TELEMETRY": value}
    command = [sys.executable, "-c", CODE, str(tmp_path / "out")]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    lines = set(result.stdout.splitlines())
    assert "BUILT" in lines, result.stderr[-2000:]
    assert {line for line in lines if line.startswith("ATTEMPT")} == attempts


@pytest.mark.parametrize("value", [None, "0", "1"])
@pytest.mark.parametrize("module", ["common.colab", "sbic_llama.train", "snli_roberta.train_lora"])
def test_a_value_set_by_the_user_stays(module, value):
    environment = {name: text for name, text in os.environ.items() if name != "HF_HUB_DISABLE_TELEMETRY"}
    environment |= {} if value is None else {"HF_HUB_DISABLE_TELEMETRY": value}
    code = f"import {module}, os; print(os.environ['HF_HUB_DISABLE_TELEMETRY'])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.stdout.strip() == (value or "1"), result.stderr[-2000:]
