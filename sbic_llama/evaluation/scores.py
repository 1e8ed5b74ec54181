"""Score baselines and adapters on SBIC's test split: what the commands that do so share."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.cli.arguments import MAX_SEED, option
from common.cli.console import log
from common.cli.errors import UserError, shown
from common.cli.extras import require
from common.cli.options import METHODS
from common.models.loading import check_place, hub_commit, local_folder
from common.results import finding as findings
from common.results.finding import Finding
from common.results.record import RunRecord, read_record, training_facts
from common.results.scoring import ScoredSet, class_counts
from common.runtime import hardware
from common.runtime.processes import ALONE, Processes
from common.stats import baselines
from common.tables.reading import read_rows
from common.tables.report import fingerprint
from common.tables.writing import write_rows
from sbic_llama.data import choices
from sbic_llama.data.choices import Choice, evaluate_choices
from sbic_llama.data.corpus import Post, Split, SplitName, labeled, post_id
from sbic_llama.data.features import Answers, Feature, Label, training_fingerprint
from sbic_llama.data.groups import NONE, PRESENCE, Groups, evaluate_groups, normalized_groups, presence
from sbic_llama.training.arguments import CorpusArguments

if TYPE_CHECKING:
    from sbic_llama.model.description import AnnotatorFile

LIMITS = (
    "Whether the annotators were right (a label is the opinion of a few crowd workers), or how a model treats posts from other "
    "places, times and dialects. They do not justify judging anybody by a model's answer."
)
OWN_LIMITS = (
    "Whether the annotators were right, or how a model treats texts from elsewhere. Labels of other texts need a comparison with "
    "people's labels of them."
)
Splits = dict[SplitName, Split]
Read = Callable[..., Answers]  # texts → an adapter's answers; with base=True, those of its base model


@dataclass(kw_only=True)
class AdapterArguments(CorpusArguments):
    """Which adapter to score, and where its records and findings go."""

    adapter: str = option(help="folder or Hub id of the adapter; its annotator.json names the feature")
    revision: str | None = option(None, "its branch, tag or commit on the Hub")
    title: str = option("QLoRA", "name of the adapter in tables")
    batch_size: int = option(32, "posts per forward pass", minimum=1)
    output_dir: Path = option(Path("output/sbic_evaluation"), "folder for the run records; findings go into findings/")
    seed: int = option(0, "seed of baselines, draws and the bootstrap", minimum=0, maximum=MAX_SEED)

    def __post_init__(self) -> None:
        CorpusArguments.__post_init__(self)
        check_place(self.adapter, self.revision)

    def describe(self) -> tuple[Path, AnnotatorFile]:
        """Return the adapter's folder and description, after checking that it was trained on this corpus.

        A table of one's own may have another name meanwhile: :func:`require_training_table` knows it by what it says.
        """
        from sbic_llama.model.adapter import read_description

        folder = local_folder(self.adapter, self.revision)
        description = read_description(folder, self.adapter)
        if description.codebook is None or self.data is None or training_facts(folder) is None:
            self.require_training_corpus(description.corpus, self.adapter)
        return folder, description

    def load_reader(self, description: AnnotatorFile, processes: Processes = ALONE) -> tuple[Read, str]:
        """Load the adapter; return what answers texts with it, and the precision."""
        from sbic_llama.model.adapter import load_adapter, precision_for
        from sbic_llama.model.answering import answer

        precision = precision_for(description)
        log(f"{hardware.device_type()}, {precision.value} ({precision.reason})")
        model, tokenizer, _ = load_adapter(self.adapter, self.revision, precision=precision.value)
        feature = description.resolve_feature()
        options = {"max_post_tokens": description.max_post_tokens, "batch_size": self.batch_size, "progress": True}

        def read(texts: Sequence[str], *, base: bool = False) -> Answers:
            temperature = 1.0 if base else description.temperature
            asked = replace(feature, thresholds=()) if base else feature  # both were fitted to the adapter
            with model.disable_adapter() if base else contextlib.nullcontext():
                return answers_together(
                    processes,
                    texts,
                    lambda part: answer(model, tokenizer, asked, part, temperature=temperature, **options),
                )

        return read, precision.value

    def leave(self, results: Sequence[Finding], feature: Feature, folder: Path) -> None:
        """Write findings next to the records and, unless the adapter is a download, into its folder."""
        for finding in results:
            findings.leave(finding, self.output_dir, self.stem(feature), None if hub_commit(folder) else folder)

    def stem(self, feature: Feature, number: str = "") -> str:
        """Return what the names of the adapter's records and findings start with."""
        return findings.stem(f"{feature.stem}{number}", self.title)


