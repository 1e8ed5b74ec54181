"""Agreement of annotators: Krippendorff's alpha and Cohen's kappa on nominal, ordinal and real scales, or by any similarity."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from common.cli.console import bar
from common.cli.errors import UserError, shown
from common.stats.design import Draw, design_of
from common.stats.metrics import RESAMPLES, Measure, drawn_counts
from common.stats.scale import Scale

if TYPE_CHECKING:
    from scipy import sparse

    Array = np.ndarray[Any, Any]

Annotations = Mapping[Hashable, Mapping[Hashable, Any]]  # item → annotator → label
Predictions = Mapping[Hashable, Any]  # item → label

MAX_SIMILAR = 1000  # different labels for which a user's similarity is computed for all pairs
MANY = 10_000  # items from which on progress is shown
CANCELED = 1e-3  # share of a difference below which its digits were lost to cancellation
EVERYWHERE, ALIKE = "model and people, all items", "model and people"
PEOPLE, DIFFERENCE = "people among themselves", "difference"


def by_item(annotations: Annotations | Iterable[tuple[Hashable, Hashable, Any]]) -> Annotations:
    """Group (item, annotator, label) triples in any order as item → annotator → label."""
    if isinstance(annotations, Mapping):
        return annotations
    grouped: dict[Hashable, dict[Hashable, Any]] = {}
    for item, annotator, label in annotations:
        if grouped.setdefault(item, {}).setdefault(annotator, label) != label:
            raise ValueError(f"annotator {annotator!r} gave item {item!r} two different labels")
    return grouped


@dataclass(frozen=True)
class Coded:
    """Items with their labels replaced by codes. Items with the same labels are of one kind."""

    items: list[Hashable]  # names, in alphabetical order
    kind: Array  # of each item, shape (items,)
    model: Array  # code of the model's label of each kind, shape (kinds,)
    people: list[tuple[int, ...]]  # codes of people's labels of each kind, in ascending order
    values: list[Any]  # label of each code; ascending if labels are numbers
    scale: Scale
    similarities: Array | None = None  # of each two labels, shape (labels, labels), if the scale has a similarity

    @property
    def has_coefficients(self) -> bool:
        """Whether alpha and kappa can be computed: not if a similarity would be asked about too many labels."""
        return self.scale.similarity is None or self.similarities is not None

    @cached_property
    def counts(self) -> Array:
        """How many items are of each kind, shape (kinds,)."""
        return np.bincount(self.kind, minlength=len(self.people))

    @cached_property
    def human(self) -> set[int]:
        """The codes of all labels of people."""
        return {label for labels in self.people for label in labels}

    def of_several(self) -> Coded:
        """Keep the items that at least two people labeled."""
        several = np.array([len(labels) > 1 for labels in self.people], dtype=bool)
        kept, places = several[self.kind], np.cumsum(several) - 1
        return replace(
            self,
            items=list(itertools.compress(self.items, kept)),
            kind=places[self.kind[kept]],
            model=self.model[several],
            people=list(itertools.compress(self.people, several)),
        )

    def model_and_people(self) -> Pairs:
        """Pair the model's label with each person's."""
        kind, label, times = self._runs
        return Pairs(self, kind, self.model[kind], label, times, np.ones(len(kind)), symmetric=False)

    def among_people(self) -> Pairs:
        """Pair the labels of each two people; a pair stands for both orders."""
        kind, label, times = self._runs
        starts = np.flatnonzero(np.diff(kind, prepend=-1))
        lengths = np.diff(starts, append=len(kind))  # how many different labels each kind has
        parts = []
        for length in np.unique(lengths):
            begin = starts[lengths == length, None]
            parts.append([(begin + place).ravel() for place in np.triu_indices(length)])
        first, second = np.concatenate(parts, axis=1) if parts else np.zeros((2, 0), dtype=np.int64)
        pairs = np.where(first == second, times[first] * (times[first] - 1) / 2, times[first] * times[second])
        first, second, pairs = first[pairs > 0], second[pairs > 0], pairs[pairs > 0]
        share = 1 / (np.bincount(kind, times)[kind[first]] - 1)
        return Pairs(self, kind[first], label[first], label[second], pairs, share, symmetric=True)

    @cached_property
    def _runs(self) -> tuple[Array, Array, Array]:
        """Kind, label and how many people gave it, of each kind's different labels in ascending order."""
        kind = np.repeat(np.arange(len(self.people)), [len(labels) for labels in self.people])
        label = np.fromiter(itertools.chain.from_iterable(self.people), dtype=np.int64, count=len(kind))
        starts = np.flatnonzero((np.diff(kind, prepend=-1) != 0) | (np.diff(label, prepend=-1) != 0))
        return kind[starts], label[starts], np.diff(starts, append=len(kind))


