"""Rebuild a model of the miniature: ``python -m common.miniature.pretrain --model llama`` (or ``roberta``).

The weights are shipped because a build takes many minutes on two cores. Rebuild them when their pre-training text changes;
a test compares the fingerprints.
"""

from __future__ import annotations

import importlib
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from common.cli.arguments import option, parse
from common.cli.console import log
from common.cli.errors import run
from common.runtime.files import atomic_folder
from common.runtime.project import MINIATURE_MODELS as MODELS
from common.tables.report import fingerprint

if TYPE_CHECKING:
    import torch

SEED = 0
FACTS_FILE = "pretraining.json"
# By name only: common imports neither project.
BUILDERS = {"llama": "sbic_llama.miniature.tiny_llama", "roberta": "snli_roberta.miniature.tiny_roberta"}


@dataclass
class PretrainArguments:
    """Pre-trains one of the miniature's models from scratch and replaces the shipped one."""

    model: Literal["llama", "roberta"] = option(help="which model to build")
    output_dir: Path = option(MODELS, "folder that holds tiny_llama and tiny_roberta")


def fit(model: torch.nn.Module, batches: Iterator[dict], *, steps: int, learning_rate: float) -> dict[str, float]:
    """Train with AdamW, warmup and linear decay; return the steps, seconds and mean loss of the last 100 steps."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 100, max(0.02, 1 - step / steps))
    )
    losses, start = [], time.monotonic()
    model.train()
    for step in range(1, steps + 1):
        loss = model(**next(batches)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 100 == 0:
            left = (time.monotonic() - start) / step * (steps - step)
            log(f"step {step:,} of {steps:,}, loss {sum(losses[-100:]) / 100:.3f}, {left:.0f} s left")
    return {"steps": steps, "seconds": round(time.monotonic() - start, 1), "loss": round(sum(losses[-100:]) / 100, 4)}


def text_fingerprint(model: str) -> str:
    """Return the fingerprint of a sample of a model's pre-training text, as it is generated today."""
    return fingerprint(importlib.import_module(BUILDERS[model]).documents(SEED, 2000))


def main() -> None:
    prog = "python -m common.miniature.pretrain"
    arguments = parse(PretrainArguments, prog=prog, examples=f"  {prog} --model roberta")
    import torch

    from common.runtime import hardware

    torch.manual_seed(SEED)
    model, tokenizer, facts = importlib.import_module(BUILDERS[arguments.model]).pretrain(SEED)
    target = arguments.output_dir / f"tiny_{arguments.model}"
    with atomic_folder(target.with_name(target.name + ".new")) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        facts |= {
            "text_fingerprint": text_fingerprint(arguments.model),
            "parameters": sum(p.numel() for p in model.parameters()),
            "cpu": str(hardware.describe()["cpu"]),
            "threads": torch.get_num_threads(),
        }
        (folder / FACTS_FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    target.with_name(target.name + ".new").rename(target)
    log(f"wrote {target}")


if __name__ == "__main__":
    run(main)
