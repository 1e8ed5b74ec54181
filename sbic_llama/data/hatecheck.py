"""Read and score HateCheck: short invented posts, each testing one ability of a hate speech detector (Röttger et al. 2021).

Hateful is not offensive: a post that swears at nobody (``profanity_nh``) is not hateful and may well be offensive, and a
post that quotes hate to condemn it may offend somebody. Scores on HateCheck show how well an answer can stand in for
"hateful", not how good it is at what it was trained for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.cli.errors import UserError, shown
from common.stats import metrics
from common.stats.metrics import Measure
from common.tables.reading import Row, read_rows
from common.tables.report import fingerprint
from sbic_llama.data.corpus import INVENTED_GROUPS, clean
from sbic_llama.data.features import Feature, Label

FILE_NAME = "test_suite_cases.csv"
COLUMNS = ("functionality", "case_id", "test_case", "label_gold", "target_ident")
LABELS = {"hateful": True, "non-hateful": False}


@dataclass(frozen=True)
class Case:
    """One test case."""

    id: str
    functionality: str  # what it tests, such as negate_neg_nh; the ending tells whether its cases are hateful
    text: str  # cleaned
    hateful: bool  # the expected answer
    target: str  # the group that it is about; empty where there is none


def read_cases(path: Path) -> list[Case]:
    """Read ``test_suite_cases.csv`` in its order."""
    cases: dict[str, Case] = {}
    for row in read_rows(path, COLUMNS):
        case = _case(row)
        if case.id in cases:
            raise row.error(f"duplicate case {shown(case.id)}", "case_id", expected="one row per case")
        cases[case.id] = case
    if not cases:
        raise UserError("no test cases", file=path, expected="one row per case")
    return list(cases.values())


def _case(row: Row) -> Case:
    values = {column: str(row.values[column] if row.values[column] is not None else "") for column in COLUMNS}
    for column in ("functionality", "case_id", "test_case"):
        if not values[column].strip():
            raise row.error("empty", column, expected="a value")
    label, functionality = values["label_gold"], values["functionality"]
    if label not in LABELS:
        raise row.error(f"unknown label {shown(label)}", "label_gold", expected=" or ".join(LABELS))
    ending = functionality.rpartition("_")[2]
    if ending not in ("h", "nh") or (ending == "h") != LABELS[label]:
        expected = "a name ending in _h for a hateful case, in _nh for another"
        raise row.error(f"{shown(functionality)} for a {label} case", "functionality", expected=expected)
    text = clean(values["test_case"])
    if not text:
        raise row.error("blank", "test_case", expected="a post")
    return Case(values["case_id"], functionality, text, LABELS[label], values["target_ident"].strip())


def is_miniature(cases: Sequence[Case]) -> bool:
    """Return whether the cases are about the miniature's invented groups."""
    return {case.target for case in cases} - {""} <= INVENTED_GROUPS.keys()


def case_fingerprint(cases: Sequence[Case]) -> str:
    return fingerprint([case.id, case.functionality, case.text, case.hateful, case.target] for case in cases)


def policies(feature: Feature) -> dict[str, Callable[[Label], bool]]:
    """Return the ways to read a feature's answers as "hateful", the usual one first: description → predicate."""
    if not feature.classifies:
        return {"any group": bool}
    last = len(feature.labels) - 1
    narrow: dict[str, Callable[[Label], bool]] = {f'"{feature.labels[0]}"': lambda label: label == 0}
    if last == 1:
        return narrow
    wide = " or ".join(f'"{label}"' for label in feature.labels[:last])  # "Maybe offensive" too
    return narrow | {wide: lambda label: label != last}


def score(cases: Sequence[Case], flagged: Sequence[bool], *, seed: int = 0) -> dict[str, Measure]:
    """Return how far flags agree with the suite, with bootstrap intervals over all cases.

    Returns:
        ``accuracy``; ``accuracy/hateful`` and ``accuracy/non-hateful``; and their mean, ``balanced_accuracy``: each
        ``{"value", "n", "ci95"}``. Metrics of a kind of case that is absent are left out.
    """
    if len(cases) != len(flagged) or not cases:
        raise ValueError(f"{len(cases)} cases against {len(flagged)} answers")
    hateful = np.array([case.hateful for case in cases])
    right = hateful == np.array(flagged, dtype=bool)
    scores = {"accuracy": metrics.share(right, seed)}
    if hateful.any() and not hateful.all():

        def balanced(chosen: np.ndarray) -> float:
            hits, kinds = right[chosen], hateful[chosen]
            if kinds.all() or not kinds.any():
                return float("nan")
            return (hits[kinds].mean() + hits[~kinds].mean()) / 2

        scores["balanced_accuracy"] = metrics.measure(balanced, len(cases), seed)
    for name, kind in LABELS.items():
        if (hateful == kind).any():
            scores[f"accuracy/{name}"] = metrics.share(right[hateful == kind], seed)
    return scores


def by_functionality(cases: Sequence[Case], flagged: Sequence[bool], *, seed: int = 0) -> dict[str, Measure]:
    """Return accuracy by functionality, in the suite's order."""
    right: dict[str, list[bool]] = {}
    for case, flag in zip(cases, flagged, strict=True):
        right.setdefault(case.functionality, []).append(case.hateful == flag)
    return {name: metrics.share(values, seed) for name, values in right.items()}


def flagged_by_target(
    cases: Sequence[Case], flagged: Sequence[bool], *, hateful: bool, seed: int = 0
) -> dict[str, Measure]:
    """Return the share of flagged cases by target group, among the hateful cases or among the others."""
    flags: dict[str, list[bool]] = {}
    for case, flag in zip(cases, flagged, strict=True):
        if case.target and case.hateful == hateful:
            flags.setdefault(case.target, []).append(flag)
    return {name: metrics.share(flags[name], seed) for name in sorted(flags, key=str.casefold)}
