"""Options that mean the same in both projects: training runs and corpora."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.cli.arguments import MAX_SEED, option
from common.cli.errors import UserError

HIGHEST_RANK, HIGHEST_ALPHA = 4096, 100_000  # of an adapter
ALL_LINEAR = ("all-linear",)
DEFAULT_LENGTH = 128  # tokens of an encoder's input
Method = Literal["full", "lora"]
METHODS: dict[Method, str] = {"full": "full fine-tuning", "lora": "LoRA"}


def on_hub(name: str | Path) -> bool:
    """Return whether a table is named ``hf://datasets/…``; a Path has lost one of the slashes."""
    return str(name).startswith("hf:/")


@dataclass(kw_only=True)
class Schedule:
    """How long and in what batches a model is trained: shared by runs that are compared."""

    model_revision: str | None = option(None, "branch, tag or commit of the base model")
    num_train_epochs: float = option(3.0, "passes over the training items", above=0, maximum=10_000)
    max_steps: int = option(-1, "stop after this many steps (-1: after the epochs)", minimum=-1)
    per_device_train_batch_size: int = option(32, "items per process and forward pass", minimum=1)
    gradient_accumulation_steps: int = option(1, "forward passes per step", minimum=1)
    lr_scheduler_type: Literal["linear", "cosine", "polynomial", "inverse_sqrt", "constant", "constant_with_warmup"] = (
        option("linear", "learning rate schedule (constant: without warmup)", added_later=True)
    )
    warmup_ratio: float = option(0.06, "share of the steps with a rising learning rate", minimum=0, below=1)
    weight_decay: float = option(0.01, "AdamW's weight decay", minimum=0, maximum=1)
    evaluations: int = option(6, "approximate number of validations and checkpoints in the whole run", minimum=1)
    early_stopping_patience: int = option(3, "stop after this many validations without improvement", minimum=1)
    save_total_limit: int = option(3, "keep at most this many checkpoints: the newest and the best", minimum=2)
    logging_steps: int = option(20, "steps between logged losses", minimum=1)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option("auto", "compute precision; trained weights stay fp32")
    report_to: Literal["none", "trackio", "wandb", "tensorboard"] = option(
        "none", "also send losses and validations to this tracker; its package must be installed"
    )

    def __post_init__(self) -> None:
        if self.max_steps == 0:
            raise UserError("no steps", key="max_steps", expected="-1 or at least 1")
        if self.report_to != "none" and importlib.util.find_spec(self.report_to) is None:
            fix = f"run pip install {self.report_to}"
            raise UserError(f"{self.report_to} is not installed", key="report_to", fix=fix)


@dataclass(kw_only=True)
class LoraOptions:
    """An adapter's size, by the names of PEFT's ``LoraConfig``."""

    r: int = option(16, "rank of the adapter", minimum=1, maximum=HIGHEST_RANK)
    lora_alpha: float = option(32, "scaling of the adapter times its rank", above=0, maximum=HIGHEST_ALPHA)
    lora_dropout: float = option(0.0, "dropout before the adapter", minimum=0, below=1)


@dataclass(kw_only=True)
class EncoderOptions(Schedule, LoraOptions):
    """How an encoder is fine-tuned as a classifier, as a whole or with LoRA."""

    max_length: int = option(
        DEFAULT_LENGTH, "maximum tokens per item; of a pair, the longer text is truncated", minimum=8
    )
    target_modules: tuple[str, ...] = option(
        ALL_LINEAR, "linear layers of the encoder that LoRA adapts, such as query value (default: all)"
    )
    init_lora_weights: Literal["default", "gaussian", "orthogonal", "olora", "pissa"] = option(
        "default", "initialization of the adapter; default: no change to the base"
    )
    use_rslora: bool = option(False, "scale the adapter by alpha / sqrt(r) instead of alpha / r (rsLoRA)")
    use_dora: bool = option(False, "learn magnitude and direction of the weights separately (DoRA)")


@dataclass(kw_only=True)
class TrainingOptions(Schedule, LoraOptions):
    """A run of Trainer or SFTTrainer; each project adds its model, data, and defaults."""

    output_dir: Path = option(help="folder for checkpoints, the trained model and its record")
    learning_rate: float = option(help="peak learning rate", above=0, maximum=1)
    seed: int = option(33, "seed of the data order, new weights and dropout", minimum=0, maximum=MAX_SEED)
    estimate_only: bool = option(False, "measure a few steps, print how long the run would take, and train nothing")
    push_to_hub: bool = option(False, "after training, score the test split and publish model and card")
    hub_model_id: str | None = option(None, "repository to publish to, as user/name")
    hub_private: bool = option(False, "publish it as a private repository")
    hub_overwrite: bool = option(False, "replace another model in it, and changes that were made on the Hub")

    def __post_init__(self) -> None:
        Schedule.__post_init__(self)
        if self.push_to_hub and self.hub_model_id is None:
            raise UserError("no repository to publish to", key="push_to_hub", fix="give --hub_model_id user/name")
        for key in ("hub_model_id", "hub_private", "hub_overwrite"):
            if getattr(self, key) and not self.push_to_hub:
                problem = "it has no effect without --push_to_hub"
                raise UserError(problem, key=key, fix=f"add --push_to_hub, or remove --{key}")


@dataclass(kw_only=True)
class CorpusOptions:
    """Where a corpus is read from."""

    data_dir: Path | None = option(
        None, "folder with the official files; without a corpus, the miniature is used", instead_of="dataset_name"
    )
    dataset_name: str | None = option(None, "Hub dataset to use instead", instead_of="data_dir")
    dataset_revision: str | None = option(None, "branch, tag or commit of the Hub dataset")

    def __post_init__(self) -> None:
        if self.data_dir is not None and self.dataset_name is not None:
            expected = "data_dir or dataset_name"
            raise UserError("two corpora were given", key="data_dir", expected=expected, fix="remove one of them")
        if self.dataset_revision is not None and self.dataset_name is None:
            fix = "add --dataset_name user/name, or remove it"
            raise UserError("it has no effect without --dataset_name", key="dataset_revision", fix=fix)
        if self.data_dir is not None and not Path(self.data_dir).is_dir():
            raise UserError("no such folder", file=self.data_dir, expected="a folder with the corpus's official files")

    def words(self) -> list[str]:
        """Return the arguments that name this corpus, for another command."""
        names = ("data_dir", "dataset_name", "dataset_revision")
        given = [(name, getattr(self, name)) for name in names if getattr(self, name) is not None]
        return [word for name, value in given for word in (f"--{name}", str(value))]

    @property
    def on_miniature(self) -> bool:
        return self.data_dir is None and self.dataset_name is None


@dataclass(kw_only=True)
class TableOptions(CorpusOptions):
    """Where a corpus is read from, or a table of the user's own."""

    data: Path | None = option(
        None,
        "table of your own with labels, or hf://datasets/user/name@revision:split, for an adapter or codebook of your own",
        instead_of="dataset_name",
        added_later=True,
    )

    def __post_init__(self) -> None:
        CorpusOptions.__post_init__(self)
        if self.data is not None:
            if self.data_dir is not None or self.dataset_name is not None:
                raise UserError("two corpora were given", key="data", fix="remove data_dir and dataset_name")
            if not on_hub(self.data) and not self.data.exists():
                raise UserError("no such file", file=self.data, expected="a table with texts and labels")

    def words(self) -> list[str]:
        return [*super().words(), *(["--data", str(self.data)] if self.data else [])]

    @property
    def on_miniature(self) -> bool:
        return self.data is None and super().on_miniature
