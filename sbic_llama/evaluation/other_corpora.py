"""Findings from corpora that the adapter was not trained on: MD-Agreement and HateCheck."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.results.checks import agreement_finding
from common.results.finding import Finding, Measures, Part, worded
from common.results.scoring import SMALL
from common.stats import baselines
from common.stats.metrics import Measure, evaluate
from common.tables.report import fingerprint
from sbic_llama.data import hatecheck
from sbic_llama.data.corpus import Split, labeled
from sbic_llama.data.features import OFFENSIVE_POLICIES, Feature, Label
from sbic_llama.data.hatecheck import Case
from sbic_llama.data.md_agreement import NAMES, Item

TEMPLATES = Path(__file__).parent / "templates"
TFIDF = "TF-IDF trained on SBIC"


def readings(feature: Feature) -> dict[str, tuple[int, ...]]:
    """Return the ways to read an answer as offensive or not: name → the answers that count as offensive."""
    if "Maybe offensive" not in feature.labels:
        return {"offensive": (0,)}
    return {"maybe counts as offensive": (0, 1), "maybe counts as not offensive": (0,)}


def md_agreement_findings(
    items: Sequence[Item],
    answers: Sequence[int],
    feature: Feature,
    train: Split,
    path: Path,
    *,
    seed: int,
    **about: Any,
) -> list[Finding]:
    """Return the scores of :func:`md_agreement_finding`, and the agreement with the annotators, who are known by name."""
    data = {
        "name": "MD-Agreement",
        "split": path.stem,
        "fingerprint": fingerprint([item.text, item.majority] for item in items),
    }
    shared = {**about, "seed": seed, "data": data}
    reading, offensive = next(iter(readings(feature).items()))
    agreement = agreement_finding(
        {item.id: {who: NAMES[label] for who, label in item.annotations.items()} for item in items},
        {item.id: NAMES[0 if answer in offensive else 1] for item, answer in zip(items, answers, strict=True)},
        notes=[f"The model's answers: {reading}."] if len(readings(feature)) > 1 else [],
        **shared,
    )
    agreement = replace(agreement, name="md-agreement-people", title="Does it agree with the people of MD-Agreement?")
    return [md_agreement_finding(items, answers, feature, train, **shared), agreement]


def md_agreement_finding(
    items: Sequence[Item], answers: Sequence[int], feature: Feature, train: Split, *, seed: int, **about: Any
) -> Finding:
    """Score answers to MD-Agreement's tweets against the majority of the annotators, next to TF-IDF trained on SBIC.

    ``answers`` are indices into the labels of ``feature``: offensiveYN, under any policy.
    """
    labels = [item.majority for item in items]
    read = {
        name: [0 if answer in offensive else 1 for answer in answers] for name, offensive in readings(feature).items()
    }
    reading, own = next(iter(read.items()))
    predicted = {f"{about['model']}, {name}": binary for name, binary in read.items()}
    predicted[TFIDF] = _tfidf(train, [item.text for item in items], seed)
    commonest = min((0, 1), key=lambda label: -labels.count(label))
    predicted[f"always {NAMES[commonest].lower()}"] = [commonest] * len(items)
    scored = {name: evaluate(labels, binary, NAMES, seed=seed) for name, binary in predicted.items()}
    balanced = {name: scores["balanced_accuracy"] for name, scores in scored.items()}
    accuracy = {name: scores["accuracy"] for name, scores in scored.items()}
    numbers = {"own": balanced[f"{about['model']}, {reading}"], "tfidf": balanced[TFIDF]}

    def by(title: str, of: str, group_of: Callable[[Item], str]) -> Measures:
        groups: dict[str, list[int]] = {}
        for place, item in enumerate(items):
            groups.setdefault(group_of(item), []).append(place)
        rows = {
            name: evaluate([labels[i] for i in places], [own[i] for i in places], NAMES, seed=seed)["accuracy"]
            for name, places in sorted(groups.items())
            if len(places) >= SMALL
        }
        return Measures(f"Accuracy on MD-Agreement by {title} ({reading})", of, "accuracy", rows)

    return Finding(
        name="md-agreement",
        **worded(TEMPLATES / "md_agreement.jinja", n=len(items), reading=reading if len(read) > 1 else None, **numbers),
        parts=[
            Measures(
                "Balanced accuracy on MD-Agreement", "model or baseline", "balanced accuracy", balanced, 0.5, "chance"
            ),
            Measures("Accuracy on MD-Agreement", "model or baseline", "accuracy", accuracy),
            by(
                "its annotators' agreement",
                "annotators in the majority",
                lambda item: f"{item.agreeing} of {len(item.annotations)}",
            ),
            by("domain", "domain", lambda item: item.domain),
        ],
        facts={"label": "majority of the annotators", "source": "Leonardelli et al. 2021"},
        **about,
    )


def _tfidf(train: Split, texts: Sequence[str], seed: int) -> list[int]:
    label_of = OFFENSIVE_POLICIES["at_least_half"].label_of
    posts = labeled(train, label_of)
    predicted = baselines.tfidf(
        [(post.text,) for post in posts], [label_of(post) for post in posts], [(text,) for text in texts], seed=seed
    )
    return [int(label) for label in predicted]


def hatecheck_finding(
    feature: Feature, cases: Sequence[Case], answers: Sequence[Label], *, seed: int, **about: Any
) -> Finding:
    """Score answers to HateCheck's cases under each policy of the feature; under the first, by functionality and target."""
    flags = {policy: [flag(answer) for answer in answers] for policy, flag in hatecheck.policies(feature).items()}
    scores: dict[str, dict[str, Measure]] = {
        policy: hatecheck.score(cases, flagged, seed=seed) for policy, flagged in flags.items()
    }
    first, flagged = next(iter(flags.items()))
    rows = hatecheck.by_functionality(cases, flagged, seed=seed)
    overall = scores[first]["accuracy"]["value"]
    parts: list[Part] = [
        Measures(
            f"All cases, {policy} counted as hateful",
            "score",
            "score",
            {name.replace("_", " ").replace("/", ", "): measure for name, measure in measures.items()},
        )
        for policy, measures in scores.items()
    ]
    parts.append(Measures("Accuracy by functionality", "functionality", "accuracy", rows, overall, "all cases"))
    for kind, hateful in hatecheck.LABELS.items():
        by_target = hatecheck.flagged_by_target(cases, flagged, hateful=hateful, seed=seed)
        if by_target:
            parts.append(
                Measures(f"Share of the {kind} cases flagged, by target", "target", "share flagged", by_target)
            )
    invented = hatecheck.is_miniature(cases)
    name = "the HateCheck miniature" if invented else "HateCheck"
    kinds, hardest = list(hatecheck.LABELS), sorted(rows.items(), key=lambda row: row[1]["value"])[:3]
    return Finding(
        name="hatecheck",
        **worded(TEMPLATES / "hatecheck.jinja", n=len(cases), scores=scores, kinds=kinds, hardest=hardest),
        parts=parts,
        data={"name": name, "split": "test", "fingerprint": hatecheck.case_fingerprint(cases)},
        **{**about, "miniature": about["miniature"] or invented},
    )
