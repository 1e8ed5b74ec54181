"""The adversarial suite: its pairs are English with the right labels, and answers of mock models are counted correctly."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from common.results.finding import Finding, Listing, Measures
from common.results.rendering import lines
from snli_roberta.adversarial import suite as rules
from snli_roberta.adversarial.scenes import (
    FACTS,
    OTHER_COLOR,
    SUBJECTS,
    Scene,
    Sentences,
    everyday_scenes,
    invented_scenes,
    lexicon,
    words_of,
)
from snli_roberta.adversarial.suite import (
    RULES,
    Trial,
    by_scene,
    edited,
    left_out,
    outcomes,
    shuffled,
    suite_finding,
    table,
    trials,
    typo,
    with_clause,
)
from snli_roberta.data.corpus import LABELS

LISTS = {"everyday": everyday_scenes, "miniature": invented_scenes}
EVENTS, ENCOUNTERS = lexicon()
NUMBERS = ("Two", "Three", "Four", "Five", "Six", "Nine")


def made(kind: str, rule: rules.Rule) -> list[Trial]:
    return [trial for trial in trials(LISTS[kind](), 0) if trial.rule is rule]


def mock_answers(
    scenes: list[Scene], tried: list[Trial], answer: Callable[[Sentences], str]
) -> dict[Sentences, np.ndarray]:
    """Return the answers of a mock model: its label has probability .8."""
    pairs = [*(pair for scene in scenes for pair in scene.plain.values()), *(trial.pair for trial in tried)]
    return {pair: np.array([0.8 if name == answer(pair) else 0.1 for name in LABELS]) for pair in pairs}


def finding(kind: str, answer: Callable[[Sentences], str]) -> Finding:
    scenes = LISTS[kind]()
    tried = trials(scenes, 0)
    about = {"task": "t", "model": "m", "miniature": kind == "miniature", "command": "c"}
    return suite_finding(scenes, tried, mock_answers(scenes, tried, answer), seed=0, data="scenes", **about)


def passing(result: Finding) -> dict[str, float]:
    (part,) = [part for part in result.parts if isinstance(part, Measures) and part.of == "rule"]
    return {name: row["value"] for name, row in part.rows.items()}


@pytest.mark.parametrize("kind", LISTS)
def test_every_rule_makes_forty_pairs_or_is_left_out(kind):
    scenes = LISTS[kind]()
    assert len({scene.name for scene in scenes}) == len(scenes) >= 40
    counts = Counter(trial.rule for trial in trials(scenes, 0))
    missing = left_out(scenes)
    expected = ["number change", "colour change", "role swap", "roles in disorder"] if kind == "miniature" else []
    assert [rule.name for rule in missing] == expected
    assert set(counts) == set(RULES) - set(missing)
    assert min(counts.values()) >= 40


@pytest.mark.parametrize("kind", LISTS)
def test_sentences_are_english(kind):
    scenes = LISTS[kind]()
    odd = {rules.DISORDER, rules.SHUFFLED, rules.TYPO_IN_PREMISE, rules.TYPO_IN_HYPOTHESIS}
    pairs = [pair for scene in scenes for pair in scene.plain.values()]
    pairs += [trial.pair for trial in trials(scenes, 0) if trial.rule not in odd]
    for sentence in {sentence for pair in pairs for sentence in pair} - {""}:
        assert re.fullmatch(r"[A-Z][a-z]*( [A-Za-z]+[,.]?)+", sentence), sentence
        assert sentence.endswith(".") and not sentence.endswith("..")
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", sentence), sentence
        words = sentence.split()
        assert len(set(words[:2])) == 2 and not re.search(r"\b(\w+) \1\b", sentence), sentence
        if words[0] in NUMBERS:
            assert " are " in sentence and " is " not in sentence
        else:
            assert " are " not in sentence


def test_changes_of_the_everyday_scenes_imply_their_labels():
    """Each rule's pairs have the form that implies their label."""
    for trial in made("everyday", rules.NUMBER):
        (before, *rest), (after, *same) = (sentence.split() for sentence in trial.pair)
        assert rest == same
        assert NUMBERS.index(after) > NUMBERS.index(before), "fewer would be entailed, in a way"
    for trial in made("everyday", rules.COLOR):
        changed = [(a, b) for a, b in zip(*(s.split()[1:] for s in trial.pair), strict=True) if a != b]
        assert len(changed) == 1 and OTHER_COLOR[changed[0][0]] == changed[0][1] != changed[0][0]
    above = {event.who: event.general for event in EVENTS}
    for rule in (rules.HYPERNYM, rules.HYPONYM):
        for trial in made("everyday", rule):
            premise, hypothesis = (re.sub("^(An?|The) ", "", sentence) for sentence in trial.pair)
            special, general = (premise, hypothesis) if rule is rules.HYPERNYM else (hypothesis, premise)
            (event,) = [name for name in above if special.startswith(f"{name} is ")]
            assert general == above[event] + special.removeprefix(event)
    assert not {event.general for event in EVENTS} & {event.who for event in EVENTS} - {"girl"}
    for trial in made("everyday", rules.ROLES):
        (one, other), swapped = (re.findall(r"\b(?:[Aa]n?|[Tt]he) (\w+)", sentence) for sentence in trial.pair)
        assert swapped == [other, one]


