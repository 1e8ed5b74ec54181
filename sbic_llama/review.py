"""Which answers a person should look at: those less sure than a threshold that was learnt on validation posts.

A threshold is read off a curve that is kept with the adapter: how sure the validation answers were, and how often those at
least so sure were right (a risk-coverage curve; El-Yaniv and Wiener 2010).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import UserError

POINTS = 101  # of the curve: one a per cent
MAX_POSTS = 1000  # validation posts that it is learnt from: generating the groups of more takes long


@dataclass(frozen=True)
class ReviewCurve:
    """What validation says of how sure an adapter is.

    Attributes:
        confidence: The 0, 1, … 100 % quantiles of the confidence of the answers.
        accuracy: For each, the share of right answers among those at least so confident.
        posts: How many validation posts it was learnt from.
    """

    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    posts: int

    def for_share(self, share: float) -> float:
        """The threshold under which that share of the answers falls."""
        return float(np.interp(share * (POINTS - 1), range(POINTS), self.confidence))

    def for_accuracy(self, accuracy: float, name: str) -> float:
        """The lowest threshold from which answers are right often enough.

        Raises:
            UserError: There is none: also the surest answers are wrong more often.
        """
        enough = [c for c, reached in zip(self.confidence, self.accuracy, strict=True) if reached >= accuracy]
        if not enough:
            raise UserError(
                f"{name} reaches {max(self.accuracy):.3f} on validation at best",
                key="--target_accuracy",
                expected=f"at most {math.floor(max(self.accuracy) * 1000) / 1000}",
            )
        return min(enough)


def curve(confidences: Sequence[float], right: Sequence[bool]) -> ReviewCurve:
    """The curve of validation answers.

    Args:
        confidences: One an answer, 0 to 1.
        right: Whether it was right.
    """
    sure, correct = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    thresholds = np.quantile(sure, np.linspace(0, 1, POINTS), method="lower")
    accuracy = [correct[sure >= threshold].mean() for threshold in thresholds]
    return ReviewCurve(
        tuple(round(float(value), 6) for value in thresholds),
        tuple(round(float(value), 6) for value in accuracy),
        len(sure),
    )
