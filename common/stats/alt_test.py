"""The Alternative Annotator Test: may a model replace one of the people who annotate?

Calderon, Reichart and Dror (2025), "The Alternative Annotator Test for LLM-as-a-Judge: How to Statistically Justify Replacing Human
Annotators with LLMs", ACL 2025.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from common.stats.agreement import Annotations, Predictions, by_item
from common.stats.design import Design, Draw, design_of
from common.stats.metrics import RESAMPLES, Measure, mean, measure_kinds, weighted, with_width
from common.stats.scale import Scale, ScaleName, Similarity

EPSILON = 0.1  # for crowd workers; the paper has .15 for skilled annotators and .2 for experts
Q = 0.05  # accepted share of falsely rejected hypotheses
FEWEST = 30  # items from which the paper uses the t test
REMEMBERED = 2**16  # items with different labels


@dataclass(frozen=True)
class AnnotatorComparison:
    """The model against one annotator, by how well each agrees with the others who annotated the same items."""

    name: str
    n: int  # items labeled by this annotator, at least one other and the model
    rho_model: float  # share of them on which the model agrees with the others at least as well as this annotator
    rho_person: float  # the reverse; ties count in both
    p_value: float  # of the hypothesis that rho_person − rho_model ≥ ε
    test: str  # "t", "Wilcoxon" or, with weights, "weighted t"
    wins: bool  # whether the model wins: the hypothesis is rejected, corrected for the number of annotators


@dataclass(frozen=True)
class AltTest:
    """The result of :func:`alt_test`. The first three are None if no annotator has enough items or all labels are equal."""

    omega: float | None  # winning rate ω: share of annotators over whom the model wins
    rho: float | None  # average advantage probability ρ: mean of the annotators' rho_model
    passed: bool | None  # whether ω ≥ .5
    annotators: list[AnnotatorComparison]  # those with most items first
    left_out: dict[str, int]  # annotator with too few items → how many, those with most first
    epsilon: float
    min_items: int
    q: float
    # Annotator, also one left out → item → who agrees better with the others: 1 the annotator, −1 the model, 0 neither.
    differences: dict[str, dict[Hashable, int]] = field(repr=False)
    constant: bool = (
        False  # whether all labels are equal: every comparison is a tie, which any constant answer would reach
    )
    drawn: Draw | None = field(default=None, repr=False)

    def design(self, name: str) -> Design | None:
        """Return how an annotator's items were drawn; None for a simple draw."""
        return None if self.drawn is None else design_of(self.drawn, list(self.differences[name]))


