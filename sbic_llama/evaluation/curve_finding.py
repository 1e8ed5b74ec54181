"""What a learning curve shows: scores by number of labels, and what further labels would give."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from common.cli.console import stage
from common.results import finding as findings
from common.results.finding import Finding, Growth, Listing, about, interval, worded
from common.results.pictures import growth, png
from common.results.record import RunRecord
from common.results.rendering import write_report
from common.runtime.files import atomic_write
from common.stats import power_law
from common.stats.metrics import confusion_matrix, scores
from sbic_llama.evaluation.learning_curve import ALPHA, SEED, LearningCurve, Scored
from sbic_llama.evaluation.with_people import TEMPLATES, score_of

HELPS, HARDLY = 0.01, 0.02  # a gain that is certainly above the one is worth labeling for; below the other, hardly
CLOSE = 0.005  # a curve so close to an interval describes the score
DRAWN = 60  # places of the curve in the picture
Rows = Sequence[dict[str, Any]]  # a measure of each size
MODEL, PEOPLE = "model and people", "people among themselves"


def write_results(curve: LearningCurve, measured: Sequence[Scored]) -> tuple[list[RunRecord], Finding]:
    """Write the finding, its pictures, and a page with the records; return records and finding."""
    folder = curve.arguments.output_dir
    with stage("fitting the curve"):
        finding = curve_finding(curve, measured)
    findings.leave(finding, folder, curve.feature.stem, None)
    records = [record for each in measured for record in (each.record, each.tfidf)]
    write_report(records, folder / "learning_curve.html", finding.title, [finding])
    drawn = [part for part in finding.parts if isinstance(part, Growth)]
    for part, name in zip(drawn, ("learning_curve", "agreement"), strict=False):
        with atomic_write(folder / f"{name}.png") as file:
            file.write_bytes(growth(part, png))
    return records, finding


def score_of_items(curve: LearningCurve, measured: Sequence[Scored]) -> Callable[[np.ndarray], np.ndarray]:
    """Return what maps indices of test texts to the score of each size on these texts."""
    feature, labels = curve.feature, [curve.feature.label_of(post) for post in curve.test]
    if not feature.classifies:
        one = score_of(feature)
        items = np.array([[one(*pair) for pair in zip(labels, each.answers, strict=True)] for each in measured])
        return lambda chosen: items[:, chosen].mean(1)
    known, answers = np.array(labels), np.array([each.answers for each in measured])

    def balanced(chosen: np.ndarray) -> np.ndarray:
        counts = [confusion_matrix(known[chosen], row[chosen], len(feature.labels)) for row in answers]
        return scores(np.stack(counts), feature.labels)["balanced_accuracy"]

    return balanced


def curve_finding(curve: LearningCurve, measured: Sequence[Scored]) -> Finding:
    """Return the scores by size, the fitted curve, and what twice as many labels would give."""
    metric, last = curve.metric, measured[-1]
    name = metric.replace("_f1", " F1").replace("_", " ")
    sizes = [each.size for each in measured]
    fit = power_law.fit_items(sizes, score_of_items(curve, measured), len(curve.test), SEED)
    own, tfidf = (
        [record.metrics[metric] for record in each]
        for each in zip(*((m.record, m.tfidf) for m in measured), strict=True)
    )
    gain = fit.gain(last.size, 2 * last.size) if fit else None
    off = off_the_curve(fit, sizes, own) if fit else []
    verdict = None
    if gain is not None:
        verdict = "off" if off else "more" if gain[1] > HELPS else "enough" if gain[2] < HARDLY else "open"
    numbers = {
        "metric": name,
        "smallest": sizes[0],
        "largest": last.size,
        "available": len(curve.order),
        "tried": len(sizes),
        "fewest": power_law.FEWEST,
        "first": own[0],
        "last": own[-1],
        "fit": fit and fit.law,
        "now": fit and float(fit.law.at([last.size])[0]),
        "twice": fit and fit.at([2 * last.size])[0].tolist(),
        "off": off,
        "gain": gain,
        "verdict": verdict,
        "tfidf": tfidf[-1],
        "ahead": ahead_from(sizes, own, tfidf),
        "alpha": last.alpha if MODEL in last.alpha else None,
    }
    shared = about(last.record) | {"model": f"QLoRA, {sizes[0]:,} to {last.size:,} labeled texts"}
    return Finding(
        name="learning-curve",
        **worded(TEMPLATES / "learning_curve.jinja", **numbers),
        parts=[*pictures(name, fit, measured, own, tfidf), table(metric, name, measured)],
        facts={
            "metric": metric,
            "sizes": sizes,
            "fit": fit and {"a": fit.law.a, "b": fit.law.b, "c": fit.law.c, "resamples": len(fit.drawn)},
            "twice_as_many": fit and {"value": numbers["twice"][0], "ci95": numbers["twice"][1:]},
            "gain": gain and {"value": gain[0], "ci95": list(gain[1:])},
            "verdict": verdict,
            "sizes_off_the_curve": off,
            "sources": ["Figueroa et al. 2012", "Viering and Loog 2023"],
        },
        **shared,
    )


def pictures(name: str, fit: power_law.Fit | None, measured: Sequence[Scored], own: Rows, tfidf: Rows) -> list[Growth]:
    """Return the pictures of the score, and of agreement with people where several labeled a text."""
    sizes = [each.size for each in measured]
    places = np.geomspace(sizes[0], 2 * sizes[-1], DRAWN)
    result = [
        Growth(
            f"{name[0].upper()}{name[1:]} by number of labeled texts",
            "labeled texts",
            name,
            {"adapter": spans(sizes, own), "TF-IDF": spans(sizes, tfidf)},
            np.column_stack([places, fit.at(places)]).tolist() if fit else [],
            "fitted curve" if fit else "",
        )
    ]
    kinds = [kind for kind in (MODEL, PEOPLE) if all(kind in each.alpha for each in measured)]
    if kinds:
        rows = {kind: spans(sizes, [each.alpha[kind] for each in measured]) for kind in kinds}
        result.append(Growth("Agreement with people by number of labeled texts", "labeled texts", ALPHA, rows))
    return result


def off_the_curve(fit: power_law.Fit, sizes: Sequence[int], own: Rows) -> list[int]:
    """Return the sizes at which the curve lies outside the interval of the measured score, and not :data:`CLOSE` to it."""
    values = zip(sizes, fit.law.at(sizes), (each["ci95"] for each in own), strict=True)
    return [size for size, value, (low, high) in values if not low - CLOSE <= value <= high + CLOSE]


def ahead_from(sizes: Sequence[int], own: Rows, others: Rows) -> int | None:
    """Return the size from which on a score is above the other; None if it is not with the largest."""
    pairs = zip(reversed(sizes), reversed(own), reversed(others), strict=True)
    ahead = itertools.takewhile(lambda pair: pair[1]["value"] > pair[2]["value"], pairs)
    return min((size for size, *_ in ahead), default=None)


def spans(sizes: Sequence[int], measures: Rows) -> list[list[float]]:
    return [[size, each["value"], *each["ci95"]] for size, each in zip(sizes, measures, strict=True)]


def table(metric: str, name: str, measured: Sequence[Scored]) -> Listing:
    """Return a row per size."""
    metrics = {name: metric} | ({"accuracy": "accuracy"} if metric == "balanced_accuracy" else {})
    columns = ["labeled texts", *(f"{title} [95 %]" for title in metrics), f"TF-IDF, {name} [95 %]"]
    columns += [f"{ALPHA} with people [95 %]", "training, seconds"]
    rows = [
        [
            each.size,
            *(interval(each.record.metrics[key]) for key in metrics.values()),
            interval(each.tfidf.metrics[metric]),
            interval(each.alpha[MODEL]) if MODEL in each.alpha else None,
            each.record.seconds,
        ]
        for each in measured
    ]
    return Listing("Scores by number of labeled texts", columns, rows)
