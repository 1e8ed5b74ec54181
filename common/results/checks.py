"""How good the answers are that remain when the least certain go to a person: selective prediction (El-Yaniv and Wiener 2010)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from common.results.finding import Curve, Finding, Listing, Measures
from common.stats import metrics
from common.stats.calibration import (
    BINS,
    area,
    expected_by_chance,
    expected_calibration_error,
    negative_log_likelihood,
    reliability,
    risks,
    tempered,
)

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)  # of the items that might go to a person, the least certain first
POINTS = 100  # of the curve in a picture
RISK_LIMITS = (
    "Whether the people who get the uncertain items are right about them, or how the curve runs on items of another kind: the "
    "order of certainty is the model's own, and on items unlike these it may be sure and wrong."
)


def risk_coverage_finding(
    confidence: Sequence[float], scores: Sequence[float], *, metric: str, seed: int, **about: Any
) -> Finding:
    """What remains when the least certain items go to a person.

    Args:
        confidence: How sure the model was of each item, larger is surer.
        scores: How good its answer was, 0 to 1.
        metric: Name of the mean score, as "accuracy".
        seed: Seed of the bootstrap.
        about: ``task``, ``model``, ``data``, ``miniature``, ``command`` of the finding.
    """
    sure, good = np.asarray(confidence, dtype=float), np.asarray(scores, dtype=float)
    n = len(sure)
    kept = {
        "nothing goes to people" if share == 0 else f"the least certain {share:.0%} go to people": max(
            1, n - round(share * n)
        )
        for share in SHARES
    }
    # Of each draw the area, and the score of what is kept; equally sure items count by their mean, so their order does not matter.
    lost = 1 - good
    drawn = np.array(
        [
            [one.mean(), *(1 - one[count - 1] for count in kept.values())]
            for one in (risks(sure[chosen], lost[chosen]) for chosen in metrics.draws(n, seed))
        ]
    )
    ends = np.percentile(drawn, (2.5, 97.5), axis=0).T.tolist()
    whole = {"value": area(sure, lost), "n": n, "ci95": ends[0]}
    scored = 1 - risks(sure, lost)
    rest = {
        name: metrics.with_width({"value": float(scored[count - 1]), "n": count, "ci95": ends[place]})
        for place, (name, count) in enumerate(kept.items(), 1)
    }
    best = area(good, lost)  # an order that knows which answers are wrong
    mean_loss = float(lost.mean())
    curve = 1 - risks(sure, 1 - good)
    ideal = 1 - risks(good, 1 - good)
    chosen = np.unique(
        np.linspace(max(0, n // 50 - 1), n - 1, POINTS).astype(int)
    )  # the first few items' mean is noise
    half = list(rest.values())[-1]
    summary = [
        f"{metric[0].upper()}{metric[1:]} {good.mean():.3f} on all {n:,} items, {half['value']:.3f} [{half['ci95'][0]:.3f}, "
        f"{half['ci95'][1]:.3f}] on the surer half.",
        f"Area under the risk-coverage curve {whole['value']:.4f} [{whole['ci95'][0]:.4f}, {whole['ci95'][1]:.4f}]; an order "
        f"that knew which answers are wrong would have {best:.4f}, one that knows nothing {mean_loss:.4f}.",
    ]
    parts = [
        Curve(
            f"{metric[0].upper()}{metric[1:]} of the items that the model keeps",
            "share of the items that the model keeps, the surest first",
            metric,
            {
                "by its own certainty": [[(k + 1) / n, float(curve[k])] for k in chosen],
                "if it knew its errors": [[(k + 1) / n, float(ideal[k])] for k in chosen],
            },
        ),
        Measures(
            f"{metric[0].upper()}{metric[1:]} of the rest, when people take the least certain",
            "who looks",
            metric,
            rest,
        ),
    ]
    return Finding(
        name="risk-coverage",
        title="What if people looked at the least certain ones?",
        summary=summary,
        parts=parts,
        limits=RISK_LIMITS,
        facts={"aurc": whole, "aurc_best": best, "mean_loss": mean_loss, "source": "Geifman et al. 2019"},
        **about,
    )


CALIBRATION_LIMITS = (
    "Whether single answers are right, or how the probabilities fare on items of another kind: a probability that is right on "
    "average over these items may be wrong for each group of them. The calibration error is of the likeliest label only."
)


def calibration_finding(
    probabilities: np.ndarray, labels: Sequence[int], *, temperature: float, seed: int, **about: Any
) -> Finding:
    """What a model's probabilities are worth, as they are given and without the temperature.

    Args:
        probabilities: Shape (n, classes), after the temperature.
        labels: The class of each item.
        temperature: What the logits were divided by; 1 where nothing was fitted.
        seed: Seed of the bootstrap.
        about: ``task``, ``model``, ``data``, ``miniature``, ``command`` of the finding.
    """
    known = np.asarray(labels, dtype=int)
    given = {"as given": probabilities}
    if temperature != 1.0:
        given["without the temperature"] = tempered(probabilities, 1 / temperature)
    errors = {}
    for name, p in given.items():
        confidence, right = p.max(1), p.argmax(1) == known
        mean, most = expected_by_chance(confidence, seed)
        errors[name] = {
            "ece": expected_calibration_error(confidence, right),
            "by_chance": mean,
            "by_chance_95": most,
            "nll": negative_log_likelihood(p, known),
        }
    bins = {name: reliability(p.max(1), p.argmax(1) == known) for name, p in given.items()}
    confidence, right = probabilities.max(1), probabilities.argmax(1) == known
    gap = metrics.mean(confidence - right, seed)
    chance = ", which may be chance" if gap["ci95"][0] <= 0 <= gap["ci95"][1] else ""
    own = errors["as given"]
    more = "more than" if own["ece"] > own["by_chance_95"] else "within what"
    summary = [
        f"On average its answers are given a probability of {confidence.mean():.3f} and {right.mean():.3f} of them are right: "
        f"{abs(gap['value']):.3f} {'too' if gap['value'] > 0 else 'not'} sure{'' if gap['value'] > 0 else ' enough'} "
        f"(95 % interval of the difference [{gap['ci95'][0]:.3f}, {gap['ci95'][1]:.3f}]{chance}).",
        f"Expected calibration error {own['ece']:.3f} over {BINS} bins and {len(known):,} items, {more} chance would show if the "
        f"probabilities were right (under {own['by_chance_95']:.3f} in 95 % of draws)"
        + (
            f"; {errors['without the temperature']['ece']:.3f} without the temperature of {temperature:.3f} that was fitted on "
            "validation items."
            if temperature != 1.0
            else "; no temperature was fitted."
        ),
    ]
    parts = [
        Curve(
            "Reliability: share of right answers by confidence",
            "confidence",
            "share of right answers",
            {name: [[x, y] for x, y, _ in points] for name, points in bins.items()},
            diagonal=True,
        ),
        Listing(
            "Expected calibration error, and what chance would show if the probabilities were right",
            ["probabilities", "ECE", "by chance, mean", "by chance, 95 % below", "mean negative log-likelihood"],
            [[name, *(round(number, 4) for number in one.values())] for name, one in errors.items()],
        ),
        Listing(
            "Reliability in bins, as given",
            ["mean confidence", "share of right answers", "n"],
            [[round(x, 4), round(y, 4), n] for x, y, n in bins["as given"]],
        ),
    ]
    return Finding(
        name="calibration",
        title="Can its probabilities be believed?",
        summary=summary,
        parts=parts,
        limits=CALIBRATION_LIMITS,
        facts={
            "temperature": temperature,
            "bins": BINS,
            "errors": errors,
            "confidence_minus_accuracy": gap,
            "source": "Guo et al. 2017",
        },
        **about,
    )
