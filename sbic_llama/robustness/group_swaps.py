"""Swap the group that a post names for another one, and measure whether the answer changes; ``groups.yaml`` has the names."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from common.stats import metrics
from common.stats.metrics import Measure
from sbic_llama.data.corpus import INVENTED_GROUPS
from sbic_llama.data.features import Label

Form = Literal[
    "singular", "plural", "young singular", "young plural", "sex plural", "adjective", "before people", "folk"
]
# Form → words. The first is used to replace another group's name; the others are only recognized.
Words = Mapping[Form, tuple[str, ...]]


@dataclass(frozen=True)
class Family:
    """Groups of one kind, each with the same forms."""

    name: str
    groups: Mapping[str, Words]  # group → its words by form


_LEXICON = yaml.safe_load((Path(__file__).parent / "groups.yaml").read_text(encoding="utf-8"))
PEOPLE, AFTER_NOUNS = (frozenset(_LEXICON[name].split()) for name in ("people", "after_nouns"))


def _family(name: str, groups: dict[str, dict[Form, str | list[str]]]) -> Family:
    def forms(words: dict[Form, str | list[str]]) -> Words:
        return {form: (word,) if isinstance(word, str) else tuple(word) for form, word in words.items()}

    return Family(name, {group: forms(words) for group, words in groups.items()})


FAMILIES = tuple(_family(name, groups) for name, groups in _LEXICON["families"].items())
INVENTED = (_family("invented groups", {n: {"plural": n, "folk": folk} for n, (_, folk) in INVENTED_GROUPS.items()}),)

# The groups of an answer: for each name the groups of the lexicon in it or, if there are none, the name as written.
Named = frozenset[str | tuple[str, ...]]


@dataclass(frozen=True)
class Mention:
    """Where and in which form a text names a group of a family."""

    start: int
    end: int
    family: Family
    group: str
    form: Form


class Lexicon:
    """Finds names of groups in texts and swaps them. No name may be in two families."""

    def __init__(self, families: Sequence[Family]):
        self.families = tuple(families)
        self._meanings: dict[str, list[tuple[Family, str, Form]]] = {}
        for family in families:
            for group, forms in family.groups.items():
                for form, words in forms.items():
                    for word in words:
                        self._meanings.setdefault(word, []).append((family, group, form))
        longest_first = sorted(self._meanings, key=len, reverse=True)
        # Not within a word, a mention, a tag or a link.
        self._pattern = re.compile(
            rf"(?<![\w@#/.])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])", re.IGNORECASE
        )

    def mentions(self, text: str) -> list[Mention]:
        """Return the names of groups in a cleaned text, in order."""
        mentions = []
        for match in self._pattern.finditer(text):
            following = re.match(r" (\w+)", text[match.end() :])
            next_word = following[1].casefold() if following else ""
            meanings = self._meanings[match[0].casefold()]
            for family, group, form in meanings:
                if len(meanings) == 1 and form != "before people":
                    fits = True
                elif form == "before people":
                    fits = next_word in PEOPLE
                else:  # as "muslim", both adjective and noun
                    noun = not next_word or next_word in AFTER_NOUNS
                    fits = (form == "adjective") != noun
                if fits:
                    mentions.append(Mention(match.start(), match.end(), family, group, form))
                    break
        return mentions

    def swap(self, text: str, family: Family, first: str, second: str) -> str:
        """Swap two groups of a family in a text, adapting case, number and "a" or "an".

        In a text that names both, each takes the other's place, so that statements about them stay distinct.
        """
        for mention in reversed(self.mentions(text)):
            if mention.family is family and mention.group in (first, second):
                group = second if mention.group == first else first
                word = family.groups[group][mention.form][0]
                before = re.sub(
                    r"\b(a)n?( )$", rf"\1{'n' if word[0] in 'aeiou' else ''}\2", text[: mention.start], flags=re.I
                )
                text = before + _in_case_of(text[mention.start : mention.end], word) + text[mention.end :]
        return text

    def named(self, groups: Iterable[str]) -> Named:
        """Return the groups of an answer in a form that is the same for two spellings of a group."""
        return frozenset(tuple(sorted({mention.group for mention in self.mentions(name)})) or name for name in groups)


def swap_groups(named: Named, first: str, second: str) -> Named:
    """Swap two groups in an answer."""
    places = {first: second, second: first}
    return frozenset(
        tuple(sorted(places.get(group, group) for group in name)) if isinstance(name, tuple) else name for name in named
    )


def _in_case_of(model: str, word: str) -> str:
    """Capitalize a lowercase word like another one: all letters, each word, the first word, or not at all."""
    if model.isupper() and len(model) > 1:
        return word.upper()
    if model.istitle():
        return word.title() if " " in model else word[0].upper() + word[1:]
    return word[0].upper() + word[1:] if model[0].isupper() else word


@dataclass(frozen=True)
class Reply:
    """A model's answer to a text."""

    label: Label
    first: float | None  # probability of the feature's first label, as "Offensive"; None for a list of groups