@dataclass(frozen=True)
class Pairs:
    """Pairs of labels, each within one kind of item."""

    coded: Coded
    kind: Array  # index of each pair's kind
    first: Array  # code of one label; the model's in pairs of model and person
    second: Array  # code of the other
    times: Array  # how often an item of the kind has this pair
    share: Array  # weight of one pair in alpha, where an item counts by its labels, not by its pairs
    symmetric: bool  # whether a pair stands for both orders

    @cached_property
    def cells(self) -> tuple[Array, Array]:
        """The labels of all different pairs, shape (cells,) each."""
        return np.divmod(self._cells[0], len(self.coded.values))

    @cached_property
    def by_label(self) -> sparse.csr_array:
        """The weight of each cell in alpha for an item of each kind, shape (cells, kinds)."""
        return self._table(self.times * self.share)

    @cached_property
    def by_pair(self) -> sparse.csr_array:
        """The weight of each cell in kappa for an item of each kind, shape (cells, kinds)."""
        return self._table(self.times)

    @cached_property
    def moments(self) -> Array:
        """What alpha needs to know of an item of each kind if labels are numbers, shape (4, kinds).

        These are weighted sums over its pairs: the number of labels, the labels, their squares, and the squared differences.
        """
        numbers = np.asarray(self.coded.values, dtype=float)
        weights = self.times * self.share
        labels = np.concatenate([self.first, self.second])
        counts = np.tile(weights * self.coded.counts[self.kind], 2)
        numbers = numbers - np.average(numbers[labels], weights=counts)  # keeps the differences of large numbers exact
        one, other = numbers[self.first], numbers[self.second]
        sums = (np.full(len(one), 2.0), one + other, one**2 + other**2, (one - other) ** 2)
        kinds = len(self.coded.people)
        return np.array([np.bincount(self.kind, weights * each, kinds) for each in sums])

    @cached_property
    def _cells(self) -> tuple[Array, Array]:
        return np.unique(self.first * len(self.coded.values) + self.second, return_inverse=True)

    def _table(self, weights: Array) -> sparse.csr_array:
        from scipy import sparse

        names, cell = self._cells
        return sparse.coo_array((weights, (cell, self.kind)), (len(names), len(self.coded.people))).tocsr()


def code(annotations: Annotations, predictions: Predictions, scale: Scale) -> Coded:
    """Encode the items that both people and the model labeled."""
    items = sorted((item for item, labels in annotations.items() if labels and item in predictions), key=str)
    given = {predictions[item] for item in items}
    given.update(itertools.chain.from_iterable(annotations[item].values() for item in items))
    read = {label: scale.read(label) for label in given}
    values = sorted(set(read.values())) if scale.is_number else sorted(set(read.values()), key=str)
    places = {value: place for place, value in enumerate(values)}
    codes = {label: places[value] for label, value in read.items()}
    kinds: dict[tuple[int, ...], int] = {}  # codes of the model's label and people's → kind
    kind = np.empty(len(items), dtype=np.int64)
    for place, item in enumerate(items):
        labels = (codes[predictions[item]], *sorted([codes[label] for label in annotations[item].values()]))
        kind[place] = kinds.setdefault(labels, len(kinds))
    model = np.array([labels[0] for labels in kinds], dtype=np.int64)
    return Coded(items, kind, model, [labels[1:] for labels in kinds], values, scale, _similarities(values, scale))


def _similarities(values: Sequence[Any], scale: Scale) -> Array | None:
    if not scale.similarity or len(values) > MAX_SIMILAR:
        return None
    table = np.array([[scale.similar(first, second) for second in values] for first in values])
    table = table.reshape(len(values), len(values))
    for value, own in zip(values, table.diagonal(), strict=True):
        if not math.isclose(own, 1):
            raise UserError(f"{own} for {shown(value)} and itself", key="--similarity", expected="1 for equal labels")
    return (table + table.T) / 2  # a distance must not depend on the order of two labels


Coefficient = Callable[[Pairs, "Array | None"], float]


def alpha(pairs: Pairs, counts: Array | None = None) -> float:
    """Return Krippendorff's alpha (Krippendorff 2019, *Content Analysis*, ch. 12): nominal, ordinal, interval or 1 − similarity.

    For people it is the usual alpha of their table. For model and people, each pair is a unit with two labels. ``counts`` is how
    many items of each kind there are, shape (kinds,), by default those given. NaN if all labels are equal.
    """
    counts = pairs.coded.counts if counts is None else counts
    if pairs.coded.scale.name == "real":
        labels, total, squares, differences = pairs.moments @ counts
        # Each two labels: their squared differences add up to 2 (n Σx² − (Σx)²).
        if (spread := labels * squares - total**2) > CANCELED * labels * squares:
            return float(1 - (labels - 1) * differences / spread)
    weights, (first, second), size = pairs.by_label @ counts, pairs.cells, len(pairs.coded.values)
    marginals = np.bincount(first, weights, size) + np.bincount(second, weights, size)
    # The ordinal distance of two labels is the squared difference of their mid-ranks.
    places = np.cumsum(marginals) - marginals / 2 if pairs.coded.scale.name == "ordinal" else None
    observed, expected = _disagreement(pairs, weights, marginals, marginals, places)
    return 1 - (marginals.sum() - 1) * 2 * observed / expected if expected > 0 else math.nan


