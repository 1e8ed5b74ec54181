"""Describe a corpus, and score baselines on its test split, trained and untrained ones: ``python -m sbic_llama.baselines``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.cli.arguments import MAX_SEED, option, parse
from common.cli.console import log, quiet_libraries
from common.cli.errors import UserError, run
from common.results.record import RunRecord
from common.results.rendering import table_lines
from common.results.scoring import ScoredSet
from sbic_llama.data.codebook import read_codebook
from sbic_llama.data.features import FEATURES, Feature, Name, Policy, feature_of, get_feature
from sbic_llama.evaluation.encoder import (
    EncoderArguments,
    EncoderTrials,
    announce_all,
    base_commit,
    encoder_trials,
    score_encoder,
)
from sbic_llama.evaluation.few_shot import BaseArguments, load, score_base
from sbic_llama.evaluation.scores import score_baselines, test_set
from sbic_llama.training.arguments import CorpusArguments

MODULE = "sbic_llama.baselines"


@dataclass(kw_only=True)
class BaselineArguments(CorpusArguments, EncoderArguments, BaseArguments):
    """Describes SBIC, or the table of a codebook, and scores the majority label and TF-IDF on its test split.

    With --encoder, also a fine-tuned encoder, and with --base, a base model as it is. Learning rates of the encoder are tuned on
    the validation split; repeat the command to continue its trainings. Without a corpus, uses the miniature."""

    codebook: Path | None = option(None, "codebook (YAML) of a question of your own, whose labels are in --data")
    feature: tuple[Name, ...] = option((), "only these features (default: all)")
    label_policy: Policy = option(
        "levels", "labels of offensiveYN: three levels, or offensive from or above a mean of .5"
    )
    output_dir: Path = option(Path("output/sbic_baselines"), "folder for the run records")
    seed: int = option(0, "seed of the baselines and of the bootstrap", minimum=0, maximum=MAX_SEED)

    def __post_init__(self) -> None:
        CorpusArguments.__post_init__(self)
        for key, other in (("codebook", "data"), ("data", "codebook")):
            if getattr(self, key) is not None and getattr(self, other) is None:
                raise UserError(f"it needs --{other}", key=key, fix=f"add --{other}")
        for key in ("feature", "label_policy") if self.codebook else ():
            if getattr(self, key) not in ((), "levels"):
                raise UserError("a codebook has no such choice", key=key, fix="remove it")
        EncoderArguments.__post_init__(self)
        BaseArguments.__post_init__(self)

    def features(self) -> list[Feature]:
        """Return the features to score."""
        if self.codebook is not None:
            return [feature_of(read_codebook(self.codebook))]
        policies = {"offensiveYN": self.label_policy}
        return [get_feature(name, policies.get(name, "levels")) for name in self.feature or FEATURES]


def main() -> None:
    arguments = parse(
        BaselineArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE}\n  python -m {MODULE} --dataset_name allenai/social_bias_frames\n"
        f"  python -m {MODULE} --encoder FacebookAI/roberta-base --feature offensiveYN\n"
        f"  python -m {MODULE} --base HuggingFaceTB/SmolLM2-135M-Instruct --shots 0 8 --feature offensiveYN",
    )
    if arguments.encoder or arguments.base:
        quiet_libraries()
    features = arguments.features()
    commit = base_commit(arguments) if arguments.encoder else None  # before the first baseline is fitted
    splits = arguments.load(features[0].codebook)
    base = load(arguments) if arguments.base else None
    tables: dict[str, list[RunRecord]] = {}
    encoders: dict[str, EncoderTrials] = {}
    sets: dict[str, ScoredSet] = {}
    shared = {"module": MODULE, "output_dir": arguments.output_dir, "seed": arguments.seed}
    for feature in features:
        name = feature.name
        if not all(any(feature.label_of(post) is not None for post in split.posts) for split in splits.values()):
            log(f"{name}: skipped, because a split has no post with a label")
            continue
        sets[name] = test_set(feature, splits, arguments)
        tables[name] = score_baselines(feature, splits, sets[name], **shared)
        if base is not None:
            tables[name] += score_base(base, arguments, feature, splits, sets[name], **shared)
        if arguments.encoder and feature.classifies:
            encoders[name] = encoder_trials(arguments, feature, splits, commit)
        elif arguments.encoder:
            log(f"{name}: no encoder, because it chooses one label, and this feature's answers are lists")
    announce_all(list(encoders.values()))
    for name, trials in encoders.items():
        tables[name] += score_encoder(trials, splits, sets[name], **shared)
    log(f"records: {arguments.output_dir}")
    print("\n".join(line for records in tables.values() for line in table_lines(records)))


if __name__ == "__main__":
    run(main)
