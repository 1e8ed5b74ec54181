"""The same adapter trained on more and more labels: which texts, the trainings, and their scores."""

from __future__ import annotations

import itertools
import math
import random
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli.console import duration, log, stage, warn
from common.cli.errors import UserError, counted
from common.models.loading import base_path, commit_of
from common.results.finding import about
from common.results.record import TRAINING_FILE, RunRecord, training_costs, training_facts
from common.results.rendering import BEST_BY
from common.results.scoring import ScoredSet, keep, read_evaluation
from common.runtime.run_folder import IDENTITY, check_identity, locked, write_identity
from common.stats import baselines
from common.tables.report import fingerprint
from common.training.trials import CHILD
from sbic_llama.data.corpus import Post, labeled, post_id
from sbic_llama.data.features import Answers, Feature, Label, only_answer
from sbic_llama.evaluation.scores import AdapterArguments, Splits, score_rows, test_set, texts_and_labels
from sbic_llama.evaluation.with_people import agreement_with_people, annotators_opinions
from sbic_llama.training.arguments import TrainArguments

if TYPE_CHECKING:
    from common.training.time_estimate import TimeEstimate

MODULE = "sbic_llama.learning_curve"
FIRST = 50  # the smallest size, unless sizes are given
NEAR = 1.2  # sizes whose ratio is smaller are as good as one
FEWEST_ITEMS = 10
SEED = 0  # of the bootstrap and of TF-IDF
ALPHA = "Krippendorff's alpha"


@dataclass(frozen=True)
class Task:
    """What a child process needs to train one size and to answer the test texts."""

    arguments: TrainArguments
    feature: str  # of SBIC; empty for a codebook's
    folder: Path  # of the adapter
    splits: Splits  # train, of this size, and dev
    texts: list[str]


@dataclass(frozen=True)
class LearningCurve:
    """The trainings of all sizes."""

    arguments: TrainArguments
    name: str  # of SBIC's feature; empty for a codebook's
    feature: Feature
    splits: Splits
    scored: ScoredSet
    order: list[Post]  # training texts with labels: the first n are the subset of size n
    sizes: tuple[int, ...]

    @property
    def test(self) -> list[Post]:
        return labeled(self.splits["test"], self.feature.label_of)

    @property
    def metric(self) -> str:
        """Return the score that the curve is fitted to."""
        return BEST_BY["accuracy" if self.feature.classifies else "set_f1"]

    def folder(self, size: int) -> Path:
        """Return where the adapter of a size is trained."""
        return self.arguments.output_dir / f"size_{size:05}" / self.feature.name

    def train_split(self, size: int) -> Splits:
        return {"train": replace(self.splits["train"], posts=self.order[:size]), "dev": self.splits["dev"]}

    def task(self, size: int) -> Task:
        folder = self.folder(size)
        arguments = replace(self.arguments, output_dir=folder.parent)
        return Task(arguments, self.name, folder, self.train_split(size), [post.text for post in self.test])

    def record_path(self, size: int, kind: str = "") -> Path:
        return self.arguments.output_dir / f"{self.feature.stem}-size-{size:05}{kind}.json"


@dataclass(frozen=True)
class Scored:
    """A size's answers to the test texts, next to TF-IDF's."""

    size: int
    answers: list[Label]
    record: RunRecord
    tfidf: RunRecord
    alpha: dict[str, Any]  # as rows of a finding's measures; empty where no text has several people's labels


def load(arguments: TrainArguments, name: str, sizes: Sequence[int]) -> LearningCurve:
    """Read the corpus and order its training texts.

    Raises:
        UserError: Too few training texts for these sizes, or an output folder that is another's.
    """
    feature = arguments.declared(name)
    # The base's main branch may move before the last size is trained.
    revision = commit_of(base_path(arguments.model_name_or_path), arguments.model_revision)
    arguments = replace(arguments, model_revision=revision)
    splits = arguments.load(feature.codebook)
    order = nested_order(labeled(splits["train"], feature.label_of), feature, arguments.seed)
    chosen = tuple(sorted(sizes)) or default_sizes(len(order))
    if chosen[-1] > len(order):
        expected = f"at most {len(order):,}, the labeled texts of the train split"
        raise UserError(f"{chosen[-1]:,} texts", key="--sizes", expected=expected)
    if len(feature.labels) > chosen[0]:
        expected = f"at least {len(feature.labels):,}, the number of labels"
        raise UserError(f"{chosen[0]:,} texts", key="--sizes", expected=expected)
    curve = LearningCurve(arguments, name, feature, splits, test_set(feature, splits, arguments), order, chosen)
    check_folder(curve)
    return curve


