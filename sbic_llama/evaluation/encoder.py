"""The encoder baseline: a small encoder, fine-tuned as a classifier of posts, as a whole and with LoRA."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.cli.arguments import MAX_SEED, given, identifying, option
from common.cli.console import log, stage
from common.cli.options import METHODS, EncoderOptions, Method, TrainingOptions
from common.models.loading import base_identity, base_path, check_place, commit_of
from common.results.record import RunRecord
from common.results.scoring import ScoredSet, keep
from common.runtime.run_folder import locked
from common.tables.report import fingerprint
from common.training.trials import (
    Run,
    Trials,
    announce,
    check_trials,
    make_finals,
    make_trials,
    record_of,
    trial_folder,
)
from sbic_llama.data.corpus import Post, labeled, post_id
from sbic_llama.data.features import Answers, Feature
from sbic_llama.evaluation.scores import Splits, encoder_path, score_rows, texts_and_labels, write_answers
from sbic_llama.training.arguments import CorpusArguments

if TYPE_CHECKING:
    from common.training.classification import TrainingData
    from common.training.time_estimate import TimeEstimate

MAX_LENGTH = 256  # tokens per post
# Not part of a run's name: where base and corpus come from (their content is), and what does not change the model.
NOT_IDENTITY = {"data_dir", "dataset_name", "dataset_revision", "model_name_or_path", "model_revision", "output_dir"}


@dataclass(kw_only=True)
class EncoderArguments:
    """Which encoder to fine-tune, and what to try."""

    encoder: str | None = option(
        None, "also fine-tune this pretrained encoder, a folder or Hub id such as FacebookAI/roberta-base"
    )
    encoder_revision: str | None = option(None, "its branch, tag or commit on the Hub")
    encoder_epochs: float = option(3.0, "passes of its trainings over the training posts", above=0, maximum=10_000)
    encoder_seeds: tuple[int, ...] = option(
        (33,), "seeds of its trainings; the rates are tried with the first", minimum=0, maximum=MAX_SEED
    )
    full_learning_rates: tuple[float, ...] = option(
        (2e-5, 5e-5, 1e-4), "rates to try for full fine-tuning, on the validation split", above=0, maximum=1
    )
    lora_learning_rates: tuple[float, ...] = option((2e-4, 4e-4, 1e-3), "rates to try for LoRA", above=0, maximum=1)

    def __post_init__(self) -> None:
        if not given(self, EncoderArguments, "encoder"):
            return
        check_place(base_path(self.encoder), self.encoder_revision)
        names = ("encoder_seeds", "full_learning_rates", "lora_learning_rates")
        check_trials(**{name: getattr(self, name) for name in names})


@dataclass(kw_only=True)
class EncoderTraining(CorpusArguments, EncoderOptions, TrainingOptions):
    """One training of the encoder."""

    feature: str  # its title, which names the label policy
    method: Method
    model_name_or_path: str
    max_length: int = MAX_LENGTH


@dataclass(frozen=True)
class EncoderTrials(Trials):
    """The trainings of an encoder for one feature."""

    feature: Feature
    data: TrainingData
    shared: EncoderTraining  # what they have in common, with the folder that holds theirs
    base: str  # see common.models.loading.base_identity

    def run(self, method: Method, rate: float, seed: int) -> Run:
        arguments = replace(self.shared, method=method, learning_rate=rate, seed=seed)
        named = {key: value for key, value in identifying(arguments).items() if key not in NOT_IDENTITY}
        folder = trial_folder(self.shared.output_dir, method, rate, seed, [named, self.data.identity, self.base])
        return Run(replace(arguments, output_dir=folder))


def base_commit(arguments: Any) -> str | None:
    """Return the commit that all trainings start from, even if the encoder's branch moves meanwhile; None for a folder."""
    return commit_of(base_path(arguments.encoder), arguments.encoder_revision)


def announce_all(every: Sequence[EncoderTrials]) -> None:
    """Print how many trainings of all features are left, and how long they will take here."""
    if every:
        announce(every, partial(estimate, data=every[0].data))


def score_encoder(
    trials: EncoderTrials, splits: Splits, scored: ScoredSet, *, module: str, output_dir: Path, seed: int
) -> list[RunRecord]:
    """Tune, train and score the encoder in full and with LoRA, and write the records and answers; reuse existing trainings.

    Raises:
        UserError: An unknown model, or a training that failed; finished ones are kept.
        SystemExit: A signal stopped a training; the same command continues it.
    """
    feature, train_one = trials.feature, partial(train, data=trials.data)
    log(f"{feature.title}: {trials.shared.model_name_or_path}")
    make_trials(trials, train_one)
    finals = make_finals(trials, train_one)
    posts = labeled(splits["test"], feature.label_of)
    records = []
    for method, runs in finals.items():
        answers = np.stack([answers_of(run, feature, posts, scored, module) for run in runs])
        record = record_of(f"encoder, {METHODS[method]}", runs, answers, scored, module=module, seed=seed)
        if len(runs) == 1:  # not a mean of seeds
            record.metrics = scored.metrics(answers[0], seed)
        record.policy = scored.policy | {"scored in": "fp32"}
        path = encoder_path(output_dir, feature, method)
        record.write(path)
        columns = ["answer", *(f"answer_seed{run.arguments.seed}" for run in runs[1:])]
        write_answers(path, feature, posts, dict(zip(columns, answers.tolist(), strict=True)))
        records.append(record)
    return records


