"""Everyday names of groups of people, by family, for putting one group in another's place. No slur is among them.

The lists prefer certainty to reach: a word that often means no people ("black", "straight", "old") counts only before a word for
people, and what has no counterpart in the other groups (pronouns, "wife", "imam") is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sbic_llama.data import corpus

Form = Literal[
    "singular", "plural", "young singular", "young plural", "sex plural", "adjective", "before people", "folk"
]
# Form → words. The first is what is put in another group's place; the others are read only.
Words = Mapping[Form, tuple[str, ...]]


@dataclass(frozen=True)
class Family:
    """Groups of one kind, each with the same forms.

    Attributes:
        name: What kind.
        groups: Group → its words by form.
    """

    name: str
    groups: Mapping[str, Words]


# Words for people, before which an adjective of the form "before people" is one.
PEOPLE = frozenset({
    "people", "person", "persons", "folk", "folks", "man", "men", "woman", "women", "guy", "guys", "girl",
    "girls", "boy", "boys", "lady", "ladies", "kid", "kids", "child", "children", "baby", "babies", "teen",
    "teens", "teenager", "teenagers", "student", "students", "friend", "friends", "neighbor", "neighbors",
    "neighbour", "neighbours", "couple", "couples", "family", "families", "parent", "parents", "community",
    "communities", "dude", "dudes", "voter", "voters",
})  # fmt: skip
# Words after which a word that is an adjective and a noun, as "muslim", was the noun.
AFTER_NOUNS = frozenset({
    "is", "was", "are", "were", "be", "been", "has", "have", "had", "do", "does", "did", "can", "could",
    "will", "would", "shall", "should", "may", "might", "must", "who", "whom", "whose", "that", "which",
    "and", "or", "but", "if", "because", "so", "as", "than", "then", "when", "while", "where", "why", "how",
    "in", "on", "at", "by", "to", "of", "for", "from", "with", "without", "like", "into", "out", "about",
    "over", "under", "after", "before", "not", "just", "only", "also", "too",
})  # fmt: skip


def _regular(word: str) -> Words:
    """A word that is an adjective and a noun, with its plural."""
    return {"adjective": (word,), "singular": (word,), "plural": (f"{word}s",)}


def _before_people(*words: str, plural: tuple[str, ...] = (), singular: tuple[str, ...] = ()) -> Words:
    """An adjective that names people only before a word for them; the first of several is the usual one."""
    return {
        "before people": words,
        "singular": (f"{words[0]} person", *singular),
        "plural": (f"{words[0]} people", *plural),
    }


FAMILIES = (
    Family(
        "gender",
        {
            "women": {
                "singular": ("woman",),
                "plural": ("women",),
                "young singular": ("girl",),
                "young plural": ("girls",),
                "sex plural": ("females",),
                "adjective": ("female",),
            },
            "men": {
                "singular": ("man",),
                "plural": ("men",),
                "young singular": ("boy",),
                "young plural": ("boys",),
                "sex plural": ("males",),
                "adjective": ("male",),
            },
        },
    ),
    Family(
        "religion",
        {
            "Muslims": _regular("muslim"),
            "Christians": _regular("christian"),
            "Jews": {"adjective": ("jewish",), "singular": ("jew",), "plural": ("jews",)},
            "Hindus": _regular("hindu"),
            "Buddhists": _regular("buddhist"),
            "Sikhs": _regular("sikh"),
        },
    ),
    Family(
        "colour",
        {
            "black people": _before_people(
                "black",
                "african american",
                "african-american",
                singular=("african american", "african-american"),
                plural=("blacks", "african americans", "african-americans"),
            ),
            "white people": _before_people("white", plural=("whites",)),
            "Asian people": _before_people("asian", plural=("asians",)),
            "Latino people": _before_people("latino", "hispanic", plural=("latinos", "hispanics")),
        },
    ),
    Family(
        "origin",
        {
            "Mexicans": _regular("mexican"),
            "Germans": _regular("german"),
            "Russians": _regular("russian"),
            "Nigerians": _regular("nigerian"),
            "Italians": _regular("italian"),
            "Koreans": _regular("korean"),
        },
    ),
    Family(
        "orientation",
        {
            "gay people": _before_people("gay", "homosexual", plural=("gays", "homosexuals")),
            "straight people": _before_people("straight", "heterosexual", plural=("heterosexuals",)),
            "bisexual people": _before_people("bisexual", plural=("bisexuals",)),
        },
    ),
    Family(
        "gender identity",
        {
            "trans people": _before_people("trans", "transgender", plural=("transgender people",)),
            "cis people": _before_people("cis", "cisgender", plural=("cisgender people",)),
        },
    ),
    Family("age", {"old people": _before_people("old", "elderly"), "young people": _before_people("young")}),
    Family(
        "disability",
        {"disabled people": _before_people("disabled"), "non-disabled people": _before_people("non-disabled")},
    ),
)
# The miniature's, which do not exist.
INVENTED = (
    Family(
        "invented groups",
        {name: {"plural": (name,), "folk": (folk,)} for name, (_, folk) in corpus.INVENTED_GROUPS.items()},
    ),
)

# The groups of an answer: each as the groups of the lexicon that its name holds or, where it holds none, as it was written.
Named = frozenset[str | tuple[str, ...]]


@dataclass(frozen=True)
class Mention:
    """Where a text names a group of a family, and in which form."""

    start: int
    end: int
    family: Family
    group: str
    form: Form


class Lexicon:
    """Finds the names of groups in texts, and puts one in another's place.

    Args:
        families: The groups, no name of which is in two families.
    """

    def __init__(self, families: Sequence[Family]):
        self.families = tuple(families)
        self._meanings: dict[str, list[tuple[Family, str, Form]]] = {}
        for family in families:
            for group, forms in family.groups.items():
                for form, words in forms.items():
                    for word in words:
                        self._meanings.setdefault(word, []).append((family, group, form))
        longest_first = sorted(self._meanings, key=len, reverse=True)
        # No part of a word, a mention, a tag or a link.
        self._pattern = re.compile(
            rf"(?<![\w@#/.])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])", re.IGNORECASE
        )

    def mentions(self, text: str) -> list[Mention]:
        """The names of groups in a cleaned text, in their order."""
        found = []
        for match in self._pattern.finditer(text):
            following = re.match(r" (\w+)", text[match.end() :])
            next_word = following[1].casefold() if following else ""
            meanings = self._meanings[match[0].casefold()]
            for family, group, form in meanings:
                if len(meanings) == 1 and form != "before people":
                    fits = True
                elif form == "before people":
                    fits = next_word in PEOPLE
                else:  # "muslim" is both
                    noun = not next_word or next_word in AFTER_NOUNS
                    fits = (form == "adjective") != noun
                if fits:
                    found.append(Mention(match.start(), match.end(), family, group, form))
                    break
        return found

    def exchanged(self, text: str, family: Family, one: str, other: str) -> str:
        """A text in which two groups of a family have changed places; case, number and "a" or "an" are kept right.

        Where it names both, each gets the other's place: what is said of them stays told apart.
        """
        for mention in reversed(self.mentions(text)):
            if mention.family is family and mention.group in (one, other):
                group = other if mention.group == one else one
                word = family.groups[group][mention.form][0]
                before = re.sub(
                    r"\b(a)n?( )$", rf"\1{'n' if word[0] in 'aeiou' else ''}\2", text[: mention.start], flags=re.I
                )
                text = before + _in_case_of(text[mention.start : mention.end], word) + text[mention.end :]
        return text

    def named(self, groups: Iterable[str]) -> Named:
        """The groups of an answer, by which two ways to write one group are the same."""
        return frozenset(tuple(sorted({mention.group for mention in self.mentions(name)})) or name for name in groups)


def exchanged_groups(named: Named, one: str, other: str) -> Named:
    """An answer's groups after two have changed places."""
    places = {one: other, other: one}
    return frozenset(
        tuple(sorted(places.get(group, group) for group in name)) if isinstance(name, tuple) else name for name in named
    )


def _in_case_of(model: str, word: str) -> str:
    """A word in small letters as another one is written: in capitals, with a capital in each word or in the first, or so."""
    if model.isupper() and len(model) > 1:
        return word.upper()
    if model.istitle():
        return word.title() if " " in model else word[0].upper() + word[1:]
    return word[0].upper() + word[1:] if model[0].isupper() else word
