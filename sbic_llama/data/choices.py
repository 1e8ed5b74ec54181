"""Handle answers of any number of labels: how one set of labels is compared with another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sbic_llama.data.groups import set_f1

if TYPE_CHECKING:
    from common.stats.design import Design

PRESENCE = ("none", "some label")  # the classes of "does any label hold?"
Choice = tuple[str, ...]


def masi(first: Choice, second: Choice) -> float:
    """Return the similarity of two sets of labels, 0 to 1 (equal): Jaccard's index times how far one contains the other.

    The factor is 1 for equal sets, 2/3 if one contains the other, 1/3 if they overlap, and 0 if not. MASI (Passonneau 2006) is
    a distance: 1 minus this.
    """
    one, other = set(first), set(second)
    if one == other:
        return 1.0
    shared = len(one & other)
    contained = 2 / 3 if one <= other or other <= one else 1 / 3 if shared else 0.0
    return shared / len(one | other) * contained


def evaluate_choices(
    labels: Sequence[Choice],
    predictions: Sequence[Choice],
    names: Sequence[str],
    *,
    seed: int = 0,
    design: Design | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the scores of sets of labels, with 95 % percentile bootstrap intervals over items.

    These are the mean set F1 and the share of exact sets; precision, recall and F1 of each label; F1 of all decisions (micro)
    and the mean of the labels' F1 (macro).

    Returns:
        Metric → ``{"value", "n", "ci95"}``; n of a label's metrics is the number of items that have it.
    """
    from common.stats import metrics

    pairs = list(zip(labels, predictions, strict=True))
    results = {
        "set_f1": metrics.share([set_f1(*pair) for pair in pairs], seed, design),
        "exact": metrics.share([float(set(label) == set(given)) for label, given in pairs], seed, design),
    }
    gold, given = (np.array([[name in each for name in names] for each in sets]) for sets in zip(*pairs, strict=True))
    counts = np.stack([gold & given, given, gold])  # of right, predicted and actual labels, shape (3, items, labels)
    if design is None:
        scores = _scores(counts.sum(1)[None], names)
        sums = [counts[:, chosen].sum(1) for chosen in metrics.draws(len(pairs), seed)]
    else:
        scores = _scores((design.weights @ counts)[None], names)
        sums = [weights @ counts for weights in design.resampled(seed, metrics.RESAMPLES)]
    resampled = _scores(np.array(sums), names)
    for metric, (value,) in scores.items():
        name = metric.partition("/")[2]
        n = int(gold[:, names.index(name)].sum()) if name in names else len(pairs)
        low, high = np.percentile(resampled[metric], (2.5, 97.5))
        results[metric] = {"value": float(value), "n": n, "ci95": [float(low), float(high)]}
    _, predicted, actual = counts.sum(1)
    sizes = {"precision": dict(zip(names, predicted, strict=True)), "recall": dict(zip(names, actual, strict=True))}
    return metrics.with_proportions(results, sizes)


def _scores(counts: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return metrics of several counts of right, predicted and actual labels, shape (counts, 3, labels); 0 where undefined."""
    right, predicted, actual = counts.transpose(1, 0, 2).astype(float)

    def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)

    f1 = ratio(2 * right, predicted + actual)
    results = {
        "f1/micro": ratio(2 * right.sum(1), (predicted + actual).sum(1)),
        "f1/macro": f1.mean(1),
    }
    for metric, values in {"precision": ratio(right, predicted), "recall": ratio(right, actual), "f1": f1}.items():
        results |= {f"{metric}/{name}": values[:, index] for index, name in enumerate(names)}
    return results
