"""How an offensiveYN adapter does on people's labels of another corpus, which it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.results.finding import Finding, Measures, interval
from common.results.scoring import SMALL
from common.stats import baselines
from common.stats.metrics import evaluate
from common.tables.report import fingerprint
from sbic_llama.data.corpus import Post, Split, labeled
from sbic_llama.data.features import OFFENSIVE_POLICIES, Feature
from sbic_llama.data.md_agreement import NAMES, Item

LIMITS = (
    "Whether the model is worse or the question another: the corpora asked other people other questions about other posts. A "
    "corpus that is easier for TF-IDF is easier for anything."
)


def readings(declared: Feature) -> dict[str, tuple[int, ...]]:
    """The ways to read an answer as offensive or not: name → the answers that count as offensive."""
    if "Maybe offensive" not in declared.labels:
        return {"offensive": (0,)}
    return {"maybe counts as offensive": (0, 1), "maybe counts as not offensive": (0,)}


def md_agreement_findings(
    items: Sequence[Item],
    answers: Sequence[int],
    declared: Feature,
    train: Split,
    path: Path,
    *,
    seed: int,
    **about: Any,
) -> list[Finding]:
    """The scores of :func:`md_agreement_finding`, and whether the adapter agrees with the annotators, who are known by name."""
    from common.results.checks import agreement_finding

    own = {**about, "seed": seed} | {
        "data": {
            "name": "MD-Agreement",
            "split": path.stem,
            "fingerprint": fingerprint([item.text, item.majority] for item in items),
        }
    }
    reading, offensive = next(iter(readings(declared).items()))
    agreement = agreement_finding(
        {item.id: {who: NAMES[label] for who, label in item.annotations.items()} for item in items},
        {item.id: NAMES[0 if one in offensive else 1] for item, one in zip(items, answers, strict=True)},
        notes=[f"Of the model's answers, {reading}."],
        **own,
    )
    agreement = replace(agreement, name="md-agreement-people", title="Agreement with the people of MD-Agreement")
    return [md_agreement_finding(items, answers, declared, train, **own), agreement]


def md_agreement_finding(
    items: Sequence[Item],
    answers: Sequence[int],
    declared: Feature,
    train: Split,
    *,
    seed: int,
    **about: Any,
) -> Finding:
    """The adapter's answers to MD-Agreement's tweets against the majority of their annotators, beside TF-IDF trained on SBIC.

    Args:
        items: The tweets.
        answers: The adapter's answer to each, as an index into the feature's labels.
        declared: The feature, offensiveYN under any policy.
        train: SBIC's training posts, for the control.
        seed: Seed of the bootstrap and of the control.
        about: ``task``, ``model``, ``data``, ``miniature``, ``command`` of the finding.
    """
    labels = [item.majority for item in items]
    read = {
        name: [0 if answer in offensive else 1 for answer in answers] for name, offensive in readings(declared).items()
    }
    predicted = {f"{about['model']}, {name}": answers for name, answers in read.items()}
    predicted["TF-IDF trained on SBIC"] = _tfidf(train, [item.text for item in items], seed)
    commonest = min((0, 1), key=lambda label: -labels.count(label))
    predicted[f"always {NAMES[commonest].lower()}"] = [commonest] * len(items)
    scored = {name: evaluate(labels, answers, NAMES, seed=seed) for name, answers in predicted.items()}
    first, own = next(iter(read.items()))
    balanced = {name: scores["balanced_accuracy"] for name, scores in scored.items()}
    best, control = balanced[f"{about['model']}, {first}"], balanced["TF-IDF trained on SBIC"]
    return Finding(
        name="md-agreement",
        title="How does it do on another corpus? MD-Agreement",
        summary=[
            f"On {len(items):,} tweets of MD-Agreement, where {first}: balanced accuracy {interval(best)}, TF-IDF trained on "
            f"the same posts of SBIC {interval(control)}; chance .5."
        ],
        parts=[
            Measures(
                "Balanced accuracy on MD-Agreement", "model or control", "balanced accuracy", balanced, 0.5, "chance"
            ),
            Measures(
                "Accuracy on MD-Agreement",
                "model or control",
                "accuracy",
                {name: scores["accuracy"] for name, scores in scored.items()},
            ),
            Measures(
                f"Accuracy on MD-Agreement by its annotators' agreement ({first})",
                "annotators of the majority's opinion",
                "accuracy",
                _by(items, lambda item: f"{item.agreeing} of {len(item.annotations)}", labels, own, seed),
            ),
            Measures(
                f"Accuracy on MD-Agreement by domain ({first})",
                "domain",
                "accuracy",
                _by(items, lambda item: item.domain, labels, own, seed),
            ),
        ],
        limits=LIMITS,
        facts={"label": "majority of the annotators", "source": "Leonardelli et al. 2021"},
        **about,
    )


def _by(
    items: Sequence[Item], group_of: Callable[[Item], str], labels: Sequence[int], answers: Sequence[int], seed: int
) -> dict[str, Any]:
    groups: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        groups.setdefault(group_of(item), []).append(place)
    return {
        name: evaluate([labels[i] for i in places], [answers[i] for i in places], NAMES, seed=seed)["accuracy"]
        for name, places in sorted(groups.items())
        if len(places) >= SMALL
    }


def _tfidf(train: Split, texts: Sequence[str], seed: int) -> list[int]:
    label_of = OFFENSIVE_POLICIES["at_least_half"].label_of
    posts: list[Post] = labeled(train, label_of)
    found = baselines.tfidf(
        [(post.text,) for post in posts], [label_of(post) for post in posts], [(t,) for t in texts], seed=seed
    )
    return [int(label) for label in found]
