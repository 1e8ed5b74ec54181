"""What validation posts teach about a trained adapter's confidence: temperature, thresholds, and how often it is right."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from common.cli.console import log, stage, warn
from common.stats.calibration import best_threshold, fit_temperature, tempered
from sbic_llama.data.corpus import Post
from sbic_llama.data.features import Feature, Label, confidence, only_answer
from sbic_llama.model import description
from sbic_llama.model.answering import answer
from sbic_llama.model.description import ReviewCurve
from sbic_llama.model.scoring import label_probabilities
from sbic_llama.training.arguments import TrainArguments


def calibrate(
    model: Any,
    tokenizer: Any,
    feature: Feature,
    posts: Sequence[Post],
    arguments: TrainArguments,
    scores: np.ndarray | None = None,
) -> tuple[float, tuple[float, ...], ReviewCurve]:
    """Fit a temperature on validation posts and, where several labels may hold, thresholds; learn how often answers are right.

    The curve, of accuracy by confidence, is for choosing the posts that a person should review. ``scores`` are the labels'
    log-probabilities from training's own validation, shape (posts, labels), so that no post is scored a second time.
    """
    every = math.ceil(len(posts) / description.MAX_POSTS)
    chosen = posts[::every]
    labels = [feature.label_of(post) for post in chosen]
    if scores is not None:
        return calibrate_labels(feature, label_probabilities(scores[::every]), labels)
    with stage(f"calibrating confidence on {len(chosen):,} validation posts"):
        answers = answer(
            model,
            tokenizer,
            feature,
            [post.text for post in chosen],
            max_post_tokens=arguments.max_post_tokens,
            batch_size=2 * arguments.per_device_train_batch_size,
        )
    right = [answer == label for answer, label in zip(answers.labels, labels, strict=True)]
    if not feature.branches:  # the confidence of a list of groups is not a probability of being right
        return 1.0, (), description.curve([confidence(feature, details) for details in answers.details], right)
    probabilities = np.array([list(details.values()) for details in answers.details])
    if feature.choices:
        return calibrate_choices(feature, probabilities, labels)
    return calibrate_labels(feature, probabilities, labels)


def calibrate_labels(
    feature: Feature, probabilities: np.ndarray, labels: Sequence[Any]
) -> tuple[float, tuple[float, ...], ReviewCurve]:
    """Fit a temperature for the probabilities of the labels, shape (posts, labels)."""
    answers = probabilities.argmax(1)
    warn_of_one(feature, answers.tolist(), labels)
    temperature = round(fit_temperature(probabilities, labels), 4)
    log(f"temperature {temperature:.3f}")
    return temperature, (), description.curve(tempered(probabilities, temperature).max(1), answers == np.array(labels))


def calibrate_choices(
    feature: Feature, probabilities: np.ndarray, labels: Sequence[Any]
) -> tuple[float, tuple[float, ...], ReviewCurve]:
    """Fit one temperature for the decisions about all labels, and for each label the threshold with the highest F1.

    ``probabilities``, shape (posts, choices), are those that a label holds.
    """
    holds = np.array([[choice in label for choice in feature.choices] for label in labels])
    pairs = np.stack([probabilities.ravel(), 1 - probabilities.ravel()], axis=1)
    temperature = round(fit_temperature(pairs, (~holds.ravel()).astype(int)), 4)
    probabilities = tempered(pairs, temperature)[:, 0].reshape(probabilities.shape)
    thresholds = tuple(best_threshold(probabilities[:, i], holds[:, i]) for i in range(len(feature.choices)))
    listed = ", ".join(f"{choice} {least:.2f}" for choice, least in zip(feature.choices, thresholds, strict=True))
    log(f"temperature {temperature:.3f}; a label holds from a probability of {listed}")
    decided = replace(feature, thresholds=thresholds)
    sure = [confidence(decided, dict(zip(feature.choices, row, strict=True))) for row in probabilities.tolist()]
    answers = [decided.chosen(row) for row in probabilities.tolist()]
    warn_of_one(decided, answers, labels)
    right = [answer == label for answer, label in zip(answers, labels, strict=True)]
    return temperature, thresholds, description.curve(sure, right)


def warn_of_one(feature: Feature, answers: Sequence[Label], labels: Sequence[Label]) -> None:
    """Warn if all validation posts got one and the same answer; weights help only where that is what most posts have."""
    if one := only_answer(feature, Counter(answers)):
        counts = Counter(labels).values()
        uneven = max(counts) >= 2 * min(counts)
        hints = ["more steps", *(["--class_weights balanced"] if uneven else []), "another learning rate"]
        warn(f"{one} on validation posts; try {', '.join(hints[:-1])} or {hints[-1]}")
