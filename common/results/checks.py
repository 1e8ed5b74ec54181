"""Checks of a model as findings: calibration, selective prediction, scores by group, and agreement with people."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.cli.errors import UserError, shown
from common.results.finding import Curve, Finding, Listing, Measures, Part, about, worded
from common.results.record import RunRecord
from common.results.scoring import OTHERS
from common.stats import agreement, calibration, metrics, paired
from common.stats.agreement import Annotations, Coded, Predictions
from common.stats.alt_test import EPSILON, FEWEST, AltTest, advantage, alt_test, mean_advantage
from common.stats.design import Design, Draw
from common.stats.metrics import Measure
from common.stats.scale import Scale, ScaleName, Similarity

TEMPLATES = Path(__file__).parent / "templates"
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)  # of the items that people might check, the least certain first
CURVE_POINTS = 100
MOST_DRAWN = 15  # annotators in the picture
MOST_NAMED = 8  # annotators in a sentence


def risk_coverage_finding(
    confidence: Sequence[float],
    scores: Sequence[float],
    *,
    metric: str,
    seed: int,
    design: Design | None = None,
    **about: Any,
) -> Finding:
    """Measure what remains if the least certain items go to people: selective prediction (El-Yaniv and Wiener 2010).

    ``scores`` say how good each answer was, 0 to 1; ``metric`` names their mean, like "accuracy".
    """
    sure, good = np.asarray(confidence, dtype=float), np.asarray(scores, dtype=float)
    lost, n, weights = 1 - good, len(sure), design and design.weights
    kept = {
        f"the least certain {share:.0%} go to people" if share else "nothing goes to people": max(
            1, n - round(share * n)
        )
        for share in SHARES
    }
    # For each draw the area, and the score of the kept items; ties count by their mean, so their order does not matter.
    resampled = _resampled_risks(sure, lost, design, seed)
    drawn = np.array([[risks.mean(), *(1 - risks[count - 1] for count in kept.values())] for risks in resampled])
    ends = np.percentile(drawn, (2.5, 97.5), axis=0).T.tolist()
    curve, ideal = (1 - calibration.risks(by, lost, weights) for by in (sure, good))
    aurc = {"value": calibration.area(sure, lost, weights), "n": n, "ci95": ends[0]}
    rest = {
        name: _kept_measure(float(curve[count - 1]), count, ends[place], sure, design)
        for place, (name, count) in enumerate(kept.items(), 1)
    }
    mean_loss = float(np.average(lost, weights=weights))
    facts = {"aurc": aurc, "aurc_best": calibration.area(good, lost, weights), "mean_loss": mean_loss}
    # The mean of the first few items is noise.
    places = np.unique(np.linspace(max(0, n // 50 - 1), n - 1, CURVE_POINTS).astype(int))
    series = {
        name: [[(k + 1) / n, float(values[k])] for k in places]
        for name, values in {"by its own certainty": curve, "if it knew its errors": ideal}.items()
    }
    title = f"{metric[0].upper()}{metric[1:]} of the"
    x = "share of the items that the model keeps, the most certain first"
    return Finding(
        name="risk-coverage",
        **worded(
            TEMPLATES / "risk_coverage.jinja",
            metric=metric,
            n=n,
            all=1 - mean_loss,
            half=list(rest.values())[-1],
            aurc=aurc,
            best=facts["aurc_best"],
            mean_loss=mean_loss,
        ),
        parts=[
            Curve(f"{title} items that the model keeps", x, metric, series),
            Measures(f"{title} rest, if people take the least certain", "checked by people", metric, rest),
        ],
        facts={**facts, "source": "Geifman et al. 2019"},
        **about,
    )


def _resampled_risks(sure: np.ndarray, lost: np.ndarray, design: Design | None, seed: int) -> Iterator[np.ndarray]:
    if design is None:
        return (calibration.risks(sure[chosen], lost[chosen]) for chosen in metrics.draws(len(sure), seed))
    return (calibration.risks(sure, lost, weights) for weights in design.resampled(seed, metrics.RESAMPLES))


def _kept_measure(value: float, count: int, interval: list[float], sure: np.ndarray, design: Design | None) -> Measure:
    """Return the score of the ``count`` most certain items of a simple draw or, with a design, of the same share of all items.

    Few labels with large weights may all be right by chance. So the interval is at least as wide as the score interval of as many
    labels of a simple draw as they tell.
    """
    if design is None:
        return metrics.with_width({"value": value, "n": count, "ci95": interval})
    order = np.argsort(-sure, kind="stable")
    reached = np.cumsum(design.weights[order]) / design.weights.sum()
    chosen = order[: max(1, int((reached <= count / len(sure) + 1e-9).sum()))]
    alone = {"value": value, "n": design.effective(chosen), "ci95": [value, value]}
    low, high = metrics.with_width(alone)["ci95"]
    return {"value": value, "n": len(chosen), "ci95": [min(low, interval[0]), max(high, interval[1])]}


def comparison_finding(
    labels: Sequence[int], answers: Sequence[int], others: Mapping[str, np.ndarray], *, seed: int, **about: Any
) -> Finding:
    """Measure how much better a model's answers are than those of others on the same items.

    ``others`` are the classes that each other model's seeds gave, shape (seeds, n).
    """
    known = np.asarray(labels, dtype=int)
    own = np.asarray([answers], dtype=int) == known
    right = {name: np.asarray(given, dtype=int) == known for name, given in others.items()}
    balanced = {name: paired.balanced_difference(each, own, known, seed=seed) for name, each in right.items()}
    plain = {name: paired.difference(each, own, seed=seed) for name, each in right.items()}
    tests = {name: paired.mcnemar(each[0], own[0]) for name, each in right.items()}
    verdicts = {
        name: "better" if gap["ci95"][0] > 0 else "worse" if gap["ci95"][1] < 0 else "open"
        for name, gap in balanced.items()
    }
    shared = {"reference": 0.0, "reference_name": "no difference", "differences": True}
    return Finding(
        name="comparison",
        **worded(TEMPLATES / "comparison.jinja", balanced=balanced, verdicts=verdicts, tests=tests, n=len(known)),
        parts=[
            Measures("Balanced accuracy minus the baseline's", "baseline", "difference", balanced, **shared),
            Measures("Accuracy minus the baseline's", "baseline", "difference", plain, **shared),
            Listing(
                "Items that each gets right (of several seeds, the first)",
                ["baseline", "both", "only the baseline", "only the model", "neither", "McNemar's exact p"],
                [[name, t.both, t.only_first, t.only_second, t.neither, t.p] for name, t in tests.items()],
            ),
        ],
        facts={"verdicts": verdicts, "sources": ["McNemar 1947", "Sellam et al. 2022"]},
        **about,
    )


def calibration_finding(
    probabilities: np.ndarray,
    labels: Sequence[int],
    *,
    temperature: float,
    seed: int,
    design: Design | None = None,
    **about: Any,
) -> Finding:
    """Measure how well a model's probabilities match its accuracy, with its temperature and without.

    Probabilities, shape (n, classes), are those after division of the logits by the temperature, which is 1 if none was fitted.
    """
    known, weights = np.asarray(labels, dtype=int), design and design.weights
    given = {"as given": probabilities}
    if temperature != 1.0:
        given["without the temperature"] = calibration.tempered(probabilities, 1 / temperature)
    errors, bins = {}, {}
    for name, p in given.items():
        confidence, right = p.max(1), p.argmax(1) == known
        by_chance, by_chance_95 = calibration.expected_by_chance(confidence, seed, weights)
        errors[name] = {
            "ece": calibration.expected_calibration_error(confidence, right, weights=weights),
            "by_chance": by_chance,
            "by_chance_95": by_chance_95,
            "nll": calibration.negative_log_likelihood(p, known, weights),
        }
        bins[name] = calibration.reliability(confidence, right, weights=weights)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == known
    gap = metrics.mean(confidence - right, seed, design, ends=(-1, 1))
    facts = {"temperature": temperature, "bins": calibration.BINS, "errors": errors}
    series = {name: [[x, y] for x, y, _ in points] for name, points in bins.items()}
    rows = [[name, *(round(number, 4) for number in numbers.values())] for name, numbers in errors.items()]
    return Finding(
        name="calibration",
        **worded(
            TEMPLATES / "calibration.jinja",
            **facts,
            gap=gap,
            n=len(known),
            confidence=float(np.average(confidence, weights=weights)),
            accuracy=float(np.average(right, weights=weights)),
        ),
        parts=[
            Curve("Reliability: accuracy by confidence", "confidence", "accuracy", series, diagonal=True),
            Listing(
                "Expected calibration error (ECE), and what chance would show for a perfectly calibrated model",
                ["probabilities", "ECE", "by chance, mean", "by chance, 95 % below", "mean negative log-likelihood"],
                rows,
            ),
            Listing(
                "Reliability in bins, as given",
                ["mean confidence", "accuracy", "n"],
                [[round(x, 4), round(y, 4), n] for x, y, n in bins["as given"]],
            ),
        ],
        facts={**facts, "confidence_minus_accuracy": gap, "source": "Guo et al. 2017"},
        **about,
    )


def group_scores(record: RunRecord) -> Finding | None:
    """Turn a record's scores by group into a finding; None if it has none."""
    if not record.by_group:
        return None
    headline, overall = next(iter(record.metrics.items()))
    metric = headline.replace("_f1", " F1")
    kinds = {}
    for kind, groups in record.by_group.items():
        named = {group: row for group, row in groups.items() if group != OTHERS}
        if len(named) < 2:
            continue
        lowest, highest = (choose(named, key=lambda group: named[group]["value"]) for choose in (min, max))
        ends = {"lowest": lowest, "low": named[lowest], "highest": highest, "high": named[highest]}
        kinds[kind] = {**ends, "count": len(named), "p": _p_of_equal(named) if headline == "accuracy" else None}
    return Finding(
        name="groups",
        **worded(TEMPLATES / "groups.jinja", metric=metric, kinds=kinds),
        parts=[
            Measures(f"{metric[0].upper()}{metric[1:]} by {kind}", kind, metric, groups, overall["value"], "all items")
            for kind, groups in record.by_group.items()
        ],
        **about(record),
    )