def kappa(pairs: Pairs, counts: Array | None = None) -> float:
    """Return Cohen's kappa (1960), weighted by squared differences of numbers and ranks or by 1 − similarity (Cohen 1968).

    People's pairs count in both orders, so both marginals are equal, and all pairs count the same. ``counts`` and NaN are as for
    :func:`alpha`.
    """
    weights = pairs.by_pair @ (pairs.coded.counts if counts is None else counts)
    (first, second), size = pairs.cells, len(pairs.coded.values)
    rows, columns = np.bincount(first, weights, size), np.bincount(second, weights, size)
    if pairs.symmetric:
        rows = columns = (rows + columns) / 2
    observed, expected = _disagreement(pairs, weights, rows, columns, None)
    return 1 - weights.sum() * observed / expected if expected > 0 else math.nan


def compared(
    coded: Coded,
    coefficients: Sequence[Coefficient],
    seed: int,
    drawn: Draw | None = None,
    resamples: int = RESAMPLES,
) -> list[dict[str, Measure]]:
    """Measure coefficients for model and people and for people among themselves on the same items, and for alpha the difference.

    Kappa has no difference: the model's pairs have two different marginals and people's pairs one, which makes kappa larger for
    the model at equal agreement. Intervals resample items, and all values have the same draws. Undefined values are left out. Items
    that were not drawn with equal probabilities count by the inverse of theirs.
    """
    several = coded.of_several()
    alike, people = several.model_and_people(), several.among_people()

    def statistic(counts: Array) -> list[float]:
        pairs = [(coefficient, coefficient(alike, counts), coefficient(people, counts)) for coefficient in coefficients]
        return [
            value for what, one, other in pairs for value in (one, other, math.nan if what is kappa else one - other)
        ]

    names = (ALIKE, PEOPLE, DIFFERENCE)
    measures = _measured(statistic, len(coefficients) * len(names), several, seed, drawn, resamples)
    rows = [
        dict(zip(names, measures[start : start + len(names)], strict=True))
        for start in range(0, len(measures), len(names))
    ]
    if len(several.items) < len(coded.items):
        pairs = coded.model_and_people()
        everywhere = _measured(
            lambda counts: [each(pairs, counts) for each in coefficients], len(rows), coded, seed, drawn, resamples
        )
        rows = [{EVERYWHERE: first, **rest} for first, rest in zip(everywhere, rows, strict=True)]
    return [{name: each for name, each in row.items() if each is not None} for row in rows]


def _measured(
    statistic: Callable[[Array], list[float]],
    values: int,
    coded: Coded,
    seed: int,
    drawn: Draw | None,
    resamples: int,
) -> list[Measure | None]:
    """Measure ``values`` functions of how many items of each kind there are; None for one that is undefined."""
    n = len(coded.items)
    if not n:
        return [None] * values
    if drawn is None:
        counts, resampled = coded.counts, drawn_counts(coded.counts, seed, resamples)
    else:
        design = design_of(drawn, coded.items)

        def scaled(weights: Array) -> Array:
            return np.bincount(coded.kind, weights / weights.mean(), len(coded.people))

        counts, resampled = scaled(design.weights), map(scaled, design.resampled(seed, resamples))
    given = np.array(statistic(counts))
    rows = np.empty((resamples, values))
    with bar(resamples, "draw", show=n >= MANY) as progress:
        for place, each in enumerate(resampled):
            rows[place] = statistic(each)
            progress.update()
    measures: list[Measure | None] = []
    for value, column in zip(given, rows.T, strict=True):
        if np.isnan(value) or np.isnan(column).all():  # in all draws, as of two items in one stratum
            measures.append(None)
        else:
            low, high = np.nanpercentile(column, (2.5, 97.5))
            measures.append({"value": float(value), "n": n, "ci95": [float(low), float(high)]})
    return measures


def _disagreement(
    pairs: Pairs, weights: Array, rows: Array, columns: Array, places: Array | None
) -> tuple[float, float]:
    """Sum the distances of the cells, and those of all labels in ``rows`` to all in ``columns``, each with its weight.

    Distances are squared differences of ``places``, which default to the labels if these are numbers.
    """
    first, second = pairs.cells
    if pairs.coded.similarities is not None:
        distances = 1 - pairs.coded.similarities
        return float(weights @ distances[first, second]), float(rows @ distances @ columns)
    if pairs.coded.scale.is_number:
        numbers = np.asarray(pairs.coded.values, dtype=float) if places is None else places
        numbers = numbers - np.average(numbers, weights=rows + columns)  # keeps the differences of large numbers exact
        expected = rows.sum() * (columns @ numbers**2) + columns.sum() * (rows @ numbers**2)
        expected -= 2 * (rows @ numbers) * (columns @ numbers)
        occurring = np.count_nonzero(rows + columns)
        return float(weights @ (numbers[first] - numbers[second]) ** 2), float(expected) if occurring > 1 else 0.0
    # All pairs of labels minus the equal ones.
    return float(weights[first != second].sum()), float(rows.sum() * columns.sum() - rows @ columns)
