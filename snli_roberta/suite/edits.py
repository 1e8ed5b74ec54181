"""Changes to any sentence that need to know nothing of it."""

from __future__ import annotations

import random
import re

# What has nothing to do with anything else that is said.
CLAUSES = ("{}, and it is a Tuesday.", "{}, while a bell rings somewhere.", "It is the third week of the month. {}.")
SHORTEST = 6  # letters of a word that gets a typo: a shorter one easily becomes another word, as "from" and "three" do


def typo(sentence: str, rng: random.Random) -> str:
    """Two neighbouring inner letters change places in one longer word; a sentence without one comes back as it is."""
    places = [
        place
        for word in re.finditer(rf"\b[^\W\d_]{{{SHORTEST},}}\b", sentence)
        for place in range(word.start() + 1, word.end() - 2)
        if sentence[place] != sentence[place + 1]
    ]
    if not places:
        return sentence
    place = rng.choice(places)
    return sentence[:place] + sentence[place + 1] + sentence[place] + sentence[place + 2 :]


def with_clause(sentence: str, number: int) -> str:
    """A sentence with one of :data:`CLAUSES`."""
    return CLAUSES[number % len(CLAUSES)].format(_open(sentence))


def shuffled(sentence: str, rng: random.Random) -> str:
    """A sentence's words in another order, the full stop at the end; one of equal words comes back as it is."""
    words = re.sub(r"^(An?|The)\b", lambda match: match[0].lower(), _open(sentence)).split()
    if len(set(words)) < 2:
        return sentence
    mixed = list(words)
    while mixed == words:
        rng.shuffle(mixed)
    return " ".join(mixed) + "."


def _open(sentence: str) -> str:
    """A sentence without its full stop."""
    return sentence.strip().rstrip(".").rstrip()
