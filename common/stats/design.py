"""How labeled items were drawn: at random within strata, each with a known probability."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.cli.errors import UserError

Numbers = Sequence[float] | np.ndarray
ADDED = 2  # artificial items
Draw = Mapping[Hashable, tuple[str, float]]  # each drawn item, labeled or not → its stratum and its probability


@dataclass(frozen=True)
class Design:
    """The strata of labeled items, and how many items these were drawn from."""

    strata: np.ndarray  # shape (n,): each labeled item's stratum, 0, 1, …
    sizes: np.ndarray  # shape (strata,): items of each stratum in the whole file

    def __post_init__(self) -> None:
        counts = np.bincount(self.strata, minlength=len(self.sizes))
        if not (counts >= 1).all() or len(counts) > len(self.sizes):
            raise ValueError("a stratum without a labeled item")

    @property
    def counts(self) -> np.ndarray:
        """Return how many labeled items each stratum has, shape (strata,)."""
        return np.bincount(self.strata, minlength=len(self.sizes))

    @property
    def weights(self) -> np.ndarray:
        """Return how many items of the file each labeled item stands for, shape (n,)."""
        return (self.sizes / self.counts)[self.strata]

    def scaled(self, items: int) -> Design:
        """Return the design of labels that stand for another number of items, in the same proportions."""
        return Design(self.strata, self.sizes * items / self.sizes.sum())

    def part(self, places: Sequence[int]) -> Design:
        """Return the design of labeled items of a kind, which stand for as many items as before."""
        kept, strata, counts = np.unique(self.strata[list(places)], return_inverse=True, return_counts=True)
        return Design(strata, (self.sizes / self.counts)[kept] * counts)

    def effective(self, within: np.ndarray | None = None) -> float:
        """Return how many labels of a simple random sample would tell as much about a mean that strata don't (Kish 1965)."""
        weights = self.weights if within is None else self.weights[within]
        return float(weights.sum() ** 2 / (weights**2).sum())

    def mean(self, values: Numbers, ends: tuple[float, float]) -> tuple[float, float, float]:
        """Return the mean of one number per item, its standard error and the degrees of freedom.

        For the error, :data:`ADDED` artificial items with the lowest and highest possible value join the items.
        """
        known, parts = np.asarray(values, dtype=float), self.sizes / self.sizes.sum()
        variance = 0.0
        for stratum, (part, count) in enumerate(zip(parts, self.counts, strict=True)):
            here, added = known[self.strata == stratum], ADDED * part
            squares = ((here - here.mean()) ** 2).sum() + added * ((np.array(ends) - here.mean()) ** 2).mean()
            variance += part**2 * squares / (count + added) / max(1.0, count + added - 1)
        freedom = max(1.0, self.effective() + ADDED - len(self.sizes))
        return float(np.average(known, weights=self.weights)), float(np.sqrt(variance)), freedom

    def resampled(self, seed: int, resamples: int, artificial: Numbers = ()) -> Iterator[np.ndarray]:
        """Yield weights of resampled items, shape (n + kinds of artificial items,).

        Each stratum's n items are drawn n − 1 times, because n times would make the spread of few items too small (Rao and Wu
        1988). :data:`ADDED` artificial items join them, divided among the strata by size, so that a stratum whose few items
        agree by chance is not taken to be without error.

        Args:
            seed: Seed of the draws.
            resamples: How many to yield.
            artificial: How frequent each kind of artificial item is, adding up to 1; none by default.
        """
        rng, n, kinds = np.random.default_rng(seed), len(self.strata), np.asarray(artificial, dtype=float)
        added = ADDED * self.sizes / self.sizes.sum() if len(kinds) else np.zeros(len(self.sizes))
        for _ in range(resamples):
            drawn = np.zeros(n + len(kinds))
            for stratum, (size, count) in enumerate(zip(self.sizes, self.counts, strict=True)):
                places = np.append(np.flatnonzero(self.strata == stratum), np.arange(n, n + len(kinds)))
                shares = np.append(np.ones(count), added[stratum] * kinds) / (count + added[stratum])
                times = max(1, count - 1)
                drawn[places] += rng.multinomial(times, shares) * size / times
            yield drawn


def design_of(drawn: Draw, items: Sequence[Hashable]) -> Design:
    """Return the design of labeled items, in their order.

    Within a stratum, labels are taken to be missing at random. Strata without a labeled item are left out.

    Raises:
        UserError: A labeled item is not among the drawn ones.
    """
    if missing := sum(item not in drawn for item in items):
        problem = f"{missing:,} of the human labels have no sampling probability"
        raise UserError(problem, expected="one in every row, or in none")
    names = sorted({drawn[item][0] for item in items})
    sizes = dict.fromkeys(names, 0.0)
    for name, probability in drawn.values():
        if name in sizes:
            sizes[name] += 1 / probability
    numbers = {name: number for number, name in enumerate(names)}
    return Design(np.array([numbers[drawn[item][0]] for item in items], dtype=int), np.array(list(sizes.values())))
