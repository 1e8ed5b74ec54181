"""Edits that a reader sees through: obfuscations, which hide a post from a machine, and harmless edits, which hide nothing.

An edit depends on the seed, its own name and the post alone, so the same post is edited alike in any order and any file.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sbic_llama.data.corpus import clean

Place = TypeVar("Place")
SHARE = 0.5  # of the letters or words that an edit could change
ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff"  # space, non-joiner, joiner, word joiner, no-break space
# Latin letters → letters of Cyrillic or Greek that most fonts draw alike (confusables.txt of Unicode TR 39).
HOMOGLYPHS = {
    "a": "а", "c": "с", "e": "е", "i": "і", "j": "ј", "o": "о", "p": "р", "s": "ѕ", "x": "х", "y": "у",
    "A": "А", "B": "В", "C": "С", "E": "Е", "H": "Н", "I": "І", "J": "Ј", "K": "К", "M": "М", "N": "Ν",
    "O": "О", "P": "Р", "S": "Ѕ", "T": "Т", "X": "Х", "Y": "Υ", "Z": "Ζ",
}  # fmt: skip
LEETSPEAK = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7"}
_LEET_TABLE = str.maketrans(LEETSPEAK | {letter.upper(): digit for letter, digit in LEETSPEAK.items()})
TAGS = ("#monday", "#today", "#morning", "#thoughts", "#random")


@dataclass(frozen=True)
class Edit:
    """One way to change a post.

    Attributes:
        name: What it does, as tables call it.
        apply: Post and a source of chance → the edited post. A post that it can't change comes back as it is.
    """

    name: str
    apply: Callable[[str, random.Random], str]


def edited(edit: Edit, post: str, seed: int) -> str:
    """A post after an edit, cleaned as every post is before a model reads it; never empty unless the post is.

    Args:
        edit: The edit.
        post: A post as :func:`sbic_llama.data.corpus.clean` gives it.
        seed: With the edit's name and the post, all that chance depends on.
    """
    return clean(edit.apply(post, random.Random(f"{seed} {edit.name} {post}")))


def homoglyphs(post: str, rng: random.Random) -> str:
    """Half of the letters that have a double in another alphabet become it (Boucher et al. 2022, "Bad Characters")."""
    letters = [place for start, end in _words(post) for place in range(start, end) if post[place] in HOMOGLYPHS]
    return _changed(post, [(place, place + 1) for place in _half(letters, rng)], HOMOGLYPHS.__getitem__)


def zero_width(post: str, rng: random.Random) -> str:
    """A character without width somewhere inside each word of two letters or more (Boucher et al. 2022)."""

    def hide(word: str) -> str:
        place = rng.randrange(1, len(word))
        return word[:place] + rng.choice(ZERO_WIDTH) + word[place:]

    return _changed(post, [(start, end) for start, end in _words(post) if end - start > 1], hide)


def leetspeak(post: str, rng: random.Random) -> str:
    """Digits for letters in half of the words (HateCheck's "spell_leet", Röttger et al. 2021)."""
    return _half_of_words(
        post, rng, lambda word: word.translate(_LEET_TABLE), lambda word: word.translate(_LEET_TABLE) != word
    )


def letter_spacing(post: str, rng: random.Random) -> str:
    """A space between all letters of half of the words (HateCheck's "spell_space_add")."""
    return _half_of_words(post, rng, " ".join, lambda word: len(word) > 2)


def spaces_removed(post: str, rng: random.Random) -> str:
    """Half of the spaces go (HateCheck's "spell_space_del"; Gröndahl et al. 2018, "All You Need is 'Love'")."""
    between = [end for (_, end), (start, _) in itertools.pairwise(_words(post)) if post[end:start] == " "]
    return _changed(post, [(place, place + 1) for place in _half(between, rng)], lambda space: "")


def letters_swapped(post: str, rng: random.Random) -> str:
    """Two neighbouring inner letters change places in half of the words (HateCheck's "spell_char_swap")."""

    def places(word: str) -> list[int]:
        return [i for i in range(1, len(word) - 2) if word[i] != word[i + 1]]

    def swap(word: str) -> str:
        i = rng.choice(places(word))
        return word[:i] + word[i + 1] + word[i] + word[i + 2 :]

    return _half_of_words(post, rng, swap, lambda word: bool(places(word)))


def upper_case(post: str, rng: random.Random) -> str:
    """Capitals throughout."""
    return post.upper()


def random_case(post: str, rng: random.Random) -> str:
    """Each letter in upper or lower case, by chance."""
    return "".join(rng.choice((letter.upper(), letter.lower())) for letter in post)


def full_stop(post: str, rng: random.Random) -> str:
    """A full stop at the end, unless there is one."""
    return post if post.endswith(".") else f"{post}."


def exclamation_mark(post: str, rng: random.Random) -> str:
    """An exclamation mark at the end."""
    return f"{post}!"


def quotation_marks(post: str, rng: random.Random) -> str:
    """Quotation marks around the whole, as many posts of the corpus have them."""
    return f'"{post}"'


def typographic_quotes(post: str, rng: random.Random) -> str:
    """Straight apostrophes and quotation marks become curved ones, as telephones type them."""
    post = re.sub(r'(^|(?<=\s))"', "“", post).replace('"', "”")
    return re.sub(r"(^|(?<=\s))'", "‘", post).replace("'", "’")


def mention(post: str, rng: random.Random) -> str:
    """A mention of some user in front."""
    return f"@user{rng.randrange(100)} {post}"


def link(post: str, rng: random.Random) -> str:
    """A link behind, of a domain that is kept for examples."""
    return f"{post} https://example.org/{rng.randrange(10_000)}"


def hashtag(post: str, rng: random.Random) -> str:
    """A tag behind that says nothing of the post."""
    return f"{post} {rng.choice(TAGS)}"


def space_runs(post: str, rng: random.Random) -> str:
    """Two to four spaces for each one, and some at both ends."""
    return f"  {re.sub(' ', lambda _: ' ' * rng.randint(2, 4), post)}  "


def line_breaks(post: str, rng: random.Random) -> str:
    """Line breaks for half of the spaces, and one at the end."""
    places = _half([match.start() for match in re.finditer(" ", post)], rng)
    return _changed(post, [(place, place + 1) for place in places], lambda space: "\n") + "\n"


def html_entities(post: str, rng: random.Random) -> str:
    """Everything but letters, digits and spaces as HTML entities, and one letter in ten: pages escape posts in many ways."""
    return "".join(
        character
        if character == " " or (character.isascii() and character.isalnum() and rng.random() > 0.1)
        else f"&#{ord(character)};"
        for character in post
    )


OBFUSCATIONS = (
    Edit("homoglyphs", homoglyphs),
    Edit("zero-width characters", zero_width),
    Edit("leetspeak", leetspeak),
    Edit("letter spacing", letter_spacing),
    Edit("spaces removed", spaces_removed),
    Edit("letters swapped", letters_swapped),
    Edit("upper case", upper_case),
    Edit("random case", random_case),
)
HARMLESS = (
    Edit("full stop", full_stop),
    Edit("exclamation mark", exclamation_mark),
    Edit("quotation marks", quotation_marks),
    Edit("typographic quotes", typographic_quotes),
    Edit("mention in front", mention),
    Edit("link behind", link),
    Edit("hashtag behind", hashtag),
)
# What cleaning takes away again: a model never sees these.
CLEANED = (
    Edit("runs of spaces", space_runs),
    Edit("line breaks", line_breaks),
    Edit("HTML entities", html_entities),
)


def _words(post: str) -> list[tuple[int, int]]:
    """Where runs of letters begin and end; mentions, tags and links are none, which any change would lead elsewhere."""
    found = []
    for token in re.finditer(r"\S+", post):
        if not token[0].startswith(("@", "#", "http")):
            found += [match.span() for match in re.compile(r"[^\W\d_]+").finditer(post, *token.span())]
    return found


def _half(places: Sequence[Place], rng: random.Random) -> list[Place]:
    """:data:`SHARE` of some places in their order, at least one where there is any."""
    return sorted(rng.sample(places, max(1, round(SHARE * len(places))))) if places else []


def _changed(post: str, spans: Iterable[tuple[int, int]], change: Callable[[str], str]) -> str:
    """A post with the texts of some spans, in their order, changed."""
    parts, done = [], 0
    for start, end in spans:
        parts += [post[done:start], change(post[start:end])]
        done = end
    return "".join([*parts, post[done:]])


def _half_of_words(
    post: str, rng: random.Random, change: Callable[[str], str], changeable: Callable[[str], bool]
) -> str:
    """A post with half of those words changed that can be."""
    return _changed(post, _half([span for span in _words(post) if changeable(post[slice(*span)])], rng), change)
