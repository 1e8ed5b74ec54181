"""Scenes whose pairs adversarial rules change: everyday ones in the style of captions, and the miniature's.

The miniature's grammar is declared here: its generator draws from it, and checks recognize its sentences. Its premise states
three facts about a subject, one from each of three antonym pairs.

What somebody does must not reveal who it is ("a person is milking a cow" nearly says "a farmer"): a general word must leave
the special one open. Colors are few and distinct, so that nothing has two of them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

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
EVENTS = (
    Event("poodle", "poodles", "dog", "chasing a {color} ball", "red", "across a lawn",
          "is three years old", "is asleep in a basket"),
    Event("violinist", "violinists", "musician", "sitting on a {color} bench", "white", "in a garden",
          "has lost a key", "is standing on a ladder"),
    Event("carpenter", "carpenters", "worker", "kneeling beside a {color} door", "green", "in a courtyard",
          "has two brothers", "is swimming in a lake"),
    Event("toddler", "toddlers", "child", "pushing a {color} cart", "yellow", "along a path",
          "likes apples", "is sleeping in a bed"),
    Event("nurse", "nurses", "person", "carrying a {color} box", "blue", "up a staircase",
          "works at night", "is lying on a beach"),
    Event("sparrow", "sparrows", "bird", "drinking from a {color} bowl", "blue", "on a balcony",
          "has built a nest nearby", "is flying over a forest"),
    Event("pony", "ponies", "animal", "grazing beside a {color} fence", "white", "in a meadow",
          "belongs to a teacher", "is galloping through a river"),
    Event("baker", "bakers", "person", "holding a {color} candle", "white", "in a kitchen",
          "has been awake since dawn", "is riding on a bus"),
    Event("surgeon", "surgeons", "doctor", "reading a {color} book", "green", "on a train",
          "has three daughters", "is jogging in a park"),
    Event("grandmother", "grandmothers", "woman", "knitting a {color} scarf", "white", "beside a window",
          "is listening to the radio", "is driving a truck"),
    Event("boy", "boys", "child", "flying a {color} kite", "red", "on a beach",
          "has a twin sister", "is sitting in a classroom"),
    Event("girl", "girls", "child", "holding a {color} balloon", "yellow", "at a fair",
          "won a prize this morning", "is swimming in a pool"),
    Event("kitten", "kittens", "cat", "playing with a {color} ribbon", "blue", "on a carpet",
          "was born in spring", "is sleeping on a shelf"),
    Event("terrier", "terriers", "dog", "digging beside a {color} bench", "green", "in a park",
          "is looking for a bone", "is sitting in a car"),
    Event("miner", "miners", "worker", "sitting on a {color} bench", "green", "at a market",
          "is planning a holiday", "is standing in a bakery"),
    Event("fisherman", "fishermen", "man", "folding a {color} coat", "black", "on a ferry",
          "caught nothing yesterday", "is asleep in a tent"),
    Event("waitress", "waitresses", "woman", "carrying a {color} lamp", "white", "through a hallway",
          "started a new job last week", "is lying on a sofa"),
    Event("ballerina", "ballerinas", "dancer", "stretching beside a {color} piano", "black", "on a stage",
          "is nervous", "is eating soup in a canteen"),
    Event("guitarist", "guitarists", "musician", "leaning against a {color} van", "red", "in a car park",
          "wrote a song last night", "is playing on a stage"),
    Event("sprinter", "sprinters", "athlete", "tying a {color} shoe", "white", "beside a track",
          "hopes to win a medal", "is climbing a mountain"),
    Event("goalkeeper", "goalkeepers", "player", "waving a {color} scarf", "yellow", "beside a pitch",
          "played for another team last year", "is sitting on a bus"),
    Event("cyclist", "cyclists", "person", "resting beside a {color} tent", "blue", "near a bridge",
          "is waiting for two friends", "is racing down a hill"),
    Event("sculptor", "sculptors", "artist", "standing beside a {color} statue", "black", "in a museum",
          "is preparing an exhibition", "is shopping in a market"),
    Event("plumber", "plumbers", "worker", "carrying a {color} toolbox", "red", "down a staircase",
          "is late for an appointment", "is sleeping on a train"),
    Event("librarian", "librarians", "person", "pushing a {color} trolley", "black", "along a corridor",
          "speaks four languages", "is digging in a garden"),
    Event("gardener", "gardeners", "person", "opening a {color} envelope", "yellow", "behind a cottage",
          "planted a tree last week", "is sitting in a cinema"),
    Event("bus driver", "bus drivers", "driver", "resting beside a {color} fountain", "blue", "in a square",
          "is expecting a phone call", "is ironing a shirt at home"),
    Event("squirrel", "squirrels", "animal", "climbing a {color} post", "white", "near a pond",
          "is looking for nuts", "is sleeping in a box"),
    Event("duck", "ducks", "bird", "standing on a {color} boat", "red", "on a canal",
          "has six ducklings", "is walking across a road"),
    Event("calf", "calves", "animal", "standing beside a {color} gate", "black", "on a farm",
          "was born last month", "is running along a beach"),
    Event("sheepdog", "sheepdogs", "dog", "crossing a {color} bridge", "white", "in a valley",
          "obeys a whistle", "is lying under a kitchen table"),
    Event("schoolgirl", "schoolgirls", "girl", "drawing a {color} fish", "blue", "at a desk",
          "is good at mathematics", "is riding a horse"),
    Event("juggler", "jugglers", "performer", "buying a {color} hat", "green", "outside a station",
          "is new to the city", "is sleeping in a hammock"),
    Event("drummer", "drummers", "musician", "carrying a {color} suitcase", "red", "across a square",
          "is looking for a hotel", "is taking a bath"),
    Event("postman", "postmen", "man", "leaning on a {color} bicycle", "yellow", "under a tree",
          "has delivered every letter", "is running up a staircase"),
    Event("photographer", "photographers", "person", "closing a {color} umbrella", "black", "on a rooftop",
          "works for a newspaper", "is swimming in the sea"),
    Event("uncle", "uncles", "man", "washing a {color} car", "white", "in a driveway",
          "is planning a long trip", "is eating lunch in an office"),
    Event("puppy", "puppies", "dog", "tugging at a {color} towel", "yellow", "beside a pool",
          "is afraid of water", "is sleeping in a crate"),
    Event("astronomer", "astronomers", "scientist", "opening a {color} umbrella", "green", "outside a museum",
          "is meeting a colleague", "is sitting in a canoe"),
    Event("pianist", "pianists", "musician", "drinking from a {color} cup", "white", "in a lobby",
          "is waiting for a taxi", "is playing on a stage"),
    Event("tailor", "tailors", "person", "sitting beside a {color} curtain", "blue", "in a theatre",
          "learned the trade from an aunt", "is playing tennis"),
    Event("student", "students", "person", "typing beside a {color} lamp", "black", "in a library",
          "has an exam tomorrow", "is skating on a frozen lake"),
)  # fmt: skip
ENCOUNTERS = (
    Encounter("boy", "chasing", "girl"),
    Encounter("nurse", "photographing", "clown"),
    Encounter("teacher", "sketching", "painter"),
    Encounter("waiter", "filming", "singer"),
    Encounter("dog", "following", "goat"),
    Encounter("cat", "chasing", "duck"),
    Encounter("farmer", "guiding", "tourist"),
    Encounter("lawyer", "paying", "baker"),
    Encounter("doctor", "applauding", "runner"),
    Encounter("drummer", "pulling", "dancer"),
    Encounter("plumber", "overtaking", "cyclist"),
    Encounter("child", "imitating", "juggler"),
    Encounter("woman", "lifting", "man"),
    Encounter("student", "thanking", "librarian"),
    Encounter("reporter", "interviewing", "skater"),
    Encounter("horse", "nudging", "cow"),
    Encounter("monkey", "feeding", "parrot"),
    Encounter("gardener", "splashing", "postman"),
    Encounter("sailor", "pointing at", "cook"),
    Encounter("actor", "measuring", "tailor"),
    Encounter("puppy", "licking", "kitten"),
    Encounter("captain", "calling", "referee"),
    Encounter("grandfather", "tickling", "toddler"),
    Encounter("magician", "pushing", "pianist"),
)


def everyday_scenes() -> list[Scene]:
    """Return the scenes of all events and encounters, in their order."""
    events = [_event_scene(event, *NUMBERS[number % len(NUMBERS)]) for number, event in enumerate(EVENTS)]
    return events + [_encounter_scene(encounter) for encounter in ENCOUNTERS]


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
