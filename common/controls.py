"""Controls that any trained model must beat: the majority label, and TF-IDF with logistic regression."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

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
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    # The default token pattern drops one-letter words and every script without word boundaries' short tokens.
    vectorizers = [TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b") for _ in train_texts[0]]

    def columns(items: Sequence[Sequence[str]]) -> list[list[str]]:
        return [list(column) for column in zip(*items, strict=True)]

    train = hstack([v.fit_transform(column) for v, column in zip(vectorizers, columns(train_texts), strict=True)])
    test = hstack([v.transform(column) for v, column in zip(vectorizers, columns(texts), strict=True)])
    return LogisticRegression(max_iter=2000, random_state=seed).fit(train.tocsr(), train_labels).predict(test.tocsr())
