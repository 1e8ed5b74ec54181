"""Baselines that a trained model must beat: the majority label, and TF-IDF with logistic regression."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

Texts = Sequence[Sequence[str]]  # a sequence of texts per item: (post,) or (premise, hypothesis)


def majority(train_labels: Sequence[int], count: int) -> np.ndarray:
    """Return the most frequent training label (the smallest of equals), ``count`` times."""
    frequency = Counter(int(label) for label in train_labels)
    return np.full(count, min(frequency, key=lambda label: (-frequency[label], label)))


def tfidf(train_texts: Texts, train_labels: Sequence[int], texts: Texts, *, seed: int = 0) -> np.ndarray:
    """Predict labels by logistic regression (L2, C = 1) on TF-IDF weights of word 1- and 2-grams.

    Each position in an item has its own vocabulary: a word of the premise and the same word of the hypothesis are two features.
    """
    from sklearn.linear_model import LogisticRegression

    train, test = _weights(train_texts, texts)
    return LogisticRegression(max_iter=2000, random_state=seed).fit(train, train_labels).predict(test)


def tfidf_sets(
    train_texts: Texts, train_sets: Sequence[Sequence[str]], texts: Texts, *, least: int = 5, seed: int = 0
) -> list[tuple[str, ...]]:
    """Predict sets of names, by one balanced logistic regression for each name that ``least`` training items have.

    Without balancing, rare names would almost never be predicted.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.preprocessing import MultiLabelBinarizer

    frequency = Counter(name for names in train_sets for name in names)
    known = sorted(name for name, count in frequency.items() if count >= least)
    if not known:
        return [()] * len(texts)
    train, test = _weights(train_texts, texts)
    targets = MultiLabelBinarizer(classes=known).fit_transform([set(names) & set(known) for names in train_sets])
    single = LogisticRegression(max_iter=2000, class_weight="balanced", random_state=seed)
    predicted = OneVsRestClassifier(single).fit(train, targets).predict(test)
    return [tuple(name for name, is_set in zip(known, row, strict=True) if is_set) for row in predicted]


def _weights(train_texts: Texts, texts: Texts) -> tuple[Any, Any]:
    """Return sparse TF-IDF weights of both, shape (items, n-grams)."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    # The default token pattern drops one-letter words and short tokens of scripts without word boundaries.
    vectorizers = [TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b") for _ in train_texts[0]]
    train_columns, columns = (map(list, zip(*items, strict=True)) for items in (train_texts, texts))
    train = hstack([v.fit_transform(column) for v, column in zip(vectorizers, train_columns, strict=True)])
    test = hstack([v.transform(column) for v, column in zip(vectorizers, columns, strict=True)])
    return train.tocsr(), test.tocsr()
