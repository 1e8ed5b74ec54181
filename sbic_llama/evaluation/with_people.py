"""What is found of a scored adapter besides its scores, wherever its answers can be compared with people's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from common.results.checks import calibration_finding, risk_coverage_finding
from common.results.finding import Finding
from sbic_llama.data.corpus import Post
from sbic_llama.data.features import HAS_BIASED_IMPLICATION, TARGET_MINORITY, Feature, Label
from sbic_llama.data.groups import set_f1
from sbic_llama.evaluation.label_policies import LEVEL_OF


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
        confidences: How sure it was; see :func:`sbic_llama.data.features.confidence`.
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


def agreement_with_people(
    declared: Feature, opinions: dict[str, dict[str, Label]], answers: dict[str, Label], *, seed: int, **about: Any
) -> Finding | None:
    """Whether the model agrees with people as they do among themselves; None where no two people labelled the same post.

    Levels of offence are compared by their order, lists of groups by the F1 of the two sets, other labels as equal or not.

    Args:
        declared: The feature.
        opinions: Post → person → label.
        answers: Post → the model's label.
        seed: Seed of the bootstrap.
        about: ``task``, ``model``, ``data``, ``miniature``, ``command`` of the finding.
    """
    from common.agreement import agreement_finding

    if not any(len(said) > 1 and post in answers for post, said in opinions.items()):
        return None
    kind: dict[str, Any] = {}
    if not declared.classifies:
        kind = {"similarity": set_f1}
    elif len(declared.labels) == len(LEVEL_OF):
        kind = {"scale": "ordinal", "order": tuple(sorted(LEVEL_OF, key=lambda label: LEVEL_OF[label]))}

    def named(label: Label) -> Any:
        return declared.labels[label] if isinstance(label, int) else label

    return agreement_finding(
        {post: {person: named(label) for person, label in said.items()} for post, said in opinions.items()},
        {post: named(answer) for post, answer in answers.items()},
        seed=seed,
        **kind,
        **about,
    )


def annotators_opinions(declared: Feature, posts: Sequence[Post]) -> dict[str, dict[str, Label]]:
    """What SBIC's single annotators said: the post's number → annotator → label under the feature's policy.

    Annotators are numbered, the one with the most posts first: what is found of them goes onto public cards, where a crowd
    worker's id has no business. Blank opinions are left out; a worker who saw a post twice counts with the first opinion. Nothing
    of two features: bias labels hardly vary within a post, and groups are known of posts only.
    """
    if declared.name in (HAS_BIASED_IMPLICATION.name, TARGET_MINORITY.name):
        return {}
    posts_of = Counter(one.worker for post in posts for one in post.annotations)
    ranked = sorted(posts_of, key=lambda worker: (-posts_of[worker], worker))
    names = {worker: f"annotator {number}" for number, worker in enumerate(ranked, 1)}
    found: dict[str, dict[str, Label]] = {}
    for number, post in enumerate(posts):
        for one in reversed(post.annotations):
            label = declared.label_of(post.as_seen_by(one))
            if label is not None:
                found.setdefault(str(number), {})[names[one.worker]] = label
    return found
