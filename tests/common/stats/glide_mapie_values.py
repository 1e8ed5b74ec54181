"""Makes ``glide_mapie_values.json``: what two other packages say of a few samples.

Nothing else here needs the packages, and one of them needs Python 3.12, so their answers are kept instead. To make them again, in
an environment of its own: ``pip install glide-py==0.11.0 mapie==1.6.0 numpy scipy``, then
``python tests/common/stats/glide_mapie_values.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def strata(seed: int, sizes: tuple[int, ...], labeled: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the strata of labeled items, equally many of each, and whether people put them into the class."""
    rng = np.random.default_rng(seed)
    places = np.repeat(np.arange(len(sizes)), labeled)
    return places, (rng.random(len(places)) < np.linspace(0.1, 0.8, len(sizes))[places]).astype(float)


def answers(seed: int, items: int, power: float) -> tuple[np.ndarray, np.ndarray]:
    """Return confidences, and whether the answers are right."""
    rng = np.random.default_rng(seed)
    sure = rng.uniform(0.5, 1, items).round(3)
    return sure, rng.random(items) < sure**power


def main() -> None:
    from glide.estimators import StratifiedClassicalMeanEstimator
    from mapie.risk_control.fwer_control import control_fwer
    from scipy.stats import binom

    shares = []
    for seed, sizes, labeled in [(0, (600, 300), 25), (1, (5000, 400, 100), 30), (2, (100, 100, 800, 50), 15)]:
        places, labels = strata(seed, sizes, labeled)
        weights = np.array(sizes) / sum(sizes)
        estimate = StratifiedClassicalMeanEstimator().estimate(labels, places, stratum_weights=weights)
        interval = estimate.confidence_interval
        given = {"seed": seed, "sizes": sizes, "labeled": labeled}
        shares.append({**given, "mean": float(interval.mean), "standard_error": float(interval.std)})
    guarantees = []
    cases = [(3, 400, 0.5, 0.9), (4, 600, 0.6, 0.85), (5, 200, 1.0, 0.9), (6, 1000, 0.5, 0.88)]
    for seed, items, power, target in cases:
        sure, right = answers(seed, items, power)
        thresholds = np.quantile(sure, np.arange(19, -1, -1) / 20, method="lower")
        kept = [sure >= threshold for threshold in thresholds]
        p_values = [float(binom.sf(right[here].sum() - 1, here.sum(), target)) for here in kept]
        # One error must be allowed: before that, a threshold is not tested.
        tested = [place for place, here in enumerate(kept) if binom.sf(here.sum() - 2, here.sum(), target) <= 0.05]
        passed = control_fwer(np.array([p_values[place] for place in tested]), 0.05, "fixed_sequence")
        threshold = float(thresholds[tested[int(passed[-1])]]) if len(passed) else None
        guarantees.append({"seed": seed, "items": items, "power": power, "target": target, "threshold": threshold})
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps({"shares": shares, "guarantees": guarantees}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
