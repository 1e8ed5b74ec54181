"""Agreement of annotators: Krippendorff's alpha and Cohen's kappa on nominal, ordinal and real scales, or by any similarity."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from common.cli.errors import UserError, shown
from common.stats.design import Draw, design_of
from common.stats.metrics import Measure, measure, weighted

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

ScaleName = Literal["nominal", "ordinal", "real"]
Similarity = Callable[[Any, Any], float]
Annotations = Mapping[Hashable, Mapping[Hashable, Any]]  # item → annotator → label
Predictions = Mapping[Hashable, Any]  # item → label

MAX_SIMILAR = 1000  # different labels for which a user's similarity is computed for all pairs
EVERYWHERE, ALIKE = "model and people, all items", "model and people"
PEOPLE, DIFFERENCE = "people among themselves", "difference"


@dataclass(frozen=True)
class Scale:
    """How labels are read and compared."""

    name: ScaleName = "nominal"  # nominal: equal or not; ordinal: by order; real: by difference
    order: tuple[Hashable, ...] = ()  # labels of an ordinal scale from low to high; unneeded if they are numbers
    similarity: Similarity | None = None  # of two labels, 0 to 1 (equal); replaces "equal or not"

    def __post_init__(self) -> None:
        if self.name not in get_args(ScaleName):
            expected = ", ".join(get_args(ScaleName))
            raise UserError(f"unknown scale {shown(self.name)}", key="--scale", expected=expected)
        if self.order and self.name != "ordinal":
            raise UserError("only an ordinal scale has an order", key="--order", fix="add --scale ordinal")
        if self.order and (len(self.order) < 2 or len(set(self.order)) < len(self.order)):
            raise UserError("not an order of labels", key="--order", expected="two or more different labels")
        if self.similarity and self.name != "nominal":
            raise UserError("it replaces the scale", key="--similarity", fix=f"leave out --scale {self.name}")

    @property
    def is_number(self) -> bool:
        """Whether :meth:`read` returns numbers."""
        return self.name != "nominal"

    @property
    def expected(self) -> str:
        """What a label must be, for an error message."""
        if self.order:
            return f"one of {', '.join(map(str, self.order))}"
        or_order = ", or --order with the labels from low to high" if self.name == "ordinal" else ""
        return f"a number{or_order}" if self.is_number else "a label"

    def read(self, label: Hashable) -> Any:
        """Return a label as it is compared: itself, its place in the order, or its number; ValueError if it is none of these."""
        if not self.is_number:
            return label
        try:
            number = float(self.order.index(label) if self.order else label)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"label {shown(label)} is not on this scale; expected {self.expected}")
        return number

    def similar(self, first: Any, second: Any) -> float:
        """Call the user's similarity and check its result."""
        assert self.similarity is not None
        pair = f"{shown(first)} and {shown(second)}"
        try:
            similarity = float(self.similarity(first, second))
        except Exception as error:
            raise UserError(f"fails for {pair}: {type(error).__name__}: {error}", key="--similarity") from error
        if not 0 <= similarity <= 1:
            raise UserError(f"{similarity} for {pair}", key="--similarity", expected="a number from 0 to 1")
        return similarity

    def describe(self) -> dict[str, Any]:
        """Return the scale for a report."""
        named = getattr(self.similarity, "__name__", type(self.similarity).__name__) if self.similarity else None
        return {"scale": self.name, "order": list(self.order), "similarity": named}


