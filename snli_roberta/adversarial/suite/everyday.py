"""The words of the everyday scenes, in the style of captions.

What somebody does must not tell who it is ("a person is milking a cow" would nearly say "a farmer"): a general word is to leave
the special one open. Colours are few and far apart, so that nothing is of two of them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

OTHER_COLOUR = {"red": "blue", "blue": "yellow", "yellow": "red", "green": "white", "black": "green", "white": "black"}
NUMBERS = (("Two", "Five"), ("Three", "Six"), ("Two", "Four"), ("Four", "Nine"))


@dataclass(frozen=True)
class Event:
    """Somebody doing something somewhere.

    Attributes:
        one: Who, as a noun in the singular.
        many: Its plural.
        general: A hypernym of it.
        action: What they do, as a participle, with ``{colour}`` before a noun.
        colour: Of that noun; one of :data:`OTHER_COLOUR`.
        place: Where.
        unknown: A predicate that may hold of them or not.
        excluded: A predicate that can't hold of them meanwhile.
    """

    one: str
    many: str
    general: str
    action: str
    colour: str
    place: str
    unknown: str
    excluded: str


@dataclass(frozen=True)
class Encounter:
    """One doing something to another, who does not thereby do it to the one."""

    one: str
    action: str
    other: str


EVENTS = (
    Event("poodle", "poodles", "dog", "chasing a {colour} ball", "red", "across a lawn",
          "is three years old", "is asleep in a basket"),
    Event("violinist", "violinists", "musician", "sitting on a {colour} bench", "white", "in a garden",
          "has lost a key", "is standing on a ladder"),
    Event("carpenter", "carpenters", "worker", "kneeling beside a {colour} door", "green", "in a courtyard",
          "has two brothers", "is swimming in a lake"),
    Event("toddler", "toddlers", "child", "pushing a {colour} cart", "yellow", "along a path",
          "likes apples", "is sleeping in a bed"),
    Event("nurse", "nurses", "person", "carrying a {colour} box", "blue", "up a staircase",
          "works at night", "is lying on a beach"),
    Event("sparrow", "sparrows", "bird", "drinking from a {colour} bowl", "blue", "on a balcony",
          "has built a nest nearby", "is flying over a forest"),
    Event("pony", "ponies", "animal", "grazing beside a {colour} fence", "white", "in a meadow",
          "belongs to a teacher", "is galloping through a river"),
    Event("baker", "bakers", "person", "holding a {colour} candle", "white", "in a kitchen",
          "has been awake since dawn", "is riding on a bus"),
    Event("surgeon", "surgeons", "doctor", "reading a {colour} book", "green", "on a train",
          "has three daughters", "is jogging in a park"),
    Event("grandmother", "grandmothers", "woman", "knitting a {colour} scarf", "white", "beside a window",
          "is listening to the radio", "is driving a truck"),
    Event("boy", "boys", "child", "flying a {colour} kite", "red", "on a beach",
          "has a twin sister", "is sitting in a classroom"),
    Event("girl", "girls", "child", "holding a {colour} balloon", "yellow", "at a fair",
          "won a prize this morning", "is swimming in a pool"),
    Event("kitten", "kittens", "cat", "playing with a {colour} ribbon", "blue", "on a carpet",
          "was born in spring", "is sleeping on a shelf"),
    Event("terrier", "terriers", "dog", "digging beside a {colour} bench", "green", "in a park",
          "is looking for a bone", "is sitting in a car"),
    Event("miner", "miners", "worker", "sitting on a {colour} bench", "green", "at a market",
          "is planning a holiday", "is standing in a bakery"),
    Event("fisherman", "fishermen", "man", "folding a {colour} coat", "black", "on a ferry",
          "caught nothing yesterday", "is asleep in a tent"),
    Event("waitress", "waitresses", "woman", "carrying a {colour} lamp", "white", "through a hallway",
          "started a new job last week", "is lying on a sofa"),
    Event("ballerina", "ballerinas", "dancer", "stretching beside a {colour} piano", "black", "on a stage",
          "is nervous", "is eating soup in a canteen"),
    Event("guitarist", "guitarists", "musician", "leaning against a {colour} van", "red", "in a car park",
          "wrote a song last night", "is playing on a stage"),
    Event("sprinter", "sprinters", "athlete", "tying a {colour} shoe", "white", "beside a track",
          "hopes to win a medal", "is climbing a mountain"),
    Event("goalkeeper", "goalkeepers", "player", "waving a {colour} scarf", "yellow", "beside a pitch",
          "played for another team last year", "is sitting on a bus"),
    Event("cyclist", "cyclists", "person", "resting beside a {colour} tent", "blue", "near a bridge",
          "is waiting for two friends", "is racing down a hill"),
    Event("sculptor", "sculptors", "artist", "standing beside a {colour} statue", "black", "in a museum",
          "is preparing an exhibition", "is shopping in a market"),
    Event("plumber", "plumbers", "worker", "carrying a {colour} toolbox", "red", "down a staircase",
          "is late for an appointment", "is sleeping on a train"),
    Event("librarian", "librarians", "person", "pushing a {colour} trolley", "black", "along a corridor",
          "speaks four languages", "is digging in a garden"),
    Event("gardener", "gardeners", "person", "opening a {colour} envelope", "yellow", "behind a cottage",
          "planted a tree last week", "is sitting in a cinema"),
    Event("bus driver", "bus drivers", "driver", "resting beside a {colour} fountain", "blue", "in a square",
          "is expecting a phone call", "is ironing a shirt at home"),
    Event("squirrel", "squirrels", "animal", "climbing a {colour} post", "white", "near a pond",
          "is looking for nuts", "is sleeping in a box"),
    Event("duck", "ducks", "bird", "standing on a {colour} boat", "red", "on a canal",
          "has six ducklings", "is walking across a road"),
    Event("calf", "calves", "animal", "standing beside a {colour} gate", "black", "on a farm",
          "was born last month", "is running along a beach"),
    Event("sheepdog", "sheepdogs", "dog", "crossing a {colour} bridge", "white", "in a valley",
          "obeys a whistle", "is lying under a kitchen table"),
    Event("schoolgirl", "schoolgirls", "girl", "drawing a {colour} fish", "blue", "at a desk",
          "is good at mathematics", "is riding a horse"),
    Event("juggler", "jugglers", "performer", "buying a {colour} hat", "green", "outside a station",
          "is new to the city", "is sleeping in a hammock"),
    Event("drummer", "drummers", "musician", "carrying a {colour} suitcase", "red", "across a square",
          "is looking for a hotel", "is taking a bath"),
    Event("postman", "postmen", "man", "leaning on a {colour} bicycle", "yellow", "under a tree",
          "has delivered every letter", "is running up a staircase"),
    Event("photographer", "photographers", "person", "closing a {colour} umbrella", "black", "on a rooftop",
          "works for a newspaper", "is swimming in the sea"),
    Event("uncle", "uncles", "man", "washing a {colour} car", "white", "in a driveway",
          "is planning a long trip", "is eating lunch in an office"),
    Event("puppy", "puppies", "dog", "tugging at a {colour} towel", "yellow", "beside a pool",
          "is afraid of water", "is sleeping in a crate"),
    Event("astronomer", "astronomers", "scientist", "opening a {colour} umbrella", "green", "outside a museum",
          "is meeting a colleague", "is sitting in a canoe"),
    Event("pianist", "pianists", "musician", "drinking from a {colour} cup", "white", "in a lobby",
          "is waiting for a taxi", "is playing on a stage"),
    Event("tailor", "tailors", "person", "sitting beside a {colour} curtain", "blue", "in a theatre",
          "learned the trade from an aunt", "is playing tennis"),
    Event("student", "students", "person", "typing beside a {colour} lamp", "black", "in a library",
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

Sentences = tuple[str, str]  # premise, hypothesis


@dataclass(frozen=True)
class Scene:
    """Pairs that are right or wrong together, as they have their words in common.

    Attributes:
        name: What it is called.
        plain: Label → an ordinary pair of that label.
        changed: Rule → pairs that need the scene's words to be made. A rule of ``suite.rules`` that neither edits
            the plain pairs nor stands here has no sense in the scene.
    """

    name: str
    plain: dict[str, Sentences] = field(default_factory=dict)
    changed: dict[str, list[Sentences]] = field(default_factory=dict)


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
