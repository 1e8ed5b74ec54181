"""One group put in another's place in a post: what should not change an answer, except for the group that it names.

These are the counterfactuals of Garg et al. (2019, "Counterfactual Fairness in Text Classification through Robustness").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sbic_llama.robustness.group_names import AFTER_NOUNS, PEOPLE, Family, Form

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
