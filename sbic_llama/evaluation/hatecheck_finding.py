"""What an adapter's answers to HateCheck's cases say, as a finding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.results.finding import Finding, Measures, Part, interval
from sbic_llama.data import hatecheck
from sbic_llama.data.features import Feature, Label
from sbic_llama.data.hatecheck import Case

LIMITS = (
    "How well the adapter does what it was trained for: hateful is not offensive or biased. profanity_nh, say, is not hateful and "
    "may well offend. HateCheck's posts are short and made for the test: to fail one shows a weakness, to pass it says little of "
    "posts at large. Many cases are made of one template and are right or wrong together, so true intervals are wider."
)


def hatecheck_finding(
    declared: Feature, cases: Sequence[Case], answers: Sequence[Label], *, seed: int, **about: Any
) -> Finding:
    """Scores on all cases under each policy of ``policies``; under the first, by functionality and target.

    Args:
        declared: The feature that was asked for.
        cases: The cases.
        answers: The answer to each, in their order.
        seed: Seed of the bootstrap.
        about: ``task``, ``model``, ``miniature``, ``command`` of the finding.
    """
    flags = {policy: [counts(answer) for answer in answers] for policy, counts in hatecheck.policies(declared).items()}
    scores = {policy: hatecheck.score(cases, flagged, seed=seed) for policy, flagged in flags.items()}
    summary = [
        f"{len(cases):,} cases. Hateful is not what the feature asks for; accuracy says how far it can stand in."
    ]
    for policy, found in scores.items():
        parts_of = [f"accuracy {interval(found['accuracy'])}"]
        if "balanced_accuracy" in found:
            parts_of.append(f"balanced accuracy {interval(found['balanced_accuracy'])}")
        parts_of += [
            f"of the {kind} cases {interval(found[f'accuracy/{kind}'])}"
            for kind in hatecheck.LABELS
            if f"accuracy/{kind}" in found
        ]
        summary.append(f"Where {policy} is taken as hateful: {'; '.join(parts_of)}.")
    policy, flagged = next(iter(flags.items()))
    rows = hatecheck.by_functionality(cases, flagged, seed=seed)
    lowest = sorted(rows, key=lambda name: rows[name]["value"])[:3]
    named = ", ".join(f"{name} ({rows[name]['value']:.3f})" for name in lowest)
    summary.append(f"Hardest are {named}.")
    parts: list[Part] = [
        Measures(
            f"All cases, {policy} taken as hateful",
            "score",
            "score",
            {name.replace("_", " ").replace("/", ", "): measure for name, measure in found.items()},
        )
        for policy, found in scores.items()
    ]
    parts.append(
        Measures(
            "Accuracy by functionality",
            "functionality",
            "accuracy",
            rows,
            reference=scores[policy]["accuracy"]["value"],
            reference_name="all cases",
        )
    )
    for kind, hateful in hatecheck.LABELS.items():
        by_target = hatecheck.flagged_by_target(cases, flagged, hateful=hateful, seed=seed)
        if by_target:
            parts.append(Measures(f"Flagged of the {kind} cases, by target", "target", "share flagged", by_target))
    invented = hatecheck.is_miniature(cases)
    return Finding(
        name="hatecheck",
        title="HateCheck's functional tests",
        summary=summary,
        parts=parts,
        limits=LIMITS,
        data={
            "name": "the HateCheck miniature" if invented else "HateCheck",
            "split": "test",
            "fingerprint": hatecheck.case_fingerprint(cases),
        },
        **{**about, "miniature": about["miniature"] or invented},
    )