def answers_together(processes: Processes, texts: Sequence[str], read: Callable[[list[str]], Answers]) -> Answers:
    """Return the answers to all texts, which the processes of a launch divide among themselves."""

    def rows(part: list[str]) -> list[tuple[Label, dict[str, float], int]]:
        answers = read(part)
        cut = [answers.cut, *[0] * (len(part) - 1)]  # only their sum is known
        return list(zip(answers.labels, answers.details, cut, strict=True))

    labels, details, cut = zip(*processes.divided(texts, rows), strict=True)
    return Answers(list(labels), list(details), sum(cut))


def require_training_table(
    corpus: CorpusArguments, feature: Feature, splits: Splits, facts: dict[str, Any] | None
) -> None:
    """Check that a table divides as when the adapter of a codebook was trained: else test texts may have been trained on.

    Raises:
        UserError: The table's texts or labels for training or validation have changed.
    """
    if feature.codebook is None or facts is None:
        return
    posts, dev_posts = (labeled(splits[name], feature.label_of) for name in ("train", "dev"))
    if training_fingerprint(feature, posts, dev_posts) != facts["data"]["fingerprint"]:
        raise UserError(
            "its texts or labels have changed since the adapter was trained, which may have seen the test texts",
            file=corpus.data,
            expected="the table of the training",
            fix="give that table, or train again",
        )


class ScoredGroups(ScoredSet):
    """A scored set with lists of groups as labels; its confusion matrix counts posts with and without a group."""

    def metrics(self, predictions: Sequence[Groups], seed: int) -> dict[str, dict[str, Any]]:
        return evaluate_groups(self.labels, predictions, seed=seed, design=self.design)

    def classes(self, labels: Sequence[Groups]) -> Sequence[int]:
        return presence(labels)


@dataclass(frozen=True)
class ScoredChoices(ScoredSet):
    """A scored set with any number of labels per item; its confusion matrix counts items with and without a label."""

    choices: tuple[str, ...] = ()

    def metrics(self, predictions: Sequence[Choice], seed: int) -> dict[str, dict[str, Any]]:
        return evaluate_choices(self.labels, predictions, self.choices, seed=seed, design=self.design)

    def classes(self, labels: Sequence[Choice]) -> Sequence[int]:
        return presence(labels)

    def record(self, title: str, predictions: Sequence[Choice], **settings: Any) -> RunRecord:
        made = super().record(title, predictions, **settings)
        return replace(made, data=made.data | {"choices": list(self.choices)})


def scored_set(feature: Feature, **settings: Any) -> ScoredSet:
    """Return the set that a feature's answers are scored on; ``settings`` are fields of :class:`ScoredSet` but ``names``."""
    if feature.choices:
        return ScoredChoices(names=choices.PRESENCE, choices=feature.choices, **settings)
    if feature.classifies:
        return ScoredSet(names=feature.labels, **settings)
    require("texts")
    return ScoredGroups(names=PRESENCE, **settings)


def texts_and_labels(split: Split, feature: Feature) -> tuple[list[tuple[str]], list[Any]]:
    """Return the texts and labels of the posts that have a label."""
    posts = labeled(split, feature.label_of)
    return [(post.text,) for post in posts], [feature.label_of(post) for post in posts]


def test_set(feature: Feature, splits: Splits, corpus: CorpusArguments) -> ScoredSet:
    """Return a feature's test split as the set that every model is scored on."""
    posts = labeled(splits["test"], feature.label_of)
    texts, labels = texts_and_labels(splits["test"], feature)
    _, train_labels = texts_and_labels(splits["train"], feature)
    policy = {"aggregation": corpus.aggregation, "label": feature.policy}
    if feature.choices:
        policy["score"] = (
            "F1 of the two sets of labels, per item; micro: F1 of all decisions; macro: mean of the labels' F1"
        )
    elif not feature.classifies:
        policy["score"] = "F1 of the two sets of groups, per post; targeted: posts for which annotators named a group"
    return scored_set(
        feature,
        task=feature.task,
        question=feature.question,
        limits=OWN_LIMITS if feature.codebook else LIMITS,
        data=corpus.corpus_name,
        split="test",
        labels=labels,
        fingerprint=fingerprint([*text, label] for text, label in zip(texts, labels, strict=True)),
        groups={}
        if feature.codebook
        else {
            "source": [post.source for post in posts],
            "target group": [normalized_groups(post.groups) or (NONE,) for post in posts],
        },
        class_counts={
            f"train, {corpus.corpus_name}": label_counts(feature, train_labels),
            f"test, {corpus.corpus_name}": label_counts(feature, labels),
        },
        reports=[splits["train"].report, splits["test"].report],
        policy=policy,
        miniature=corpus.is_invented,
    )


