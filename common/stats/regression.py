"""Regressions in which a label is the outcome or a covariate: a machine's labels of all items, people's labels of a few.

Taking the machine's labels for the truth gives wrong coefficients however few errors it makes, because errors are seldom
independent of the covariates. So the estimating equations of all items, with the machine's labels, are corrected by the weighted
difference that people's labels make: design-based supervised learning (Egami, Hinck, Stewart and Wei 2023, arXiv:2306.04746). The
machine's weight, lambda, minimizes the variance, as in PPI++ (Angelopoulos, Duchi and Zrnic 2023, arXiv:2311.01453), so that a
useless machine does no harm. The variance is that of a sample in two phases: the items are drawn from a population, and those with
a human label from the items, within strata. tests/common/stats/test_regression.py simulates the intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import expit, stdtrit

from common.stats.design import Design
from common.stats.metrics import Measure

Kind = Literal["linear", "logistic"]
STEPS = 100  # of Newton's method at most
FLAT = 1e-6  # times its first slope: a logistic regression goes on for ever in a direction so flat


class NoSolution(ValueError):
    """Covariates are redundant, or the labels can be told from them without error."""


@dataclass(frozen=True)
class Table:
    """Outcomes and covariates of items."""

    outcome: np.ndarray  # shape (n,)
    covariates: np.ndarray  # shape (n, terms), the first of which is 1

    def standardized(self, center: np.ndarray, spread: np.ndarray) -> Table:
        """Return it with each covariate but the first relative to a center, in units of a spread."""
        return Table(self.outcome, (self.covariates - center) / spread)

    def moments(self, coefficients: np.ndarray, kind: Kind) -> np.ndarray:
        """Return each item's part in the estimating equations, shape (n, terms)."""
        fitted = self.covariates @ coefficients
        expected = expit(fitted) if kind == "logistic" else fitted
        return self.covariates * (self.outcome - expected)[:, None]

    def slope(self, coefficients: np.ndarray, kind: Kind, weights: np.ndarray) -> np.ndarray:
        """Return minus the derivative of the weighted sum of moments, shape (terms, terms)."""
        if kind == "logistic":
            share = expit(self.covariates @ coefficients)
            weights = weights * share * (1 - share)
        return self.covariates.T @ (self.covariates * weights[:, None])


@dataclass(frozen=True)
class Fit:
    """Coefficients with what their intervals need."""

    coefficients: np.ndarray  # shape (terms,)
    errors: np.ndarray  # standard errors, shape (terms,)
    freedom: float  # degrees of freedom
    labels: int  # items with a human label, or all items if there are none
    weight: float  # lambda, 0 to 1

    def measures(self) -> list[Measure]:
        """Return each coefficient as findings show it, with its 95 % interval."""
        half = float(stdtrit(self.freedom, 0.975)) * self.errors
        return [
            {"value": float(value), "n": self.labels, "ci95": [float(value - wide), float(value + wide)]}
            for value, wide in zip(self.coefficients, half, strict=True)
        ]


def by_machine(machine: Table, kind: Kind) -> Fit:
    """Take the machine's labels for the truth; the errors allow for any variance (White 1980, HC1)."""
    n, terms = machine.covariates.shape
    ones = np.ones(n)
    (machine,), back = _standardized([machine])
    found = _solve(kind, terms, [(machine, ones)])
    influence = machine.moments(found, kind) @ np.linalg.inv(machine.slope(found, kind, ones)).T @ back.T
    variance = (influence**2).sum(0) * n / max(1, n - terms)
    return Fit(back @ found, np.sqrt(variance), max(1, n - terms), n, 1.0)


def by_people(people: Table, design: Design, items: int, kind: Kind) -> Fit:
    """Use the labeled items alone, with their weights."""
    (people,), back = _standardized([people])
    return _fit(people, people, people, back, design.scaled(items), kind, 0.0)


