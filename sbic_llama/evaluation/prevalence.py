"""How many posts of a file are of a class: the machine's labels of all of them, put right by people's labels of a few."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.results.finding import Finding, Listing, Measures, Part
from common.stats.metrics import Measure
from common.stats.prediction_powered import Estimate, Target, labelled_only, labels_needed, share
from common.tables.report import fingerprint
from sbic_llama.data.features import Label
from sbic_llama.data.label_files import MIN_HUMAN_LABELS, Annotated

GROUPS = 5  # targeted groups that get a share of their own
WIDTHS = (0.05, 0.1)
MOST_LEFT_OUT = 50  # values of a column that are named as left out
SUSPICIOUS = 3.29  # standard errors that a random draw exceeds once in a thousand times
LIMITS = (
    "Shares are those of what these people would say; whether they are right is another question. The intervals hold only if the "
    "posts that people labelled were drawn at random from the file (not the uncertain ones, not the first ones) and if the "
    "machine did not learn from these labels. Each share is estimated by itself, so the shares of all classes need not add up to "
    "exactly 1, and of twenty intervals one is expected to miss. How many labels are needed is projected from those that there are."
)
WITH_MACHINE, PEOPLE_ALONE, MACHINE_ALONE = "people and machine", "people alone", "machine alone, as if right"


@dataclass(frozen=True)
class _Class:
    """A class, and of each post of the file whether it belongs there.

    Attributes:
        name: As a table shows it.
        sentence: What people would say, with places for a share and for the posts.
        people: 1, 0, or where nobody said anything NaN; shape (posts,).
        machine: 1 or 0, as the machine's label is.
        predictions: The machine's probability of the class, or where there is none its label.
    """

    name: str
    sentence: str
    people: np.ndarray
    machine: np.ndarray
    predictions: np.ndarray

    def share(self, places: np.ndarray, target: Target) -> Estimate:
        """Its share of some posts, from both; ``places`` is a mask."""
        known = ~np.isnan(self.people)
        labelled, rest = places & known, places & ~known
        return share(self.people[labelled], self.predictions[labelled], self.predictions[rest], target)

    def by_people(self, target: Target) -> Estimate:
        """Its share of all posts from the human labels alone."""
        return labelled_only(self.people[~np.isnan(self.people)], len(self.people), target)

    def by_machine(self) -> Estimate:
        """Its share of all posts with the machine's labels taken for the truth, and the interval that one would give it then."""
        return labelled_only(self.machine, len(self.machine), "population")

    def needed(self, width: float, target: Target) -> tuple[int | None, int | None]:
        """Human labels for an interval of that width: with the machine, and without."""
        known = ~np.isnan(self.people)
        labels, predictions, rest = self.people[known], self.predictions[known], self.predictions[~known]
        counts = (
            labels_needed(labels, predictions, rest, width, target),
            labels_needed(labels, np.zeros(len(labels)), np.zeros(len(rest)), width, target),
        )
        return tuple(None if count is None else min(max(count, MIN_HUMAN_LABELS), len(known)) for count in counts)

    def drift(self) -> float:
        """By how many standard errors the predictions of the labelled posts differ from those of the others."""
        known = ~np.isnan(self.people)
        labelled, rest = self.predictions[known], self.predictions[~known]
        error = math.sqrt(self.predictions.var() * (1 / len(labelled) + 1 / max(1, len(rest))))
        return float(labelled.mean() - rest.mean()) / error if len(rest) and error > 1e-9 else 0.0


