"""Findings from comparing answers with people's labels: certainty, label policies and agreement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.results.checks import agreement_finding, calibration_finding, risk_coverage_finding
from common.results.finding import Finding, Listing, Measures, worded
from common.stats.design import Design, Draw
from common.stats.metrics import evaluate
from sbic_llama.data.choices import masi
from sbic_llama.data.corpus import Post
from sbic_llama.data.features import (
    HAS_BIASED_IMPLICATION,
    OFFENSIVE_POLICIES,
    OFFENSIVE_YN,
    TARGET_MINORITY,
    Feature,
    Label,
)
from sbic_llama.data.groups import set_f1

TEMPLATES = Path(__file__).parent / "templates"
LEVEL_OF = {"Offensive": 1.0, "Maybe offensive": 0.5, "Not offensive": 0.0}


def certainty_findings(
    feature: Feature,
    labels: Sequence[Label],
    answers: Sequence[Label],
    confidences: Sequence[float],
    *,
    seed: int,
    probabilities: np.ndarray | None = None,  # of the labels, shape (posts, labels), after the temperature
    temperature: float = 1.0,
    design: Design | None = None,  # how the posts were drawn; None for a simple draw
    **about: Any,
) -> list[Finding]:
    """Return the calibration, given probabilities, and the scores that remain when people take the least certain posts."""
    metric = "accuracy" if feature.classifies else "set F1"
    scores = [score_of(feature)(*pair) for pair in zip(labels, answers, strict=True)]
    shared = {"seed": seed, "design": design, **about}
    certainty = [risk_coverage_finding(confidences, scores, metric=metric, **shared)]
    if probabilities is None:
        return certainty
    return [calibration_finding(probabilities, labels, temperature=temperature, **shared), *certainty]


def score_of(feature: Feature) -> Callable[[Label, Label], float]:
    """Return the score of one answer, 0 to 1: equal or not; for lists of groups, set F1."""
    return (lambda label, answer: float(label == answer)) if feature.classifies else set_f1


def agreement_with_people(
    feature: Feature,
    opinions: dict[str, dict[str, Label]],
    answers: dict[str, Label],
    *,
    seed: int,
    drawn: Draw | None = None,
    **about: Any,
) -> Finding | None:
    """Return whether the model agrees with people as they do with each other; None if no two labeled the same post.

    ``opinions`` are post → person → label; ``drawn`` says how the posts were drawn, None that it was a simple draw. Levels of
    offensiveness are compared by their order, lists of groups by set F1, sets of labels by MASI, other labels as equal or not.
    """
    if not any(len(labels) > 1 and post in answers for post, labels in opinions.items()):
        return None
    scale: dict[str, Any] = {}
    if feature.choices:
        scale = {"similarity": masi}
    elif not feature.classifies:
        scale = {"similarity": set_f1}
    elif feature.order:
        scale = {"scale": "ordinal", "order": feature.order}

    def named(label: Label) -> Any:
        return feature.labels[label] if isinstance(label, int) else label

    return agreement_finding(
        {post: {person: named(label) for person, label in labels.items()} for post, labels in opinions.items()},
        {post: named(answer) for post, answer in answers.items()},
        seed=seed,
        drawn=drawn,
        **scale,
        **about,
    )


def annotators_opinions(feature: Feature, posts: Sequence[Post]) -> dict[str, dict[str, Label]]:
    """Return the labels of SBIC's single annotators: the post's number → annotator → label under the feature's policy.

    Findings appear on public cards, where a crowd worker's id does not belong, so annotators are numbered by their number of posts.
    Blank opinions are left out, and the first counts where a worker saw a post twice. Two features of SBIC have no opinions to
    compare: bias labels hardly vary within a post, and groups are known per post only.
    """
    if feature.codebook is None and feature.name in (HAS_BIASED_IMPLICATION.name, TARGET_MINORITY.name):
        return {}
    posts_of = Counter(annotation.worker for post in posts for annotation in post.annotations)
    ranked = sorted(posts_of, key=lambda worker: (-posts_of[worker], worker))
    names = {worker: f"annotator {number}" for number, worker in enumerate(ranked, 1)}
    opinions: dict[str, dict[str, Label]] = {}
    for number, post in enumerate(posts):
        for annotation in reversed(post.annotations):
            label = feature.label_of(post.as_seen_by(annotation))
            if label is not None:
                opinions.setdefault(str(number), {})[names[annotation.worker]] = label
    return opinions


@dataclass(frozen=True)
class View:
    """A label policy, or a part of the posts: their labels under it, and the same answers in its terms."""

    name: str
    names: tuple[str, ...]
    label_of: Callable[[Post], int | None]  # None leaves the post out
    answer_of: Callable[[int], int] = lambda answer: answer


def views(feature: Feature) -> list[View]:
    """Return the label policies under which a feature's answers can be scored, starting with its own."""
    own = View(feature.policy, feature.labels, feature.label_of)
    others, of_sbic = [], feature.codebook is None  # a codebook may have the name of a feature of SBIC
    if of_sbic and feature.name == OFFENSIVE_YN.name:
        levels = [LEVEL_OF[label] for label in feature.labels]
        for policy, offensive in {"at_least_half": (0.5, 1.0), "above_half": (1.0,)}.items():
            other = OFFENSIVE_POLICIES[policy]
            if other.policy != feature.policy:
                others.append(View(other.policy, other.labels, other.label_of, _as_binary(levels, offensive)))
    elif of_sbic and feature.name == HAS_BIASED_IMPLICATION.name:
        others.append(View("biased where most annotators gave a stereotype", feature.labels, _mostly_biased))

    def where(unanimous: bool) -> Callable[[Post], int | None]:
        return lambda post: own.label_of(post) if _unanimous(feature, post) is unanimous else None

    return [
        own,
        *others,
        View("posts on which all annotators agree", own.names, where(True)),
        View("posts on which they differ", own.names, where(False)),
    ]


