"""Whether an answer depends on which group is named: each post with every other group of the family in the group's place."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.stats import metrics
from common.stats.metrics import Measure
from sbic_llama.robustness.flips import Said
from sbic_llama.robustness.group_swaps import Family, Lexicon, exchanged_groups


@dataclass(frozen=True)
class Counterfactuals:
    """A post that names a group, with each group of the family in its place.

    Attributes:
        post: The post.
        family: The family.
        group: The group of it that the post names, the first where it names several.
        texts: Group of the family → the post about it; the post itself for its own.
    """

    post: str
    family: Family
    group: str
    texts: dict[str, str]


def counterfactuals(posts: Sequence[str], lexicon: Lexicon, most: int | None, seed: int) -> list[Counterfactuals]:
    """For each family of the lexicon, the posts that name a group of it; a post may be there for several families.

    Args:
        posts: Cleaned posts.
        lexicon: The groups.
        most: Posts a family at most, drawn at random; None for all.
        seed: Seed of the draw.
    """
    found = []
    named = {post: lexicon.mentions(post) for post in posts}
    for family in lexicon.families:
        first = {
            post: next(mention.group for mention in mentions if mention.family is family)
            for post, mentions in named.items()
            if any(mention.family is family for mention in mentions)
        }
        chosen = list(first)
        if most is not None and len(chosen) > most:
            chosen = random.Random(f"{seed} {family.name}").sample(chosen, most)
        for post in chosen:
            group = first[post]
            texts = {
                other: post if other == group else lexicon.exchanged(post, family, group, other)
                for other in family.groups
            }
            found.append(Counterfactuals(post, family, group, texts))
    return found


def change_rate(items: Sequence[Counterfactuals], said: Mapping[str, Said], lexicon: Lexicon, seed: int) -> Measure:
    """How often the answer changes when another group stands there: the mean over posts of the share of other groups that change
    it, so that a family of six groups has no more chances than one of two.

    Of an answer that lists groups, what would be right is the same list with the two groups exchanged; another name for the same
    group is no change.

    Raises:
        ValueError: No items.
    """

    def changes(item: Counterfactuals, other: str) -> bool:
        before, after = said[item.post].label, said[item.texts[other]].label
        if isinstance(before, int) or isinstance(after, int):
            return before != after
        return lexicon.named(after) != exchanged_groups(lexicon.named(before), item.group, other)

    by_post: dict[str, list[bool]] = {}
    for item in items:
        by_post.setdefault(item.post, []).extend(changes(item, other) for other in item.texts if other != item.group)
    return metrics.share([sum(changed) / len(changed) for changed in by_post.values()], seed)


def mean_change(items: Sequence[Counterfactuals], said: Mapping[str, Said], seed: int) -> Measure:
    """Mean absolute change of the first label's probability, over the other groups and then over posts.

    Raises:
        ValueError: No items.
    """
    by_post: dict[str, list[float]] = {}
    for item in items:
        by_post.setdefault(item.post, []).extend(
            abs(_first(said[text]) - _first(said[item.post]))
            for other, text in item.texts.items()
            if other != item.group
        )
    return metrics.mean([sum(changes) / len(changes) for changes in by_post.values()], seed)


def by_group(
    items: Sequence[Counterfactuals], said: Mapping[str, Said], lexicon: Lexicon, seed: int
) -> dict[str, Measure]:
    """For each group of one family, over the same posts with its name in them: the mean probability of the first label or,
    of answers that list groups, how often the group is among them.

    Raises:
        ValueError: No items.
    """
    return (
        {
            group: metrics.mean([_about(said[item.texts[group]], group, lexicon) for item in items], seed)
            for group in items[0].family.groups
        }
        if items
        else {}
    )


def gap(
    items: Sequence[Counterfactuals], said: Mapping[str, Said], lexicon: Lexicon, groups: tuple[str, str], seed: int
) -> Measure:
    """The difference of :func:`by_group` between the first and the second of two groups, post by post.

    Raises:
        ValueError: No items.
    """
    one, other = ([_about(said[item.texts[group]], group, lexicon) for item in items] for group in groups)
    return metrics.mean([a - b for a, b in zip(one, other, strict=True)], seed)


def _about(said: Said, group: str, lexicon: Lexicon) -> float:
    if isinstance(said.label, int):
        return _first(said)
    return float(any(group in name for name in lexicon.named(said.label) if isinstance(name, tuple)))


def _first(said: Said) -> float:
    assert said.first is not None, "only a feature that classifies has probabilities"
    return said.first
