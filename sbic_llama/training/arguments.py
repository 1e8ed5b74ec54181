"""Arguments that commands share, and those of a training run: the keys of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.cli.arguments import option
from common.cli.console import log, stage
from common.cli.errors import UserError
from common.cli.options import ALL_LINEAR, TableOptions, TrainingOptions, on_hub
from common.models.prompt import PromptChoice
from common.runtime.project import MINIATURE, corpus_folder, is_miniature
from sbic_llama.data.codebook import Codebook, read_codebook
from sbic_llama.data.corpus import Repeats, Split, SplitName, View, load_splits
from sbic_llama.data.features import Feature, Name, Policy, Wording, feature_of, get_feature

MAX_POST_TOKENS = 384  # the longest of 4,673 real posts has 305 tokens of Llama 2
SBIC_NAMES = ("the SBIC miniature", "SBIC v2")
OF_MINIATURE = "the miniature's "  # before the name of a table of invented texts
MINIATURE_BASE = f"{MINIATURE}tiny_llama"


@dataclass(kw_only=True)
class CorpusArguments(TableOptions):
    """The corpus to read, and how its annotations become one label per post."""

    data_dir: Path | None = option(
        None,
        "folder with SBIC.v2.{trn,dev,tst}.csv or SBIC.v2.agg.{trn,dev,tst}.csv (default: the miniature)",
        instead_of="dataset_name",
    )
    dataset_name: str | None = option(
        None, "Hub dataset instead, such as allenai/social_bias_frames", instead_of="data_dir"
    )
    more_labels: tuple[Path, ...] = option(
        (), "further files with labels for the codebook: for training, never for the test part", added_later=True
    )
    view: View = option("annotators", "kind of official files in data_dir")
    repeats: Repeats = option("drop", "count a worker who named several groups once (drop) or once per group (keep)")

    def __post_init__(self) -> None:
        TableOptions.__post_init__(self)
        if self.more_labels and self.data is None:
            raise UserError("it needs --data", key="more_labels", fix="add --data with the labels of the first round")
        for key in ("view", "repeats"):
            if self.data is not None and getattr(self, key) != getattr(CorpusArguments, key):
                raise UserError("it is about SBIC, and has no effect on --data", key=key, fix="remove it")
        if self.data is not None:
            from common.hub.table_download import at_commit

            self.data = at_commit(self.data)
            self.more_labels = tuple(map(at_commit, self.more_labels))

    @property
    def is_invented(self) -> bool:
        """Return whether the texts are the miniature's."""
        return self.on_miniature if self.data is None else is_miniature(self.data)

    @property
    def corpus_name(self) -> str:
        if self.data is not None:
            from common.hub.table_download import table_name

            name = table_name(self.data)
            return f"{OF_MINIATURE}{name}" if self.is_invented else name
        return "the SBIC miniature" if self.on_miniature else "SBIC v2"

    @property
    def aggregation(self) -> str:
        """Return how annotations become one label per post, in words for a record."""
        if self.data is not None:
            return "one label per annotator and text"
        return f"{self.view}; rows of a worker who named several groups: {self.repeats}"

    def require_training_corpus(self, trained_on: str, adapter: str) -> None:
        """Check that an adapter was trained on this corpus, so that scores never mix miniature and real posts."""
        if trained_on == self.corpus_name:
            return
        fix = "give --data_dir or --dataset_name" if self.on_miniature else "omit --data_dir and --dataset_name"
        if trained_on not in SBIC_NAMES:
            name = trained_on.removeprefix(OF_MINIATURE)
            fix = f"give --data {name if on_hub(name) else f'path/to/{name}'}"
        problem = f"the adapter was trained on {trained_on}, not on {self.corpus_name}"
        raise UserError(problem, file=adapter, fix=fix)

    @property
    def dataset(self) -> str | None:
        """Return the split on the Hub, at its commit, that the table is; None for a file."""
        return str(self.data).replace("hf:/", "hf://", 1) if self.data is not None and on_hub(self.data) else None

    def load(self, codebook: Codebook | None = None) -> dict[SplitName, Split]:
        """Load all splits and print what was read and dropped; a table of one's own is read by its codebook."""
        if codebook is not None:
            return self._load_table(codebook)
        if self.data is not None:
            raise UserError("a table of your own needs a codebook", key="data", fix="use an adapter trained with one")
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

    def _load_table(self, codebook: Codebook) -> dict[SplitName, Split]:
        from common.hub.table_download import local_table
        from sbic_llama.data.more_labels import with_more_labels
        from sbic_llama.data.table import load_table

        if self.data is None:
            raise UserError(
                f"{codebook.name} needs a table with labels", key="data", fix="give --data path/to/table.csv"
            )
        with stage(f"reading {self.data.name}"):
            report, splits = load_table(local_table(self.data), codebook)
            splits, more = with_more_labels(splits, tuple(map(local_table, self.more_labels)), codebook)
        for line in (line for each in (report, *more) for line in each.lines()):
            log(line)
        for split in splits.values():
            counts = ", ".join(f"{label} {count:,}" for label, count in split.report.notes.items())
            log(f"  {split.name}: {len(split.posts):,} texts{f' ({counts})' if counts else ''}")
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
    prompt: PromptChoice = option(
        "auto",
        "template of prompts: the base's own for chats, or the study's (auto: chat if it has one)",
        added_later=True,
    )
    max_post_tokens: int = option(MAX_POST_TOKENS, "maximum tokens per post; longer posts are truncated", minimum=8)
    per_device_train_batch_size: int = option(
        16, "posts per forward pass, behind one copy of the instruction", minimum=1
    )
    activation_checkpointing: bool = option(False, "recompute activations instead of storing them: less memory, slower")
    optim: Literal["adamw_torch", "paged_adamw_32bit", "paged_adamw_8bit"] = option(
        "adamw_torch", "optimizer; the paged ones need a GPU"
    )
    dump_dataset: Path | None = option(
        None, "write the feature's instruction dataset to this file (.jsonl), and train nothing", writes=(".jsonl",)
    )
    class_weights: Literal["none", "balanced"] = option(
        "none", "weigh each answer in the loss by how rare its label is (balanced), or not", added_later=True
    )
    codebook: Path | None = option(
        None, "codebook (YAML) of your own, in place of a feature of SBIC; with --data", added_later=True
    )

    def __post_init__(self) -> None:
        CorpusArguments.__post_init__(self)
        TrainingOptions.__post_init__(self)
        for key, other in (("codebook", "data"), ("data", "codebook")):
            if getattr(self, key) is not None and getattr(self, other) is None:
                raise UserError(f"it needs --{other}", key=key, fix=f"add --{other}")
        if self.codebook is not None and (self.label_policy != "levels" or self.wording != "ours"):
            key = "label_policy" if self.label_policy != "levels" else "wording"
            raise UserError("a codebook has no such choice", key=key, fix="remove it")

    def declared(self, name: str) -> Feature:
        """Return the feature to train: that of the codebook, or SBIC's of this name."""
        if self.codebook is not None:
            if name:
                fix = "use python -m sbic_llama.train"
                raise UserError(f"this command trains {name}", key="codebook", fix=fix)
            return feature_of(read_codebook(self.codebook))
        return get_feature(name, self.label_policy, self.wording)

    @property
    def shares_instruction(self) -> bool:
        """Return whether the posts of a batch share one copy of the instruction, which dropout rules out."""
        return self.lora_dropout == 0


@dataclass(kw_only=True)
class FeatureArguments(TrainArguments):
    """Train an adapter for a feature of SBIC on a 4-bit base model. Repeat the command to continue a stopped run."""

    feature: Name | None = option(None, "the feature of SBIC")

    def __post_init__(self) -> None:
        expected = "--feature of SBIC, or --codebook and --data of your own"
        own = self.codebook is not None or self.data is not None
        if self.feature is not None and own:
            other = "codebook" if self.codebook is not None else "data"
            raise UserError(f"given with --{other}", key="feature", expected=expected, fix="remove one of them")
        if self.feature is None and not own:
            raise UserError("neither a feature nor a codebook", key="feature", expected=expected)
        TrainArguments.__post_init__(self)