@dataclass(frozen=True)
class Counterfactuals:
    """A post that names a group, with each group of the family in its place."""

    post: str
    family: Family
    group: str  # the group that the post names; the first if it names several
    texts: dict[str, str]  # group of the family → the post about it; for its own group the post itself


def counterfactuals(posts: Sequence[str], lexicon: Lexicon, most: int | None, seed: int) -> list[Counterfactuals]:
    """Return, for each family, the cleaned posts that name a group of it; a post may count for several families.

    ``most`` limits the posts per family, drawn at random; None takes all.
    """
    items = []
    mentions = {post: lexicon.mentions(post) for post in posts}
    for family in lexicon.families:
        first = {
            post: next(mention.group for mention in of_post if mention.family is family)
            for post, of_post in mentions.items()
            if any(mention.family is family for mention in of_post)
        }
        chosen = list(first)
        if most is not None and len(chosen) > most:
            chosen = random.Random(f"{seed} {family.name}").sample(chosen, most)
        for post in chosen:
            group = first[post]
            texts = {
                other: post if other == group else lexicon.swap(post, family, group, other) for other in family.groups
            }
            items.append(Counterfactuals(post, family, group, texts))
    return items


def mean_over_posts(
    outcomes: Sequence[tuple[str, float]], seed: int, of: Callable[..., Measure] = metrics.share
) -> Measure:
    """Return the mean over posts of the mean outcome of each post."""
    by_post: dict[str, list[float]] = {}
    for post, outcome in outcomes:
        by_post.setdefault(post, []).append(outcome)
    return of([sum(each) / len(each) for each in by_post.values()], seed)


def change_rate(items: Sequence[Counterfactuals], replies: Mapping[str, Reply], lexicon: Lexicon, seed: int) -> Measure:
    """Return how often the answer changes with the group: per post the share of other groups that change it, then the mean.

    So a family of six groups has no more chances than one of two. Where answers list groups, the right answer to a post about
    another group is the same list with the two groups swapped; another name for the same group is not a change.
    """

    def changes(item: Counterfactuals, other: str) -> bool:
        before, after = replies[item.post].label, replies[item.texts[other]].label
        if isinstance(before, int) or isinstance(after, int):
            return before != after
        return lexicon.named(after) != swap_groups(lexicon.named(before), item.group, other)

    pairs = [(item, other) for item in items for other in item.texts if other != item.group]
    return mean_over_posts([(item.post, changes(item, other)) for item, other in pairs], seed)


def mean_change(items: Sequence[Counterfactuals], replies: Mapping[str, Reply], seed: int) -> Measure:
    """Return the mean absolute change of the first label's probability, over the other groups and then over posts."""
    changes = [
        (item.post, abs(_probability(replies[text]) - _probability(replies[item.post])))
        for item in items
        for other, text in item.texts.items()
        if other != item.group
    ]
    return mean_over_posts(changes, seed, metrics.mean)


def by_group(
    items: Sequence[Counterfactuals], replies: Mapping[str, Reply], lexicon: Lexicon, seed: int
) -> dict[str, Measure]:
    """Return a measure for each group of one family, over the same posts with its name in them.

    It is the mean probability of the first label or, where answers list groups, how often the group is among them.
    """
    groups = items[0].family.groups if items else ()
    return {
        group: metrics.mean([_about(replies[item.texts[group]], group, lexicon) for item in items], seed)
        for group in groups
    }


def gap(
    items: Sequence[Counterfactuals], replies: Mapping[str, Reply], lexicon: Lexicon, groups: tuple[str, str], seed: int
) -> Measure:
    """Return the difference of :func:`by_group` between the first and the second of two groups, paired by post."""
    first, second = ([_about(replies[item.texts[group]], group, lexicon) for item in items] for group in groups)
    return metrics.mean([a - b for a, b in zip(first, second, strict=True)], seed)


def _about(reply: Reply, group: str, lexicon: Lexicon) -> float:
    if isinstance(reply.label, int):
        return _probability(reply)
    return float(any(group in name for name in lexicon.named(reply.label) if isinstance(name, tuple)))


def _probability(reply: Reply) -> float:
    assert reply.first is not None, "only a feature that classifies has probabilities"
    return reply.first