def encoder_trials(arguments: Any, feature: Feature, splits: Splits, revision: str | None) -> EncoderTrials:
    """Return the trainings for a feature that the arguments ask for, from a commit of the encoder.

    ``arguments`` are :class:`EncoderArguments` and those of the corpus, with ``output_dir``.
    """
    corpus = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(CorpusArguments)}
    shared = EncoderTraining(
        **corpus,
        feature=feature.title,
        method="full",
        model_name_or_path=arguments.encoder,
        model_revision=revision,
        num_train_epochs=arguments.encoder_epochs,
        learning_rate=1.0,
        output_dir=arguments.output_dir / "encoder" / feature.slug,
    )
    return EncoderTrials(
        rates={"full": arguments.full_learning_rates, "lora": arguments.lora_learning_rates},
        seeds=arguments.encoder_seeds,
        score="validation balanced accuracy",
        feature=feature,
        data=training_data(feature, splits, revision),
        shared=shared,
        base=base_identity(arguments.encoder, revision),
    )


def training_data(feature: Feature, splits: Splits, revision: str | None) -> TrainingData:
    """Return the posts that have a label of a classifying feature, as a classifier is trained on them."""
    from common.training.classification import Labeled, TrainingData

    train, validation = (Labeled(*texts_and_labels(splits[name], feature)) for name in ("train", "dev"))
    rows = ([*text, label] for part in (train, validation) for text, label in zip(part.texts, part.labels, strict=True))
    counts = {name: train.labels.count(index) for index, name in enumerate(feature.labels)}
    return TrainingData(
        names=feature.labels,
        items="posts",
        train=train,
        validation=validation,
        metric="balanced_accuracy",
        revision=revision,
        identity={"data": fingerprint([feature.labels, *rows])},
        about={},
        facts={
            "loaded": len(splits["train"].posts),
            "used": len(train.labels),
            "report": splits["train"].report.as_dict(),
            "labels": counts,
        },
    )


def train(arguments: EncoderTraining, *, data: TrainingData) -> None:
    """Train once, in a child process."""
    from common.training import classification
    from common.training.run import prepare, with_lasting_base

    arguments = with_lasting_base(arguments, arguments.output_dir)
    with locked(arguments.output_dir):
        context = prepare(arguments, arguments.model_name_or_path)
        classification.train(arguments, context, described(data, arguments))


def estimate(arguments: EncoderTraining, *, data: TrainingData) -> TimeEstimate:
    """Estimate how long a training takes here, in a child process."""
    from common.training import classification

    return classification.estimate(arguments, partial(described, data))


def described(data: TrainingData, arguments: EncoderTraining) -> TrainingData:
    """Return the data with what a record tells about this training."""
    from common.training.run import identity

    kind = "full" if arguments.method == "full" else "adapter"
    about = {"project": "sbic_llama", "kind": kind, "feature": arguments.feature}
    run = identity(arguments, data.identity["data"]) | {"base_commit": data.revision}
    return replace(data, identity=run, about=about)


def answers_of(run: Run, feature: Feature, posts: Sequence[Post], scored: ScoredSet, module: str) -> np.ndarray:
    """Return the class that a training's model gives each test post, shape (n,); score the model unless that is done."""
    ids = [post_id(post) for post in posts]
    answers = run.answers(scored, ids)
    if answers is None:
        with stage(f"{run.title}: test posts"):
            probabilities = _probabilities(run.folder, feature, posts)
        answers = probabilities.argmax(-1)
        details = [{f"probability_{n}": p for n, p in zip(feature.labels, row, strict=True)} for row in probabilities]
        rows = score_rows(feature, posts, Answers(answers.tolist(), details, 0))
        keep(run.folder, scored.record(run.title, answers, module=module), [], rows)
    return answers


def _probabilities(folder: Path, feature: Feature, posts: Sequence[Post]) -> np.ndarray:
    from scipy.special import softmax

    from common.models.encoder import load_trained, predict_logits
    from common.models.exactness import check_finite

    model, tokenizer = load_trained(folder, labels=feature.labels)
    logits = predict_logits(model, tokenizer, [(post.text,) for post in posts], max_length=MAX_LENGTH)
    check_finite(logits.ravel(), model, str(folder), "fp32")
    return softmax(logits.astype(float), axis=1)
