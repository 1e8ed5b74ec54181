"""What a classifier's answers to the suite's pairs say: shares that pass, scene by scene, and what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.results.finding import Finding, Listing, Measures, Part, interval
from common.stats import metrics
from common.stats.metrics import Measure
from common.tables.report import fingerprint
from snli_roberta.adversarial.suite.everyday import Scene, Sentences
from snli_roberta.adversarial.suite.rules import RULES, SHUFFLED, Rule, Trial, left_out
from snli_roberta.data.corpus import LABELS

Said = Mapping[Sentences, np.ndarray]  # pair → probabilities of LABELS
SHOWN = 3  # failures a rule that the finding lists
LOW = 0.8  # accuracy on plain pairs under which a rule's failures may be no more than theirs
LIMITS = (
    "How often such pairs occur, or how a model does on sentences that nobody made for a test: to fail a rule shows a weakness, to "
    "pass it says little. The sentences are few and alike. A rule that asks for one label is passed by a model that always gives "
    'it, and one that asks that the answer stays by any model with one answer for everything: see "Answers by rule". That another '
    "number or colour contradicts holds because both sentences are taken to be of one scene, as SNLI has it."
)


@dataclass(frozen=True)
class Outcome:
    """An answer to a pair.

    Attributes:
        trial: The pair and its rule.
        answer: The likeliest label.
        probability: Its probability.
        expected: The labels that are right: the rule's, or the answer to the unchanged pair.
    """

    trial: Trial
    answer: str
    probability: float
    expected: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return self.answer in self.expected


def outcomes(trials: Sequence[Trial], said: Said) -> list[Outcome]:
    """The answers to some trials, in their order."""
    found = []
    for trial in trials:
        expected = trial.rule.allowed or (answer_of(said, trial.before),)
        found.append(Outcome(trial, answer_of(said, trial.pair), float(said[trial.pair].max()), expected))
    return found


def answer_of(said: Said, pair: Sentences | None) -> str:
    """The likeliest label of a pair."""
    assert pair is not None, "a rule without labels knows the unchanged pair"
    return LABELS[int(said[pair].argmax())]


def by_scene(scored: Iterable[tuple[str, bool]], seed: int) -> Measure | None:
    """The share of passes, a scene at a time: pairs of one scene are right or wrong together.

    Args:
        scored: Scene and whether its pair passed, of all pairs.
        seed: Seed of the bootstrap, which draws scenes.

    Returns:
        The measure, n the number of scenes; None without a pair.
    """
    passes: dict[str, list[bool]] = {}
    for scene, passed in scored:
        passes.setdefault(scene, []).append(passed)
    return metrics.share([sum(one) / len(one) for one in passes.values()], seed) if passes else None


def rows(found: Sequence[Outcome], said: Said) -> list[dict[str, Any]]:
    """A row a pair, for a file: whether it passed (nothing where no answer is wrong), the sentences, the probabilities."""
    return [
        {
            "rule": one.trial.rule.name,
            "scene": one.trial.scene,
            "passed": ("yes" if one.passed else "no") if one.trial.rule.scored else "",
            "premise": one.trial.pair[0],
            "hypothesis": one.trial.pair[1],
            "expected": " or ".join(one.expected) if one.trial.rule.scored else "",
            "answer": one.answer,
        }
        | {f"probability_{name}": round(float(p), 6) for name, p in zip(LABELS, said[one.trial.pair], strict=True)}
        for one in sorted(found, key=lambda one: (one.passed or not one.trial.rule.scored, -one.probability))
    ]


def suite_finding(
    scenes: Sequence[Scene], trials: Sequence[Trial], said: Said, *, seed: int, data: str, **about: Any
) -> Finding:
    """What a classifier's answers say, rule by rule, beside its accuracy on the plain pairs.

    Args:
        scenes: The scenes.
        trials: The pairs made of them.
        said: The answers to these pairs and to the scenes' plain ones.
        seed: Seed of the bootstrap.
        data: What the scenes are called.
        about: ``task``, ``model``, ``miniature``, ``command`` of the finding.
    """
    found = outcomes(trials, said)
    by_rule = {rule: [one for one in found if one.trial.rule is rule] for rule in RULES}
    passing = _measured(
        {
            rule.name: by_scene(((one.trial.scene, one.passed) for one in by_rule[rule]), seed)
            for rule in RULES
            if rule.scored
        }
    )
    plain = {name: _plain_accuracy(scenes, said, (name,), seed) for name in LABELS}
    overall = _plain_accuracy(scenes, said, LABELS, seed)
    missing = left_out(scenes)
    stays = _stays(scenes, by_rule[SHUFFLED], seed)
    scored = sum(one.trial.rule.scored for one in found)
    summary = [
        f"{scored:,} pairs made by {len(passing)} rules of {len(scenes)} scenes. Those of one scene are right or wrong together, "
        "so n counts scenes and intervals are over scenes."
    ]
    if overall:
        summary.append(f"On the scenes' plain pairs its accuracy is {interval(overall)}.")
        if overall["value"] < LOW:
            summary.append(
                f"That is below {LOW:.0%}: a model that fails plain pairs fails rules for that reason, whatever they test."
            )
    named = [
        f"{name} {interval(passing[name])}" for name in sorted(passing, key=lambda name: passing[name]["value"])[:3]
    ]
    summary.append(f"Lowest are {', '.join(named)}.")
    if every := by_scene(((one.trial.scene, one.passed) for one in by_rule[SHUFFLED]), seed):
        summary.append(
            f"With the premise's words in disorder {interval(every)} of its answers to plain pairs stay. Of a model that reads a "
            "bag of words all would."
        )
    if missing:
        summary.append(f"Left out, as these scenes have no words for it: {', '.join(rule.name for rule in missing)}.")
    if about["miniature"]:
        summary.append(
            '"Not", typos, remarks and premises of another form are strange to a model that knows the miniature alone.'
        )
    parts: list[Part] = [
        Measures(
            "Adversarial pairs that pass, by rule",
            "rule",
            "share that passes, by scene",
            passing,
            **({"reference": overall["value"], "reference_name": "accuracy on plain pairs"} if overall else {}),
        ),
        Measures("Plain pairs: accuracy by label", "label", "accuracy", _measured(plain)),
        Measures("Answers that stay when the premise's words are in disorder", "label", "share that stays", stays),
        Listing("What each rule tests", ["rule", "it tests"], [[r.name, r.tests] for r in RULES if by_rule[r]]),
        _answers(by_rule),
    ]
    if failures := _failures(by_rule):
        columns = ["rule", "premise", "hypothesis", "expected", "answer", "probability"]
        failed = sum(one.trial.rule.scored and not one.passed for one in found)
        title = f"Failed pairs: up to {SHOWN} a rule of {failed:,}, the surest of each first"
        parts.append(Listing(title, columns, failures))
    return Finding(
        name="adversarial",
        title="Does it pass what a reader passes? Rules of our own",
        summary=summary,
        parts=parts,
        limits=LIMITS,
        data={
            "name": data,
            "split": "made by rule",
            "fingerprint": fingerprint([one.rule.name, one.scene, one.pair, one.before] for one in trials),
        },
        **about,
    )


def _plain_accuracy(scenes: Sequence[Scene], said: Said, labels: Sequence[str], seed: int) -> Measure | None:
    return by_scene(
        (
            (scene.name, answer_of(said, scene.plain[label]) == label)
            for scene in scenes
            for label in labels
            if label in scene.plain
        ),
        seed,
    )


def _stays(scenes: Sequence[Scene], found: Sequence[Outcome], seed: int) -> dict[str, Measure]:
    """By label of the plain pair, how often an answer stays."""
    label_of = {pair: label for scene in scenes for label, pair in scene.plain.items()}
    return _measured(
        {
            name: by_scene(((one.trial.scene, one.passed) for one in found if label_of[one.trial.before] == name), seed)
            for name in LABELS
        }
    )


def _answers(by_rule: Mapping[Rule, Sequence[Outcome]]) -> Listing:
    table = []
    for rule, found in by_rule.items():
        given = Counter(one.answer for one in found)
        if found:
            table.append([rule.name, rule.expected, len(found), *(given[name] for name in LABELS)])
    return Listing("Answers by rule", ["rule", "expected", "pairs", *LABELS], table)


def _failures(by_rule: Mapping[Rule, Sequence[Outcome]]) -> list[list[Any]]:
    """The surest failure of each rule, the surest of them first, then the second of each, and so on."""
    ranked = []
    for rule, found in by_rule.items():
        wrong = sorted((one for one in found if rule.scored and not one.passed), key=lambda one: -one.probability)
        ranked += [(rank, -one.probability, one) for rank, one in enumerate(wrong[:SHOWN])]
    ranked.sort(key=lambda entry: entry[:2])
    return [
        [
            one.trial.rule.name,
            one.trial.pair[0] or None,
            one.trial.pair[1],
            " or ".join(one.expected),
            one.answer,
            round(one.probability, 4),
        ]
        for _, _, one in ranked
    ]


def _measured(measures: Mapping[str, Measure | None]) -> dict[str, Measure]:
    return {name: measure for name, measure in measures.items() if measure is not None}
