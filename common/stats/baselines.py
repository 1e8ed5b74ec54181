"""Controls that any trained model must beat: the majority label, and TF-IDF with logistic regression."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np


def majority(train_labels: Sequence[int], count: int) -> np.ndarray:
    """The most frequent training label (the smallest of equals), ``count`` times."""
    frequency = Counter(int(label) for label in train_labels)
    return np.full(count, min(frequency, key=lambda label: (-frequency[label], label)))


def tfidf(
    train_texts: Sequence[Sequence[str]], train_labels: Sequence[int], texts: Sequence[Sequence[str]], *, seed: int = 0
) -> np.ndarray:
    """Predictions of logistic regression (L2, C = 1) on TF-IDF weights of word 1- and 2-grams.

    Args:
        train_texts: One sequence of texts an item: ``(post,)``, or ``(premise, hypothesis)``. Each position has its own
            vocabulary, so a word of the premise and the same word of the hypothesis are two features.
        train_labels: One label an item.
        texts: Items to predict, of the same width.
        seed: Seed of the solver.
    """
    from sklearn.linear_model import LogisticRegression

    train, test = _weights(train_texts, texts)
    return LogisticRegression(max_iter=2000, random_state=seed).fit(train, train_labels).predict(test)


def tfidf_sets(
    train_texts: Sequence[Sequence[str]],
    train_sets: Sequence[Sequence[str]],
    texts: Sequence[Sequence[str]],
    *,
    least: int = 5,
    seed: int = 0,
) -> list[tuple[str, ...]]:
    """The same for sets of names: one balanced logistic regression for each name that ``least`` training items have.

    Without balancing, a name is rare enough to be predicted almost never.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.preprocessing import MultiLabelBinarizer

    frequency = Counter(name for one in train_sets for name in one)
    known = sorted(name for name, count in frequency.items() if count >= least)
    if not known:
        return [()] * len(texts)
    train, test = _weights(train_texts, texts)
    targets = MultiLabelBinarizer(classes=known).fit_transform([set(one) & set(known) for one in train_sets])
    single = LogisticRegression(max_iter=2000, class_weight="balanced", random_state=seed)
    found = OneVsRestClassifier(single).fit(train, targets).predict(test)
    return [tuple(name for name, there in zip(known, row, strict=True) if there) for row in found]


def _weights(train_texts: Sequence[Sequence[str]], texts: Sequence[Sequence[str]]) -> tuple[Any, Any]:
    """Sparse TF-IDF weights of both, shape (items, n-grams)."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    # The default token pattern drops one-letter words and every script without word boundaries' short tokens.
    vectorizers = [TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b") for _ in train_texts[0]]

    def columns(items: Sequence[Sequence[str]]) -> list[list[str]]:
        return [list(column) for column in zip(*items, strict=True)]

    train = hstack([v.fit_transform(column) for v, column in zip(vectorizers, columns(train_texts), strict=True)])
    test = hstack([v.transform(column) for v, column in zip(vectorizers, columns(texts), strict=True)])
    return train.tocsr(), test.tocsr()
