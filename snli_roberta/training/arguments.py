"""The arguments that commands share, and those of a training run: what a recipe may hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.cli.arguments import MAX_SEED, option
from common.cli.console import stage
from common.cli.options import CorpusOptions, LoraOptions, Schedule, TrainingOptions
from common.runtime.project import MINIATURE, corpus_folder
from snli_roberta.data.corpus import Split, SplitName, load_split

Method = Literal["full", "lora"]
Initialisation = Literal["default", "gaussian", "orthogonal", "olora", "pissa"]
ALL_LINEAR = ("all-linear",)
DEFAULT_LENGTH = 128  # tokens a pair
MINIATURE_BASE = f"{MINIATURE}tiny_roberta"


@dataclass(kw_only=True)
class CorpusArguments(CorpusOptions):
    """Which corpus to read."""

    data_dir: Path | None = option(
        None, "folder with snli_1.0_{train,dev,test}.jsonl; without a corpus, the miniature", instead_of="dataset_name"
    )
    dataset_name: str | None = option(None, "Hub dataset instead, as stanfordnlp/snli", instead_of="data_dir")

    def load(self, *names: SplitName) -> list[Split]:
        """The splits of those names.

        Raises:
            UserError: See :func:`snli_roberta.data.corpus.load_split`.
        """
        folder = corpus_folder(self, "snli_1.0")
        with stage("reading SNLI"):
            return [
                load_split(name, data_dir=folder, dataset_name=self.dataset_name, revision=self.dataset_revision)
                for name in names
            ]


@dataclass(kw_only=True)
class SetUp(CorpusArguments, Schedule, LoraOptions):
    """What the runs of a comparison share: base model, pairs, schedule, and what an adapter is."""

    model_name_or_path: str = option(MINIATURE_BASE, "pre-trained encoder; by default the miniature's tiny RoBERTa")
    train_fraction: float = option(
        1.0, "share of the training pairs to use, class proportions kept", above=0, maximum=1
    )
    balance_classes: bool = option(False, "first cut each class to the size of the rarest")
    sample_seed: int = option(
        33, "seed of that choice of pairs: runs of several seeds have the same pairs", minimum=0, maximum=MAX_SEED
    )
    max_length: int = option(DEFAULT_LENGTH, "tokens a pair at most; the longer sentence is cut", minimum=8)
    target_modules: tuple[str, ...] = option(
        ALL_LINEAR, "layers of the encoder that LoRA adapts, by name, as query value; all-linear for each linear one"
    )
    init_lora_weights: Initialisation = option("default", "how an adapter starts; default: so that it changes nothing")
    use_rslora: bool = option(False, "scale the adapter by alpha / sqrt(r) instead of alpha / r (rsLoRA)")
    use_dora: bool = option(False, "learn the weights' lengths apart from their directions (DoRA)")


@dataclass(kw_only=True)
class TrainArguments(SetUp, TrainingOptions):
    """Fine-tunes a pre-trained encoder on SNLI. The same command continues a stopped run."""

    method: Method = option(help="full or lora: every recipe names the one that it is for")

    def __post_init__(self) -> None:
        CorpusArguments.__post_init__(self)
        TrainingOptions.__post_init__(self)
