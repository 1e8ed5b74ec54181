"""Scenes in the grammar of the SNLI miniature, for a model that was trained on nothing else.

It has no colours, numbers or people who do something to each other, so the rules about those make no pairs here.
"""

from __future__ import annotations

import random

from snli_roberta.adversarial.suite.everyday import Scene
from snli_roberta.miniature import snli

COUNT = 42


def scenes() -> list[Scene]:
    """Always the same ones."""
    rng = random.Random("suite")
    found: dict[str, Scene] = {}
    while len(found) < COUNT:
        premise, subject, facts = snli.premise(rng)
        if premise.startswith("The "):  # "The asleep boy" is the miniature's English, not everybody's
            continue
        found.setdefault(premise, _scene(rng, premise, subject, facts))
    return list(found.values())


def _scene(rng: random.Random, premise: str, subject: str, facts: dict[int, int]) -> Scene:
    words = [_stated(premise, pair, side) for pair, side in facts.items()]
    word, pair = words[0], next(iter(facts))
    other = rng.choice([one for one in range(len(snli.FACTS)) if one not in facts])
    hypernyms = snli.SUBJECTS[subject][1:]
    return Scene(
        name=premise.rstrip("."),
        plain={
            "entailment": (premise, f"The {subject} is {word}."),
            "neutral": (premise, f"The {subject} is {rng.choice(snli.FACTS[other][rng.randrange(2)])}."),
            "contradiction": (premise, f"The {subject} is {rng.choice(snli.FACTS[pair][1 - facts[pair]])}."),
        },
        changed={
            "negation": [
                (premise, f"The {subject} is not {word}."),
                (f"The {subject} is not {word}.", f"The {subject} is {word}."),
            ],
            "double negation": [
                (premise, f"It is not true that the {subject} is not {word}."),
                (f"It is not true that the {subject} is not {word}.", f"The {subject} is {word}."),
            ],
            "hypernym": [(premise, f"The {general} is {word}.") for general in hypernyms],
            "hyponym": [
                ("The {} that is {} is {} and {}.".format(general, *words), f"The {subject} is {word}.")
                for general in hypernyms
            ],
        },
    )


def _stated(premise: str, pair: int, side: int) -> str:
    """The word by which a premise states a fact."""
    return next(word for word in snli.FACTS[pair][side] if word in snli.words(premise))