def _p_of_equal(groups: dict[str, Measure]) -> float | None:
    """Test whether groups are equally good: Pearson's chi-squared test of right and wrong answers by group."""
    from scipy.stats import chi2_contingency

    right = [round(row["value"] * row["n"]) for row in groups.values()]
    wrong = [row["n"] - count for row, count in zip(groups.values(), right, strict=True)]
    return float(chi2_contingency([right, wrong]).pvalue) if sum(right) and sum(wrong) else None


def agreement_finding(
    annotations: Annotations | Iterable[tuple[Hashable, Hashable, Any]],
    predictions: Predictions,
    *,
    epsilon: float = EPSILON,
    scale: ScaleName = "nominal",
    order: Sequence[Hashable] = (),
    similarity: Similarity | None = None,
    min_items: int = FEWEST,
    seed: int = 0,
    resamples: int = metrics.RESAMPLES,
    drawn: Draw | None = None,  # how the items were drawn; None for a simple draw
    notes: Sequence[str] = (),
    **about: Any,
) -> Finding:
    """Compare how a model agrees with people and how people agree with each other.

    Both are measured on the same items: those labeled by the model and at least two people. Row order does not affect results.
    Arguments are those of :func:`alt_test`; ``notes`` are paragraphs about the tables, for the finding's details.
    """
    annotations = agreement.by_item(annotations)
    coded = agreement.code(annotations, predictions, Scale(scale, tuple(order), similarity))
    _check_overlap(annotations, predictions, coded)
    settings = {"epsilon": epsilon, "scale": scale, "order": order, "similarity": similarity, "min_items": min_items}
    tested = alt_test(annotations, predictions, **settings, drawn=drawn)
    coefficients = _coefficients(coded, seed, drawn, resamples)
    known = [each for each in coefficients if each["rows"]]
    return Finding(
        name="agreement",
        **worded(
            TEMPLATES / "agreement.jinja",
            coefficients=coefficients,
            test=tested,
            wins=sum(annotator.wins for annotator in tested.annotators),
            rho=mean_advantage(tested, seed, resamples) if tested.annotators else None,
            counts=_counts(annotations, predictions, coded),
            notes=notes,
            labels=len(coded.values),
            fewest=FEWEST,
            most_named=MOST_NAMED,
            agreement=agreement,
        ),
        parts=[
            *(Measures(each["title"], "agreement of", each["name"], each["rows"]) for each in known),
            *_advantages(tested, seed, resamples),
        ],
        facts={
            "alternative_annotator_test": _plain(tested),
            "coefficients": {each["title"]: each["rows"] for each in known},
            **coded.scale.describe(),
            "seed": seed,
            "resamples": resamples,
            "packages": {"scipy": importlib.metadata.version("scipy")},
        },
        **about,
    )


