"""A scene: sentences of one event, of which rules make pairs."""

from __future__ import annotations

from dataclasses import dataclass, field

Sentences = tuple[str, str]  # premise, hypothesis


@dataclass(frozen=True)
class Scene:
    """Pairs that are right or wrong together, as they have their words in common.

    Attributes:
        name: What it is called.
        plain: Label → an ordinary pair of that label.
        changed: Rule → pairs that need the scene's words to be made. A rule of :mod:`snli_roberta.suite.rules` that neither edits
            the plain pairs nor stands here has no sense in the scene.
    """

    name: str
    plain: dict[str, Sentences] = field(default_factory=dict)
    changed: dict[str, list[Sentences]] = field(default_factory=dict)