def test_shuffled_roles_never_keep_their_meaning():
    for encounter, (there, back) in zip(
        ENCOUNTERS, (scene.changed["roles in disorder"] for scene in everyday_scenes() if not scene.plain), strict=True
    ):
        for (premise, hypothesis), roles in (
            (there, (encounter.who, encounter.whom)),
            (back, (encounter.whom, encounter.who)),
        ):
            assert hypothesis == f"The {roles[0]} is {encounter.action} the {roles[1]}."
            text = f" {premise[:-1]} "
            places = [text.index(f" {word} ") for word in (roles[1], encounter.action, roles[0])]
            assert places == sorted(places), "whoever reads something there reads the opposite"
            assert Counter(text.split()) - Counter(["a", "an", "a"]) == Counter([*hypothesis[:-1].split()]) - Counter(
                ["The", "the"]
            )


@pytest.mark.parametrize("kind", LISTS)
def test_rules_that_apply_to_any_scene(kind):
    scenes = LISTS[kind]()
    labels = {pair: label for scene in scenes for label, pair in scene.plain.items()}
    for trial in trials(scenes, 0):
        premise, hypothesis = trial.pair
        nots = premise.split().count("not"), hypothesis.split().count("not")
        if trial.rule is rules.NEGATION:
            assert sum(nots) == 1 and "not true" not in premise + hypothesis
        elif trial.rule is rules.DOUBLE_NEGATION:
            assert sorted(nots) == [0, 2] and any(s.startswith("It is not true that the ") for s in trial.pair)
        elif trial.rule is rules.IDENTICAL:
            assert premise == hypothesis
        elif trial.rule is rules.EMPTY:
            assert premise == "" != hypothesis
    for rule in (rules.CLAUSE, rules.TYPO_IN_PREMISE, rules.TYPO_IN_HYPOTHESIS, rules.SHUFFLED):
        result = made(kind, rule)
        assert {labels[trial.before] for trial in result} == set(LABELS), "pairs of all labels"
        place = int(rule is rules.TYPO_IN_HYPOTHESIS)
        for trial in result:
            assert trial.pair[1 - place] == trial.before[1 - place]
            assert trial.pair[place] != trial.before[place]


@pytest.mark.parametrize("kind", LISTS)
def test_a_typo_makes_no_other_word(kind):
    known = {
        word for scene in LISTS[kind]() for pair in scene.plain.values() for s in pair for word in s.lower().split()
    }
    for seed in range(3):
        for trial in trials(LISTS[kind](), seed):
            if trial.rule not in (rules.TYPO_IN_PREMISE, rules.TYPO_IN_HYPOTHESIS):
                continue
            place = int(trial.rule is rules.TYPO_IN_HYPOTHESIS)
            before, after = trial.before[place].split(), trial.pair[place].split()
            ((old, new),) = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
            assert sorted(old) == sorted(new) and old[0] == new[0] and old[-1] == new[-1] and len(old) >= 6
            assert new.lower() not in known


def test_the_miniatures_scenes_are_in_its_grammar():
    facts = {word: (pair, side) for pair, both in enumerate(FACTS) for side in (0, 1) for word in both[side]}
    for scene in invented_scenes():
        premise = scene.plain["neutral"][0]
        stated = dict(facts[word] for word in words_of(premise) if word in facts)
        assert len(stated) == 3
        assert not premise.startswith("The "), "the asleep boy"
        for label, (_, hypothesis) in scene.plain.items():
            pair, side = facts[hypothesis.rstrip(".").split()[-1]]
            result = "neutral" if pair not in stated else "entailment" if stated[pair] == side else "contradiction"
            assert label == result
        for premise, hypothesis in scene.changed["hyponym"]:
            general, special = premise.split()[1], hypothesis.split()[1]
            assert general in SUBJECTS[special][1:]


def test_edits_of_any_sentence():
    rng = random.Random(0)
    assert typo("A dog ran.", rng) == "A dog ran.", "nothing long enough"
    assert typo("Aaaaaaaa b.", rng) == "Aaaaaaaa b.", "nothing to exchange"
    assert shuffled("Dogs.", rng) == "Dogs."
    assert sorted(shuffled("A dog {0} ran", rng)[:-1].split()) == ["a", "dog", "ran", "{0}"]
    assert with_clause("A {dog} ran. ", 0) == "A {dog} ran, and it is a Tuesday."
    pair = ("A young pianist walks.", "Somebody walks.")
    assert edited(rules.TYPO_IN_PREMISE, pair, seed=3) == edited(rules.TYPO_IN_PREMISE, pair, seed=3)
    assert len({edited(rules.TYPO_IN_PREMISE, pair, seed=seed) for seed in range(20)}) > 3


