"""What needs no neural network: ``python -m snli_roberta.baselines`` describes SNLI and scores the controls on its test split.

Controls: the majority label, TF-IDF of the hypothesis alone (what the wording gives away), and TF-IDF of both sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cli.arguments import MAX_SEED, option, parse
from common.cli.console import log
from common.cli.errors import run
from common.results.rendering import table_lines
from common.results.scoring import ScoredSet, class_counts
from common.stats import baselines
from snli_roberta.data.corpus import LABELS, SAMPLING, Pair, Split, training_sample
from snli_roberta.training.arguments import CorpusArguments

MODULE = "snli_roberta.baselines"
TASK = "SNLI: does the premise entail the hypothesis?"
QUESTION = "Given a premise, is a hypothesis entailed, contradicted, or neither (neutral)?"
LIMITS = (
    "How well a model reads sentences of another kind, how far it may be trusted where people disagree, or whether it "
    "reasons at all: the hypothesis-only control shows what the wording alone gives away."
)


@dataclass(kw_only=True)
class ControlsArguments(CorpusArguments):
    """Describes SNLI and scores majority and TF-IDF controls on its test split; without a corpus given, on the miniature."""

    output_dir: Path = option(Path("output/snli_controls"), "folder for the run records")
    seed: int = option(0, "seed of the controls and of the bootstrap", minimum=0, maximum=MAX_SEED)


def load_sets(corpus: CorpusArguments, sampling: Mapping[str, Any] | None) -> tuple[list[Pair], ScoredSet, Split]:
    """The training pairs and the test set.

    Args:
        corpus: Where both are read from.
        sampling: Settings of a training, ``SAMPLING`` among them; without them all training pairs count.

    Returns:
        The training pairs that such a training uses, the set that is scored, and the test split.

    Raises:
        UserError: Bad data.
    """
    train, test = corpus.load("train", "test")
    data = "the SNLI miniature" if corpus.on_miniature else "SNLI 1.0"
    whole = {"balance_classes": False, "train_fraction": 1.0, "sample_seed": 0}
    pairs = training_sample(train.pairs, **{key: (sampling or whole)[key] for key in SAMPLING})
    counts = {f"train, {data}": class_counts(train.labels, LABELS)}
    if len(pairs) < len(train.pairs):
        counts["train, sampled"] = class_counts([pair.label for pair in pairs], LABELS)
    scored = ScoredSet(
        task=TASK,
        question=QUESTION,
        limits=LIMITS,
        data=data,
        split="test",
        names=LABELS,
        labels=test.labels,
        fingerprint=test.fingerprint(),
        class_counts=counts | {f"test, {data}": class_counts(test.labels, LABELS)},
        reports=[train.report, test.report],
        policy={
            "gold label": "given by at least three of five annotators; pairs without one are dropped",
            "training pairs used": f"{len(pairs):,} of {len(train.pairs):,}",
        },
        miniature=corpus.on_miniature,
    )
    return pairs, scored, test


def predictors(pairs: list[Pair], test: Split, seed: int) -> dict[str, Callable[[], Any]]:
    """Controls that need no neural network, trained on the same pairs as the model."""
    labels = [pair.label for pair in pairs]

    def views(items: list[Pair], *columns: str) -> list[tuple[str, ...]]:
        return [tuple(getattr(pair, column) for column in columns) for pair in items]

    def tfidf(*columns: str) -> Any:
        return baselines.tfidf(views(pairs, *columns), labels, views(test.pairs, *columns), seed=seed)

    return {
        "majority label": lambda: baselines.majority(labels, len(test.pairs)),
        "TF-IDF, hypothesis only": lambda: tfidf("hypothesis"),
        "TF-IDF, both sentences": lambda: tfidf("premise", "hypothesis"),
    }


def main() -> None:
    arguments = parse(
        ControlsArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE}\n  python -m {MODULE} --dataset_name stanfordnlp/snli",
    )
    pairs, scored, test = load_sets(arguments, None)
    for report in scored.reports:
        print("\n".join(report.lines()))
    records = []
    for number, (title, predict) in enumerate(predictors(pairs, test, arguments.seed).items(), 1):
        path = arguments.output_dir / f"snli-{number}-control.json"
        records.append(scored.measure(title, predict, module=MODULE, seed=arguments.seed, path=path))
    print("\n".join(table_lines(records)))
    log(f"records: {arguments.output_dir}")


if __name__ == "__main__":
    run(main)
