"""Scenes whose pairs adversarial rules change: everyday ones in the style of captions, and the miniature's.

The miniature's grammar is declared here: its generator draws from it, and checks recognize its sentences. Its premise states
three facts about a subject, one from each of three antonym pairs.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

OTHER_COLOR = {"red": "blue", "blue": "yellow", "yellow": "red", "green": "white", "black": "green", "white": "black"}
NUMBERS = (("Two", "Five"), ("Three", "Six"), ("Two", "Four"), ("Four", "Nine"))
INVENTED = 42  # scenes in the miniature's grammar

Sentences = tuple[str, str]  # premise, hypothesis


@dataclass(frozen=True)
class Event:
    """Somebody doing something somewhere."""

    who: str  # a singular noun
    plural: str
    general: str  # a hypernym
    action: str  # a participle, with {color} before a noun
    color: str  # of that noun
    place: str
    unknown: str  # a predicate that may hold or not
    excluded: str  # a predicate that cannot hold at the same time


@dataclass(frozen=True)
class Encounter:
    """Somebody doing something to another, which does not imply the reverse."""

    who: str
    action: str
    whom: str


@dataclass(frozen=True)
class Scene:
    """Pairs that share words, so that a model gets them right or wrong together."""

    name: str
    plain: dict[str, Sentences] = field(default_factory=dict)  # label -> an ordinary pair
    # Rule -> pairs made with the scene's own words. A rule of .suite that neither edits plain pairs nor occurs here does not
    # apply to the scene.
    changed: dict[str, list[Sentences]] = field(default_factory=dict)


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


def lexicon() -> tuple[list[Event], list[Encounter]]:
    """Read the words of the everyday scenes."""
    import yaml

    words = yaml.safe_load((Path(__file__).parent / "everyday.yaml").read_text(encoding="utf-8"))
    return [Event(*row) for row in words["events"]], [Encounter(*row) for row in words["encounters"]]


def everyday_scenes() -> list[Scene]:
    """Return the scenes of all events and encounters, in their order."""
    events, encounters = lexicon()
    scenes = [_event_scene(event, *NUMBERS[number % len(NUMBERS)]) for number, event in enumerate(events)]
    return scenes + [_encounter_scene(encounter) for encounter in encounters]


def _event_scene(event: Event, number: str, larger: str) -> Scene:
    action = event.action.format(color=event.color)
    recolored = event.action.format(color=OTHER_COLOR[event.color])
    who, place, does = event.who, event.place, f"The {event.who} is {action}"
    premise = f"{_a(who)} is {action} {place}."
    double = f"It is not true that the {who} is not {action}."
    crowd = f"{event.plural} are {action} {place}."
    return Scene(
        name=who,
        plain={
            "entailment": (premise, f"{does}."),
            "neutral": (premise, f"The {who} {event.unknown}."),
            "contradiction": (premise, f"The {who} {event.excluded}."),
        },
        changed={
            "negation": [(premise, f"The {who} is not {action}."), (f"{_a(who)} is not {action}.", f"{does}.")],
            "double negation": [(premise, double), (double, f"{does}.")],
            "number change": [(f"{number} {crowd}", f"{larger} {crowd}")],
            "colour change": [(premise, f"The {who} is {recolored} {place}.")],
            "hypernym": [(premise, f"The {event.general} is {action} {place}.")],
            "hyponym": [(f"{_a(event.general)} is {action} {place}.", f"{does} {place}.")],
        },
    )


def _encounter_scene(encounter: Encounter) -> Scene:
    action, roles = encounter.action, ((encounter.who, encounter.whom), (encounter.whom, encounter.who))
    return Scene(
        name=f"{encounter.who} and {encounter.whom}",
        changed={
            "role swap": [(_event(who, action, whom), f"The {whom} is {action} the {who}.") for who, whom in roles],
            "roles in disorder": [_disordered(who, action, whom) for who, whom in roles],
        },
    )


def _event(who: str, action: str, whom: str) -> str:
    return f"{_a(who)} is {action} {_a(whom).lower()}."


def _disordered(who: str, action: str, whom: str) -> Sentences:
    """Return a premise with its words out of order, and what it said before.

    ``whom`` precedes the action and ``who`` follows it: whoever still reads an event there reads the opposite one.
    """
    rng = random.Random(f"{who} {action} {whom}")
    rest = [_a(noun).split()[0].lower() for noun in (who, whom)] + ["is"]
    while True:
        words = rng.sample(rest, len(rest))
        places = sorted(rng.sample(range(len(words) + 1), 3))
        for shift, (place, word) in enumerate(zip(places, (whom, action, who), strict=True)):
            words.insert(place + shift, word)
        text = " ".join(words) + "."
        if text != _event(whom, action, who).lower():
            return text, f"The {who} is {action} the {whom}."


def _a(noun: str) -> str:
    """Prefix a noun with its article; no noun here has a deceptive first letter."""
    return f"{'An' if noun[0] in 'aeiou' else 'A'} {noun}"


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


def invented_scenes() -> list[Scene]:
    """Return scenes in the miniature's grammar, for a model that was trained on nothing else; always the same.

    The grammar has no colors, numbers or encounters, so the rules about those make no pairs here.
    """
    rng = random.Random("suite")
    scenes: dict[str, Scene] = {}
    while len(scenes) < INVENTED:
        premise, subject, facts = draw_premise(rng)
        if premise.startswith("The "):  # "The asleep boy" is not English
            continue
        scenes.setdefault(premise, _invented_scene(rng, premise, subject, facts))
    return list(scenes.values())


def _invented_scene(rng: random.Random, premise: str, subject: str, facts: dict[int, int]) -> Scene:
    stated = words_of(premise)
    words = [next(word for word in FACTS[pair][side] if word in stated) for pair, side in facts.items()]
    word, pair = words[0], next(iter(facts))
    other = rng.choice([number for number in range(len(FACTS)) if number not in facts])
    hypernyms = SUBJECTS[subject][1:]
    positive, negative = f"The {subject} is {word}.", f"The {subject} is not {word}."
    double = f"It is not true that the {subject} is not {word}."
    return Scene(
        name=premise.rstrip("."),
        plain={
            "entailment": (premise, positive),
            "neutral": (premise, f"The {subject} is {rng.choice(FACTS[other][rng.randrange(2)])}."),
            "contradiction": (premise, f"The {subject} is {rng.choice(FACTS[pair][1 - facts[pair]])}."),
        },
        changed={
            "negation": [(premise, negative), (negative, positive)],
            "double negation": [(premise, double), (double, positive)],
            "hypernym": [(premise, f"The {general} is {word}.") for general in hypernyms],
            "hyponym": [("The {} that is {} is {} and {}.".format(general, *words), positive) for general in hypernyms],
        },
    )
