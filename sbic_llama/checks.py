"""What is found of a scored adapter besides its scores, wherever its answers can be compared with people's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from common.calibration import calibration_finding
from common.findings import Finding
from common.risk_coverage import risk_coverage_finding
from sbic_llama.corpus import Post
from sbic_llama.features import OFFENSIVE_YN, Feature, Label
from sbic_llama.groups import set_f1
from sbic_llama.label_policies import LEVEL_OF


def certainty_findings(
    declared: Feature,
    labels: Sequence[Label],
    answers: Sequence[Label],
    confidences: Sequence[float],
    *,
    seed: int,
    probabilities: np.ndarray | None = None,
    temperature: float = 1.0,
    **about: Any,
) -> list[Finding]:
    """Calibration, where there are probabilities, and what remains when the least certain answers go to people.

    Args:
        declared: The feature.
        labels: People's labels.
        answers: The model's.
        confidences: How sure it was; see :func:`sbic_llama.answers.confidence`.
        seed: Seed of the bootstrap.
        probabilities: Of the labels, shape (posts, labels), after the temperature.
        temperature: What the adapter divides log-probabilities by.
        about: ``task``, ``model``, ``data``, ``miniature``, ``command`` of the findings.
    """
    found = []
    if probabilities is not None:
        found.append(calibration_finding(probabilities, labels, temperature=temperature, seed=seed, **about))
        scores = [float(label == answer) for label, answer in zip(labels, answers, strict=True)]
    else:
        scores = [set_f1(label, answer) for label, answer in zip(labels, answers, strict=True)]
    metric = "accuracy" if declared.classifies else "set F1"
    return [*found, risk_coverage_finding(confidences, scores, metric=metric, seed=seed, **about)]


def annotations_of(declared: Feature, posts: Sequence[Post]) -> dict[str, dict[str, Any]]:
    """What single annotators said of posts, as :func:`comparable` puts an answer: the post's number → annotator → level of offence
    (0, .5 or 1), or label where the feature has two. Blank opinions and posts without are left out.

    A worker who saw a post twice counts with the first opinion.
    """
    found: dict[str, dict[str, Any]] = {}
    for number, post in enumerate(posts):
        for one in reversed(post.annotations):
            if one.offensive is not None:
                found.setdefault(str(number), {})[one.worker] = _in_terms_of(declared, one.offensive)
    return found


def comparable(declared: Feature, answer: int) -> Any:
    """An answer to offensiveYN as annotators' opinions are given by :func:`annotations_of`."""
    label = declared.labels[answer]
    return LEVEL_OF[label] if len(declared.labels) == len(LEVEL_OF) else label


def _in_terms_of(declared: Feature, level: float) -> Any:
    if len(declared.labels) == len(LEVEL_OF):
        return level
    label = declared.label_of(Post("", "", False, level, ()))
    assert isinstance(label, int), "a level has a label"
    return declared.labels[label]


def has_opinions(declared: Feature, posts: Sequence[Post]) -> bool:
    """Whether single annotators' opinions are known and differ enough to be studied: bias labels hardly vary within a post."""
    return declared.name == OFFENSIVE_YN.name and any(post.annotations for post in posts)
