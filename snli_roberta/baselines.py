"""Describe SNLI and score baselines without a neural network: ``python -m snli_roberta.baselines``.

Baselines: the majority label, TF-IDF of the hypothesis alone (what the wording gives away), and TF-IDF of both sentences.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.cli.arguments import MAX_SEED, option, parse
from common.cli.console import log
from common.cli.errors import run
from common.results.rendering import table_lines
from snli_roberta.model.evaluation import load_sets, predictors
from snli_roberta.training.arguments import CorpusArguments

MODULE = "snli_roberta.baselines"


@dataclass(kw_only=True)
class BaselineArguments(CorpusArguments):
    """Describe SNLI and score majority and TF-IDF baselines on its test split (default: on the miniature's)."""

    output_dir: Path = option(Path("output/snli_baselines"), "folder for the run records")
    seed: int = option(0, "seed of the baselines and of the bootstrap", minimum=0, maximum=MAX_SEED)


def main() -> None:
    arguments = parse(
        BaselineArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE}\n  python -m {MODULE} --dataset_name stanfordnlp/snli",
    )
    pairs, scored, test = load_sets(arguments, None)
    records = []
    for number, (title, predict) in enumerate(predictors(pairs, test, arguments.seed).items(), 1):
        path = arguments.output_dir / f"snli-{number}-baseline.json"
        (arguments.output_dir / f"snli-{number}-control.json").unlink(missing_ok=True)  # its name in earlier versions
        records.append(scored.measure(title, predict, module=MODULE, seed=arguments.seed, path=path))
    for report in scored.reports:
        print("\n".join(report.lines()))
    print("\n".join(table_lines(records)))
    log(f"records: {arguments.output_dir}")


if __name__ == "__main__":
    run(main)
