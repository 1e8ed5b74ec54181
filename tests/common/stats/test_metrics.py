"""Metrics and their intervals, against scikit-learn and scipy; baselines."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from common.stats import metrics
from common.stats.baselines import majority, tfidf
from common.stats.metrics import confusion_matrix, evaluate, scores

NAMES = ("a", "b", "c")


@pytest.mark.parametrize("case", ["usual", "never predicted", "no such label", "neither"])
def test_every_metric_equals_scikit_learns(case):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2 if case in ("no such label", "neither") else 3, 200)
    predictions = np.where(rng.random(200) < 0.6, labels, rng.integers(0, 3, 200))
    if case in ("never predicted", "neither"):
        predictions = predictions % 2
    result = scores(confusion_matrix(labels, predictions, 3), NAMES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of a class without labels
        assert result["accuracy"] == pytest.approx(reference.accuracy_score(labels, predictions))
        assert result["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(labels, predictions))
        for average in ("macro", "weighted"):
            expected = reference.precision_recall_fscore_support(labels, predictions, average=average, zero_division=0)
            for metric, value in zip(("precision", "recall", "f1"), expected, strict=False):
                assert result[f"{metric}/{average}"] == pytest.approx(value)
        expected = reference.precision_recall_fscore_support(labels, predictions, labels=[0, 1, 2], zero_division=0)
        for metric, values in zip(("precision", "recall", "f1"), expected, strict=False):
            assert [result[f"{metric}/{name}"] for name in NAMES] == pytest.approx(values)
    assert (
        confusion_matrix(labels, predictions, 3) == reference.confusion_matrix(labels, predictions, labels=[0, 1, 2])
    ).all()


def test_intervals_agree_with_scipys_bootstrap_of_the_items():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 300)
    predictions = np.where(rng.random(300) < 0.7, labels, rng.integers(0, 3, 300))
    result = evaluate(labels, predictions, NAMES)
    for metric, function in {
        "accuracy": reference.accuracy_score,
        "f1/macro": lambda y, p: reference.f1_score(y, p, average="macro"),
    }.items():
        expected = stats.bootstrap(
            (labels, predictions), function, paired=True, vectorized=False, n_resamples=999, method="percentile", rng=0
        ).confidence_interval
        assert result[metric]["ci95"] == pytest.approx(list(expected), abs=0.012)
        assert result[metric]["ci95"][0] < result[metric]["value"] < result[metric]["ci95"][1]


def test_drawn_counts_have_the_distribution_of_counting_drawn_items():
    counts = np.array([1, 300, 5, 1, 90, 3])  # rare kinds and frequent ones
    n, shares = counts.sum(), counts / counts.sum()
    drawn = np.array(list(metrics.drawn_counts(counts, seed=0, resamples=20_000)))
    assert (drawn.sum(1) == n).all()
    covariance = n * (np.diag(shares) - np.outer(shares, shares))
    error = np.sqrt(np.diag(covariance) / len(drawn))
    assert (abs(drawn.mean(0) - counts) < 4 * error).all()
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert (abs(np.cov(drawn.T) - covariance) < 0.05 * scale).all()
    assert np.array_equal(drawn[:10], list(metrics.drawn_counts(counts, seed=0, resamples=10)))
    for alike in (np.array([50]), np.ones(7, dtype=int)):  # all frequent, all rare
        assert all(each.sum() == alike.sum() for each in metrics.drawn_counts(alike, seed=0, resamples=5))


def test_draws_do_not_depend_on_how_many_are_in_memory(monkeypatch):
    expected = np.array(list(metrics.draws(13, seed=3, resamples=50)))
    monkeypatch.setattr(metrics, "_CHUNK", 40)
    assert np.array_equal(list(metrics.draws(13, seed=3, resamples=50)), expected)


def test_n_is_the_support_and_the_same_seed_gives_the_same_interval():
    labels, predictions = [0, 0, 0, 1, 2, 2], [0, 0, 1, 1, 2, 0]
    result = evaluate(labels, predictions, NAMES, seed=3)
    assert {name: result[f"recall/{name}"]["n"] for name in NAMES} == {"a": 3, "b": 1, "c": 2}
    assert result["accuracy"]["n"] == result["f1/macro"]["n"] == 6
    assert result == evaluate(labels, predictions, NAMES, seed=3)


def test_a_few_answers_that_are_all_right_prove_little():
    labels = [0] * 25 + [1] * 5
    result = evaluate(labels, labels, NAMES)
    least = {"recall/a": 0.867, "recall/b": 0.566, "precision/b": 0.566, "balanced_accuracy": (0.867 + 0.566) / 2}
    for metric, low in least.items():
        assert result[metric]["ci95"] == pytest.approx([low, 1], abs=5e-4), metric
    assert result["precision/b"]["n"] == 5
    assert result["precision/c"]["ci95"] == [0, 0], "undefined: no such answer"


@pytest.mark.parametrize(("labels", "predictions"), [([0, 1], [0]), ([], []), ([0, 3], [0, 1]), ([0, -1], [0, 1])])
def test_impossible_input_is_refused(labels, predictions):
    with pytest.raises(ValueError, match=r"labels against|classes run"):
        confusion_matrix(labels, predictions, 3)


def test_the_published_baseline_is_a_constant_answer():
    # 3,329 of 9,842 dev pairs are entailment: the published baseline (.3382 / .1144 / .3382 / .1710) to the digit.
    labels = [0] * 3329 + [1] * 3235 + [2] * 3278
    result = evaluate(labels, majority(labels, len(labels)), NAMES)
    wanted = {"accuracy": 0.3382, "precision/weighted": 0.1144, "recall/weighted": 0.3382, "f1/weighted": 0.1710}
    assert {metric: round(result[metric]["value"], 4) for metric in wanted} == wanted


def test_baselines():
    assert majority([2, 1, 1, 2], 3).tolist() == [1, 1, 1]
    train = [("good day", "x"), ("bad day", "x"), ("good food", "x"), ("bad food", "x")] * 5
    assert tfidf(train, [1, 0, 1, 0] * 5, [("good", "x"), ("bad", "x")]).tolist() == [1, 0]
    # A word is a different feature in each position.
    swapped = [("a", "b"), ("b", "a")] * 10
    assert tfidf(swapped, [0, 1] * 10, [("a", "b"), ("b", "a")]).tolist() == [0, 1]
