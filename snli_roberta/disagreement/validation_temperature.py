"""The temperature that validation pairs ask for, fitted so that no pair is measured with one that was fitted on itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.cli.errors import UserError
from common.stats.calibration import fit_temperature, tempered
from snli_roberta.data.corpus import Pair
from snli_roberta.disagreement.chaosnli import pair_key


class ValidationTemperature:
    """Temperatures of a model's logits (Guo et al. 2017), by its probabilities of validation pairs and their gold labels.

    ChaosNLI's pairs are validation pairs, and the most disputed ones. To fit without them would make a model look surer than
    it may be; to fit with them would be to measure on what was fitted. So validation is split in two by premise, and a pair of
    the one half gets the temperature of the other.

    Attributes:
        value: The temperature of all validation pairs.
        halves: That of each half.

    Raises:
        UserError: Too few validation pairs.
    """

    def __init__(self, pairs: Sequence[Pair], probabilities: np.ndarray):
        order: dict[str, int] = {}
        half = np.array([order.setdefault(pair.premise, len(order)) % 2 for pair in pairs], dtype=int)
        if len(order) < 2:
            raise UserError("no two premises in the validation split", expected="pairs to fit a temperature on")
        labels = np.array([pair.label for pair in pairs])
        self.value = fit_temperature(probabilities, labels)
        self.halves = tuple(fit_temperature(probabilities[half == n], labels[half == n]) for n in (0, 1))
        self._half_of = {pair_key(pair): int(n) for pair, n in zip(pairs, half, strict=True)}

    def of(self, pairs: Sequence[Pair]) -> np.ndarray:
        """The temperature for each pair, shape (n,)."""
        halves = [self._half_of.get(pair_key(pair)) for pair in pairs]
        return np.array([self.value if half is None else self.halves[1 - half] for half in halves], dtype=float)

    def apply(self, pairs: Sequence[Pair], probabilities: np.ndarray) -> np.ndarray:
        """Probabilities, shape (n, 3), after each pair's temperature."""
        found = np.array(probabilities, dtype=float)
        own = self.of(pairs)
        for temperature in np.unique(own):
            found[own == temperature] = tempered(found[own == temperature], float(temperature))
        return found