def load_similarity(place: str) -> Similarity:
    """Load the function at ``path/to/file.py:function``."""
    name, colon, function = place.rpartition(":")
    path = Path(name)
    if not colon or path.suffix != ".py":
        raise UserError(f"{shown(place)} does not fit", key="--similarity", expected="path/to/file.py:function")
    if not path.is_file():
        raise UserError("no such file", file=path, key="--similarity", fix="check the path")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"fails: {type(error).__name__}: {error}", file=path, key="--similarity") from error
    loaded = getattr(module, function, None)
    if not callable(loaded):
        raise UserError(f"no function {shown(function)}", file=path, key="--similarity")
    return loaded


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
    """Items with their labels replaced by codes."""

    items: list[Hashable]  # names, in alphabetical order
    people: list[list[int]]  # people's labels of each item, in any order
    model: list[int]  # the model's label of each item
    values: list[Any]  # label of each code; ascending if labels are numbers
    scale: Scale
    similarities: Array | None = None  # of each two labels, shape (labels, labels), if the scale has a similarity

    @property
    def has_coefficients(self) -> bool:
        """Whether alpha and kappa can be computed: not if a similarity would be asked about too many labels."""
        return self.scale.similarity is None or self.similarities is not None

    def of_several(self) -> Coded:
        """Keep the items that at least two people labeled."""
        kept = [place for place, labels in enumerate(self.people) if len(labels) > 1]
        columns = {name: [getattr(self, name)[place] for place in kept] for name in ("items", "people", "model")}
        return replace(self, **columns)

    def model_and_people(self) -> Pairs:
        """Pair the model's label with each person's."""
        pairs = [(n, self.model[n], label) for n, labels in enumerate(self.people) for label in labels]
        return _pairs(self, pairs, symmetric=False)

    def among_people(self) -> Pairs:
        """Pair the labels of each two people; a pair stands for both orders."""
        pairs = [
            (n, min(first, second), max(first, second))
            for n, labels in enumerate(self.people)
            for place, first in enumerate(labels)
            for second in labels[:place]
        ]
        return _pairs(self, pairs, symmetric=True)


@dataclass(frozen=True)
class Pairs:
    """Pairs of labels, each within one item."""

    coded: Coded
    item: Array  # index of each pair's item
    first: Array  # code of one label; the model's in pairs of model and person
    second: Array  # code of the other
    times: Array  # how often the item has this pair
    share: Array  # weight of one pair in alpha, where an item counts by its labels, not by its pairs
    symmetric: bool  # whether a pair stands for both orders


def _pairs(coded: Coded, pairs: list[tuple[int, int, int]], *, symmetric: bool) -> Pairs:
    cells, times = np.unique(np.array(pairs, dtype=np.int64).reshape(-1, 3), axis=0, return_counts=True)
    item, first, second = np.ascontiguousarray(cells.T)
    sizes = np.array([len(labels) for labels in coded.people], dtype=float)
    share = 1 / (sizes[item] - 1) if symmetric else np.ones(len(item))
    return Pairs(coded, item, first, second, times.astype(float), share, symmetric)


