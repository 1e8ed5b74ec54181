"""How much a score owes to the rule that made one label of several people's opinions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from common.results.finding import Finding, Listing, Measures
from common.stats.metrics import evaluate
from sbic_llama.data.corpus import Post
from sbic_llama.data.features import HAS_BIASED_IMPLICATION, OFFENSIVE_POLICIES, OFFENSIVE_YN, Feature

LIMITS = (
    "Which rule is right. It is a choice about whom to believe when people differ, and has to be made before a score is read, not "
    "after."
)
LEVEL_OF = {"Offensive": 1.0, "Maybe offensive": 0.5, "Not offensive": 0.0}


@dataclass(frozen=True)
class View:
    """A rule, or a part of the posts: the labels under it, and the same answers in its terms. No label: the post is left out."""

    name: str
    names: tuple[str, ...]
    label_of: Callable[[Post], int | None]
    answer_of: Callable[[int], int] = lambda answer: answer


def views(declared: Feature) -> list[View]:
    """The rules under which a feature's answers can be read; the first is its own."""
    own = View(declared.policy, declared.labels, declared.label_of)
    found = [own]
    if declared.name == OFFENSIVE_YN.name:
        levels = [LEVEL_OF[label] for label in declared.labels]
        for policy, offensive in {"at_least_half": (0.5, 1.0), "above_half": (1.0,)}.items():
            other = OFFENSIVE_POLICIES[policy]
            if other.policy != declared.policy:
                found.append(View(other.policy, other.labels, other.label_of, _reads(levels, offensive)))
    elif declared.name == HAS_BIASED_IMPLICATION.name:
        found.append(View("biased where most annotators gave a stereotype", declared.labels, _mostly_biased))
    return [
        *found,
        View(
            "posts on which all annotators agree",
            own.names,
            lambda p: own.label_of(p) if _unanimous(declared, p) else None,
        ),
        View(
            "posts on which they differ",
            own.names,
            lambda p: own.label_of(p) if _unanimous(declared, p) is False else None,
        ),
    ]


def label_policy_finding(
    declared: Feature, posts: Sequence[Post], answers: Sequence[int], *, seed: int, **about: Any
) -> Finding:
    """The same answers scored under other rules, and on posts that annotators agree on or do not.

    Args:
        declared: A feature with labels.
        posts: The scored posts, all of which have a label.
        answers: The model's answer to each, as an index.
        seed: Seed of the bootstrap.
        about: ``task``, ``model``, ``data``, ``miniature``, ``command`` of the finding.
    """
    accuracy, balanced, counts = {}, {}, []
    for view in views(declared):
        kept = [
            (label, view.answer_of(answer))
            for post, answer in zip(posts, answers, strict=True)
            if (label := view.label_of(post)) is not None
        ]
        if not kept:
            continue
        labels, read = zip(*kept, strict=True)
        found = evaluate(labels, read, view.names, seed=seed)
        accuracy[view.name], balanced[view.name] = found["accuracy"], found["balanced_accuracy"]
        counts.append([view.name, len(kept), ", ".join(f"{n} {labels.count(i):,}" for i, n in enumerate(view.names))])
    own = next(iter(accuracy.values()))
    low, high = min(m["value"] for m in accuracy.values()), max(m["value"] for m in accuracy.values())
    summary = [
        f"Accuracy {own['value']:.3f} under the rule that the adapter was trained for ({declared.policy}); from {low:.3f} to "
        f"{high:.3f} over the rules and parts of the posts below. Rules differ in their number of labels, and with it in what "
        "chance would reach."
    ]
    moved = _moved(declared, posts)
    if moved is not None:
        summary.append(f"The two binary rules give {moved:.1%} of the posts another label.")
    return Finding(
        name="label-policy",
        title="How much does the score owe to the label policy?",
        summary=summary,
        parts=[
            Measures("Accuracy by label policy", "labels", "accuracy", accuracy),
            Measures("Balanced accuracy by label policy", "labels", "balanced accuracy", balanced),
            Listing("Labels under each", ["labels", "n", "of each"], counts),
        ],
        limits=LIMITS,
        facts={"moved_between_binary_policies": moved},
        **about,
    )


def _moved(declared: Feature, posts: Sequence[Post]) -> float | None:
    if declared.name != OFFENSIVE_YN.name:
        return None
    one, other = (OFFENSIVE_POLICIES[name].label_of for name in ("at_least_half", "above_half"))
    return sum(one(post) != other(post) for post in posts) / len(posts)


def _reads(levels: Sequence[float], offensive: Sequence[float]) -> Callable[[int], int]:
    """Reads an answer of these levels as 0, offensive, or 1, not."""
    if 0.5 not in levels:  # a binary answer stays as it is
        return lambda answer: answer
    return lambda answer: 0 if levels[answer] in offensive else 1


def _mostly_biased(post: Post) -> int | None:
    if not post.annotations:
        return None  # an aggregate does not say how many
    return 0 if 2 * sum(one.biased for one in post.annotations) > len(post.annotations) else 1


def _unanimous(declared: Feature, post: Post) -> bool | None:
    """Whether the annotators said the same; None of a post with fewer than two opinions."""
    said = [opinion for one in post.annotations if (opinion := declared.opinion_of(one)) is not None]
    return len(set(said)) == 1 if len(said) > 1 else None