def alt_test(
    annotations: Annotations | Iterable[tuple[Hashable, Hashable, Any]],
    predictions: Predictions,
    *,
    epsilon: float = EPSILON,
    scale: ScaleName = "nominal",
    order: Sequence[Hashable] = (),
    similarity: Similarity | None = None,
    min_items: int = FEWEST,
    q: float = Q,
    drawn: Draw | None = None,
) -> AltTest:
    """Compare a model with each annotator in turn, by their agreement with the remaining annotators.

    For annotator j and each item that j, another person and the model labeled, S(x) is the agreement of x's label with the
    others' labels: the share of equal ones, minus the root mean squared difference (ordinal, real), or the mean similarity. With
    d = [S(j) ≥ S(model)] − [S(model) ≥ S(j)], the hypothesis that the mean of d is ε or more is tested one-sided for each j; the
    model wins over the annotators for whom the Benjamini–Yekutieli procedure rejects it (sections 3.2 and 3.3 of the paper).

    Args:
        annotations: Item → annotator → label, or (item, annotator, label) in any order.
        predictions: Item → the model's label.
        epsilon: Allowance for the model's lower cost: .1 against crowd workers, .15 skilled annotators, .2 experts.
        scale: How labels compare: ``nominal``, ``ordinal`` or ``real``.
        order: Labels of an ordinal scale from low to high; unneeded if they are numbers.
        similarity: A function of two labels, 0 to 1.
        min_items: Annotators with fewer items are left out. The default is where the t test starts. Below, the paper advises
            Wilcoxon's test, which tests the median, so many ties favor the model whatever the mean is (if d is 1 on a tenth of
            20 items and else 0, so that its mean equals an ε of .1, it rejects in 87 % of samples).
        q: Level of the false discovery rate.
        drawn: How the items were drawn, if not with equal probabilities. Items then count by the inverse of theirs, and the t test
            has the standard error of a stratified sample.
    """
    if not (0 <= epsilon <= 1 and 0 < q < 1 and min_items >= 1):
        raise ValueError(f"epsilon {epsilon}, q {q}, min_items {min_items}")
    annotations, on = by_item(annotations), Scale(scale, tuple(order), similarity)
    differences = compare(annotations, predictions, on)
    by_size = sorted(differences.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    shared = {item for items in differences.values() for item in items}
    labels = {predictions[item] for item in shared}
    labels.update(itertools.chain.from_iterable(annotations[item].values() for item in shared))
    constant = len(set(map(on.read, labels))) == 1
    enough = {name: items for name, items in by_size if len(items) >= min_items and not constant}
    annotators = _compared(enough, epsilon, q, drawn)
    count = len(annotators)
    wins = sum(annotator.wins for annotator in annotators)
    return AltTest(
        omega=wins / count if count else None,
        rho=math.fsum(annotator.rho_model for annotator in annotators) / count if count else None,
        passed=2 * wins >= count if count else None,
        annotators=annotators,
        left_out={name: len(items) for name, items in by_size if len(items) < min_items},
        epsilon=epsilon,
        min_items=min_items,
        q=q,
        differences=differences,
        constant=constant,
        drawn=drawn,
    )


def _compared(
    enough: Mapping[str, Mapping[Hashable, int]], epsilon: float, q: float, drawn: Draw | None
) -> list[AnnotatorComparison]:
    """Test the model against each annotator, given the differences on the items."""
    given = {name: list(items.values()) for name, items in enough.items()}
    designs = {name: None if drawn is None else design_of(drawn, list(items)) for name, items in enough.items()}
    tested = {name: p_value(differences, epsilon, designs[name]) for name, differences in given.items()}
    rejected = dict(zip(tested, reject([p for p, _ in tested.values()], q), strict=True))
    annotators = []
    for name, differences in given.items():
        weights = designs[name] and designs[name].weights
        signed = [np.multiply(differences, sign) >= 0 for sign in (-1, 1)]
        rho_model, rho_person = (float(np.average(each, weights=weights)) for each in signed)
        annotators.append(
            AnnotatorComparison(name, len(differences), rho_model, rho_person, *tested[name], rejected[name])
        )
    return annotators


def compare(annotations: Annotations, predictions: Predictions, scale: Scale) -> dict[str, dict[Hashable, int]]:
    """Return :attr:`AltTest.differences`: every annotator, with names and items in alphabetical order."""
    alignment = _alignment(scale)

    @functools.lru_cache(maxsize=REMEMBERED)  # with few labels, many items have the same ones
    def against_others(predicted: Any, labels: tuple[Any, ...]) -> list[int]:
        model, values = scale.read(predicted), [scale.read(label) for label in labels]
        result = []
        for place, own in enumerate(values):
            others = values[:place] + values[place + 1 :]
            of_model, of_person = alignment(model, others), alignment(own, others)
            # Equal sums of differences like .1 may differ in the last digits.
            tied = math.isclose(of_model, of_person, rel_tol=1e-9, abs_tol=1e-12)
            result.append(0 if tied else 1 if of_person > of_model else -1)
        return result

    names = sorted({str(name) for labels in annotations.values() for name in labels})
    differences: dict[str, dict[Hashable, int]] = {name: {} for name in names}
    for item in sorted(annotations, key=str):
        labels = annotations[item]
        if item in predictions and len(labels) > 1:
            of_item = against_others(predictions[item], tuple(labels.values()))
            for name, difference in zip(labels, of_item, strict=True):
                differences[str(name)][item] = difference
    return differences


def _alignment(scale: Scale) -> Callable[[Any, list[Any]], float]:
    """S in the paper: how well a label agrees with others' labels of the same item."""
    if scale.similarity:
        similar = functools.cache(scale.similar)
        return lambda label, others: math.fsum(similar(label, other) for other in others) / len(others)
    if scale.is_number:
        return lambda label, others: -math.sqrt(math.fsum((label - other) ** 2 for other in others) / len(others))
    return lambda label, others: sum(label == other for other in others) / len(others)


def mean_advantage(tested: AltTest, seed: int, resamples: int = RESAMPLES) -> Measure:
    """Return ρ with its interval from resampling items; some annotator must have enough items."""
    # Item → twice the number of each annotator who labeled it, plus 1 if the model is as good.
    results: dict[Hashable, list[int]] = {}
    for who, annotator in enumerate(tested.annotators):
        for item, d in tested.differences[annotator.name].items():
            results.setdefault(item, []).append(2 * who + (d <= 0))
    kinds: dict[tuple[int, ...], int] = {}  # items with the same results are of one kind
    kind = np.array([kinds.setdefault(tuple(each), len(kinds)) for each in results.values()])
    owner = np.repeat(np.arange(len(kinds)), [len(each) for each in kinds])
    annotator, good = np.divmod(np.fromiter(itertools.chain.from_iterable(kinds), dtype=np.int64), 2)

    def statistic(counts: np.ndarray) -> float:
        weights = counts[owner]
        total = np.bincount(annotator, weights)
        return float((np.bincount(annotator, weights * good)[total > 0] / total[total > 0]).mean())

    if tested.drawn is None:
        return with_width(measure_kinds(statistic, np.bincount(kind), seed, resamples))
    design = design_of(tested.drawn, list(results))
    return with_width(weighted(lambda weights: statistic(np.bincount(kind, weights)), design, seed, resamples))


def advantage(tested: AltTest, name: str, seed: int, resamples: int = RESAMPLES) -> Measure:
    """Return how much more often an annotator agrees better with the others than the model does: the mean of d, −1 to 1."""
    differences = list(tested.differences[name].values())
    if tested.drawn is not None:
        return mean(differences, seed, tested.design(name), ends=(-1, 1), resamples=resamples)
    values, counts = np.unique(differences, return_counts=True)
    return measure_kinds(lambda drawn: drawn @ values / drawn.sum(), counts, seed, resamples)


def p_value(differences: Sequence[int], epsilon: float, design: Design | None = None) -> tuple[float, str]:
    """Test that d is ε or more on average: p and the test, Student's or, under :data:`FEWEST` items, Wilcoxon's.

    If all d are equal, t is infinite or 0/0; p is then 0 if d < ε, else 1.
    """
    from scipy import stats

    if design is not None:
        mean, error, freedom = design.mean(differences, ends=(-1, 1))
        return float(stats.t.cdf((mean - epsilon) / error, freedom)), "weighted t"
    if len(differences) < FEWEST:
        above = np.sort(np.asarray(differences, dtype=float)) - epsilon
        if not above.any():
            return 1.0, "Wilcoxon"  # the test drops zeros, and nothing else is left
        return float(stats.wilcoxon(above, alternative="less").pvalue), "Wilcoxon"
    if len(set(differences)) == 1:
        return float(differences[0] >= epsilon), "t"
    return float(stats.ttest_1samp(np.sort(differences), epsilon, alternative="less").pvalue), "t"


def reject(p_values: Sequence[float], q: float) -> list[bool]:
    """Return which hypotheses are rejected at a false discovery rate of q under any dependence (Benjamini and Yekutieli 2001)."""
    from scipy import stats

    return [bool(p <= q) for p in stats.false_discovery_control(p_values, method="by")] if p_values else []