def test_an_unknown_rule_is_an_error():
    with pytest.raises(ValueError, match="unknown rules: typo in the title"):
        trials([Scene("s", changed={"typo in the title": [("A.", "B.")]})], 0)


def test_a_model_of_one_answer_passes_what_asks_for_it():
    result = finding("everyday", lambda pair: "contradiction")
    stays = ["irrelevant clause", "typo in the premise", "typo in the hypothesis"]
    assert [name for name, share in passing(result).items() if share == 1] == [
        "negation", "number change", "colour change", "role swap", "roles in disorder", *stays,
    ]  # fmt: skip
    assert set(passing(result).values()) == {0, 1}
    assert result.summary[0].startswith('The weakest of 13 adversarial rules is "double negation": 0.0000 [')
    assert "against an accuracy of 0.3333 [" in result.summary[0]
    assert "a model that fails plain pairs fails rules for that reason" in result.summary[2]
    (failed,) = [part for part in result.parts if isinstance(part, Listing) and part.title.startswith("Failed")]
    wrong = ("double negation", "hypernym", "hyponym", "premise = hypothesis", "empty premise")
    assert Counter(row[0] for row in failed.rows) == dict.fromkeys(wrong, 3)
    assert [row[1] for row in failed.rows if row[0] == "empty premise"] == [None] * 3
    assert "(the first" not in "\n".join(lines(result)), "all of them can be seen"


def test_a_bag_of_words_ignores_word_order():
    def bag(pair: Sentences) -> str:
        words = {word.lower() for word in pair[1][:-1].split()} - {word.lower() for word in pair[0][:-1].split()}
        return "contradiction" if "not" in words else "neutral" if words - {"the"} else "entailment"

    result = finding("everyday", bag)
    stays = next(part for part in result.parts if isinstance(part, Measures) and part.metric == "share that stays")
    assert {name: row["value"] for name, row in stays.rows.items()} == dict.fromkeys(LABELS, 1.0)
    rate = passing(result)
    assert rate["role swap"] == rate["roles in disorder"] == 0
    assert rate["hyponym"] == rate["premise = hypothesis"] == rate["irrelevant clause"] == rate["empty premise"] == 1
    assert 0 < rate["negation"] == 0.5, 'it sees a "not" in the hypothesis alone'


def test_a_model_that_knows_the_answers_is_not_excused():
    scenes = everyday_scenes()
    known = {pair: label for scene in scenes for label, pair in scene.plain.items()}
    for trial in trials(scenes, 0):
        known[trial.pair] = trial.rule.allowed[0] if trial.rule.allowed else known[trial.before]
    result = finding("everyday", known.__getitem__)
    assert set(passing(result).values()) == {1.0}
    assert not any("fails rules for that reason" in sentence for sentence in result.summary)
    assert not any(part.title.startswith("Failed") for part in result.parts)


def test_the_miniatures_finding_names_rules_left_out():
    result = finding("miniature", lambda pair: "neutral")
    assert any(
        "Left out" in one and "number change, colour change, role swap, roles in disorder" in one
        for one in result.summary
    )
    assert "number change" not in passing(result)


def test_pairs_of_one_scene_count_as_one():
    measure = by_scene([("a", True), ("a", False), ("b", True), ("c", True), ("c", True), ("c", False)], 0)
    assert (measure["value"], measure["n"]) == (pytest.approx((1 / 2 + 1 + 2 / 3) / 3), 3)
    assert by_scene([], 0) is None


def test_the_file_has_the_surest_failures_first():
    scenes = everyday_scenes()
    tried = trials(scenes, 0)
    answers = mock_answers(scenes, tried, lambda pair: "entailment")
    surest = next(trial for trial in tried if trial.rule is rules.HYPONYM)
    answers[surest.pair] = np.array([0.9, 0.05, 0.05])
    rows = table(outcomes(tried, answers), answers)
    assert (rows[0]["premise"], rows[0]["hypothesis"]) == surest.pair
    assert rows[0] | {"passed": "no", "expected": "neutral", "answer": "entailment"} == rows[0]
    passed = [row["passed"] for row in rows]
    assert passed.index("yes") == passed.count("no") and "no" not in passed[passed.index("yes") :]
    assert {row["rule"] for row in rows if row["passed"] == ""} == {"shuffled premise"}
    assert len(rows) == len(tried)