def label_policy_finding(
    feature: Feature, posts: Sequence[Post], answers: Sequence[int], *, seed: int, **about: Any
) -> Finding:
    """Score the same answers under other label policies, and on posts that annotators agree on or do not."""
    accuracy, balanced, counts = {}, {}, []
    for view in views(feature):
        kept = [
            (label, view.answer_of(answer))
            for post, answer in zip(posts, answers, strict=True)
            if (label := view.label_of(post)) is not None
        ]
        if not kept:
            continue
        labels, read = zip(*kept, strict=True)
        scores = evaluate(labels, read, view.names, seed=seed)
        accuracy[view.name], balanced[view.name] = scores["accuracy"], scores["balanced_accuracy"]
        counts.append([view.name, len(kept), ", ".join(f"{n} {labels.count(i):,}" for i, n in enumerate(view.names))])
    values = [measure["value"] for measure in accuracy.values()]
    moved = _moved(feature, posts)
    numbers = {"own": accuracy[feature.policy], "low": min(values), "high": max(values), "moved": moved}
    return Finding(
        name="label-policy",
        **worded(TEMPLATES / "label_policy.jinja", policy=feature.policy, **numbers),
        parts=[
            Measures("Accuracy by label policy", "labels", "accuracy", accuracy),
            Measures("Balanced accuracy by label policy", "labels", "balanced accuracy", balanced),
            Listing("Labels under each policy", ["labels", "n", "of each"], counts),
        ],
        facts={"moved_between_binary_policies": moved},
        **about,
    )


def _moved(feature: Feature, posts: Sequence[Post]) -> float | None:
    """Share of posts with different labels under the two binary policies of offensiveYN."""
    if feature.name != OFFENSIVE_YN.name or feature.codebook is not None:
        return None
    low, high = (OFFENSIVE_POLICIES[name].label_of for name in ("at_least_half", "above_half"))
    return sum(low(post) != high(post) for post in posts) / len(posts)


def _as_binary(levels: Sequence[float], offensive: Sequence[float]) -> Callable[[int], int]:
    """Map an answer to 0, offensive, or 1, not; a binary answer stays as it is."""
    if 0.5 not in levels:
        return lambda answer: answer
    return lambda answer: 0 if levels[answer] in offensive else 1


def _mostly_biased(post: Post) -> int | None:
    if not post.annotations:
        return None  # aggregates do not contain single opinions
    return 0 if 2 * sum(annotation.biased for annotation in post.annotations) > len(post.annotations) else 1


def _unanimous(feature: Feature, post: Post) -> bool | None:
    """Whether the annotators agree; None for a post with fewer than two opinions."""
    opinions = [opinion for who in post.annotations if (opinion := feature.opinion_of(who)) is not None]
    return len(set(opinions)) == 1 if len(opinions) > 1 else None
