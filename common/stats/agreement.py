"""What labels are to each other: names, ranks, numbers, or whatever a function of the user's says of two of them."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from common.cli.errors import UserError, shown
from common.stats.metrics import Measure, measure
from common.tables.reading import Row, read_rows, text_of

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

ScaleName = Literal["nominal", "ordinal", "real"]
Similarity = Callable[[Any, Any], float]


@dataclass(frozen=True)
class Scale:
    """How labels are read and compared.

    Attributes:
        name: ``nominal``: equal or not. ``ordinal``: their order counts. ``real``: their differences count.
        order: Labels from low to high, for an ordinal scale whose labels are no numbers.
        similarity: A function of two labels, from 0 to 1 for equal ones; it takes the place of "equal or not".
    """

    name: ScaleName = "nominal"
    order: tuple[Hashable, ...] = ()
    similarity: Similarity | None = None

    def __post_init__(self) -> None:
        if self.name not in get_args(ScaleName):
            raise UserError(f"{shown(self.name)} is no scale", key="--scale", expected=", ".join(get_args(ScaleName)))
        if self.order and self.name != "ordinal":
            raise UserError("only an ordinal scale has one", key="--order", fix="add --scale ordinal")
        if self.order and (len(self.order) < 2 or len(set(self.order)) < len(self.order)):
            raise UserError("not an order", key="--order", expected="two labels or more, each once")
        if self.similarity and self.name != "nominal":
            raise UserError("it takes the place of a scale", key="--similarity", fix=f"leave out --scale {self.name}")

    @property
    def is_number(self) -> bool:
        """Whether :meth:`read` makes numbers."""
        return self.name != "nominal"

    @property
    def expected(self) -> str:
        """What a label must be, in words."""
        if self.order:
            return f"one of {', '.join(map(str, self.order))}"
        or_order = ", or --order with the labels from low to high" if self.name == "ordinal" else ""
        return f"a number{or_order}" if self.is_number else "a label"

    def read(self, label: Hashable) -> Any:
        """A label as it is compared: itself, its place in the order (from 0), or its number.

        Raises:
            ValueError: It is none of the scale's.
        """
        if not self.is_number:
            return label
        try:
            number = float(self.order.index(label) if self.order else label)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{shown(label)} is no label of this scale; expected {self.expected}")
        return number

    def similar(self, one: Any, other: Any) -> float:
        """The user's similarity of two labels.

        Raises:
            UserError: It failed, or gave something else than a number from 0 to 1.
        """
        assert self.similarity is not None
        try:
            found = float(self.similarity(one, other))
        except Exception as error:
            raise UserError(
                f"fails on {shown(one)} and {shown(other)}: {type(error).__name__}: {error}", key="--similarity"
            ) from error
        if not 0 <= found <= 1:
            raise UserError(
                f"{found} for {shown(one)} and {shown(other)}", key="--similarity", expected="a number from 0 to 1"
            )
        return found

    def describe(self) -> dict[str, Any]:
        """The scale for a report."""
        named = getattr(self.similarity, "__name__", type(self.similarity).__name__) if self.similarity else None
        return {"scale": self.name, "order": list(self.order), "similarity": named}


def load_similarity(place: str) -> Similarity:
    """The function at ``path/to/file.py:function``.

    Raises:
        UserError: No such file or function, or a file that fails.
    """
    name, colon, function = place.rpartition(":")
    path = Path(name)
    if not colon or path.suffix != ".py":
        raise UserError(f"{shown(place)} does not fit", key="--similarity", expected="path/to/file.py:function")
    if not path.is_file():
        raise UserError("no such file", file=path, key="--similarity", fix="check the path")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"fails: {type(error).__name__}: {error}", file=path, key="--similarity") from error
    found = getattr(module, function, None)
    if not callable(found):
        raise UserError(f"no function {shown(function)}", file=path, key="--similarity")
    return found


Annotations = Mapping[Hashable, Mapping[Hashable, Any]]  # item → annotator → label
Predictions = Mapping[Hashable, Any]  # item → label


@dataclass
class AnnotationTable:
    """A file of annotations.

    Attributes:
        labels: Item → annotator → label, as text.
        rows: Rows read.
        blank: Rows without a label, which are skipped.
        repeated: Rows that say again what the same annotator said of the same item, which count once.
    """

    labels: dict[str, dict[str, str]] = field(default_factory=dict)
    rows: int = 0
    blank: int = 0
    repeated: int = 0


@dataclass
class PredictionTable:
    """A file of a model's answers: item → label, as text; counts as in :class:`AnnotationTable`."""

    labels: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    blank: int = 0
    repeated: int = 0


