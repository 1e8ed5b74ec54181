"""Arguments that commands share, and those of a training run: the keys of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.cli.arguments import MAX_SEED, option, parse
from common.cli.console import stage
from common.cli.errors import UserError
from common.cli.options import CorpusOptions, EncoderOptions, Method, TrainingOptions
from common.runtime.project import MINIATURE, corpus_folder
from snli_roberta.data.corpus import HUB_COLUMNS, HUB_DATASET, HUB_SPLITS, Split, SplitName, load_split

MINIATURE_BASE = f"{MINIATURE}tiny_roberta"


@dataclass(kw_only=True)
class CorpusArguments(CorpusOptions):
    """The corpus to read."""

    data_dir: Path | None = option(
        None, "folder with snli_1.0_{train,dev,test}.jsonl (default: the miniature)", instead_of="dataset_name"
    )
    dataset_name: str | None = option(None, "Hub dataset instead, such as stanfordnlp/snli", instead_of="data_dir")
    dataset_columns: tuple[str, ...] = option(
        HUB_COLUMNS, "its columns of the premise, the hypothesis and the label, in this order", added_later=True
    )
    dataset_splits: tuple[str, ...] = option(
        HUB_SPLITS,
        "its splits for training, validation and test, in this order; subset/split for one of a subset",
        added_later=True,
    )

    def __post_init__(self) -> None:
        CorpusOptions.__post_init__(self)
        for key, default in (("dataset_columns", HUB_COLUMNS), ("dataset_splits", HUB_SPLITS)):
            given = getattr(self, key)
            if len(given) != len(default):
                raise UserError(f"{len(given)} names", key=key, expected=f"three, as in {' '.join(default)}")
            if key == "dataset_columns" and len(set(given)) < len(given):
                raise UserError("a column is named twice", key=key, expected="three different ones")
            if given != default and self.dataset_name is None:
                raise UserError("it has no effect without --dataset_name", key=key, fix="add --dataset_name user/name")

    @property
    def is_snli(self) -> bool:
        return self.dataset_name in (None, HUB_DATASET)

    @property
    def corpus_name(self) -> str:
        return "the SNLI miniature" if self.on_miniature else "SNLI 1.0" if self.is_snli else str(self.dataset_name)

    def load(self, *names: SplitName) -> list[Split]:
        """Read the named splits."""
        folder = corpus_folder(self, "snli_1.0")
        settings = {"columns": self.dataset_columns, "splits": self.dataset_splits, "revision": self.dataset_revision}
        with stage(f"reading {'SNLI' if self.is_snli else self.dataset_name}"):
            splits = [load_split(name, data_dir=folder, dataset_name=self.dataset_name, **settings) for name in names]
        for split in splits:
            if not split.pairs:
                problem = f"no pair of the {split.name} split has a gold label"
                file = folder / f"snli_1.0_{split.name}.jsonl" if folder else split.report.name
                fix = "name a split with labels in --dataset_splits" if self.dataset_name else "check the files"
                raise UserError(problem, file=file, fix=fix)
        return splits


@dataclass(kw_only=True)
class SharedSettings(CorpusArguments, EncoderOptions):
    """Settings that all runs of a comparison share: base model, pairs, schedule and adapter."""

    model_name_or_path: str = option(MINIATURE_BASE, "pretrained encoder (default: the miniature's tiny RoBERTa)")
    train_fraction: float = option(
        1.0, "fraction of the training pairs to use; class proportions are kept", above=0, maximum=1
    )
    balance_classes: bool = option(False, "first cut each class to the size of the rarest")
    sample_seed: int = option(
        33, "seed of the training sample: runs with other seeds use the same pairs", minimum=0, maximum=MAX_SEED
    )


@dataclass(kw_only=True)
class TrainArguments(SharedSettings, TrainingOptions):
    """Fine-tune a pretrained encoder on SNLI. The same command continues a run that was stopped."""

    method: Method = option(help="full or lora; must match the command")

    def __post_init__(self) -> None:
        CorpusArguments.__post_init__(self)
        TrainingOptions.__post_init__(self)
        if self.push_to_hub and not self.is_snli:
            problem = f"cards describe models trained on SNLI, not on {self.dataset_name}"
            raise UserError(problem, key="push_to_hub", fix="train without it")


def train_arguments(method: Method) -> TrainArguments:
    """Parse the command line of ``train_full`` or ``train_lora``."""
    command = f"python -m snli_roberta.train_{method}"
    recipe = f"snli_roberta/recipes/miniature_{method}.yaml"
    arguments = parse(TrainArguments, prog=command, examples=f"  {command} --config {recipe}")
    if arguments.method != method:
        raise UserError(f"the recipe is for {arguments.method}", key="method", expected=method)
    return arguments
