"""Arguments that commands share, and those of a training run: the keys of a recipe."""

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
from sbic_llama.data.features import Name, Policy, Wording

ALL_LINEAR = ("all-linear",)
MAX_POST_TOKENS = 384  # the longest of 4,673 real posts has 305 tokens of Llama 2
MINIATURE_BASE = f"{MINIATURE}tiny_llama"


@dataclass(kw_only=True)
class CorpusArguments(CorpusOptions):
    """The corpus to read, and how its annotations become one label per post."""

    data_dir: Path | None = option(
        None,
        "folder with SBIC.v2.{trn,dev,tst}.csv or SBIC.v2.agg.{trn,dev,tst}.csv (default: the miniature)",
        instead_of="dataset_name",
    )
    dataset_name: str | None = option(
        None, "Hub dataset instead, such as allenai/social_bias_frames", instead_of="data_dir"
    )
    view: View = option("annotators", "kind of official files in data_dir")
    repeats: Repeats = option("drop", "count a worker who named several groups once (drop) or once per group (keep)")

    @property
    def corpus_name(self) -> str:
        return "the SBIC miniature" if self.on_miniature else "SBIC v2"

    @property
    def aggregation(self) -> str:
        """Return how annotations become one label per post, in words for a record."""
        return f"{self.view}; rows of a worker who named several groups: {self.repeats}"

    def require_training_corpus(self, trained_on: str, adapter: str) -> None:
        """Check that an adapter was trained on this corpus, so that scores never mix miniature and real posts."""
        if trained_on != self.corpus_name:
            raise UserError(
                f"the adapter was trained on {trained_on}, not on {self.corpus_name}",
                file=adapter,
                fix="give --data_dir or --dataset_name" if self.on_miniature else "omit --data_dir and --dataset_name",
            )

    def load(self) -> dict[SplitName, Split]:
        """Load all splits and print what was read and dropped."""
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
    """Train an adapter for one feature of SBIC on a 4-bit base model. Repeat the command to continue a stopped run."""

    output_dir: Path = option(help="folder for adapters; each feature's run has a subfolder of its name")
    model_name_or_path: str = option(MINIATURE_BASE, "base model (default: the miniature's tiny Llama)")
    target_modules: tuple[str, ...] = option(
        ALL_LINEAR, "linear layers that LoRA adapts, such as q_proj v_proj (default: all)", added_later=True
    )
    label_policy: Policy = option(
        "levels", "offensiveYN only: three levels, or offensive from a mean of at least .5 or above .5"
    )
    wording: Wording = option("ours", "hasBiasedImplication only: source of instruction and labels")
    max_post_tokens: int = option(MAX_POST_TOKENS, "maximum tokens per post; longer posts are truncated", minimum=8)
    per_device_train_batch_size: int = option(
        16, "posts per forward pass, behind one copy of the instruction", minimum=1
    )
    activation_checkpointing: bool = option(False, "recompute activations instead of storing them: less memory, slower")
    optim: Literal["adamw_torch", "paged_adamw_32bit", "paged_adamw_8bit"] = option(
        "adamw_torch", "optimizer; the paged ones need a GPU"
    )
    dump_dataset: Path | None = option(
        None, "write the feature's instruction dataset to this file (JSONL), and train nothing"
    )

    def __post_init__(self) -> None:
        CorpusArguments.__post_init__(self)
        TrainingOptions.__post_init__(self)

    @property
    def shares_instruction(self) -> bool:
        """Return whether the posts of a batch share one copy of the instruction, which dropout rules out."""
        return self.lora_dropout == 0


@dataclass(kw_only=True)
class FeatureArguments(TrainArguments):
    """Train an adapter for a feature of SBIC on a 4-bit base model. Repeat the command to continue a stopped run."""

    feature: Name = option(help="the feature")
