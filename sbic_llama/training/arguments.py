"""The arguments that commands share, and those of a training run: what a recipe may hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.cli.arguments import option
from common.cli.console import log, stage
from common.cli.errors import UserError
from common.cli.options import CorpusOptions, TrainingOptions
from common.runtime.project import MINIATURE, corpus_folder
from sbic_llama.data.corpus import Repeats, Split, SplitName, View, load_splits
from sbic_llama.data.features import Policy, Wording

MAX_POST_TOKENS = 384  # the longest of 4,673 real posts has 305 tokens of Llama 2
MINIATURE_BASE = f"{MINIATURE}tiny_llama"


@dataclass(kw_only=True)
class CorpusArguments(CorpusOptions):
    """Which corpus to read, and how annotations become one label a post."""

    data_dir: Path | None = option(
        None,
        "folder with SBIC.v2.{trn,dev,tst}.csv or SBIC.v2.agg.{trn,dev,tst}.csv; without a corpus, the miniature",
        instead_of="dataset_name",
    )
    dataset_name: str | None = option(None, "Hub dataset instead, as allenai/social_bias_frames", instead_of="data_dir")
    view: View = option("annotators", "kind of official files in data_dir")
    repeats: Repeats = option("drop", "count a worker who named several groups once (drop) or once a group (keep)")

    @property
    def corpus_name(self) -> str:
        return "the SBIC miniature" if self.on_miniature else "SBIC v2"

    @property
    def aggregation(self) -> str:
        """How annotations became one label a post, in words for a record."""
        return f"{self.view}; rows of a worker who named several groups: {self.repeats}"

    def require_training_corpus(self, trained_on: str, adapter: str) -> None:
        """Checks that an adapter was trained on this corpus, so that the miniature's numbers and real ones stay apart.

        Raises:
            UserError: It was trained on another.
        """
        if trained_on != self.corpus_name:
            raise UserError(
                f"the adapter was trained on {trained_on}, and would be scored on {self.corpus_name}",
                file=adapter,
                fix="give --data_dir or --dataset_name" if self.on_miniature else "give neither corpus",
            )

    def load(self) -> dict[SplitName, Split]:
        """All splits; what was read and dropped is said.

        Raises:
            UserError: See :func:`sbic_llama.data.corpus.load_splits`.
        """
        with stage("reading SBIC"):
            splits = load_splits(
                data_dir=corpus_folder(self, "SBIC.v2"),
                dataset_name=self.dataset_name,
                revision=self.dataset_revision,
                view=self.view,
                repeats=self.repeats,
            )
        for split in splits.values():
            for line in split.report.lines():
                log(line)
        return splits


@dataclass(kw_only=True)
class TrainArguments(CorpusArguments, TrainingOptions):
    """Trains an adapter for one feature of SBIC on a 4-bit base model. The same command continues a stopped run."""

    output_dir: Path = option(help="folder for the adapters; a feature's run has a folder of its name in it")
    model_name_or_path: str = option(MINIATURE_BASE, "base model; by default the miniature's tiny Llama")
    label_policy: Policy = option(
        "levels", "offensiveYN only: three levels, or offensive from a mean of .5 or above .5"
    )
    wording: Wording = option("ours", "hasBiasedImplication only: whose instruction and labels")
    max_post_tokens: int = option(MAX_POST_TOKENS, "tokens a post; longer ones are cut", minimum=8)
    per_device_train_batch_size: int = option(16, "posts a forward pass, behind one copy of the instruction", minimum=1)
    activation_checkpointing: bool = option(False, "compute activations twice to store few: less memory, slower")
    optim: Literal["adamw_torch", "paged_adamw_32bit", "paged_adamw_8bit"] = option(
        "adamw_torch", "optimizer; the paged ones need a GPU"
    )
    dump_dataset: Path | None = option(None, "write the feature's instruction dataset there (JSONL), and train nothing")

    def __post_init__(self) -> None:
        CorpusArguments.__post_init__(self)
        TrainingOptions.__post_init__(self)