def read_annotations(path: Path, scale: Scale, *, item: str, annotator: str, label: str) -> AnnotationTable:
    """Reads a table with a row a label; ``item``, ``annotator`` and ``label`` are its columns.

    Raises:
        UserError: A row without item or annotator, a label that is none of the scale's, or two different labels of one
            annotator for one item.
    """
    found = AnnotationTable()
    for row in read_rows(path, (item, annotator, label)):
        found.rows += 1
        said = _label(row, label, scale)
        if said is None:
            found.blank += 1
            continue
        who = _name(row, annotator)
        labels = found.labels.setdefault(_name(row, item), {})
        found.repeated += who in labels
        if labels.setdefault(who, said) != said:
            raise row.error(
                f"annotator {shown(who)} says {shown(said)} of item {shown(_name(row, item))} and said {shown(labels[who])} before",
                label,
                expected="one label an annotator and item",
            )
    return found


def read_predictions(path: Path, scale: Scale, *, item: str, label: str) -> PredictionTable:
    """Reads a table with a model's answer a row; ``item`` and ``label`` are its columns.

    Raises:
        UserError: A row without item, a label that is none of the scale's, or two different answers for one item.
    """
    found = PredictionTable()
    for row in read_rows(path, (item, label)):
        found.rows += 1
        said = _label(row, label, scale)
        if said is None:
            found.blank += 1
            continue
        name = _name(row, item)
        found.repeated += name in found.labels
        if found.labels.setdefault(name, said) != said:
            raise row.error(
                f"item {shown(name)} is predicted as {shown(said)} and was as {shown(found.labels[name])} before",
                label,
                expected="one answer an item",
            )
    return found


def by_item(annotations: Annotations | Iterable[tuple[Hashable, Hashable, Any]]) -> Annotations:
    """Annotations as item → annotator → label, also from (item, annotator, label) in any order.

    Raises:
        ValueError: Two different labels of one annotator for one item.
    """
    if isinstance(annotations, Mapping):
        return annotations
    found: dict[Hashable, dict[Hashable, Any]] = {}
    for item, annotator, label in annotations:
        if found.setdefault(item, {}).setdefault(annotator, label) != label:
            raise ValueError(f"annotator {annotator!r} gave item {item!r} two different labels")
    return found


def _name(row: Row, column: str) -> str:
    name = text_of(row, column)
    if name is None:
        raise row.error("empty", column, expected="a name or number")
    return name


def _label(row: Row, column: str, scale: Scale) -> str | None:
    label = text_of(row, column)
    if label is not None:
        try:
            scale.read(label)
        except ValueError:
            raise row.error(f"{shown(label)} is no label of this scale", column, expected=scale.expected) from None
    return label


Coefficient = Callable[["Pairs", "Array"], float]

MOST_LABELS = 1000  # different ones that a user's similarity is asked for all pairs of
EVERYWHERE, ALIKE = "model and people, all items", "model and people"
PEOPLE, DIFFERENCE = "people among themselves", "difference"
_PACKAGE_NUMBERS = 2e7  # units × labels × labels that the krippendorff package is given at most


@dataclass(frozen=True)
class Coded:
    """Items with the codes of their labels.

    Attributes:
        items: Their names, in alphabetical order.
        people: The people's labels of each, in no order of meaning.
        model: The model's label of each.
        values: Label of each code; rising where labels are numbers.
        scale: How labels are compared.
        similarities: Of each two labels, shape (labels, labels), where the user has a function for it.
    """

    items: list[Hashable]
    people: list[list[int]]
    model: list[int]
    values: list[Any]
    scale: Scale
    similarities: Array | None = None

    def of_several(self) -> Coded:
        """The items that at least two people labelled."""
        kept = [place for place, said in enumerate(self.people) if len(said) > 1]
        return replace(
            self,
            items=[self.items[place] for place in kept],
            people=[self.people[place] for place in kept],
            model=[self.model[place] for place in kept],
        )

    def model_and_people(self) -> Pairs:
        """The model's label with each person's."""
        pairs = [(n, self.model[n], label) for n, said in enumerate(self.people) for label in said]
        return _pairs(self, pairs, symmetric=False)

    def among_people(self) -> Pairs:
        """Each two different people's labels, which stand for both orders."""
        pairs = [
            (n, min(one, other), max(one, other))
            for n, said in enumerate(self.people)
            for place, one in enumerate(said)
            for other in said[:place]
        ]
        return _pairs(self, pairs, symmetric=True)


