"""What needs no neural network: ``python -m sbic_llama.controls`` describes SBIC and scores the controls on its test split.

Controls, for each classification feature: the majority label, and TF-IDF with logistic regression.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common import controls
from common.arguments import MAX_SEED, option, parse
from common.data_report import fingerprint
from common.errors import run
from common.records import RunRecord
from common.report import table_lines
from common.scored import ScoredSet, class_counts
from common.stages import say, stage
from sbic_llama.corpus import Repeats, Split, SplitName, View, load_splits
from sbic_llama.features import CLASSIFICATION, Feature

MODULE = "sbic_llama.controls"
LIMITS = (
    "Whether the annotators were right (a label is the opinion of a few crowd workers), how a model treats posts of other "
    "places, times and dialects, or that anybody may be judged by it unseen."
)


@dataclass
class ControlsArguments:
    """Describes SBIC and scores majority and TF-IDF controls on its test split; without a corpus given, on the miniature."""

    data_dir: Path | None = option(None, "folder with SBIC.v2.{trn,dev,tst}.csv or SBIC.v2.agg.{trn,dev,tst}.csv")
    dataset_name: str | None = option(None, "Hub dataset instead, as allenai/social_bias_frames")
    dataset_revision: str | None = option(None, "its revision")
    view: View = option("annotators", "kind of official files in data_dir")
    repeats: Repeats = option("drop", "count a worker who named several groups once (drop) or once a group (keep)")
    output_dir: Path = option(Path("output/sbic_controls"), "folder for the run records")
    seed: int = option(0, "seed of the controls and of the bootstrap", minimum=0, maximum=MAX_SEED)


def labelled(split: Split, feature: Feature) -> tuple[list[tuple[str]], list[int]]:
    """The texts and labels of the posts that have one."""
    pairs = [(post.text, feature.label_of(post)) for post in split.posts]
    return [(text,) for text, label in pairs if label is not None], [label for _, label in pairs if label is not None]


def test_set(feature: Feature, splits: dict[SplitName, Split], arguments: ControlsArguments) -> ScoredSet:
    """A feature's test split as the set that every model here is scored on."""
    miniature = arguments.data_dir is None and arguments.dataset_name is None
    data = "the SBIC miniature" if miniature else "SBIC v2"
    texts, labels = labelled(splits["test"], feature)
    _, train_labels = labelled(splits["train"], feature)
    policy = {
        "aggregation": f"{arguments.view}; rows of a worker who named several groups: {arguments.repeats}",
        "label": "nearest of the three levels to the annotators' mean; 0.25 and 0.75 are maybe"
        if feature.name == "offensiveYN"
        else "biased where any annotator gave a stereotype",
    }
    return ScoredSet(
        task=f"SBIC {feature.name}",
        question=feature.question,
        limits=LIMITS,
        data=data,
        split="test",
        names=feature.labels,
        labels=labels,
        fingerprint=fingerprint([*text, label] for text, label in zip(texts, labels, strict=True)),
        class_counts={
            f"train, {data}": class_counts(train_labels, feature.labels),
            f"test, {data}": class_counts(labels, feature.labels),
        },
        reports=[splits["train"].report, splits["test"].report],
        policy=policy,
        miniature=miniature,
    )


def score_controls(feature: Feature, splits: dict[SplitName, Split], arguments: ControlsArguments) -> list[RunRecord]:
    """Scores a feature's controls on the test split and writes their records."""
    scored = test_set(feature, splits, arguments)
    (train_texts, train_labels), (texts, _) = labelled(splits["train"], feature), labelled(splits["test"], feature)
    predictors = {
        "majority label": lambda: controls.majority(train_labels, len(texts)),
        "TF-IDF": lambda: controls.tfidf(train_texts, train_labels, texts, seed=arguments.seed),
    }
    records = []
    for number, (title, predict) in enumerate(predictors.items(), 1):
        path = arguments.output_dir / f"sbic-{feature.name}-{number}-control.json"
        records.append(scored.measure(title, predict, module=MODULE, seed=arguments.seed, path=path))
    return records


def main() -> None:
    arguments = parse(
        ControlsArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE}\n  python -m {MODULE} --dataset_name allenai/social_bias_frames",
    )
    data_dir = arguments.data_dir
    if data_dir is None and arguments.dataset_name is None:
        from common.miniature import corpora

        data_dir = corpora.build() / "SBIC.v2"
    with stage("reading SBIC"):
        splits = load_splits(
            data_dir=data_dir,
            dataset_name=arguments.dataset_name,
            revision=arguments.dataset_revision,
            view=arguments.view,
            repeats=arguments.repeats,
        )
    for split in splits.values():
        print("\n".join(split.report.lines()))
    for feature in CLASSIFICATION:
        print("\n".join(table_lines(score_controls(feature, splits, arguments))))
    say(f"records: {arguments.output_dir}")


if __name__ == "__main__":
    run(main)