def _plain(tested: AltTest) -> dict[str, Any]:
    """Return the test's result for JSON, without the differences by item."""
    values = {field.name: getattr(tested, field.name) for field in dataclasses.fields(tested)}
    del values["differences"], values["drawn"]
    return values | {"annotators": [dataclasses.asdict(annotator) for annotator in tested.annotators]}


def _check_overlap(annotations: Annotations, predictions: Predictions, coded: Coded) -> None:
    """Refuse tables that cannot belong together; every number would be computed, and wrong."""
    if not coded.items:
        examples = [shown(next(iter(labels), None)) for labels in (annotations, predictions)]
        raise UserError(
            f"no item has both a human label and a prediction (items are named {examples[0]} and {examples[1]})",
            fix="check the item columns",
        )
    if coded.scale == Scale() and coded.human.isdisjoint(coded.model.tolist()):
        examples = [shown(coded.values[min(codes)]) for codes in (coded.human, coded.model)]
        raise UserError(
            f"the model never gives a label that people give (people give {examples[0]}, the model {examples[1]})",
            fix="check the label columns",
        )


def _coefficients(coded: Coded, seed: int, drawn: Draw | None, resamples: int) -> list[dict[str, Any]]:
    """Measure alpha and kappa, with their rows; nothing if there are too many labels for a similarity."""
    if not coded.has_coefficients:
        return []
    weighted = coded.scale.name == "ordinal" or coded.scale.similarity is not None
    similarity = coded.scale.describe()["similarity"]
    kinds = [("Krippendorff's alpha", "alpha", agreement.alpha)]
    if coded.scale.name != "real":
        kinds.append(("Cohen's kappa, weighted" if weighted else "Cohen's kappa", "kappa", agreement.kappa))
    measured = agreement.compared(coded, [coefficient for *_, coefficient in kinds], seed, drawn, resamples)
    return [
        {
            "title": title,
            "name": name,
            "scale": f"similarity {similarity}" if similarity else f"{coded.scale.name} scale",
            "rows": rows,
        }
        for (title, name, _), rows in zip(kinds, measured, strict=True)
    ]


