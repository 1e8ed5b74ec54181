"""Everything that is tried on a model in a check of robustness: the posts, their variants, and HateCheck's cases."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from sbic_llama.data.features import Feature
from sbic_llama.data.hatecheck import Case
from sbic_llama.robustness import fairness
from sbic_llama.robustness.flips import Injection, Variant, edit_variants, injections
from sbic_llama.robustness.group_swaps import Lexicon
from sbic_llama.robustness.perturbations import CLEANED, HARMLESS, OBFUSCATIONS, edited


@dataclass(frozen=True)
class Trials:
    """Posts and what is done to them, before a model is asked.

    Attributes:
        posts: The drawn posts.
        obfuscated: Edit → its variants.
        harmless: The same of harmless edits.
        undone: Edit that cleaning undoes → how many of the posts it leaves as they were.
        injections: The injections.
        swapped: Posts that name groups.
        lexicon: Which groups those are.
        cases: HateCheck's; empty without it.
    """

    posts: list[str]
    obfuscated: dict[str, list[Variant]]
    harmless: dict[str, list[Variant]]
    undone: dict[str, int]
    injections: list[Injection]
    swapped: list[fairness.Counterfactuals]
    lexicon: Lexicon
    cases: list[Case]

    def texts(self) -> list[str]:
        """All texts to ask a model about, some of them several times."""
        variants = [variant for kind in (self.obfuscated, self.harmless) for one in kind.values() for variant in one]
        variants += self.injections
        found = [*self.posts, *(variant.text for variant in variants)]
        found += [text for item in self.swapped for text in item.texts.values()]
        return found + [case.text for case in self.cases]


def prepare(
    declared: Feature,
    posts: Sequence[str],
    lexicon: Lexicon,
    cases: Sequence[Case],
    *,
    most: int | None,
    seed: int,
) -> Trials:
    """Draws posts and changes them in every way.

    Args:
        declared: The feature.
        posts: Cleaned posts.
        lexicon: The groups to exchange.
        cases: HateCheck's.
        most: Posts to draw at most, and as many again for each family of groups; None for all.
        seed: Seed of the draws and of the edits.
    """
    drawn = list(posts)
    if most is not None and len(drawn) > most:
        places = sorted(random.Random(f"{seed} posts").sample(range(len(posts)), most))
        drawn = [posts[place] for place in places]
    return Trials(
        posts=drawn,
        obfuscated=edit_variants(drawn, OBFUSCATIONS, seed),
        harmless=edit_variants(drawn, HARMLESS, seed),
        undone={edit.name: sum(edited(edit, post, seed) == post for post in drawn) for edit in CLEANED},
        injections=injections(drawn, declared, seed),
        swapped=fairness.counterfactuals(posts, lexicon, most, seed),
        lexicon=lexicon,
        cases=list(cases),
    )