def nested_order(posts: Sequence[Post], feature: Feature, seed: int) -> list[Post]:
    """Order texts at random such that the first n have the shares of labels that all have, and at least one of each label."""
    draw = random.Random(seed)
    strata: dict[Any, list[Post]] = {}
    for post in draw.sample(list(posts), len(posts)):
        label = feature.label_of(post)
        strata.setdefault(label if feature.classifies else bool(label), []).append(post)
    places = [(number / len(each), draw.random(), post) for each in strata.values() for number, post in enumerate(each)]
    return [post for *_, post in sorted(places, key=lambda place: place[:2])]


def default_sizes(available: int) -> tuple[int, ...]:
    """Return 50, 100, 200, … and all."""
    doubled = itertools.takewhile(lambda size: NEAR * size <= available, (FIRST * 2**k for k in itertools.count()))
    sizes = (*doubled, available)
    if len(sizes) < 2:
        problem = f"the train split has {counted(available, 'labeled text')}"
        fix = "label more texts, or give smaller --sizes"
        raise UserError(problem, key="--sizes", expected=f"at least {math.ceil(NEAR * FIRST)}", fix=fix)
    return sizes


def announce(curve: LearningCurve, *, always: bool = False) -> None:
    """Print how many trainings are left and, from a few steps of the largest, how long they will take here."""
    from common.runtime.child_process import call
    from common.training.time_estimate import MEASURED_STEPS

    left = [size for size in curve.sizes if kept(curve, size) is None]
    if not left:
        log(f"nothing to train, {counted(len(curve.sizes), 'size')} found", always=always)
        return
    start = time.monotonic()
    expected = call(estimate, curve.task(left[-1]), preload=CHILD)
    loading = max(0.0, time.monotonic() - start - (1 + MEASURED_STEPS) * expected.seconds_a_step)
    steps = sum(math.ceil(expected.steps * size / left[-1]) for size in left)
    validating = expected.seconds - expected.steps * expected.seconds_a_step
    items = curve.arguments.per_device_train_batch_size * curve.arguments.gradient_accumulation_steps
    testing = len(curve.test) / items * expected.seconds_a_step / 3  # as in time_estimate: a forward pass is a third
    total = steps * expected.seconds_a_step + len(left) * (loading + validating + testing)
    listed = ", ".join(f"{size:,}" for size in left)
    log(f"{counted(len(left), 'training')} left, with {listed} labeled texts: {steps:,} steps", always=always)
    log(f"about {duration(total)} in total; the same command continues where it was stopped", always=always)


def estimate(task: Task) -> TimeEstimate:
    """Estimate how long a size takes here, in a child process."""
    from sbic_llama.training import run

    return run.estimate(task.arguments, task.feature, task.splits)


def train_and_answer(task: Task) -> tuple[Answers, str]:
    """Train a size and answer the test texts, in a child process; also return the precision."""
    from sbic_llama.model.adapter import read_description
    from sbic_llama.training.run import train

    train(task.arguments, task.feature, task.splits)
    reader = AdapterArguments(adapter=str(task.folder), batch_size=2 * task.arguments.per_device_train_batch_size)
    read, precision = reader.load_reader(read_description(task.folder, str(task.folder)))
    return read(task.texts), precision


def measure(curve: LearningCurve) -> list[Scored]:
    """Train and score the sizes that are missing, and write the records of all.

    Raises:
        UserError: The folder holds another curve, or a training failed; finished ones are kept.
        SystemExit: A signal stopped it; the same command continues.
    """
    folder = curve.arguments.output_dir
    with locked(folder):
        check_folder(curve)  # again: another process may have been at it while this one waited
        write_identity(folder, identity_of(curve))
        for number, size in enumerate(curve.sizes, 1):
            if kept(curve, size) is None:
                log(f"size {number} of {len(curve.sizes)}: {size:,} labeled texts")
                train_one(curve, size)
            else:
                log(f"{size:,} labeled texts: found in {curve.folder(size)}")
        with stage("TF-IDF on the same texts, and agreement with people"):
            return [score(curve, size) for size in curve.sizes]


