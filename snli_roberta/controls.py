"""What needs no neural network: ``python -m snli_roberta.controls`` describes SNLI and scores the controls on its test split.

Controls: the majority label, TF-IDF of the hypothesis alone (what the wording gives away), and TF-IDF of both sentences.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common import controls
from common.arguments import option, parse
from common.errors import run
from common.report import table_lines
from common.scored import ScoredSet, class_counts
from common.stages import say, stage
from snli_roberta.corpus import LABELS, Split, load_split

MODULE = "snli_roberta.controls"
BOTH = ("premise", "hypothesis")
TASK = "SNLI: does the premise entail the hypothesis?"
QUESTION = "Given a premise, is a hypothesis entailed, contradicted, or neither (neutral)?"
LIMITS = (
    "How well a model reads sentences of another kind, how far it may be trusted where people disagree, or whether it "
    "reasons at all: the hypothesis-only control shows what the wording alone gives away."
)


@dataclass
class ControlsArguments:
    """Describes SNLI and scores majority and TF-IDF controls on its test split; without a corpus given, on the miniature."""

    data_dir: Path | None = option(None, "folder with snli_1.0_{train,dev,test}.jsonl")
    dataset_name: str | None = option(None, "Hub dataset instead, as stanfordnlp/snli")
    dataset_revision: str | None = option(None, "its revision")
    output_dir: Path = option(Path("output/snli_controls"), "folder for the run records")
    seed: int = option(0, "seed of the controls and of the bootstrap", minimum=0)


def test_set(train: Split, test: Split, *, data: str, miniature: bool) -> ScoredSet:
    """The test split as the set that every model here is scored on."""
    counts = {f"train, {data}": class_counts(train.labels, LABELS), f"test, {data}": class_counts(test.labels, LABELS)}
    return ScoredSet(
        task=TASK,
        question=QUESTION,
        limits=LIMITS,
        data=data,
        split="test",
        names=LABELS,
        labels=test.labels,
        fingerprint=test.fingerprint(),
        class_counts=counts,
        reports=[train.report, test.report],
        policy={"gold label": "given by at least three of five annotators; pairs without one are dropped"},
        miniature=miniature,
    )


def views(split: Split, *columns: str) -> list[tuple[str, ...]]:
    """Each pair's texts in ``columns``, for a control."""
    return [tuple(getattr(pair, column) for column in columns) for pair in split.pairs]


def main() -> None:
    arguments = parse(
        ControlsArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE}\n  python -m {MODULE} --dataset_name stanfordnlp/snli",
    )
    miniature = arguments.data_dir is None and arguments.dataset_name is None
    data_dir = arguments.data_dir
    if miniature:
        from common.miniature import corpora

        data_dir = corpora.build() / "snli_1.0"
    with stage("reading SNLI"):
        splits = {
            name: load_split(
                name, data_dir=data_dir, dataset_name=arguments.dataset_name, revision=arguments.dataset_revision
            )
            for name in ("train", "dev", "test")
        }
    for split in splits.values():
        print("\n".join(split.report.lines()))
    train, test = splits["train"], splits["test"]
    scored = test_set(train, test, data="the SNLI miniature" if miniature else "SNLI 1.0", miniature=miniature)

    hypotheses, pairs = ([views(split, *columns) for split in (train, test)] for columns in (("hypothesis",), BOTH))
    predictors = {
        "majority label": lambda: controls.majority(train.labels, len(test.pairs)),
        "TF-IDF, hypothesis only": lambda: controls.tfidf(
            hypotheses[0], train.labels, hypotheses[1], seed=arguments.seed
        ),
        "TF-IDF, both sentences": lambda: controls.tfidf(pairs[0], train.labels, pairs[1], seed=arguments.seed),
    }
    records = []
    for number, (title, predict) in enumerate(predictors.items(), 1):
        path = arguments.output_dir / f"snli-{number}-control.json"
        records.append(scored.measure(title, predict, module=MODULE, seed=arguments.seed, path=path))
    print("\n".join(table_lines(records)))
    say(f"records: {arguments.output_dir}")


if __name__ == "__main__":
    run(main)
