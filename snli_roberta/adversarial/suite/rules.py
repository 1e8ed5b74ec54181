"""Changes to any sentence that need to know nothing of it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from snli_roberta.adversarial.suite.everyday import Scene, Sentences
from snli_roberta.data.corpus import LABELS

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


NOT_ENTAILED = ("neutral", "contradiction")


@dataclass(frozen=True)
class Rule:
    """One way to make pairs.

    Attributes:
        name: What it is called.
        tests: What it tests, in a sentence.
        allowed: The labels that are right; empty where the answer to the unchanged pair is to stay.
        scored: False where neither answer is wrong: what is reported is how often it stays.
    """

    name: str
    tests: str
    allowed: tuple[str, ...] = ()
    scored: bool = True

    @property
    def expected(self) -> str:
        """What is right, in words."""
        return " or ".join(self.allowed) if self.allowed else "the answer stays" if self.scored else "reported only"

    def passed(self, answer: str, before: str) -> bool | None:
        """Whether an answer is right where the unchanged pair's was ``before``; None where neither is wrong."""
        return answer in (self.allowed or (before,)) if self.scored else None


@dataclass(frozen=True)
class Trial:
    """A pair to ask about.

    Attributes:
        rule: The rule that made it.
        scene: Name of the scene that it was made of.
        pair: Premise and hypothesis.
        before: The unchanged pair, where the answer to it matters.
    """

    rule: Rule
    scene: str
    pair: Sentences
    before: Sentences | None = None


NEGATION = Rule(
    "negation", 'A sentence and the same with "not", in either order, exclude each other.', ("contradiction",)
)
DOUBLE_NEGATION = Rule(
    "double negation", '"It is not true that … not …" says what the plain sentence says.', ("entailment",)
)
NUMBER = Rule(
    "number change",
    "More people or animals than the caption counts are not what it shows (SNLI takes both sentences to be of one scene).",
    ("contradiction",),
)
COLOUR = Rule("colour change", "What has one colour does not have another (of one scene, again).", ("contradiction",))
ROLES = Rule(
    "role swap", "Who does something to somebody does not thereby have it done to them: same words.", NOT_ENTAILED
)
DISORDER = Rule(
    "roles in disorder",
    "Words out of order do not say who did it; if anything, these say the opposite of the hypothesis.",
    NOT_ENTAILED,
)
HYPERNYM = Rule("hypernym", "Who is a special kind is of the general kind.", ("entailment",))
HYPONYM = Rule("hyponym", "Who is of the general kind may be of this special kind or of another.", ("neutral",))
IDENTICAL = Rule("premise = hypothesis", "Every sentence entails itself.", ("entailment",))
EMPTY = Rule(
    "empty premise", "Of nothing nothing follows, and nothing contradicts it: the hypothesis may be true.", ("neutral",)
)
CLAUSE = Rule(
    "irrelevant clause", "A remark in the premise that has nothing to do with the hypothesis changes nothing."
)
TYPO_IN_PREMISE = Rule("typo in the premise", "Two letters that changed places in a longer word change nothing.")
TYPO_IN_HYPOTHESIS = Rule("typo in the hypothesis", "The same in the hypothesis.")
SHUFFLED = Rule(
    "shuffled premise",
    "A premise in disorder is no sentence, so no answer is wrong; a model whose answers nearly all stay reads a bag of words.",
    scored=False,
)
RULES = (
    NEGATION,
    DOUBLE_NEGATION,
    NUMBER,
    COLOUR,
    ROLES,
    DISORDER,
    HYPERNYM,
    HYPONYM,
    IDENTICAL,
    EMPTY,
    CLAUSE,
    TYPO_IN_PREMISE,
    TYPO_IN_HYPOTHESIS,
    SHUFFLED,
)

# Rules that need no words of a scene: pair, its place among the scene's, chance → the pair as they change it.
EDITS: dict[Rule, Callable[[Sentences, int, random.Random], Sentences]] = {
    IDENTICAL: lambda pair, number, rng: (pair[1], pair[1]),
    EMPTY: lambda pair, number, rng: ("", pair[1]),
    CLAUSE: lambda pair, number, rng: (with_clause(pair[0], number), pair[1]),
    TYPO_IN_PREMISE: lambda pair, number, rng: (typo(pair[0], rng), pair[1]),
    TYPO_IN_HYPOTHESIS: lambda pair, number, rng: (pair[0], typo(pair[1], rng)),
    SHUFFLED: lambda pair, number, rng: (shuffled(pair[0], rng), pair[1]),
}


def edited(rule: Rule, pair: Sentences, number: int = 0, seed: int = 0) -> Sentences:
    """A pair as one of :data:`EDITS` changes it; it may come back as it was.

    Args:
        rule: The rule.
        pair: Premise and hypothesis.
        number: Which of several ways, where the rule has them.
        seed: With the rule's name and the pair, all that chance depends on.
    """
    return EDITS[rule](pair, number, random.Random(f"{seed} {rule.name} {pair}"))


def trials(scenes: Sequence[Scene], seed: int) -> list[Trial]:
    """The pairs of all rules, rule by rule, each distinct pair of a scene once.

    Raises:
        ValueError: A scene has pairs of a rule that there is not.
    """
    known = {rule.name for rule in RULES if rule not in EDITS}
    if strange := {name for scene in scenes for name in scene.changed} - known:
        raise ValueError(f"no such rules: {', '.join(sorted(strange))}")
    found: dict[Trial, None] = {}
    for rule in RULES:
        for place, scene in enumerate(scenes):
            if rule not in EDITS:
                found |= {Trial(rule, scene.name, pair): None for pair in scene.changed.get(rule.name, [])}
                continue
            for number, label in enumerate(name for name in LABELS if name in scene.plain):
                pair = scene.plain[label]
                changed = edited(rule, pair, place + number, seed)  # each of several ways meets each label
                if changed != pair:
                    found[Trial(rule, scene.name, changed, before=None if rule.allowed else pair)] = None
            if rule is IDENTICAL and scene.plain:
                premise = next(iter(scene.plain.values()))[0]
                found[Trial(rule, scene.name, (premise, premise))] = None
    return list(found)


def left_out(scenes: Sequence[Scene]) -> list[Rule]:
    """The rules that have no sense in any of the scenes."""
    return [rule for rule in RULES if rule not in EDITS and not any(rule.name in scene.changed for scene in scenes)]
