"""The Alternative Annotator Test: may a model take the place of one of the people who annotate?

Calderon, Reichart and Dror (2025), "The Alternative Annotator Test for LLM-as-a-Judge: How to Statistically Justify Replacing Human
Annotators with LLMs", ACL 2025.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from common.stats.agreement import Annotations, Predictions, Scale, ScaleName, Similarity, by_item
from common.stats.metrics import Measure, measure, with_width

EPSILON = 0.1  # for crowd workers; the paper has .15 for skilled annotators and .2 for experts
Q = 0.05  # share of falsely rejected hypotheses that is borne
FEWEST = 30  # items from which on the paper has the t test


@dataclass(frozen=True)
class Annotator:
    """The model against one annotator, by how well each agrees with the others who annotated the same items.

    Attributes:
        name: Who.
        n: Items that this annotator, at least one other and the model labelled.
        rho_model: Share of them on which the model agrees with the others at least as well as this annotator does.
        rho_person: The same the other way round; ties count in both.
        p_value: Of the hypothesis that ``rho_person − rho_model ≥ ε``.
        test: ``t`` or ``Wilcoxon``.
        wins: Whether the hypothesis is rejected, after correction for the number of annotators: the model wins.
    """

    name: str
    n: int
    rho_model: float
    rho_person: float
    p_value: float
    test: str
    wins: bool


@dataclass(frozen=True)
class AltTest:
    """The result of :func:`alt_test`.

    Attributes:
        omega: The winning rate ω: share of annotators over whom the model wins; None where no annotator has enough items.
        rho: The average advantage probability ρ: mean of the annotators' ``rho_model``.
        passed: Whether ω ≥ .5.
        annotators: The annotators, those with most items first.
        left_out: Annotator with too few items → how many, those with most first.
        epsilon: What the model is allowed for being cheaper.
        min_items: Items under which an annotator was left out.
        q: Level of the false discovery rate.
        differences: Annotator, also one left out → item → who agrees better with the others: 1 the annotator, −1 the model, 0
            neither.
    """

    omega: float | None
    rho: float | None
    passed: bool | None
    annotators: list[Annotator]
    left_out: dict[str, int]
    epsilon: float
    min_items: int
    q: float
    differences: dict[str, dict[Hashable, int]] = field(repr=False)


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
) -> AltTest:
    """Compares a model with each annotator in turn, by their agreement with the remaining annotators.

    For annotator j and each item that j, another person and the model labelled, S(x) is the agreement of x's label with the
    others' labels: the share of equal ones, minus the root mean squared difference (ordinal, real), or the mean similarity. With
    d = [S(j) ≥ S(model)] − [S(model) ≥ S(j)], the hypothesis that the mean of d is ε or more is tested one-sided for each j; those
    that the Benjamini–Yekutieli procedure rejects are annotators over whom the model wins (sections 3.2 and 3.3 of the paper).

    Args:
        annotations: Item → annotator → label, or (item, annotator, label) in any order.
        predictions: Item → the model's label.
        epsilon: What the model is allowed for being cheaper: .1 against crowd workers, .15 skilled annotators, .2 experts.
        scale: What labels are: ``nominal``, ``ordinal`` or ``real``.
        order: The labels of an ordinal scale from low to high, where they are no numbers.
        similarity: A function of two labels, 0 to 1.
        min_items: Items under which an annotator is left out. The default is where the t test starts: below, the paper
            advises Wilcoxon's test, which is of the median, so that many ties speak for the model whatever the mean is
            (where d is 1 on a tenth of 20 items and else 0, so that its mean is an ε of .1, it rejects in 87 % of samples).
        q: Level of the false discovery rate.

    Raises:
        ValueError: ε or q out of 0 … 1, a label that is none of the scale's, or two labels of one annotator for one item.
        UserError: A scale or a similarity that can't be used.
    """
    if not (0 <= epsilon <= 1 and 0 < q < 1 and min_items >= 1):
        raise ValueError(f"epsilon {epsilon}, q {q}, min_items {min_items}")
    differences = compare(by_item(annotations), predictions, Scale(scale, tuple(order), similarity))
    enough = {name: list(found.values()) for name, found in differences.items() if len(found) >= min_items}
    tested = {name: p_value(found, epsilon) for name, found in enough.items()}
    rejected = dict(zip(tested, reject([p for p, _ in tested.values()], q), strict=True))
    annotators = [
        Annotator(
            name,
            len(found),
            sum(d <= 0 for d in found) / len(found),
            sum(d >= 0 for d in found) / len(found),
            *tested[name],
            rejected[name],
        )
        for name, found in sorted(enough.items(), key=lambda one: (-len(one[1]), one[0]))
    ]
    count = len(annotators)
    wins = sum(one.wins for one in annotators)
    return AltTest(
        omega=wins / count if count else None,
        rho=math.fsum(one.rho_model for one in annotators) / count if count else None,
        passed=2 * wins >= count if count else None,
        annotators=annotators,
        left_out={
            name: len(found)
            for name, found in sorted(differences.items(), key=lambda one: (-len(one[1]), one[0]))
            if name not in enough
        },
        epsilon=epsilon,
        min_items=min_items,
        q=q,
        differences=differences,
    )


def compare(annotations: Annotations, predictions: Predictions, scale: Scale) -> dict[str, dict[Hashable, int]]:
    """Annotator → item → who agrees better with the remaining annotators, as :attr:`AltTest.differences`.

    Every annotator is there, if without items; names and items are in alphabetical order, so that the order of rows is
    nothing to the result.
    """
    alignment = _alignment(scale)
    names = sorted({str(name) for said in annotations.values() for name in said})
    found: dict[str, dict[Hashable, int]] = {name: {} for name in names}
    for item in sorted(annotations, key=str):
        said = annotations[item]
        if item not in predictions or len(said) < 2:
            continue
        model = scale.read(predictions[item])
        values = {name: scale.read(label) for name, label in said.items()}
        for name, own in values.items():
            others = [value for other, value in values.items() if other != name]
            of_model, of_person = alignment(model, others), alignment(own, others)
            # Equal sums of differences such as .1 come out unequal in the last digits.
            tied = math.isclose(of_model, of_person, rel_tol=1e-9, abs_tol=1e-12)
            found[str(name)][item] = 0 if tied else 1 if of_person > of_model else -1
    return found


def _alignment(scale: Scale) -> Callable[[Any, list[Any]], float]:
    """S of the paper: how well a label agrees with others' labels of the same item."""
    if scale.similarity:
        similar = functools.cache(scale.similar)
        return lambda label, others: math.fsum(similar(label, other) for other in others) / len(others)
    if scale.is_number:
        return lambda label, others: -math.sqrt(math.fsum((label - other) ** 2 for other in others) / len(others))
    return lambda label, others: sum(label == other for other in others) / len(others)


