"""The grammar of the miniature's invented sentences: the miniature is drawn from it, and checks recognize it.

A premise states three facts about a subject, one from each of three antonym pairs.
"""

from __future__ import annotations

import random

# Subject of a premise -> words that a hypothesis may use for it: itself or a hypernym.
SUBJECTS = {
    "boy": ("boy", "child", "person"),
    "girl": ("girl", "child", "person"),
    "man": ("man", "adult", "person"),
    "woman": ("woman", "adult", "person"),
    "dog": ("dog", "pet", "animal"),
    "cat": ("cat", "pet", "animal"),
    "horse": ("horse", "mount", "animal"),
    "pony": ("pony", "mount", "animal"),
}
# Antonym pairs; each side is a tuple of synonyms.
FACTS = (
    (("asleep", "sleeping"), ("awake", "alert")),
    (("indoors", "inside"), ("outdoors", "outside")),
    (("wet", "soaked"), ("dry",)),
    (("happy", "glad"), ("sad", "unhappy")),
    (("young",), ("old", "aged")),
    (("quiet", "silent"), ("loud", "noisy")),
    (("clean",), ("dirty", "muddy")),
    (("standing", "upright"), ("lying",)),
    (("hungry",), ("fed", "full")),
    (("fast", "quick"), ("slow",)),
    (("alone",), ("accompanied",)),
    (("warm",), ("cold", "freezing")),
)
FORMS = (
    "A {0} who is {1} is {2} and {3}.",
    "The {1} {0} is {2} and {3}.",
    "A {0} is {1}, {2} and {3}.",
    "Here is a {0} that is {1} and {2} but {3}.",
)


def draw_premise(rng: random.Random) -> tuple[str, str, dict[int, int]]:
    """Draw a premise; return its text, its subject and its facts as {antonym pair: side}."""
    subject = rng.choice(list(SUBJECTS))
    facts = {pair: rng.randrange(2) for pair in rng.sample(range(len(FACTS)), 3)}
    words = [rng.choice(FACTS[pair][side]) for pair, side in facts.items()]
    return rng.choice(FORMS).format(subject, *words), subject, facts


def words_of(sentence: str) -> list[str]:
    return sentence.replace(",", " ,").replace(".", " .").split()


def is_invented(sentence: str) -> bool:
    """Return whether a sentence names a subject and states a fact; some sentences of a real corpus do, never all."""
    words = {word.lower() for word in words_of(sentence)}
    facts = {word for pair in FACTS for side in pair for word in side}
    return bool(words & set(SUBJECTS)) and bool(words & facts)
