"""Makes ``ppi_py_values.json`` and ``ppi_py_regressions.json``: what the papers' own package says of a few samples.

The package brings 300 MB that nothing else here needs, so its answers are kept instead. To make them again, in an environment
of its own: ``pip install ppi-python==0.2.3 numpy==2.4.6``, then ``python tests/common/stats/ppi_py_values.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def sample(seed: int, labelled: int, rest: int, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = (rng.random(labelled + rest) < 0.3).astype(float)
    noise = rng.random(labelled + rest)
    predictions = {
        "labels": np.where(noise < 0.2, 1 - truth, truth),
        "probabilities": np.round(np.clip(0.15 + 0.4 * truth + 0.9 * (noise - 0.3), 0, 1), 3),
        "useless": np.round(noise, 3),
        "opposed": np.round(1 - 0.8 * truth, 3),
    }[kind]
    return truth[:labelled], predictions[:labelled], predictions[labelled:]


def regression(seed: int, labelled: int, items: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return covariates with a 1 first, labels and predictions of all items; the first ``labelled`` ones have a human label."""
    rng = np.random.default_rng(seed)
    covariates = np.stack([np.ones(items), rng.integers(0, 2, items), rng.normal(size=items).round(3)], axis=1)
    share = 1 / (1 + np.exp(-(covariates @ [-0.5, 1.0, 0.5])))
    labels = (rng.random(items) < share).astype(float)
    wrong = rng.random(items) < np.where(covariates[:, 1] == 1, 0.3, 0.1)
    return covariates, labels, np.where(wrong, 0.8 - 0.6 * labels, 0.2 + 0.6 * labels).round(3)


def regressions() -> list[dict]:
    """Return coefficients with a fixed weight of the machine, which the package gives to the items without a human label."""
    from ppi_py import ppi_logistic_ci, ppi_logistic_pointestimate, ppi_ols_ci, ppi_ols_pointestimate

    functions = {
        "linear": (ppi_ols_pointestimate, ppi_ols_ci),
        "logistic": (ppi_logistic_pointestimate, ppi_logistic_ci),
    }
    cases = []
    for seed, (labelled, items, weight) in enumerate([(200, 1000, 0.7), (300, 900, 1.0), (150, 2000, 0.0)]):
        covariates, labels, predictions = regression(seed, labelled, items)
        known, rest = slice(0, labelled), slice(labelled, None)
        given = (covariates[known], labels[known], predictions[known], covariates[rest], predictions[rest])
        lam = weight * (items - labelled) / items
        for kind, (point, interval) in functions.items():
            low, high = interval(*given, alpha=0.05, lam=lam)
            case = {"kind": kind, "seed": seed, "labelled": labelled, "items": items, "weight": weight}
            cases.append({**case, "value": point(*given, lam=lam).tolist(), "low": low.tolist(), "high": high.tolist()})
    return cases


def main() -> None:
    from ppi_py import ppi_mean_ci, ppi_mean_pointestimate

    cases = []
    for seed, (labelled, rest, kind) in enumerate(
        [
            (40, 100, "labels"),
            (100, 100, "labels"),
            (60, 200, "probabilities"),
            (120, 60, "probabilities"),
            (50, 80, "useless"),
            (50, 80, "opposed"),
        ]
    ):
        labels, predictions, others = sample(seed, labelled, rest, kind)
        # Once with the package's own lambda, once with that of the regression of labels on predictions.
        slope = np.clip(np.cov(labels, predictions)[0, 1] / predictions.var(ddof=1), 0, 1)
        lam = float(slope * rest / (labelled + rest))
        own, tuned = (
            {
                "value": float(np.squeeze(ppi_mean_pointestimate(labels, predictions, others, lam=given))),
                "ci95": np.squeeze(ppi_mean_ci(labels, predictions, others, alpha=0.05, lam=given)).tolist(),
            }
            for given in (None, lam)
        )
        cases.append(
            {
                "kind": kind,
                "labels": labels.tolist(),
                "predictions": predictions.tolist(),
                "rest": others.tolist(),
                "lambda": lam,
                "own": own,
                "tuned": tuned,
            }
        )
    folder = Path(__file__).parent
    for name, values in (("ppi_py_values.json", cases), ("ppi_py_regressions.json", regressions())):
        (folder / name).write_text("[\n" + ",\n".join(json.dumps(case) for case in values) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
