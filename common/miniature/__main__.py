"""Builds and describes the miniature: ``python -m common.miniature``."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from common.arguments import parse
from common.errors import run
from common.miniature import corpora
from common.miniature.hub import USER, LocalHub
from common.miniature.pretrain import FACTS_FILE, MODELS
from common.stages import quiet_libraries, say, stage


@dataclass
class MiniatureArguments:
    """Builds the miniature's corpora, describes them and the models, and sends a model through a Hub on the loopback."""


def describe_files(folder: Path) -> None:
    for path in sorted(folder.rglob("*.csv")) + sorted(folder.rglob("*.jsonl")):
        print(f"  {path.relative_to(folder)}  {path.stat().st_size / 1e3:,.0f} kB")


def describe_models() -> None:
    for folder in sorted(MODELS.iterdir()):
        facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
        size = (folder / "model.safetensors").stat().st_size / 1e6
        print(
            f"  {folder.name}  {facts['parameters']:,} parameters, {size:.2f} MB, pre-trained in {facts['steps']:,} steps "
            f"({facts['seconds']:.0f} s on one thread), last loss {facts['loss']}"
        )


def publish_and_load(model: Path) -> None:
    """Publishes a model to a Hub on the loopback with the real client, loads it by its id, and compares the answers."""
    with LocalHub() as hub, tempfile.TemporaryDirectory() as home:
        # The client reads these when it is imported, which nothing in this process has done yet.
        os.environ.update(hub.environment(home))
        import torch
        from huggingface_hub import HfApi
        from transformers import AutoModelForCausalLM, AutoTokenizer

        quiet_libraries()
        id = f"{USER}/{model.name}"
        HfApi().create_repo(id)
        HfApi().upload_folder(repo_id=id, folder_path=model, commit_message="A model of the miniature")
        ids = AutoTokenizer.from_pretrained(id)("the florbs live by the river", return_tensors="pt").input_ids
        with torch.inference_mode():
            here, there = (AutoModelForCausalLM.from_pretrained(where)(ids).logits for where in (model, id))
        if not torch.equal(here, there):
            raise RuntimeError(f"{id} answers differently after the way through the Hub")


def main() -> None:
    parse(MiniatureArguments, prog="python -m common.miniature")
    with stage("building the miniature's corpora"):
        folder = corpora.build()
    print(f"The miniature: invented posts and sentences, in {folder}")
    describe_files(folder)
    print("Its models:")
    describe_models()
    with stage("publishing a model to a Hub on the loopback and loading it back"):
        publish_and_load(MODELS / "tiny_llama")
    say("the way through the Hub changed nothing")


if __name__ == "__main__":
    run(main)
