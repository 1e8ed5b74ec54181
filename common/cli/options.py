"""The arguments of a training run that mean the same in both projects."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.cli.arguments import MAX_SEED, option
from common.cli.errors import UserError


@dataclass(kw_only=True)
class Schedule:
    """How long and in what portions a model is trained: what runs that are compared have in common."""

    model_revision: str | None = option(None, "the base model's branch, tag or commit")
    num_train_epochs: float = option(3.0, "passes over the training items", above=0, maximum=10_000)
    max_steps: int = option(-1, "stop after so many steps (-1: after the epochs)", minimum=-1)
    per_device_train_batch_size: int = option(32, "items a step, process and accumulation step", minimum=1)
    gradient_accumulation_steps: int = option(1, "forward passes a step", minimum=1)
    warmup_ratio: float = option(0.06, "share of the steps with a rising rate", minimum=0, below=1)
    weight_decay: float = option(0.01, "AdamW's weight decay", minimum=0, maximum=1)
    evaluations: int = option(6, "about so many validations (and checkpoints) in the whole run", minimum=1)
    early_stopping_patience: int = option(3, "stop after so many validations without a better one", minimum=1)
    logging_steps: int = option(20, "steps between logged losses", minimum=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option("auto", "compute precision; what is trained stays fp32")
    report_to: Literal["none", "trackio", "wandb", "tensorboard"] = option(
        "none", "tracker that gets losses and validations as well; its package must be installed"
    )

    def __post_init__(self) -> None:
        if self.max_steps == 0:
            raise UserError("no steps", key="max_steps", expected="-1 or at least 1")
        if self.report_to != "none" and importlib.util.find_spec(self.report_to) is None:
            raise UserError(f"{self.report_to} is not installed", key="report_to", fix=f"pip install {self.report_to}")


@dataclass(kw_only=True)
class LoraOptions:
    """An adapter's size, by the names of PEFT's ``LoraConfig``."""

    r: int = option(16, "rank of the adapter", minimum=1, maximum=4096)
    lora_alpha: float = option(32, "the adapter's scale times its rank", above=0, maximum=100_000)
    lora_dropout: float = option(0.0, "dropout before the adapter", minimum=0, below=1)


@dataclass(kw_only=True)
class TrainingOptions(Schedule, LoraOptions):
    """A run of Trainer or SFTTrainer; each project adds its model, its data, and its own defaults."""

    output_dir: Path = option(help="folder for checkpoints, the trained model and its record")
    learning_rate: float = option(help="peak learning rate", above=0, maximum=1)
    seed: int = option(33, "seed of the order, new weights and the dropout", minimum=0, maximum=MAX_SEED)
    estimate_only: bool = option(False, "measure a few steps, say how long the run would take, and train nothing")
    push_to_hub: bool = option(False, "once trained, score the test split and publish model and card")
    hub_model_id: str | None = option(None, "repository to publish to, as user/name")
    hub_private: bool = option(False, "let only you, or your organisation, read it")

    def __post_init__(self) -> None:
        Schedule.__post_init__(self)
        if self.push_to_hub and self.hub_model_id is None:
            raise UserError("no repository to publish to", key="push_to_hub", fix="give --hub_model_id user/name")
        if self.hub_model_id is not None and not self.push_to_hub:
            raise UserError("nothing is published", key="hub_model_id", fix="give --push_to_hub too, or drop it")


@dataclass(kw_only=True)
class CorpusOptions:
    """Where a corpus is read from; each project adds how."""

    data_dir: Path | None = option(
        None, "folder of the official files; without a corpus, the miniature", instead_of="dataset_name"
    )
    dataset_name: str | None = option(None, "Hub dataset instead", instead_of="data_dir")
    dataset_revision: str | None = option(None, "its branch, tag or commit")

    def __post_init__(self) -> None:
        if self.data_dir is not None and self.dataset_name is not None:
            raise UserError(
                "two corpora were given", key="data_dir", expected="data_dir or dataset_name", fix="drop one"
            )
        if self.data_dir is not None and not Path(self.data_dir).is_dir():
            raise UserError("no such folder", file=self.data_dir, expected="the corpus's official files")

    def words(self) -> list[str]:
        """The arguments that name this corpus, for another command; the miniature needs none."""
        given = {
            "data_dir": self.data_dir,
            "dataset_name": self.dataset_name,
            "dataset_revision": self.dataset_revision,
        }
        return [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]

    @property
    def on_miniature(self) -> bool:
        return self.data_dir is None and self.dataset_name is None
