"""Everyday names of groups of people, by family, for putting one group in another's place. No slur is among them.

The lists prefer certainty to reach: a word that often means no people ("black", "straight", "old") counts only before a word for
people, and what has no counterpart in the other groups (pronouns, "wife", "imam") is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from common.miniature import sbic

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
        {name: {"plural": (name,), "folk": (folk,)} for name, (_, folk) in sbic.GROUPS.items()},
    ),
)
