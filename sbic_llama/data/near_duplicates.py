"""Find texts that belong together: those of one group, and near duplicates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ALIKE = 0.9  # cosine of character n-gram counts from which two texts are near duplicates
COMPARED = 2000  # characters of a text that are compared; a model reads about as many
BUCKETS = 1024  # that n-grams are hashed into, with a sign: a cosine of .9 is off by about .19 / sqrt(BUCKETS) = .006
BLOCK = 256  # texts that are compared with all others at a time, which bounds memory


def clusters(texts: Sequence[str], groups: Sequence[str]) -> list[int]:
    """Return a number per text, equal for texts of one group and for near duplicates, also over several steps.

    Time grows with the square of the number of distinct texts, memory with the number itself: 20,000 take 10 seconds of one core
    and less than 0.4 GB, whatever they have in common.

    Args:
        texts: The texts.
        groups: The group of each; empty for a text without one.
    """
    part = np.arange(len(texts))
    first: dict[str, int] = {}
    edges = [(first.setdefault(group, index), index) for index, group in enumerate(groups) if group]
    part = _joined(part, *np.array(edges, dtype=int).reshape(-1, 2).T)
    numbers: dict[str, int] = {}  # of distinct texts: equal ones need no comparison
    number_of = np.array([numbers.setdefault(text[:COMPARED].casefold(), len(numbers)) for text in texts], dtype=int)
    first_of = np.unique(number_of, return_index=True)[1]
    part = _joined(part, first_of[number_of], np.arange(len(texts)))
    counts = _counts(list(numbers))
    lengths = np.maximum(np.sqrt(np.square(counts).sum(axis=1, dtype=float)), 1e-9)
    for start in range(0, len(counts), BLOCK):
        block = slice(start, start + BLOCK)
        # Sums of whole numbers are exact, so that every machine finds the same pairs.
        alike = counts[block] @ counts[start:].T >= ALIKE * np.outer(lengths[block], lengths[start:])
        one, other = (first_of[index + start] for index in np.nonzero(alike))
        apart = part[one] != part[other]
        part = _joined(part, one[apart], other[apart])
    return part.tolist()


def _counts(texts: Sequence[str]) -> np.ndarray:
    """Return a row per text that stands for its counts of character n-grams: dot products of rows are about theirs."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), n_features=BUCKETS, norm=None, dtype=np.float32)
    return hashing.transform(texts).toarray()


def _joined(part: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the parts after those of some pairs of texts have become one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(one):
        return part
    graph = coo_array((np.ones(len(one), dtype=bool), (part[one], part[other])), shape=(len(part), len(part)))
    return connected_components(graph, directed=False)[1][part]
