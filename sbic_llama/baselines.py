"""Describe SBIC, and score the majority label and TF-IDF on its test split: ``python -m sbic_llama.baselines``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.cli.arguments import MAX_SEED, option, parse
from common.cli.console import log
from common.cli.errors import run
from common.results.rendering import table_lines
from sbic_llama.data.features import FEATURES, Policy, get_feature
from sbic_llama.evaluation.scores import score_baselines, test_set
from sbic_llama.training.arguments import CorpusArguments

MODULE = "sbic_llama.baselines"


@dataclass(kw_only=True)
class BaselineArguments(CorpusArguments):
    """Describes SBIC and scores the majority label and TF-IDF on its test split. Without a corpus, uses the miniature."""

    label_policy: Policy = option(
        "levels", "labels of offensiveYN: three levels, or offensive from or above a mean of .5"
    )
    output_dir: Path = option(Path("output/sbic_baselines"), "folder for the run records")
    seed: int = option(0, "seed of the baselines and of the bootstrap", minimum=0, maximum=MAX_SEED)


def main() -> None:
    arguments = parse(
        BaselineArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE}\n  python -m {MODULE} --dataset_name allenai/social_bias_frames",
    )
    splits = arguments.load()
    lines: list[str] = []
    for name in FEATURES:
        feature = get_feature(name, arguments.label_policy if name == "offensiveYN" else "levels")
        if not all(any(feature.label_of(post) is not None for post in split.posts) for split in splits.values()):
            log(f"{name}: skipped, because a split has no post with a label")
            continue
        scored = test_set(feature, splits, arguments)
        shared = {"module": MODULE, "output_dir": arguments.output_dir, "seed": arguments.seed}
        lines += table_lines(score_baselines(feature, splits, scored, **shared))
    log(f"records: {arguments.output_dir}")
    print("\n".join(lines))


if __name__ == "__main__":
    run(main)
