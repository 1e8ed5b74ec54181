"""Estimate how many posts of a file are in each class: the machine's labels of all, corrected by people's labels of a few."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from common.results.finding import Finding, Listing, Measures, Part, worded
from common.stats import stratified
from common.stats.design import Design, Draw
from common.stats.metrics import Measure
from common.stats.prediction_powered import Estimate, Target, labelled_only, labels_needed, share
from common.tables.report import fingerprint
from sbic_llama.data.features import Label
from sbic_llama.data.label_files import MIN_HUMAN_LABELS, Annotated
from sbic_llama.evaluation.both_labels import design_in, indicators

TEMPLATE = Path(__file__).parent / "templates" / "prevalence.jinja"
GROUPS = 5  # targeted groups that get a share of their own
WIDTHS = (0.05, 0.1)
MOST_LISTED = 50  # values of a column that are listed as left out
SUSPICIOUS = 3.29  # standard errors that a random draw exceeds once in a thousand times
SOURCES = {"both": "people and machine", "people": "people alone", "machine": "machine alone, as if right"}
NEEDED_COLUMNS = ["share of", "width of the interval", *(f"human labels, {SOURCES[key]}" for key in ("both", "people"))]


@dataclass(frozen=True)
class PostClass:
    """A class, and whether each post of the file belongs to it."""

    name: str
    people: np.ndarray  # shape (posts,): 1, 0, or NaN for a post without a human label
    machine: np.ndarray  # shape (posts,): 1 or 0, the machine's label
    predictions: np.ndarray  # shape (posts,): the machine's probability of the class or, without one, its label
    design: Design | None = None  # how posts with a human label were drawn, in their order; None for a simple draw

    def share(self, places: np.ndarray, target: Target) -> Estimate:
        """Estimate its share of the posts in a mask from both kinds of labels."""
        known = ~np.isnan(self.people)
        if self.design is not None:
            return self._weighted(self.predictions, target, places)
        labeled, rest = places & known, places & ~known
        return share(self.people[labeled], self.predictions[labeled], self.predictions[rest], target)

    def _weighted(self, predictions: np.ndarray, target: Target, places: np.ndarray | None = None) -> Estimate:
        known = ~np.isnan(self.people)
        whole = np.ones(len(known), dtype=bool) if places is None else places
        mean, count = float(predictions[whole].mean()), int(whole.sum())
        labels, design = self.people[known], cast(Design, self.design)
        return stratified.share(labels, predictions[known], design, mean, count, target, whole[known])

    def by_people(self, target: Target) -> Estimate:
        if self.design is not None:
            return self._weighted(np.zeros(len(self.people)), target)
        return labelled_only(self.people[~np.isnan(self.people)], len(self.people), target)

    def by_machine(self) -> Estimate:
        """Take the machine's labels for the truth, with the interval that they would have then."""
        return labelled_only(self.machine, len(self.machine), "population")

    def needed(self, width: float, target: Target) -> list[int | None]:
        """Return the human labels that an interval of that width takes, with the machine and without."""
        known = ~np.isnan(self.people)
        labels, predictions, rest = self.people[known], self.predictions[known], self.predictions[~known]
        if self.design is not None:  # as many of each stratum's share
            now = (self._weighted(self.predictions, target), self.by_people(target))
            return [_labels_needed(each, width, target) for each in now]
        counts = (
            labels_needed(labels, predictions, rest, width, target),
            labels_needed(labels, np.zeros(len(labels)), np.zeros(len(rest)), width, target),
        )
        return [None if count is None else min(max(count, MIN_HUMAN_LABELS), len(known)) for count in counts]

    def drift(self) -> float:
        """Return by how many standard errors the predictions of the labeled posts differ from those of the others."""
        known = ~np.isnan(self.people)
        if self.design is not None:
            nothing = np.zeros(int(known.sum()))
            seen = stratified.share(self.predictions[known], nothing, self.design, 0.0, len(known))
            difference = seen.value - float(self.predictions.mean())
            # Strata that are the machine's answers leave no error.
            return difference / seen.standard_error if seen.standard_error > 1e-9 else 0.0
        labeled, rest = self.predictions[known], self.predictions[~known]
        error = math.sqrt(self.predictions.var() * (1 / len(labeled) + 1 / max(1, len(rest))))
        return float(labeled.mean() - rest.mean()) / error if len(rest) and error > 1e-9 else 0.0