def mean_advantage(tested: AltTest, seed: int) -> Measure:
    """ρ with its interval, of items drawn with replacement.

    Raises:
        ValueError: No annotator has enough items.
    """
    found = [
        (who, item, d) for who, one in enumerate(tested.annotators) for item, d in tested.differences[one.name].items()
    ]
    places = {item: place for place, item in enumerate(dict.fromkeys(item for _, item, _ in found))}
    annotator = np.array([who for who, _, _ in found])
    item = np.array([places[name] for _, name, _ in found])
    good = np.array([d <= 0 for _, _, d in found], dtype=float)

    def statistic(chosen: np.ndarray) -> float:
        weights = np.bincount(chosen, minlength=len(places))[item]
        total = np.bincount(annotator, weights)
        return float((np.bincount(annotator, weights * good)[total > 0] / total[total > 0]).mean())

    return with_width(measure(statistic, len(places), seed))


def p_value(differences: Sequence[int], epsilon: float) -> tuple[float, str]:
    """p of the hypothesis that d is ε or more on average, and the test: Student's, or Wilcoxon's under :data:`FEWEST` items.

    Where every d is the same, t is infinite or 0/0: p is then 0 below ε, else 1.
    """
    from scipy import stats

    if len(differences) < FEWEST:
        above = np.sort(np.asarray(differences, dtype=float)) - epsilon
        if not above.any():
            return 1.0, "Wilcoxon"  # nothing is left once zeros are put aside
        return float(stats.wilcoxon(above, alternative="less").pvalue), "Wilcoxon"
    if len(set(differences)) == 1:
        return float(differences[0] >= epsilon), "t"
    return float(stats.ttest_1samp(sorted(differences), epsilon, alternative="less").pvalue), "t"


def reject(p_values: Sequence[float], q: float) -> list[bool]:
    """Which hypotheses are rejected at a false discovery rate of q, however they depend on each other.

    Benjamini and Yekutieli (2001), theorem 1.3.
    """
    from scipy import stats

    if not p_values:
        return []
    return [bool(p <= q) for p in stats.false_discovery_control(p_values, method="by")]
