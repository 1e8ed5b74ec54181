"""How good the answers are that remain when the least certain go to a person: selective prediction (El-Yaniv and Wiener 2010)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from common import bootstrap
from common.findings import Curve, Finding, Measures

SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)  # of the items that might go to a person, the least certain first
POINTS = 100  # of the curve in a picture
LIMITS = (
    "Whether the people who get the uncertain items are right about them, or how the curve runs on items of another kind: the "
    "order of certainty is the model's own, and on items unlike these it may be sure and wrong."
)


def risks(confidence: Sequence[float] | np.ndarray, losses: Sequence[float] | np.ndarray) -> np.ndarray:
    """Mean loss of the k surest items, for k = 1 … n, shape (n,). Equally sure items count by their mean, in no order."""
    sure, lost = np.asarray(confidence, dtype=float), np.asarray(losses, dtype=float)
    _, inverse, counts = np.unique(-sure, return_inverse=True, return_counts=True)
    level = np.bincount(inverse, weights=lost) / counts
    return np.cumsum(np.repeat(level, counts)) / np.arange(1, len(sure) + 1)


def area(confidence: np.ndarray, losses: np.ndarray) -> float:
    """Area under the risk-coverage curve, the mean of :func:`risks` (AURC; Geifman, Uziel and El-Yaniv 2019). 0 is best; an
    order that knows nothing has the mean loss."""
    return float(risks(confidence, losses).mean())


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
            for one in (risks(sure[chosen], lost[chosen]) for chosen in bootstrap.draws(n, seed))
        ]
    )
    ends = np.percentile(drawn, (2.5, 97.5), axis=0).T.tolist()
    whole = {"value": area(sure, lost), "n": n, "ci95": ends[0]}
    scored = 1 - risks(sure, lost)
    rest = {
        name: bootstrap.with_width({"value": float(scored[count - 1]), "n": count, "ci95": ends[place]})
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
        limits=LIMITS,
        facts={"aurc": whole, "aurc_best": best, "mean_loss": mean_loss, "source": "Geifman et al. 2019"},
        **about,
    )