def prevalence_finding(
    annotated: Annotated,
    said: dict[str, Label],
    *,
    source: str,
    target: Target = "file",
    widths: Sequence[float] = WIDTHS,
    task: str | None = None,
    model: str = "model",
    miniature: bool = False,
    command: str = "",
) -> Finding:
    """The shares of the classes among the posts of an annotated file, in all and by each of its ``columns``.

    Of a feature with two classes only the first has a share: the other's is what is missing to 1. Of the targeted groups those
    have one that the machine named most often, so that the choice does not depend on which posts people labelled.

    Args:
        annotated: The machine's answers.
        said: Key of a post → its human label.
        source: Name of the file.
        target: Whether the shares are those of this file or of the population that it was drawn from at random.
        widths: Widths of the intervals for which to say how many human labels they need.
        task: Heading; the feature's title by default.
        model: Whose the finding is, as its record's title.
        miniature: Whether the posts are the miniature's.
        command: The command that finds it again.

    Raises:
        ValueError: None of the posts has a human label.
    """
    declared = annotated.feature
    people = {annotated.keys[key]: label for key, label in said.items() if key in annotated.keys}
    classes = _classes(annotated, people)
    everything = np.ones(len(annotated.answers), dtype=bool)
    overall = {one.name: one.share(everything, target) for one in classes}
    posts = f"the {len(everything):,} posts"
    if target == "population":
        posts = f"the posts that these {len(everything):,} were drawn from"
    summary = [_sentence(one, overall[one.name], posts, target) for one in classes]
    parts: list[Part] = [_overall(classes, overall, target)]
    for column, values in annotated.columns.items():
        # Single groups within the values of a column: too many tables, of too few posts.
        found, sentence = _by_column(
            column, values, classes if declared.classifies else classes[:1], overall, people, target
        )
        parts += found
        summary += sentence
    needed = [[one.name, width, *one.needed(width, target)] for one in classes for width in widths]
    columns = ["share of", "width of the interval", f"human labels, {WITH_MACHINE}", f"human labels, {PEOPLE_ALONE}"]
    parts.append(Listing("Human labels needed for a 95 % interval of a given width", columns, needed))
    summary += _needed_sentence(needed[0], len(people), len(everything))
    drifts = {one.name: one.drift() for one in classes}
    if max(map(abs, drifts.values())) > SUSPICIOUS:
        name = max(drifts, key=lambda name: abs(drifts[name]))
        summary.append(
            f"The labelled posts do not look drawn at random: by the machine's answers, {name} is "
            f"{'more' if drifts[name] > 0 else 'less'} frequent among them than among the others by "
            f"{abs(drifts[name]):.1f} standard errors. If they were not, none of these intervals holds."
        )
    return Finding(
        name="prevalence",
        title="How many posts of each class there are",
        task=task or declared.title,
        model=model,
        summary=summary,
        parts=parts,
        limits=LIMITS,
        data={
            "name": source,
            "split": "posts with human labels",
            "fingerprint": fingerprint([people[place], annotated.answers[place]] for place in sorted(people)),
        },
        facts={
            "posts": len(everything),
            "posts without an answer": annotated.unanswered,
            "human labels": len(people),
            "human labels of other posts": len(said) - len(people),
            "shares of": target,
            "predictions": "labels" if annotated.probabilities is None else "probabilities",
            "weight of the machine": {name: estimate.weight for name, estimate in overall.items()},
            "standard error": {name: estimate.standard_error for name, estimate in overall.items()},
            "labelled posts differ by, in standard errors": drifts,
        },
        miniature=miniature,
        command=command,
    )


def _classes(annotated: Annotated, people: dict[int, Label]) -> list[_Class]:
    declared, answers = annotated.feature, annotated.answers
    if declared.classifies:
        chosen: list[Any] = list(range(len(declared.labels) if len(declared.labels) > 2 else 1))
        return [
            _class(
                declared.labels[index],
                f"People would call {{}} of {{}} {declared.labels[index]}",
                annotated,
                people,
                lambda label, index=index: label == index,
                None if annotated.probabilities is None else annotated.probabilities[:, index],
            )
            for index in chosen
        ]
    counts = Counter(group for groups in answers for group in groups)
    commonest = sorted(counts, key=lambda group: (-counts[group], group))[:GROUPS]
    sentence = "People would say that {{}} of {{}} target {}"
    return [
        _class("any group", sentence.format("a group of people"), annotated, people, bool),
        *(
            _class(
                group,
                sentence.format(group.replace("{", "(").replace("}", ")")),
                annotated,
                people,
                lambda label, group=group: group in label,
            )
            for group in commonest
        ),
    ]