@dataclass(frozen=True)
class Pairs:
    """Pairs of labels, each pair within an item.

    Attributes:
        coded: The items.
        item: Place of each pair's item among them.
        first: Code of one label; of the model's where the pairs are of model and person.
        second: Code of the other.
        times: How many such pairs the item has.
        share: What one of them weighs in alpha, in which an item weighs as many as its labels are, not its pairs.
        symmetric: Whether a pair stands for both orders, as of two people.
    """

    coded: Coded
    item: Array
    first: Array
    second: Array
    times: Array
    share: Array
    symmetric: bool

    @property
    def units(self) -> int:
        """How many units alpha has: items of several people, or each of a model's pairs."""
        return len(self.coded.items) if self.symmetric else int(self.times.sum())


def _pairs(coded: Coded, pairs: list[tuple[int, int, int]], *, symmetric: bool) -> Pairs:
    cells, times = np.unique(np.array(pairs, dtype=np.int64).reshape(-1, 3), axis=0, return_counts=True)
    item, first, second = np.ascontiguousarray(cells.T)
    sizes = np.array([len(said) for said in coded.people], dtype=float)
    share = 1 / (sizes[item] - 1) if symmetric else np.ones(len(item))
    return Pairs(coded, item, first, second, times.astype(float), share, symmetric)


def code(annotations: Annotations, predictions: Predictions, scale: Scale) -> Coded:
    """The items that somebody and the model labelled.

    Raises:
        ValueError: A label that is none of the scale's.
        UserError: A similarity that can't be used.
    """
    items = sorted((item for item, said in annotations.items() if said and item in predictions), key=str)
    people = [[scale.read(label) for label in annotations[item].values()] for item in items]
    model = [scale.read(predictions[item]) for item in items]
    found = {*model, *(label for said in people for label in said)}
    values = sorted(found) if scale.is_number else sorted(found, key=str)
    codes = {value: place for place, value in enumerate(values)}
    return Coded(
        items,
        [[codes[label] for label in said] for said in people],
        [codes[label] for label in model],
        values,
        scale,
        _similarities(values, scale),
    )


def _similarities(values: Sequence[Any], scale: Scale) -> Array | None:
    if not scale.similarity or len(values) > MOST_LABELS:
        return None
    found = np.array([[scale.similar(one, other) for other in values] for one in values]).reshape(len(values), -1)
    for place, value in enumerate(values):
        if not math.isclose(found[place, place], 1):
            raise UserError(
                f"{found[place, place]} for {shown(value)} and itself",
                key="--similarity",
                expected="1 for equal labels",
            )
    return (found + found.T) / 2  # two labels are as different in one order as in the other


def has_coefficients(coded: Coded) -> bool:
    """Whether alpha and kappa can be had: not of thousands of labels and a function that says how similar any two are."""
    return coded.scale.similarity is None or coded.similarities is not None


def alpha(pairs: Pairs, counts: Array | None = None) -> float:
    """Krippendorff's alpha (Krippendorff 2019, *Content Analysis*, ch. 12): nominal, ordinal or interval, or with 1 − similarity.

    Among people it is the ordinary alpha of their table. Of model and people, each of the model's pairs is a unit with two labels.

    Args:
        pairs: The pairs.
        counts: How often each item counts, shape (items,); once each when None.

    Returns:
        Alpha; NaN where it has no value, as all labels are the same.
    """
    weights = pairs.times * pairs.share * (1 if counts is None else counts[pairs.item])
    size = len(pairs.coded.values)
    marginals = np.bincount(pairs.first, weights, size) + np.bincount(pairs.second, weights, size)
    # The ordinal distance of two labels is the squared difference of their mid-ranks.
    places = np.cumsum(marginals) - marginals / 2 if pairs.coded.scale.name == "ordinal" else None
    observed, expected = _disagreement(pairs, weights, marginals, marginals, places)
    if expected <= 0:
        return float("nan")
    if (counts is None or (counts == 1).all()) and pairs.units * size**2 <= _PACKAGE_NUMBERS:
        return _alpha_of_package(pairs)
    return 1 - (marginals.sum() - 1) * 2 * observed / expected


