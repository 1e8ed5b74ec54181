"""What needs no neural network: ``python -m sbic_llama.baselines`` describes SBIC and scores the controls on its test split.

Controls, for each feature: the majority label, and TF-IDF with logistic regression.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cli.arguments import MAX_SEED, option, parse
from common.cli.console import log
from common.cli.errors import run
from common.results.record import RunRecord
from common.results.rendering import table_lines
from common.results.scoring import ScoredSet, class_counts
from common.stats import baselines
from common.stats.metrics import confusion_matrix
from common.tables.report import fingerprint
from sbic_llama.data.corpus import Split, SplitName, labeled
from sbic_llama.data.features import FEATURES, Feature, Policy, get_feature
from sbic_llama.data.groups import NONE, PRESENCE, Groups, evaluate_groups, normalized_groups, presence
from sbic_llama.training.arguments import CorpusArguments

MODULE = "sbic_llama.baselines"
LIMITS = (
    "Whether the annotators were right (a label is the opinion of a few crowd workers), how a model treats posts of other "
    "places, times and dialects, or that anybody may be judged by it unseen."
)


@dataclass(kw_only=True)
class ControlsArguments(CorpusArguments):
    """Describes SBIC and scores majority and TF-IDF controls on its test split; without a corpus given, on the miniature."""

    label_policy: Policy = option(
        "levels", "labels of offensiveYN: three levels, or offensive from or above a mean of .5"
    )
    output_dir: Path = option(Path("output/sbic_controls"), "folder for the run records")
    seed: int = option(0, "seed of the controls and of the bootstrap", minimum=0, maximum=MAX_SEED)


class ScoredGroups(ScoredSet):
    """A scored set whose labels are sets of groups. Its confusion matrix is of posts with a group and without."""

    def metrics(self, predictions: Sequence[Groups], seed: int) -> dict[str, dict[str, Any]]:
        return evaluate_groups(self.labels, predictions, seed=seed)

    def confusion(self, predictions: Sequence[Groups]) -> list[list[int]]:
        return confusion_matrix(presence(self.labels), presence(predictions), len(PRESENCE)).tolist()


def texts_and_labels(split: Split, declared: Feature) -> tuple[list[tuple[str]], list[Any]]:
    """The texts and labels of the posts that have a label."""
    posts = labeled(split, declared.label_of)
    return [(post.text,) for post in posts], [declared.label_of(post) for post in posts]


def test_set(declared: Feature, splits: dict[SplitName, Split], corpus: CorpusArguments) -> ScoredSet:
    """A feature's test split as the set that every model here is scored on."""
    posts = labeled(splits["test"], declared.label_of)
    texts, labels = texts_and_labels(splits["test"], declared)
    _, train_labels = texts_and_labels(splits["train"], declared)
    policy = {"aggregation": corpus.aggregation, "label": declared.policy}
    if not declared.classifies:
        policy["score"] = (
            "F1 of the two sets of groups, a post at a time; targeted: posts whose annotators named a group"
        )
    return (ScoredSet if declared.classifies else ScoredGroups)(
        task=f"SBIC {declared.title}",
        question=declared.question,
        limits=LIMITS,
        data=corpus.corpus_name,
        split="test",
        names=declared.labels or PRESENCE,
        labels=labels,
        fingerprint=fingerprint([*text, label] for text, label in zip(texts, labels, strict=True)),
        groups={
            "source": [post.source for post in posts],
            "target group": [normalized_groups(post.groups) or (NONE,) for post in posts],
        },
        class_counts={
            f"train, {corpus.corpus_name}": label_counts(declared, train_labels),
            f"test, {corpus.corpus_name}": label_counts(declared, labels),
        },
        reports=[splits["train"].report, splits["test"].report],
        policy=policy,
        miniature=corpus.on_miniature,
    )


def label_counts(declared: Feature, labels: Sequence[Any]) -> dict[str, int]:
    """Posts a label; of group lists, posts by the number of groups."""
    if declared.classifies:
        return class_counts(labels, declared.labels)
    return class_counts([min(len(label), 3) for label in labels], ("none", "1 group", "2 groups", "3 or more"))


def predictors(declared: Feature, splits: dict[SplitName, Split], seed: int) -> dict[str, Callable[[], Sequence[Any]]]:
    """The controls of a feature: title → what predicts the test split's labels."""
    (train_texts, train_labels), (texts, _) = (texts_and_labels(splits[name], declared) for name in ("train", "test"))
    if not declared.classifies:
        return {
            "always none": lambda: [()] * len(texts),
            "TF-IDF": lambda: baselines.tfidf_sets(train_texts, train_labels, texts, seed=seed),
        }
    return {
        "majority label": lambda: baselines.majority(train_labels, len(texts)),
        "TF-IDF": lambda: baselines.tfidf(train_texts, train_labels, texts, seed=seed),
    }


def score_controls(
    declared: Feature, splits: dict[SplitName, Split], scored: ScoredSet, *, module: str, output_dir: Path, seed: int
) -> list[RunRecord]:
    """Scores a feature's controls on the test split and writes their records."""
    records = []
    for number, (title, predict) in enumerate(predictors(declared, splits, seed).items(), 1):
        path = output_dir / f"sbic-{declared.slug}-{number}-control.json"
        records.append(scored.measure(title, predict, module=module, seed=seed, path=path))
    return records


def main() -> None:
    arguments = parse(
        ControlsArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE}\n  python -m {MODULE} --dataset_name allenai/social_bias_frames",
    )
    splits = arguments.load()
    for name in FEATURES:
        declared = get_feature(name, arguments.label_policy if name == "offensiveYN" else "levels")
        if not all(any(declared.label_of(post) is not None for post in split.posts) for split in splits.values()):
            log(f"{name}: left out, for a split has no post with a label")
            continue
        scored = test_set(declared, splits, arguments)
        records = score_controls(
            declared, splits, scored, module=MODULE, output_dir=arguments.output_dir, seed=arguments.seed
        )
        print("\n".join(table_lines(records)))
    log(f"records: {arguments.output_dir}")


if __name__ == "__main__":
    run(main)
