"""How far two distributions over the same classes lie apart, and how undecided one is; a row of an array is a distribution.

Defined as in the evaluation of ChaosNLI (Nie, Zhou and Bansal 2020), so that numbers compare with published ones.
"""

from __future__ import annotations

import numpy as np

FURTHEST = float(np.sqrt(np.log(2)))  # Jensen-Shannon distance of distributions that share no class, .8326
FLOOR = 1e-15  # a smaller probability counts as this one, or one answer could make the mean divergence infinite


def jensen_shannon(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Jensen-Shannon distance, shape (n,), of distributions of shape (n, classes); 0 to :data:`FURTHEST`.

    It is the square root of the divergence, in nats (Endres and Schindelin 2003).
    """
    from scipy.spatial.distance import jensenshannon

    with np.errstate(invalid="ignore"):
        found = jensenshannon(first, second, axis=1)
    return np.nan_to_num(found, nan=0.0)  # the root of a 0 that rounding took below 0


def kl_divergence(people: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence of a model's distributions from people's, KL(people || model), shape (n,), in nats."""
    from scipy.stats import entropy

    return entropy(people, np.maximum(model, FLOOR), axis=1)


def entropy(distributions: np.ndarray) -> np.ndarray:
    """Shannon entropy, shape (n,), in bits: 0 where all is one class, 1.585 where three are equal."""
    from scipy.stats import entropy

    return entropy(distributions, base=2, axis=1)