def _labels_needed(now: Estimate, width: float, target: Target) -> int | None:
    """Project how many labels an interval of a share takes from the width that it has now.

    The variance falls with 1/labels, and for a share of the file with 1/labels − 1/items: it is known once all have a label.
    """
    times, items = ((now.high - now.low) / width) ** 2, now.items
    if target == "file":
        wanted = math.ceil(items * times / (items / now.labelled - 1 + times)) if times else 0
    else:
        wanted = math.ceil(now.labelled * times)
    return min(items, max(wanted, MIN_HUMAN_LABELS)) if wanted <= items else None


def prevalence_finding(
    annotated: Annotated,
    labels: dict[str, Label],  # key of a post → its human label
    *,
    source: str,
    target: Target = "file",  # whether the shares are of the file or of the population that it was drawn from
    widths: Sequence[float] = WIDTHS,
    drawn: Draw | None = None,  # see `read_draw`; none for a simple draw
    notes: Sequence[str] = (),  # paragraphs about the human labels
    **about: Any,
) -> Finding:
    """Estimate the share of each class among the posts of an annotated file, overall and by each of its ``columns``.

    For a feature with two classes only the first gets a share; the other is what is missing to 1. Among targeted groups, those that
    the machine named most often get one, so that the choice does not depend on which posts people labeled.
    """
    people = {annotated.keys[key]: label for key, label in labels.items() if key in annotated.keys}
    design = design_in(annotated, people, drawn) if drawn else None
    classes = _classes(annotated, people, design)
    overall = {each.name: each.share(np.ones(len(annotated.answers), dtype=bool), target) for each in classes}
    estimates = [_estimates(each, overall[each.name], target) for each in classes]
    rows: dict[str, Measure] = {f"{row['name']}: {SOURCES[key]}": row[key] for row in estimates for key in SOURCES}
    parts: list[Part] = [Measures("Share of posts, by what it is estimated from", "class and labels", "share", rows)]
    left_out: dict[str, Any] = {}
    for column, values in annotated.columns.items():
        # A table for each group and column would be too many tables, of too few posts.
        kinds = classes if annotated.feature.branches else classes[:1]
        shares, left_out[column] = _by_column(column, values, kinds, overall, people, target)
        parts += shares
    needed = [[each.name, width, *each.needed(width, target)] for each in classes for width in widths]
    parts.append(Listing("Human labels needed for a 95% interval of a given width", NEEDED_COLUMNS, needed))
    drifts = {each.name: each.drift() for each in classes}
    counts = {"posts": len(annotated.answers), "labels": len(people), "elsewhere": len(labels) - len(people)}
    words = worded(
        TEMPLATE,
        target=target,
        **counts,
        notes=notes,
        feature=annotated.feature,
        estimates=estimates,
        left_out={column: rows for column, rows in left_out.items() if rows},
        fewest=MIN_HUMAN_LABELS,
        design=design,
        needed=needed[0],
        suspicious=_furthest(drifts),
        drifts=drifts,
        place=None if design else _odd(_drift_of_places(people, len(annotated.answers))),
    )
    facts = {
        "posts": counts["posts"],
        "human labels": counts["labels"],
        "human labels of other posts": counts["elsewhere"],
        "shares of": target,
        **_facts(annotated, overall, design),
        "labelled posts differ by, in standard errors": drifts,
    }
    pairs = ([people[place], annotated.answers[place]] for place in sorted(people))
    data = {"name": source, "split": "posts with human labels", "fingerprint": fingerprint(pairs)}
    given = {"task": annotated.feature.title, "model": "model", **about}
    return Finding(name="prevalence", **words, parts=parts, data=data, facts=facts, **given)


