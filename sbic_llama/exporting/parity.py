"""Compare an exported model's answers with the adapter's, post by post."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.cli.errors import UserError, counted
from sbic_llama.data.features import Answers, Feature, confidence


@dataclass(frozen=True)
class Parity:
    """How an exported model's answers differ from the adapter's."""

    by: str  # what ran the exported model
    posts: int
    flips: int  # posts with another label
    change: float  # largest absolute difference of a probability; of a list, of its confidence
    lead: float  # the adapter's largest lead of a changed label over the runner-up, in probability; 0 if none changed
    # Of llama.cpp, which a program sends a text: posts whose prompts have other tokens, and whose written answer is another.
    prompts: int | None = None
    written: int | None = None

    def line(self) -> str:
        """Return the comparison in words."""
        text = f"{self.by}: {counted(self.flips, 'label')} of {counted(self.posts, 'post')} changed"
        if self.flips:
            text += f" (the adapter's leads there: at most {self.lead:.4f})"
        text += f", probabilities by at most {self.change:.4f}"
        if self.prompts is not None:
            text += f"; {counted(self.prompts, 'prompt')} with other tokens"
        if self.written is not None:
            text += f", {counted(self.written, 'other answer')} written"
        return text

    def require(self, max_flips: float) -> None:
        """Refuse too many other labels."""
        if self.flips > max_flips * self.posts:
            raise UserError(
                f"{self.line()}; nothing was written",
                key="--max_flips",
                expected=f"at most {max_flips:.2%} of the labels",
                fix="choose a --dtype of more bits, or accept more with --max_flips",
            )


def compare(
    feature: Feature,
    adapter: Answers,
    exported: Answers,
    by: str,
    prompts: int | None = None,
    written: int | None = None,
) -> Parity:
    """Compare the answers of an exported model with the adapter's answers to the same posts."""
    pairs = list(zip(adapter.details, exported.details, strict=True))
    if feature.branches:
        changes = [abs(row[name] - other[name]) for row, other in pairs for name in row]
    else:
        changes = [abs(confidence(feature, row) - confidence(feature, other)) for row, other in pairs]
    labels = zip(adapter.labels, exported.labels, strict=True)
    flipped = [row for row, (label, other) in zip(adapter.details, labels, strict=True) if label != other]
    leads = [lead(feature, row) for row in flipped]
    return Parity(by, len(pairs), len(flipped), max(changes), max(leads, default=0.0), prompts, written)


def lead(feature: Feature, details: dict[str, float]) -> float:
    """Return how far, in probability, an answer was from another one."""
    if feature.choices:
        thresholds: Sequence[float] = feature.thresholds or [0.5] * len(feature.choices)
        return min(abs(value - least) for value, least in zip(details.values(), thresholds, strict=True))
    if feature.classifies:
        first, second = sorted(details.values())[-2:][::-1]
        return first - second
    return details["margin"]