def code(annotations: Annotations, predictions: Predictions, scale: Scale) -> Coded:
    """Encode the items that both people and the model labeled."""
    items = sorted((item for item, labels in annotations.items() if labels and item in predictions), key=str)
    people = [[scale.read(label) for label in annotations[item].values()] for item in items]
    model = [scale.read(predictions[item]) for item in items]
    different = {*model, *(label for labels in people for label in labels)}
    values = sorted(different) if scale.is_number else sorted(different, key=str)
    codes = {value: place for place, value in enumerate(values)}
    coded = [[codes[label] for label in labels] for labels in people]
    return Coded(items, coded, [codes[label] for label in model], values, scale, _similarities(values, scale))


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
    often each item counts, shape (items,), once each by default. NaN if all labels are equal.
    """
    weights = pairs.times * pairs.share * (1 if counts is None else counts[pairs.item])
    size = len(pairs.coded.values)
    marginals = np.bincount(pairs.first, weights, size) + np.bincount(pairs.second, weights, size)
    # The ordinal distance of two labels is the squared difference of their mid-ranks.
    places = np.cumsum(marginals) - marginals / 2 if pairs.coded.scale.name == "ordinal" else None
    observed, expected = _disagreement(pairs, weights, marginals, marginals, places)
    return 1 - (marginals.sum() - 1) * 2 * observed / expected if expected > 0 else math.nan


def kappa(pairs: Pairs, counts: Array | None = None) -> float:
    """Return Cohen's kappa (1960), weighted by squared differences of numbers and ranks or by 1 − similarity (Cohen 1968).

    People's pairs count in both orders, so both marginals are equal, and all pairs count the same. ``counts`` and NaN are as for
    :func:`alpha`.
    """
    weights = pairs.times * (1 if counts is None else counts[pairs.item])
    size = len(pairs.coded.values)
    rows, columns = np.bincount(pairs.first, weights, size), np.bincount(pairs.second, weights, size)
    if pairs.symmetric:
        rows = columns = (rows + columns) / 2
    observed, expected = _disagreement(pairs, weights, rows, columns, None)
    return 1 - weights.sum() * observed / expected if expected > 0 else math.nan


def compared(coded: Coded, coefficient: Coefficient, seed: int, drawn: Draw | None = None) -> dict[str, Measure]:
    """Measure a coefficient for model and people and for people among themselves on the same items, and for alpha the difference.

    Kappa has no difference: the model's pairs have two different marginals and people's pairs one, which makes kappa larger for
    the model at equal agreement. Intervals resample items; the difference uses the same draws. Undefined values are left out.
    Items that were not drawn with equal probabilities count by the inverse of theirs.
    """
    several = coded.of_several()
    alike, people = several.model_and_people(), several.among_people()
    wanted: dict[str, tuple[Coded, Callable[[Array], float]]] = {
        ALIKE: (several, lambda counts: coefficient(alike, counts)),
        PEOPLE: (several, lambda counts: coefficient(people, counts)),
    }
    if coefficient is not kappa:
        wanted[DIFFERENCE] = (several, lambda counts: coefficient(alike, counts) - coefficient(people, counts))
    if len(several.items) < len(coded.items):
        everywhere = coded.model_and_people()
        wanted = {EVERYWHERE: (coded, lambda counts: coefficient(everywhere, counts)), **wanted}
    measures = {name: _measured(statistic, items.items, seed, drawn) for name, (items, statistic) in wanted.items()}
    return {name: each for name, each in measures.items() if each is not None}


def _measured(
    statistic: Callable[[Array], float], items: Sequence[Hashable], seed: int, drawn: Draw | None
) -> Measure | None:
    """Measure a function of how often each item counts, shape (items,); None if it is undefined."""
    n = len(items)
    if not n or np.isnan(statistic(np.ones(n))):
        return None
    if drawn is None:
        return measure(lambda chosen: statistic(np.bincount(chosen, minlength=n)), n, seed)
    return weighted(lambda weights: statistic(weights / weights.mean()), design_of(drawn, items), seed)


def _disagreement(
    pairs: Pairs, weights: Array, rows: Array, columns: Array, places: Array | None
) -> tuple[float, float]:
    """Sum the distances of all pairs, and those of all labels in ``rows`` to all in ``columns``, each with its weight.

    Distances are squared differences of ``places``, which default to the labels if these are numbers.
    """
    first, second = pairs.first, pairs.second
    if pairs.coded.similarities is not None:
        distances = 1 - pairs.coded.similarities
        return float(weights @ distances[first, second]), float(rows @ distances @ columns)
    if pairs.coded.scale.is_number:
        numbers = np.asarray(pairs.coded.values, dtype=float) if places is None else places
        numbers = numbers - numbers.mean()  # keeps the differences of large numbers exact
        expected = rows.sum() * (columns @ numbers**2) + columns.sum() * (rows @ numbers**2)
        expected -= 2 * (rows @ numbers) * (columns @ numbers)
        occurring = np.count_nonzero(rows + columns)
        return float(weights @ (numbers[first] - numbers[second]) ** 2), float(expected) if occurring > 1 else 0.0
    # All pairs of labels minus the equal ones.
    return float(weights[first != second].sum()), float(rows.sum() * columns.sum() - rows @ columns)