def label_counts(feature: Feature, labels: Sequence[Any]) -> dict[str, int]:
    """Count posts by label; for lists of groups, by the number of groups."""
    if feature.choices:
        return {choice: sum(choice in label for label in labels) for choice in feature.choices}
    if feature.classifies:
        return class_counts(labels, feature.labels)
    return class_counts([min(len(label), 3) for label in labels], ("none", "1 group", "2 groups", "3 or more"))


def score_baselines(
    feature: Feature, splits: Splits, scored: ScoredSet, *, module: str, output_dir: Path, seed: int
) -> list[RunRecord]:
    """Score a feature's baselines on the test split and write their records."""
    (train_texts, train_labels), (texts, _) = (texts_and_labels(splits[name], feature) for name in ("train", "test"))
    posts = labeled(splits["test"], feature.label_of)
    tfidf = baselines.tfidf if feature.classifies else baselines.tfidf_sets
    predictors: dict[str, Callable[[], Sequence[Any]]] = {
        "majority label": lambda: baselines.majority(train_labels, len(texts)),
        "always none": lambda: [()] * len(texts),
        "TF-IDF": lambda: tfidf(train_texts, train_labels, texts, seed=seed),
    }
    del predictors["always none" if feature.classifies else "majority label"]
    records = []
    for number, (title, predict) in enumerate(predictors.items(), 1):
        path = baseline_path(output_dir, feature, number)
        answers = functools.cache(predict)
        records.append(scored.measure(title, answers, module=module, seed=seed, path=path))
        write_answers(path, feature, posts, {"answer": answers()})
        # The same record as earlier versions named it.
        path.with_name(f"{feature.stem}-{number}-control.json").unlink(missing_ok=True)
    return records


def score_rows(feature: Feature, posts: Sequence[Post], answers: Answers) -> list[dict[str, Any]]:
    """Return a row per post without its text: an id made from the text, the label, the answer, and its numbers."""
    return [
        {
            "id": post_id(post),
            "label": feature.target(post),
            "answer": feature.answer(answer),
            **{name: round(number, 6) for name, number in numbers.items()},
        }
        for post, answer, numbers in zip(posts, answers.labels, answers.details, strict=True)
    ]


def write_answers(record: Path, feature: Feature, posts: Sequence[Post], answers: dict[str, Sequence[Any]]) -> None:
    """Write a row per post next to a record, without its text: an id, the label, and each column of answers."""
    rows = [
        {"id": post_id(post), "label": feature.target(post)}
        | {
            name: feature.labels[each[i]] if feature.classifies else feature.answer(each[i])
            for name, each in answers.items()
        }
        for i, post in enumerate(posts)
    ]
    write_rows(record.with_suffix(".csv"), rows)


def read_answers(record: Path, feature: Feature, posts: Sequence[Post]) -> np.ndarray:
    """Return the classes that the model or baseline of a record gave the posts, shape (seeds, n).

    Raises:
        UserError: The file next to the record is missing, or lacks a post or an answer.
    """
    path = record.with_suffix(".csv")
    rows = {row.values["id"]: row for row in read_rows(path, ("id", "answer"))}
    fix = "score it again into this folder"
    answers = []
    for post in posts:
        row = rows.get(post_id(post))
        if row is None:
            raise UserError("a test post has no answer", file=path, fix=fix)
        given = {name: value for name, value in row.values.items() if name.startswith("answer")}
        for name, value in given.items():
            if value not in feature.labels:
                raise row.error(f"{shown(value)} is not an answer", name, expected=", ".join(feature.labels), fix=fix)
        answers.append([feature.labels.index(value) for value in given.values()])
    return np.array(answers).T


def baseline_path(output_dir: Path, feature: Feature, number: int) -> Path:
    return output_dir / f"{feature.stem}-{number}-baseline.json"


def encoder_path(output_dir: Path, feature: Feature, method: str) -> Path:
    """Return where the record of a fine-tuned encoder is written."""
    return output_dir / f"{feature.stem}-2-encoder-{method}.json"


def encoder_records(output_dir: Path, feature: Feature, scored: ScoredSet) -> dict[Path, RunRecord]:
    """Read the records of fine-tuned encoders, by path, that were scored on these posts and labels."""
    records = {}
    for path in (encoder_path(output_dir, feature, method) for method in METHODS):
        if path.is_file():
            record = read_record(path)
            same = [record.policy.get(key) == scored.policy[key] for key in ("label", "aggregation")]
            if record.data["fingerprint"] == scored.fingerprint and all(same):
                records[path] = record
            else:
                log(f"{path}: left out, because it is of other posts, labels or annotations")
    return records