def _class(name, sentence, annotated, people, belongs, probabilities=None) -> _Class:
    said = np.full(len(annotated.answers), np.nan)
    for place, label in people.items():
        said[place] = belongs(label)
    machine = np.array([float(belongs(answer)) for answer in annotated.answers])
    return _Class(name, sentence, said, machine, machine if probabilities is None else probabilities)


def _overall(classes: Sequence[_Class], overall: dict[str, Estimate], target: Target) -> Measures:
    rows: dict[str, Measure] = {}
    for one in classes:
        rows[f"{one.name}: {WITH_MACHINE}"] = overall[one.name].measure()
        rows[f"{one.name}: {PEOPLE_ALONE}"] = one.by_people(target).measure()
        rows[f"{one.name}: {MACHINE_ALONE}"] = one.by_machine().measure()
    return Measures("Share of posts, by what it is estimated from", "class and labels", "share", rows)


def _by_column(
    column: str,
    values: Sequence[tuple[str, ...]],
    classes: Sequence[_Class],
    overall: dict[str, Estimate],
    people: dict[int, Label],
    target: Target,
) -> tuple[list[Part], list[str]]:
    """Each class's share by the value of a column; values with too few human labels are listed instead, the largest first."""
    sizes = Counter(value for several in values for value in several)
    labelled = Counter(value for place in people for value in values[place])
    ordered = sorted(sizes, key=lambda value: (-sizes[value], value))
    enough = [value for value in ordered if labelled[value] >= MIN_HUMAN_LABELS]
    few = [value for value in ordered if labelled[value] < MIN_HUMAN_LABELS]
    places = {value: np.array([value in several for several in values]) for value in enough}
    parts: list[Part] = [
        Measures(
            f"Share of {one.name} by {column}",
            column,
            f"share of {one.name}",
            {value: one.share(places[value], target).measure() for value in enough},
            overall[one.name].value,
            "all posts",
        )
        for one in classes
        if enough
    ]
    if not few:
        return parts, []
    rows = [[value, sizes[value], labelled[value]] for value in few[:MOST_LEFT_OUT]]
    if others := few[MOST_LEFT_OUT:]:
        rows.append([f"{len(others):,} more", sum(sizes[v] for v in others), sum(labelled[v] for v in others)])
    parts.append(
        Listing(f"Left out by {column}: under {MIN_HUMAN_LABELS} human labels", [column, "posts", "human labels"], rows)
    )
    first = f"{few[0]} (n = {labelled[few[0]]})"
    more = f" and {len(few) - 1:,} more" if len(few) > 1 else ""
    return parts, [
        f"By {column}, {first}{more} {'are' if more else 'is'} left out: under {MIN_HUMAN_LABELS} human labels."
    ]


def _sentence(one: _Class, estimate: Estimate, posts: str, target: Target) -> str:
    alone, counted = one.by_people(target), one.by_machine().value
    place = "inside" if estimate.holds(counted) else "outside"
    return (
        f"{one.sentence.format(_percent(estimate), posts)}; counting the machine's labels gives {100 * counted:.1f} %, {place} "
        f"that interval; the {alone.labelled:,} human labels alone give {_percent(alone)}."
    )


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _needed_sentence(row: list[Any], labelled: int, posts: int) -> list[str]:
    name, width, with_machine, alone = row
    if with_machine is None:
        return [f"No number of labels of these {posts:,} posts gives an interval {100 * width:g} points wide."]
    without = "which labels alone would not reach" if alone is None else f"without the machine about {alone:,}"
    return [
        f"A 95 % interval {100 * width:g} points wide for {name} would take about {with_machine:,} human labels, {without}; "
        f"there are {labelled:,}."
    ]
