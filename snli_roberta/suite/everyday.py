"""The everyday scenes: sentences that we wrote ourselves, put together from :mod:`snli_roberta.suite.lexicon`."""

from __future__ import annotations

import random

from snli_roberta.suite.lexicon import ENCOUNTERS, EVENTS, NUMBERS, OTHER_COLOUR, Encounter, Event
from snli_roberta.suite.scenes import Scene, Sentences


def scenes() -> list[Scene]:
    """All of them, in the lexicon's order."""
    found = [_scene(event, *NUMBERS[number % len(NUMBERS)]) for number, event in enumerate(EVENTS)]
    return found + [_encounter(encounter) for encounter in ENCOUNTERS]


def _scene(event: Event, number: str, larger: str) -> Scene:
    action = event.action.format(colour=event.colour)
    recoloured = event.action.format(colour=OTHER_COLOUR[event.colour])
    who = f"the {event.one}"
    premise = f"{_a(event.one)} is {action} {event.place}."
    return Scene(
        name=event.one,
        plain={
            "entailment": (premise, f"The {event.one} is {action}."),
            "neutral": (premise, f"The {event.one} {event.unknown}."),
            "contradiction": (premise, f"The {event.one} {event.excluded}."),
        },
        changed={
            "negation": [
                (premise, f"The {event.one} is not {action}."),
                (f"{_a(event.one)} is not {action}.", f"The {event.one} is {action}."),
            ],
            "double negation": [
                (premise, f"It is not true that {who} is not {action}."),
                (f"It is not true that {who} is not {action}.", f"The {event.one} is {action}."),
            ],
            "number change": [
                (f"{number} {event.many} are {action} {event.place}.", f"{larger} {event.many} are {action} {event.place}."),
            ],
            "colour change": [(premise, f"The {event.one} is {recoloured} {event.place}.")],
            "hypernym": [(premise, f"The {event.general} is {action} {event.place}.")],
            "hyponym": [(f"{_a(event.general)} is {action} {event.place}.", f"The {event.one} is {action} {event.place}.")],
        },
    )  # fmt: skip


def _encounter(encounter: Encounter) -> Scene:
    roles = ((encounter.one, encounter.other), (encounter.other, encounter.one))
    return Scene(
        name=f"{encounter.one} and {encounter.other}",
        changed={
            "role swap": [
                (_event(one, encounter.action, other), f"The {other} is {encounter.action} the {one}.")
                for one, other in roles
            ],
            "roles in disorder": [_disordered(one, encounter.action, other) for one, other in roles],
        },
    )


def _event(one: str, action: str, other: str) -> str:
    return f"{_a(one)} is {action} {_a(other).lower()}."


def _disordered(one: str, action: str, other: str) -> Sentences:
    """A premise whose words are out of order, and what it said before.

    The other stands before the action and the one behind it: whoever still reads an event there reads the opposite one.
    """
    rng = random.Random(f"{one} {action} {other}")
    rest = [_a(noun).split()[0].lower() for noun in (one, other)] + ["is"]
    while True:
        words = rng.sample(rest, len(rest))
        places = sorted(rng.sample(range(len(words) + 1), 3))
        for shift, (place, word) in enumerate(zip(places, (other, action, one), strict=True)):
            words.insert(place + shift, word)
        text = " ".join(words) + "."
        if text != _event(other, action, one).lower():
            return text, f"The {one} is {action} the {other}."


def _a(noun: str) -> str:
    """A noun with its article; none of the lexicon's begins with a letter that deceives."""
    return f"{'An' if noun[0] in 'aeiou' else 'A'} {noun}"