def by_both(people: Table, labeled: Table, machine: Table, design: Design, kind: Kind) -> Fit:
    """Correct the machine's labels by people's.

    Args:
        people: The items with a human label, with people's labels; n of them.
        labeled: The same items with the machine's labels.
        machine: All items with the machine's labels.
        design: How the labeled items were drawn.
        kind: Linear, or logistic for outcomes from 0 to 1.

    Raises:
        NoSolution: Covariates are redundant, or the labels can be told from them without error.
    """
    (people, labeled, machine), back = _standardized([people, labeled, machine])
    design = design.scaled(len(machine.outcome))
    alone = _solve(kind, len(back), [(people, design.weights)])
    inverse = np.linalg.inv(people.slope(alone, kind, design.weights))
    own, other = (table.moments(alone, kind) @ inverse.T for table in (people, labeled))
    # The design's variance of own − lambda · other, for each standardized coefficient relative to that without a machine.
    together, spread, single = (_design_covariance(a, b, design) for a, b in ((own, other), (other, other), (own, own)))
    scale = np.where(single > 0, single, 1.0)
    below = float((spread / scale).sum())
    weight = min(1.0, max(0.0, float((together / scale).sum()) / below)) if below > 1e-12 else 0.0
    return _fit(people, labeled, machine, back, design, kind, weight)


def _standardized(tables: Sequence[Table]) -> tuple[list[Table], np.ndarray]:
    """Return tables with covariates as the last one's standard scores, and the matrix that turns coefficients back.

    A year or a number of followers is then as easy to tell from the intercept as a share is. The matrix has the shape
    (terms, terms).
    """
    covariates = tables[-1].covariates
    center, spread = covariates.mean(0), covariates.std(0)
    constant = spread <= 1e-9 * np.abs(center)  # the intercept, or a covariate that repeats it
    center, spread = np.where(constant, 0.0, center), np.where(constant, 1.0, spread)
    back = np.diag(1 / spread)
    back[0] -= center / spread
    return [table.standardized(center, spread) for table in tables], back


def _fit(
    people: Table, labeled: Table, machine: Table, back: np.ndarray, design: Design, kind: Kind, weight: float
) -> Fit:
    terms, n = people.covariates.shape[1], len(people.outcome)
    weights, everywhere = design.weights, np.full(len(machine.outcome), weight)
    tables = [(people, weights)]
    if weight:
        tables += [(machine, everywhere), (labeled, -weight * weights)]
    found = _solve(kind, terms, tables)
    inverse = back @ np.linalg.inv(sum(table.slope(found, kind, times) for table, times in tables))
    own, other = (table.moments(found, kind) @ inverse.T for table in (people, labeled))
    of_population = weights @ own**2
    of_draw = _design_covariance(own - weight * other, own - weight * other, design)
    correction = n / max(1, n - terms)
    freedom = max(1.0, n - len(design.sizes) - terms + 1.0)
    return Fit(back @ found, np.sqrt((of_population + of_draw) * correction), freedom, n, weight)


def _design_covariance(first: np.ndarray, second: np.ndarray, design: Design) -> np.ndarray:
    """Return the covariance of two weighted sums over the labeled items, shape (terms,), under sampling within strata."""
    total = np.zeros(first.shape[1])
    for stratum, (size, count) in enumerate(zip(design.sizes, design.counts, strict=True)):
        chosen = design.strata == stratum
        # A stratum with one label shows no spread: that around the mean of all is taken.
        center = [each[chosen].mean(0) if count > 1 else each.mean(0) for each in (first, second)]
        products = (first[chosen] - center[0]) * (second[chosen] - center[1])
        total += size**2 * max(0.0, 1 - count / size) * products.sum(0) / max(1, count - 1) / count
    return total


def _solve(kind: Kind, terms: int, tables: list[tuple[Table, np.ndarray]]) -> np.ndarray:
    """Solve the sum of weighted estimating equations by Newton's method, with steps that are halved until they help."""
    found = np.zeros(terms)
    largest = max(1.0, *(np.abs(table.outcome).max() for table, _ in tables))
    scale = largest * sum(np.abs(table.covariates * times[:, None]).sum() for table, times in tables)

    def equations(at: np.ndarray) -> np.ndarray:
        return sum(times @ table.moments(at, kind) for table, times in tables)

    def slopes(at: np.ndarray) -> np.ndarray:
        return sum(table.slope(at, kind, times) for table, times in tables)

    now, first = equations(found), slopes(found)
    for _ in range(STEPS):
        slope = slopes(found)
        if np.linalg.cond(first) > 1e12 or np.linalg.eigvals(np.linalg.solve(first, slope)).real.min() < FLAT:
            break
        if np.abs(now).max() <= 1e-9 * scale / terms:
            return found
        step, length = np.linalg.solve(slope, now), 1.0
        while length > 1e-4 and np.linalg.norm(equations(found + length * step)) >= np.linalg.norm(now):
            length /= 2
        found = found + length * step
        now = equations(found)
    raise NoSolution("no solution")
