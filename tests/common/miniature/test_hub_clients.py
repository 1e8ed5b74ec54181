"""The libraries that push and pull by themselves, over HTTP to the miniature's Hub."""

from __future__ import annotations

import io

import pyarrow
import pyarrow.parquet
import pytest
import torch
from huggingface_hub import HfApi

from common.miniature.pretrain import MODELS

TINY = str(MODELS / "tiny_roberta")


def test_trainer_and_transformers(hub, tmp_path):
    from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

    model = AutoModelForSequenceClassification.from_pretrained(TINY, num_labels=3)
    settings = TrainingArguments(str(tmp_path), use_cpu=True, hub_model_id="miniature/trainer", hub_private_repo=True)
    Trainer(model=model, args=settings).push_to_hub()
    assert hub.repositories["models", "miniature/trainer"].private
    there = AutoModelForSequenceClassification.from_pretrained("miniature/trainer")
    assert all(map(torch.equal, model.state_dict().values(), there.state_dict().values()))


def test_peft(hub):
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForSequenceClassification

    config = LoraConfig(task_type="SEQ_CLS", target_modules=["query"], init_lora_weights=False)
    model = get_peft_model(AutoModelForSequenceClassification.from_pretrained(TINY, num_labels=3), config)
    model.push_to_hub("miniature/peft")
    HfApi().create_tag("miniature/peft", tag="v1")
    HfApi().delete_file("adapter_model.safetensors", "miniature/peft")
    base = AutoModelForSequenceClassification.from_pretrained(TINY, num_labels=3)
    there = PeftModel.from_pretrained(base, "miniature/peft", revision="v1").state_dict()
    here = model.state_dict()
    assert all(torch.equal(here[name], there[name]) for name in here if "lora" in name)
    with pytest.raises(ValueError, match=r"adapter_model\.bin|weights"):
        PeftModel.from_pretrained(base, "miniature/peft")


def test_datasets(hub):
    from datasets import load_dataset

    HfApi().create_repo("miniature/posts", repo_type="dataset", private=True)
    for number, tag in enumerate(("v1", "v2"), 1):
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table({"post": ["one", "two"][:number]}), buffer)
        HfApi().upload_file(
            repo_id="miniature/posts",
            repo_type="dataset",
            path_in_repo="data/train-00000-of-00001.parquet",
            path_or_fileobj=buffer.getvalue(),
        )
        HfApi().create_tag("miniature/posts", repo_type="dataset", tag=tag)
    assert load_dataset("miniature/posts", split="train", revision="v1")["post"][:] == ["one"]
    assert load_dataset("miniature/posts", split="train", revision="v2")["post"][:] == ["one", "two"]
