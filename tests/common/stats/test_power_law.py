"""Fitted learning curves: a known one is recovered, intervals cover it, and too few sizes give none."""

from __future__ import annotations

import numpy as np
import pytest

from common.stats import power_law
from common.stats.power_law import PowerLaw, fit, fit_items

SIZES = [50, 100, 200, 400, 800]
LAW = PowerLaw(0.9, 2.0, 0.5)


def answers(seed: int, items: int = 400, sizes: list[int] = SIZES) -> np.ndarray:
    """Return whether a model of each size is right on each item, with accuracies on the curve."""
    return np.random.default_rng(seed).random((len(sizes), items)) < LAW.at(sizes)[:, None]


@pytest.mark.parametrize("law", [LAW, PowerLaw(0.75, 1.0, 0.3), PowerLaw(1.0, 8.0, 0.9)])
def test_a_known_curve_is_recovered(law):
    fitted = fit(SIZES, law.at(SIZES))
    assert [fitted.a, fitted.b, fitted.c] == pytest.approx([law.a, law.b, law.c], rel=1e-3)
    assert fitted.at([1600])[0] == pytest.approx(law.at([1600])[0], abs=1e-4)


def test_scores_that_do_not_grow_give_a_flat_curve():
    assert np.ptp(fit(SIZES, [0.6] * 5).at([50, 100_000])) == pytest.approx(0, abs=1e-4)
    assert np.ptp(fit(SIZES, [0.7, 0.66, 0.62, 0.6, 0.58]).at([50, 100_000])) == pytest.approx(0, abs=1e-4)


def test_intervals_cover_the_curve(monkeypatch):
    monkeypatch.setattr(power_law, "RESAMPLES", 60)
    covered = []
    for seed in range(12):
        right = answers(seed)
        fitted = fit_items(SIZES, lambda chosen, right=right: right[:, chosen].mean(1), right.shape[1], seed)
        _, low, high = fitted.at([800])[0]
        covered.append(low <= LAW.at([800])[0] <= high)
        gain, least, most = fitted.gain(800, 1600)
        assert 0 <= least <= gain + 0.02
        assert least <= most <= 0.2
    assert sum(covered) >= 10


def test_fewer_than_four_sizes_give_no_curve():
    right = answers(0, sizes=SIZES[:3])
    assert fit_items(SIZES[:3], lambda chosen: right[:, chosen].mean(1), right.shape[1], 0) is None
