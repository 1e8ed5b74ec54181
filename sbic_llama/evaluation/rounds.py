"""What the labels of each round brought: adapters trained on more and more labels, on the same test texts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.cli.errors import UserError
from common.results.finding import Finding, Measures, about, worded
from common.results.record import RunRecord, training_facts
from common.results.scoring import read_evaluation
from common.stats import metrics, paired
from common.stats.metrics import Measure
from sbic_llama.data.corpus import Post, post_id
from sbic_llama.data.features import Feature, Label
from sbic_llama.evaluation.with_people import score_of

TEMPLATE = Path(__file__).parent / "templates" / "rounds.jinja"


Round = tuple[int, RunRecord, list[Label]]  # training texts, the record, and answers to the test texts


def read_rounds(earlier: Sequence[Path], feature: Feature, posts: Sequence[Post], fingerprint: str) -> list[Round]:
    """Read the evaluations of adapters of earlier rounds, in their order.

    Args:
        earlier: Folders of adapters that were evaluated on the same texts.
        feature: The feature.
        posts: The test texts, and ``fingerprint`` theirs with their labels.

    Raises:
        UserError: An adapter was not evaluated, or on other texts.
    """
    return [(_size(folder), *_evaluated(folder, feature, posts, fingerprint)) for folder in earlier]


def rounds_finding(
    earlier: Sequence[Round],
    current: Path,
    feature: Feature,
    posts: Sequence[Post],
    answers: Sequence[Label],
    record: RunRecord,
    *,
    seed: int,
) -> Finding:
    """Compare an adapter with those of earlier rounds, in their order, text by text.

    Args:
        earlier: What :func:`read_rounds` returned.
        current: Folder of the adapter.
        feature: The feature.
        posts: The test texts, and ``answers`` the adapter's.
        record: Its record.
        seed: Seed of the bootstrap.
    """
    metric = "balanced_accuracy" if feature.classifies else "set_f1"
    rounds = [*earlier, (_size(current), record, list(answers))]
    labels = [feature.label_of(post) for post in posts]
    names = [f"{number}: {size:,} texts" for number, (size, *_) in enumerate(rounds, 1)]
    measures = {name: each.metrics[metric] for name, (_, each, _) in zip(names, rounds, strict=True)}
    changes = [
        _change(feature, labels, before, after, seed) for (*_, before), (*_, after) in itertools.pairwise(rounds)
    ]
    title = metric.replace("_", " ").replace("f1", "F1")
    return Finding(
        name="rounds",
        **worded(
            TEMPLATE,
            metric=title,
            change=changes[-1],
            added=rounds[-1][0] - rounds[-2][0],
            last=measures[names[-1]],
            size=rounds[-1][0],
            count=len(rounds),
        ),
        parts=[
            Measures(f"{title[0].upper()}{title[1:]} by round", "round and training texts", title, measures),
            Measures(
                "Change from the round before",
                "round and training texts",
                "difference",
                dict(zip(names[1:], changes, strict=True)),
                0.0,
                "no change",
                True,
            ),
        ],
        facts={"training texts": [size for size, *_ in rounds]},
        **about(record),
    )


def _size(folder: Path) -> int:
    facts = training_facts(folder)
    if facts is None:
        raise UserError("it has no training record", file=folder, expected="an adapter of this product")
    return int(facts["data"]["used"])


def _evaluated(
    folder: Path, feature: Feature, posts: Sequence[Post], fingerprint: str
) -> tuple[RunRecord, list[Label]]:
    evaluation, fix = read_evaluation(folder), "evaluate it with the same --data first"
    if evaluation is None:
        raise UserError("it has not been evaluated", key="--earlier", file=folder, fix=fix)
    if evaluation.record.data["fingerprint"] != fingerprint:
        raise UserError("it was evaluated on other texts or labels", key="--earlier", file=folder, fix=fix)
    given = {row["id"]: feature.parse(row["answer"]) for row in evaluation.scores}
    answers = [given.get(post_id(post)) for post in posts]
    if None in answers:
        raise UserError("its answers are incomplete", key="--earlier", file=folder, fix=fix)
    return evaluation.record, answers


def _change(
    feature: Feature, labels: Sequence[Label], before: Sequence[Label], after: Sequence[Label], seed: int
) -> Measure:
    score = score_of(feature)
    first, second = (
        np.array([[score(*pair) for pair in zip(labels, given, strict=True)]]) for given in (before, after)
    )
    if feature.classifies:
        return paired.balanced_difference(first, second, labels, seed=seed)
    return metrics.mean((second - first)[0], seed)
