"""Swap the group that a post names for another one, and measure whether the answer changes.

The lexicon holds everyday names of groups of people by family; it contains no slurs. It prefers precision to recall: a word that
often does not mean people ("black", "straight", "old") counts only before a word for people, and words without a counterpart in
the other groups (pronouns, "wife", "imam") are left out.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

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


# Words for people: an adjective of the form "before people" counts only before one of them.
PEOPLE = frozenset({
    "people", "person", "persons", "folk", "folks", "man", "men", "woman", "women", "guy", "guys", "girl",
    "girls", "boy", "boys", "lady", "ladies", "kid", "kids", "child", "children", "baby", "babies", "teen",
    "teens", "teenager", "teenagers", "student", "students", "friend", "friends", "neighbor", "neighbors",
    "neighbour", "neighbours", "couple", "couples", "family", "families", "parent", "parents", "community",
    "communities", "dude", "dudes", "voter", "voters",
})  # fmt: skip
# Words that follow a noun: "muslim", an adjective and a noun, is the noun before one of them.
AFTER_NOUNS = frozenset({
    "is", "was", "are", "were", "be", "been", "has", "have", "had", "do", "does", "did", "can", "could",
    "will", "would", "shall", "should", "may", "might", "must", "who", "whom", "whose", "that", "which",
    "and", "or", "but", "if", "because", "so", "as", "than", "then", "when", "while", "where", "why", "how",
    "in", "on", "at", "by", "to", "of", "for", "from", "with", "without", "like", "into", "out", "about",
    "over", "under", "after", "before", "not", "just", "only", "also", "too",
})  # fmt: skip


def _regular(word: str) -> Words:
    """Return the forms of a word that is both an adjective and a noun."""
    return {"adjective": (word,), "singular": (word,), "plural": (f"{word}s",)}


def _by_age(*words: str) -> Words:
    forms: tuple[Form, ...] = ("singular", "plural", "young singular", "young plural", "sex plural", "adjective")
    return {form: (word,) for form, word in zip(forms, words, strict=True)}


def _before_people(*words: str, plural: tuple[str, ...] = (), singular: tuple[str, ...] = ()) -> Words:
    """Return the forms of an adjective that names people only before a word for them; the first word is the usual one."""
    return {
        "before people": words,
        "singular": (f"{words[0]} person", *singular),
        "plural": (f"{words[0]} people", *plural),
    }


_GROUPS: dict[str, dict[str, Words]] = {
    "gender": {
        "women": _by_age("woman", "women", "girl", "girls", "females", "female"),
        "men": _by_age("man", "men", "boy", "boys", "males", "male"),
    },
    "religion": {
        "Muslims": _regular("muslim"),
        "Christians": _regular("christian"),
        "Jews": {"adjective": ("jewish",), "singular": ("jew",), "plural": ("jews",)},
        "Hindus": _regular("hindu"),
        "Buddhists": _regular("buddhist"),
        "Sikhs": _regular("sikh"),
    },
    # Spelled as when the committed results were drawn: the name is part of the seed.
    "colour": {
        "black people": _before_people(
            *("black", "african american", "african-american"),
            singular=("african american", "african-american"),
            plural=("blacks", "african americans", "african-americans"),
        ),
        "white people": _before_people("white", plural=("whites",)),
        "Asian people": _before_people("asian", plural=("asians",)),
        "Latino people": _before_people("latino", "hispanic", plural=("latinos", "hispanics")),
    },
    "origin": {
        f"{name}s": _regular(name.lower()) for name in ("Mexican", "German", "Russian", "Nigerian", "Italian", "Korean")
    },
    "orientation": {
        "gay people": _before_people("gay", "homosexual", plural=("gays", "homosexuals")),
        "straight people": _before_people("straight", "heterosexual", plural=("heterosexuals",)),
        "bisexual people": _before_people("bisexual", plural=("bisexuals",)),
    },
    "gender identity": {
        "trans people": _before_people("trans", "transgender", plural=("transgender people",)),
        "cis people": _before_people("cis", "cisgender", plural=("cisgender people",)),
    },
    "age": {"old people": _before_people("old", "elderly"), "young people": _before_people("young")},
    "disability": {
        "disabled people": _before_people("disabled"),
        "non-disabled people": _before_people("non-disabled"),
    },
}
FAMILIES = tuple(Family(name, groups) for name, groups in _GROUPS.items())
_NAMES: dict[str, Words] = {name: {"plural": (name,), "folk": (folk,)} for name, (_, folk) in INVENTED_GROUPS.items()}
INVENTED = (Family("invented groups", _NAMES),)

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

    by_post: dict[str, list[bool]] = {}
    for item in items:
        by_post.setdefault(item.post, []).extend(changes(item, other) for other in item.texts if other != item.group)
    return metrics.share([sum(changed) / len(changed) for changed in by_post.values()], seed)


def mean_change(items: Sequence[Counterfactuals], replies: Mapping[str, Reply], seed: int) -> Measure:
    """Return the mean absolute change of the first label's probability, over the other groups and then over posts."""
    by_post: dict[str, list[float]] = {}
    for item in items:
        own = _probability(replies[item.post])
        by_post.setdefault(item.post, []).extend(
            abs(_probability(replies[text]) - own) for other, text in item.texts.items() if other != item.group
        )
    return metrics.mean([sum(changes) / len(changes) for changes in by_post.values()], seed)


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
    items: Sequence[Counterfactuals],
    replies: Mapping[str, Reply],
    lexicon: Lexicon,
    groups: tuple[str, str],
    seed: int,
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