def kappa(pairs: Pairs, counts: Array | None = None) -> float:
    """Cohen's kappa (1960); for numbers and ranks with squared differences as weights, for similarities with 1 − similarity
    (Cohen 1968).

    Of people's pairs both orders count, so that both have the same marginals, and every pair counts the same.

    Args:
        pairs: The pairs.
        counts: As for :func:`alpha`.

    Returns:
        Kappa; NaN where it has no value, as all labels are the same.
    """
    weights = pairs.times * (1 if counts is None else counts[pairs.item])
    size = len(pairs.coded.values)
    rows, columns = np.bincount(pairs.first, weights, size), np.bincount(pairs.second, weights, size)
    if pairs.symmetric:
        rows = columns = (rows + columns) / 2
    observed, expected = _disagreement(pairs, weights, rows, columns, None)
    return 1 - weights.sum() * observed / expected if expected > 0 else float("nan")


def compared(coded: Coded, coefficient: Coefficient, seed: int) -> dict[str, Measure]:
    """A coefficient of model and people and of people among themselves, on the same items, and of alpha the difference of the two.

    Kappa has none: the model's pairs have two marginals of their own and people's pairs one, which makes kappa of the same
    agreement larger for the model. Items are drawn with replacement for the intervals; the difference is of the same draws. What
    has no value is left out.
    """
    several = coded.of_several()
    alike, people = (_of(coefficient, pairs) for pairs in (several.model_and_people(), several.among_people()))
    wanted = {
        ALIKE: (alike, len(several.items)),
        PEOPLE: (people, len(several.items)),
        DIFFERENCE: (lambda chosen: alike(chosen) - people(chosen), len(several.items)),
    }
    if coefficient is kappa:
        del wanted[DIFFERENCE]
    if len(several.items) < len(coded.items):
        wanted = {EVERYWHERE: (_of(coefficient, coded.model_and_people()), len(coded.items)), **wanted}
    return {
        name: measure(statistic, n, seed)
        for name, (statistic, n) in wanted.items()
        if n and not np.isnan(statistic(np.arange(n)))
    }


def _of(coefficient: Coefficient, pairs: Pairs) -> Callable[[np.ndarray], float]:
    """A coefficient as a function of the items that were drawn."""
    size = len(pairs.coded.items)
    return lambda chosen: coefficient(pairs, np.bincount(chosen, minlength=size))


def _disagreement(
    pairs: Pairs, weights: Array, rows: Array, columns: Array, places: Array | None
) -> tuple[float, float]:
    """Sums of the distances of all pairs, and of all labels in ``rows`` with all in ``columns``.

    Args:
        pairs: The pairs.
        weights: Weight of each.
        rows: Weight of each label as the first of a pair.
        columns: The same as the second.
        places: Numbers whose squared differences are the distances; by default the labels, where they are numbers.
    """
    first, second = pairs.first, pairs.second
    if pairs.coded.similarities is not None:
        distances = 1 - pairs.coded.similarities
        return float(weights @ distances[first, second]), float(rows @ distances @ columns)
    if pairs.coded.scale.is_number:
        known = np.asarray(pairs.coded.values, dtype=float) if places is None else places
        known = known - known.mean()  # or the differences of large numbers would be lost
        expected = rows.sum() * (columns @ known**2) + columns.sum() * (rows @ known**2)
        expected -= 2 * (rows @ known) * (columns @ known)
        occurring = np.count_nonzero(rows + columns)
        return float(weights @ (known[first] - known[second]) ** 2), float(expected) if occurring > 1 else 0.0
    # Every two labels, less those that are equal.
    return float(weights[first != second].sum()), float(rows.sum() * columns.sum() - rows @ columns)


def _alpha_of_package(pairs: Pairs) -> float:
    """Alpha by the krippendorff package, which holds units × labels × labels numbers at a time."""
    import krippendorff

    times = pairs.times.astype(int)
    units = np.repeat(pairs.item, times) if pairs.symmetric else np.arange(times.sum())
    counts = np.zeros((pairs.units, len(pairs.coded.values)))
    for codes in (pairs.first, pairs.second):
        np.add.at(counts, (units, np.repeat(codes, times)), np.repeat(pairs.share, times))
    levels: Mapping[str, str] = {"nominal": "nominal", "ordinal": "ordinal", "real": "interval"}
    level: str | Callable[..., Array] = levels[pairs.coded.scale.name]
    if pairs.coded.similarities is not None:
        distances = 1 - pairs.coded.similarities

        def level(v1: Array, v2: Array, i1: Array, i2: Array, n_v: Array, dtype: Any) -> Array:
            return distances[i1, i2].astype(dtype)

    domain = (
        np.arange(len(pairs.coded.values))
        if not pairs.coded.scale.is_number
        else np.asarray(pairs.coded.values, dtype=float)
    )
    return float(krippendorff.alpha(value_counts=np.rint(counts), value_domain=domain, level_of_measurement=level))