def identity_of(curve: LearningCurve) -> dict[str, Any]:
    """Return what identifies the curve, whatever its sizes."""
    from common.training.run import identity

    posts = [*curve.order, *labeled(curve.splits["dev"], curve.feature.label_of), *curve.test]
    texts = fingerprint([curve.feature.prompt_hash(), *([post.text, curve.feature.target(post)] for post in posts)])
    return {"curve of": curve.feature.title} | identity(curve.arguments, texts)


def check_folder(curve: LearningCurve) -> None:
    """Check that the output folder is new or this curve's: a size may be added, other settings or texts may not.

    Raises:
        UserError: It is another's.
    """
    folder = curve.arguments.output_dir
    if (folder / IDENTITY).is_file():
        check_identity(folder, identity_of(curve))
    elif folder.is_dir() and any(folder.iterdir()):
        problem = "the folder is not empty and holds no learning curve"
        raise UserError(problem, file=folder, fix="choose another --output_dir")


def train_one(curve: LearningCurve, size: int) -> None:
    """Train and score one size in a process of its own, and keep its answers in its folder."""
    from common.runtime.child_process import call

    folder, feature = curve.folder(size), curve.feature
    answers, precision = call(train_and_answer, curve.task(size), preload=CHILD)
    scored = replace(curve.scored, policy=curve.scored.policy | {"scored in": precision})
    costs = training_costs(training_facts(folder) or {})
    title = f"QLoRA, {size:,} labeled texts"
    record = scored.record(title, answers.labels, module=MODULE, seed=SEED, **costs)
    keep(folder, record, [], score_rows(feature, curve.test, answers))
    if one := only_answer(feature, Counter(answers.labels)):
        warn(f"{one} with {size:,} labeled texts")
    for checkpoint in folder.glob("checkpoint-*"):  # those of ten sizes could fill a disk
        shutil.rmtree(checkpoint)


def kept(curve: LearningCurve, size: int) -> tuple[RunRecord, list[Label]] | None:
    """Return the record and answers of a size; None until it is trained, and scored on these texts and labels."""
    folder = curve.folder(size)
    evaluation = read_evaluation(folder) if (folder / TRAINING_FILE).is_file() else None
    if evaluation is None or evaluation.record.data["fingerprint"] != curve.scored.fingerprint:
        return None
    given = {row["id"]: row["answer"] for row in evaluation.scores}
    answers = [curve.feature.parse(given[post_id(post)]) for post in curve.test]
    return evaluation.record, [answer for answer in answers if answer is not None]


def score(curve: LearningCurve, size: int) -> Scored:
    """Write the records of a trained size and of TF-IDF on the same texts, and measure agreement with people."""
    found = kept(curve, size)
    if found is None:
        raise UserError("its answers cannot be kept", file=curve.folder(size), fix="make the folder writable")
    record, answers = found
    record.write(curve.record_path(size))
    tfidf = baselines.tfidf if curve.feature.classifies else baselines.tfidf_sets
    train, labels = texts_and_labels(curve.train_split(size)["train"], curve.feature)
    texts, _ = texts_and_labels(curve.splits["test"], curve.feature)
    title, path = f"TF-IDF, {size:,} labeled texts", curve.record_path(size, "-baseline")
    baseline = curve.scored.measure(
        title, lambda: tfidf(train, labels, texts, seed=SEED), module=MODULE, seed=SEED, path=path
    )
    opinions = annotators_opinions(curve.feature, curve.test)
    by_number = {str(number): answer for number, answer in enumerate(answers)}
    agreement = agreement_with_people(curve.feature, opinions, by_number, seed=SEED, **about(record))
    coefficients = agreement.facts["coefficients"] if agreement else {}
    return Scored(size, answers, record, baseline, coefficients.get(ALPHA, {}))