def _advantages(tested: AltTest, seed: int, resamples: int) -> list[Part]:
    """Return the table and picture of the Alternative Annotator Test."""
    if not tested.annotators:
        return []
    most = f" (the {MOST_DRAWN} with most items)" if len(tested.annotators) > MOST_DRAWN else ""
    rows = {
        annotator.name: advantage(tested, annotator.name, seed, resamples)
        for annotator in tested.annotators[:MOST_DRAWN]
    }
    columns = ["annotator", "items", "model as good or better", "person as good or better", "p", "test", "model wins"]
    return [
        Measures(
            f"How much more often an annotator agrees better with the others than the model does{most}",
            "annotator",
            "share of items",
            rows,
            reference=tested.epsilon,
            reference_name="ε, below which the model wins",
        ),
        Listing(
            "Alternative Annotator Test by annotator",
            columns,
            [list(dataclasses.astuple(annotator)) for annotator in tested.annotators],
        ),
    ]


def _counts(annotations: Annotations, predictions: Predictions, coded: Coded) -> dict[str, int]:
    """Count items, labels and people, and predictions with a label that nobody gave."""
    labeled = [labels for labels in annotations.values() if labels]
    unknown = ~np.isin(coded.model, list(coded.human))
    return {
        "labels": sum(map(len, labeled)),
        "kinds": len(coded.human),  # different labels of people
        "people": len({name for labels in labeled for name in labels}),
        "labeled": len(labeled),
        "predicted": len(predictions),
        "both": len(coded.items),
        "several": sum(n for n, labels in zip(coded.counts.tolist(), coded.people, strict=True) if len(labels) > 1),
        "unknown": int(coded.counts[unknown].sum()) if coded.scale == Scale() else 0,
    }
