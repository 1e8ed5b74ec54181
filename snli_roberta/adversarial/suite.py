"""The adversarial suite: rules that make pairs from scenes, and what a classifier's answers to them show."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.results.finding import Finding, Listing, Measures, Part, worded
from common.stats import metrics
from common.stats.metrics import Measure
from common.tables.report import fingerprint
from snli_roberta.adversarial.scenes import Scene, Sentences
from snli_roberta.data.corpus import LABELS

TEMPLATE = Path(__file__).parent / "templates" / "suite.jinja"
Answers = Mapping[Sentences, np.ndarray]  # pair -> probabilities of LABELS
CLAUSES = ("{}, and it is a Tuesday.", "{}, while a bell rings somewhere.", "It is the third week of the month. {}.")
SHORTEST = 6  # letters of a word that gets a typo; shorter ones easily become other words, as "from" and "form" show
SHOWN = 3  # failures per rule in the finding
LOW = 0.8  # accuracy on plain pairs below which a rule's failures may be nothing but theirs
NOT_ENTAILED = ("neutral", "contradiction")


@dataclass(frozen=True)
class Rule:
    """A way to make pairs."""

    name: str
    tests: str  # one sentence
    allowed: tuple[str, ...] = ()  # right labels; empty if the answer to the unchanged pair must stay
    scored: bool = True  # False if no answer is wrong: the share of unchanged answers is reported

    @property
    def expected(self) -> str:
        """The right answer in words."""
        return " or ".join(self.allowed) if self.allowed else "the answer stays" if self.scored else "reported only"

    def passed(self, answer: str, before: str) -> bool | None:
        """Return whether an answer is right, given that to the unchanged pair; None if no answer is wrong."""
        return answer in (self.allowed or (before,)) if self.scored else None


@dataclass(frozen=True)
class Trial:
    """A pair that a rule made."""

    rule: Rule
    scene: str
    pair: Sentences
    before: Sentences | None = None  # the unchanged pair, if its answer matters


@dataclass(frozen=True)
class Outcome:
    """An answer to a trial."""

    trial: Trial
    answer: str
    probability: float  # of the answer
    expected: tuple[str, ...]  # right labels: the rule's, or the answer to the unchanged pair

    @property
    def passed(self) -> bool:
        return self.answer in self.expected


NEGATION = Rule(
    "negation", 'A sentence and the same with "not", in either order, contradict each other.', ("contradiction",)
)
DOUBLE_NEGATION = Rule(
    "double negation", '"It is not true that … not …" means the same as the plain sentence.', ("entailment",)
)
NUMBER = Rule(
    "number change",
    "More people or animals than the caption counts contradict it (SNLI takes both sentences to describe one scene).",
    ("contradiction",),
)
COLOR = Rule(
    "colour change", "An object with one color does not have another (in one scene, again).", ("contradiction",)
)
ROLES = Rule("role swap", "Doing something to somebody does not imply the reverse: same words.", NOT_ENTAILED)
DISORDER = Rule(
    "roles in disorder",
    "Words out of order do not say who did it; if anything, these say the opposite of the hypothesis.",
    NOT_ENTAILED,
)
HYPERNYM = Rule("hypernym", "A member of a special kind is a member of the general kind.", ("entailment",))
HYPONYM = Rule("hyponym", "A member of the general kind may be of this special kind or of another.", ("neutral",))
IDENTICAL = Rule("premise = hypothesis", "Every sentence entails itself.", ("entailment",))
EMPTY = Rule("empty premise", "Nothing follows from no premise, and nothing contradicts it.", ("neutral",))
CLAUSE = Rule("irrelevant clause", "A remark in the premise that is unrelated to the hypothesis changes nothing.")
TYPO_IN_PREMISE = Rule("typo in the premise", "Two swapped letters in a longer word change nothing.")
TYPO_IN_HYPOTHESIS = Rule("typo in the hypothesis", "The same in the hypothesis.")
SHUFFLED = Rule(
    "shuffled premise",
    "Shuffled words are not a sentence, so no answer is wrong; if nearly all answers stay, the model reads a bag of words.",
    scored=False,
)
RULES = (
    *(NEGATION, DOUBLE_NEGATION, NUMBER, COLOR, ROLES, DISORDER, HYPERNYM, HYPONYM),
    *(IDENTICAL, EMPTY, CLAUSE, TYPO_IN_PREMISE, TYPO_IN_HYPOTHESIS, SHUFFLED),
)
# Rules that apply to any sentence: pair, its place among the scene's, random numbers -> the changed pair.
EDITS: dict[Rule, Callable[[Sentences, int, random.Random], Sentences]] = {
    IDENTICAL: lambda pair, number, rng: (pair[1], pair[1]),
    EMPTY: lambda pair, number, rng: ("", pair[1]),
    CLAUSE: lambda pair, number, rng: (with_clause(pair[0], number), pair[1]),
    TYPO_IN_PREMISE: lambda pair, number, rng: (typo(pair[0], rng), pair[1]),
    TYPO_IN_HYPOTHESIS: lambda pair, number, rng: (pair[0], typo(pair[1], rng)),
    SHUFFLED: lambda pair, number, rng: (shuffled(pair[0], rng), pair[1]),
}


def typo(sentence: str, rng: random.Random) -> str:
    """Swap two neighboring inner letters of a longer word; a sentence without one stays the same."""
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
    """Add one of :data:`CLAUSES` to a sentence."""
    return CLAUSES[number % len(CLAUSES)].format(_without_period(sentence))


def shuffled(sentence: str, rng: random.Random) -> str:
    """Shuffle the words of a sentence; one without different words stays the same."""
    words = re.sub(r"^(An?|The)\b", lambda match: match[0].lower(), _without_period(sentence)).split()
    if len(set(words)) < 2:
        return sentence
    mixed = list(words)
    while mixed == words:
        rng.shuffle(mixed)
    return " ".join(mixed) + "."


def _without_period(sentence: str) -> str:
    return sentence.strip().rstrip(".").rstrip()


def edited(rule: Rule, pair: Sentences, number: int = 0, seed: int = 0) -> Sentences:
    """Change a pair by one of :data:`EDITS`; the result may equal the pair.

    ``number`` selects one of several ways, if the rule has them; randomness depends on seed, rule and pair only.
    """
    return EDITS[rule](pair, number, random.Random(f"{seed} {rule.name} {pair}"))


def trials(scenes: Sequence[Scene], seed: int) -> list[Trial]:
    """Make the pairs of all rules, rule by rule, each distinct pair of a scene once."""
    known = {rule.name for rule in RULES if rule not in EDITS}
    if strange := {name for scene in scenes for name in scene.changed} - known:
        raise ValueError(f"unknown rules: {', '.join(sorted(strange))}")
    made: dict[Trial, None] = {}
    for rule in RULES:
        for place, scene in enumerate(scenes):
            if rule not in EDITS:
                made |= {Trial(rule, scene.name, pair): None for pair in scene.changed.get(rule.name, [])}
                continue
            for number, label in enumerate(name for name in LABELS if name in scene.plain):
                pair = scene.plain[label]
                changed = edited(rule, pair, place + number, seed)  # so that each way meets each label
                if changed != pair:
                    made[Trial(rule, scene.name, changed, before=None if rule.allowed else pair)] = None
            if rule is IDENTICAL and scene.plain:
                premise = next(iter(scene.plain.values()))[0]
                made[Trial(rule, scene.name, (premise, premise))] = None
    return list(made)


def left_out(scenes: Sequence[Scene]) -> list[Rule]:
    """Return the rules that apply to none of the scenes."""
    return [rule for rule in RULES if rule not in EDITS and not any(rule.name in scene.changed for scene in scenes)]


def outcomes(trials: Sequence[Trial], answers: Answers) -> list[Outcome]:
    made = []
    for trial in trials:
        expected = trial.rule.allowed or (answer_of(answers, trial.before),)
        made.append(Outcome(trial, answer_of(answers, trial.pair), float(answers[trial.pair].max()), expected))
    return made


def answer_of(answers: Answers, pair: Sentences | None) -> str:
    """Return the most likely label of a pair."""
    assert pair is not None, "a rule without labels knows the unchanged pair"
    return LABELS[int(answers[pair].argmax())]


def by_scene(scored: Iterable[tuple[str, bool]], seed: int) -> Measure | None:
    """Measure the share that passes over scenes (n), given the scene of each pair; None without pairs."""
    passes: dict[str, list[bool]] = {}
    for scene, passed in scored:
        passes.setdefault(scene, []).append(passed)
    return metrics.share([sum(values) / len(values) for values in passes.values()], seed) if passes else None


def table(outcomes: Sequence[Outcome], answers: Answers) -> list[dict[str, Any]]:
    """Return a row per pair, the most confident failures first; "passed" is empty if no answer is wrong."""
    ranked = sorted(outcomes, key=lambda o: (o.passed or not o.trial.rule.scored, -o.probability))
    return [
        {
            "rule": outcome.trial.rule.name,
            "scene": outcome.trial.scene,
            "passed": ("yes" if outcome.passed else "no") if outcome.trial.rule.scored else "",
            "premise": outcome.trial.pair[0],
            "hypothesis": outcome.trial.pair[1],
            "expected": " or ".join(outcome.expected) if outcome.trial.rule.scored else "",
            "answer": outcome.answer,
        }
        | {f"probability_{n}": round(float(p), 6) for n, p in zip(LABELS, answers[outcome.trial.pair], strict=True)}
        for outcome in ranked
    ]


def suite_finding(
    scenes: Sequence[Scene], trials: Sequence[Trial], answers: Answers, *, seed: int, data: str, **about: Any
) -> Finding:
    """Measure a classifier rule by rule, next to its accuracy on the plain pairs of the scenes.

    The bootstrap draws scenes, as pairs of one scene are right or wrong together. ``data`` names the scenes.
    """
    made = outcomes(trials, answers)
    by_rule = {rule: [outcome for outcome in made if outcome.trial.rule is rule] for rule in RULES}
    passing = _measured({rule.name: _passed(by_rule[rule], seed) for rule in RULES if rule.scored})
    plain = {name: _plain_accuracy(scenes, answers, (name,), seed) for name in LABELS}
    overall = _plain_accuracy(scenes, answers, LABELS, seed)
    label_of = {pair: label for scene in scenes for label, pair in scene.plain.items()}
    stays = {
        name: _passed([outcome for outcome in by_rule[SHUFFLED] if label_of[outcome.trial.before] == name], seed)
        for name in LABELS
    }
    words = worded(
        TEMPLATE,
        pairs=sum(outcome.trial.rule.scored for outcome in made),
        scenes=len(scenes),
        passing=passing,
        overall=overall,
        low=LOW,
        shuffled=_passed(by_rule[SHUFFLED], seed),
        left_out=[rule.name for rule in left_out(scenes)],
        miniature=about["miniature"],
    )
    reference = {"reference": overall["value"], "reference_name": "accuracy on plain pairs"} if overall else {}
    parts: list[Part] = [
        Measures("Adversarial pairs that pass, by rule", "rule", "share that passes, by scene", passing, **reference),
        Measures("Plain pairs: accuracy by label", "label", "accuracy", _measured(plain)),
        Measures(
            "Answers that stay when the premise's words are in disorder", "label", "share that stays", _measured(stays)
        ),
        Listing("What each rule tests", ["rule", "it tests"], [[r.name, r.tests] for r in RULES if by_rule[r]]),
        _answers_by_rule(by_rule),
    ]
    if failures := _failures(by_rule):
        columns = ["rule", "premise", "hypothesis", "expected", "answer", "probability"]
        failed = sum(outcome.trial.rule.scored and not outcome.passed for outcome in made)
        title = f"Failed pairs: up to {SHOWN} a rule of {failed:,}, the surest of each first"
        parts.append(Listing(title, columns, failures))
    digest = fingerprint([trial.rule.name, trial.scene, trial.pair, trial.before] for trial in trials)
    return Finding(
        name="adversarial",
        **words,
        parts=parts,
        data={"name": data, "split": "made by rule", "fingerprint": digest},
        **about,
    )


def _passed(outcomes: Sequence[Outcome], seed: int) -> Measure | None:
    return by_scene(((outcome.trial.scene, outcome.passed) for outcome in outcomes), seed)


def _plain_accuracy(scenes: Sequence[Scene], answers: Answers, labels: Sequence[str], seed: int) -> Measure | None:
    scored = [
        (scene.name, answer_of(answers, scene.plain[label]) == label)
        for scene in scenes
        for label in labels
        if label in scene.plain
    ]
    return by_scene(scored, seed)


def _answers_by_rule(by_rule: Mapping[Rule, Sequence[Outcome]]) -> Listing:
    rows = []
    for rule, made in by_rule.items():
        given = Counter(outcome.answer for outcome in made)
        if made:
            rows.append([rule.name, rule.expected, len(made), *(given[name] for name in LABELS)])
    return Listing("Answers by rule", ["rule", "expected", "pairs", *LABELS], rows)


def _failures(by_rule: Mapping[Rule, Sequence[Outcome]]) -> list[list[Any]]:
    """Return the most confident failure of each rule, most confident first, then the second of each, and so on."""
    ranked = []
    for rule, made in by_rule.items():
        wrong = sorted((o for o in made if rule.scored and not o.passed), key=lambda o: -o.probability)
        ranked += [(rank, -outcome.probability, outcome) for rank, outcome in enumerate(wrong[:SHOWN])]
    ranked.sort(key=lambda entry: entry[:2])
    rows = []
    for _, _, outcome in ranked:
        premise, hypothesis = outcome.trial.pair
        expected, probability = " or ".join(outcome.expected), round(outcome.probability, 4)
        rows.append([outcome.trial.rule.name, premise or None, hypothesis, expected, outcome.answer, probability])
    return rows


def _measured(measures: Mapping[str, Measure | None]) -> dict[str, Measure]:
    return {name: measure for name, measure in measures.items() if measure is not None}