def _furthest(drifts: Mapping[str, float]) -> str | None:
    """Return the class by which the labeled posts differ most from a random draw, if they do."""
    name = max(drifts, key=lambda name: abs(drifts[name]))
    return name if _odd(drifts[name]) else None


def _odd(drift: float) -> float | None:
    """Return a drift that a random draw hardly has."""
    return drift if abs(drift) > SUSPICIOUS else None


def _drift_of_places(people: Collection[int], rows: int) -> float:
    """Return by how many standard errors the labeled rows' mean place in the file differs from that of a random draw."""
    error = math.sqrt((rows + 1) * (rows - len(people)) / (12 * len(people)))
    return (sum(people) / len(people) - (rows - 1) / 2) / error if error else 0.0


def _facts(annotated: Annotated, overall: Mapping[str, Estimate], design: Design | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "posts without an answer": annotated.unanswered,
        "predictions": "labels" if annotated.probabilities is None else "probabilities",
        "weight of the machine": {name: estimate.weight for name, estimate in overall.items()},
        "standard error": {name: estimate.standard_error for name, estimate in overall.items()},
    }
    if design is not None:
        facts |= {"strata": len(design.sizes), "effective sample size": design.effective()}
    return facts


def _classes(annotated: Annotated, people: dict[int, Label], design: Design | None) -> list[PostClass]:
    feature = annotated.feature

    def post_class(label: str) -> PostClass:
        return PostClass(label, *indicators(annotated, people, label), design)

    if feature.classifies:
        return [post_class(label) for label in (feature.labels if len(feature.labels) > 2 else feature.labels[:1])]
    if feature.choices:
        return [post_class(choice) for choice in feature.choices]
    counts = Counter(group for groups in annotated.answers for group in groups)
    commonest = sorted(counts, key=lambda group: (-counts[group], group))[:GROUPS]
    any_of_people = np.full(len(annotated.answers), np.nan)
    any_of_people[list(people)] = [bool(groups) for groups in people.values()]
    any_of_machine = np.array([float(bool(groups)) for groups in annotated.answers])
    name = "any group" if feature.codebook is None else "any name"
    any_group = PostClass(name, any_of_people, any_of_machine, any_of_machine, design)
    return [any_group, *(post_class(group) for group in commonest)]


def _estimates(each: PostClass, both: Estimate, target: Target) -> dict[str, Any]:
    machine = each.by_machine()
    return {
        "name": each.name,
        "both": both.measure(),
        "people": each.by_people(target).measure(),
        "machine": machine.measure(),
        "inside": both.holds(machine.value),
    }


def _by_column(
    column: str,
    values: Sequence[tuple[str, ...]],
    classes: Sequence[PostClass],
    overall: dict[str, Estimate],
    people: dict[int, Label],
    target: Target,
) -> tuple[list[Part], list[list[Any]]]:
    """Return each class's share by the value of a column, and the values with too few human labels, largest first."""
    sizes = Counter(value for several in values for value in several)
    labeled = Counter(value for place in people for value in values[place])
    ordered = sorted(sizes, key=lambda value: (-sizes[value], value))
    enough = [value for value in ordered if labeled[value] >= MIN_HUMAN_LABELS]
    few = [[value, sizes[value], labeled[value]] for value in ordered if labeled[value] < MIN_HUMAN_LABELS]
    places = {value: np.array([value in several for several in values]) for value in enough}
    parts: list[Part] = [
        Measures(
            f"Share of {each.name} by {column}",
            column,
            f"share of {each.name}",
            {value: each.share(places[value], target).measure() for value in enough},
            overall[each.name].value,
            "all posts",
        )
        for each in classes
        if enough
    ]
    if few:
        rows, more = few[:MOST_LISTED], few[MOST_LISTED:]
        if more:
            rows = [*rows, [f"{len(more):,} more", sum(row[1] for row in more), sum(row[2] for row in more)]]
        title = f"Left out by {column}: under {MIN_HUMAN_LABELS} human labels"
        parts.append(Listing(title, [column, "posts", "human labels"], rows))
    return parts, few
