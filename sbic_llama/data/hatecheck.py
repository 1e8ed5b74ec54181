"""HateCheck: short made-up posts, each a test of one thing that a detector of hate speech must tell (Röttger et al. 2021).

Hateful is not offensive: a post that swears at nobody (``profanity_nh``) is not hateful and may well be offensive, and one that
quotes hate to condemn it may offend somebody. Scores on HateCheck say how far an answer can stand for "hateful", not how good it is
at what it was trained for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.cli.errors import UserError, shown
from common.stats import metrics
from common.stats.metrics import Measure
from common.tables.reading import read_rows
from common.tables.report import fingerprint
from sbic_llama.data import corpus
from sbic_llama.data.corpus import clean
from sbic_llama.data.features import Feature, Label

FILE_NAME = "test_suite_cases.csv"
COLUMNS = ("functionality", "case_id", "test_case", "label_gold", "target_ident")
LABELS = {"hateful": True, "non-hateful": False}


@dataclass(frozen=True)
class Case:
    """One test case.

    Attributes:
        id: Its number in the suite.
        functionality: What it tests, as ``negate_neg_nh``; the end says whether its cases are hateful.
        text: The post as :func:`sbic_llama.data.corpus.clean` gives it.
        hateful: The expected answer.
        target: The group that it is about; empty where there is none.
    """

    id: str
    functionality: str
    text: str
    hateful: bool
    target: str


def read_cases(path: Path) -> list[Case]:
    """The cases of ``test_suite_cases.csv``, in the file's order.

    Raises:
        UserError: No such file, a missing column, an unknown label, an empty field, a case that stands twice, or a functionality
            whose name says the opposite of a label (with the line).
    """
    cases: list[Case] = []
    seen: set[str] = set()
    for row in read_rows(path, COLUMNS):
        values = {column: str(row.values[column] if row.values[column] is not None else "") for column in COLUMNS}
        for column in ("functionality", "case_id", "test_case"):
            if not values[column].strip():
                raise row.error("empty", column, expected="a value")
        if values["label_gold"] not in LABELS:
            raise row.error(f"{shown(values['label_gold'])} is no label", "label_gold", expected=" or ".join(LABELS))
        hateful = LABELS[values["label_gold"]]
        ending = values["functionality"].rpartition("_")[2]
        if ending not in ("h", "nh") or (ending == "h") != hateful:
            raise row.error(
                f"{shown(values['functionality'])} for a {values['label_gold']} case",
                "functionality",
                expected="a name that ends in _h where the case is hateful, in _nh where not",
            )
        if values["case_id"] in seen:
            raise row.error(f"case {shown(values['case_id'])} stands twice", "case_id", expected="one row a case")
        seen.add(values["case_id"])
        text = clean(values["test_case"])
        if not text:
            raise row.error("nothing but spaces", "test_case", expected="a post")
        cases.append(Case(values["case_id"], values["functionality"], text, hateful, values["target_ident"].strip()))
    if not cases:
        raise UserError("no test cases", file=path, expected="a row a case")
    return cases


def is_miniature(cases: Sequence[Case]) -> bool:
    """Whether the cases are about the miniature's invented groups."""
    return {case.target for case in cases} - {""} <= set(corpus.INVENTED_GROUPS)


def case_fingerprint(cases: Sequence[Case]) -> str:
    return fingerprint([case.id, case.functionality, case.text, case.hateful, case.target] for case in cases)


def policies(declared: Feature) -> dict[str, Callable[[Label], bool]]:
    """Which answers of a feature are taken as "hateful", in words → whether an answer is. The first is the usual one."""
    if not declared.classifies:
        return {"any group": bool}
    last = len(declared.labels) - 1
    narrow: dict[str, Callable[[Label], bool]] = {f'"{declared.labels[0]}"': lambda label: label == 0}
    if last == 1:
        return narrow
    wide = " or ".join(f'"{label}"' for label in declared.labels[:last])  # "Maybe offensive" too
    return narrow | {wide: lambda label: label != last}


def score(cases: Sequence[Case], flagged: Sequence[bool], *, seed: int = 0) -> dict[str, Measure]:
    """How far flags agree with the suite, over all its cases.

    Args:
        cases: The cases.
        flagged: Whether each was flagged, in their order.
        seed: Seed of the bootstrap.

    Returns:
        ``accuracy``; ``balanced_accuracy``, the mean of the next two; ``accuracy/hateful`` and ``accuracy/non-hateful``: each
        ``{"value", "n", "ci95"}``. What needs a kind of case that is absent is left out.

    Raises:
        ValueError: The two differ in length or are empty.
    """
    if len(cases) != len(flagged) or not cases:
        raise ValueError(f"{len(cases)} cases against {len(flagged)} answers")
    hateful = np.array([case.hateful for case in cases])
    right = hateful == np.array(flagged, dtype=bool)
    found = {"accuracy": metrics.share(right, seed)}
    if hateful.any() and not hateful.all():

        def balanced(chosen: np.ndarray) -> float:
            ones, kinds = right[chosen], hateful[chosen]
            if kinds.all() or not kinds.any():
                return float("nan")
            return (ones[kinds].mean() + ones[~kinds].mean()) / 2

        found["balanced_accuracy"] = metrics.measure(balanced, len(cases), seed)
    for name, kind in LABELS.items():
        if (hateful == kind).any():
            found[f"accuracy/{name}"] = metrics.share(right[hateful == kind], seed)
    return found


def by_functionality(cases: Sequence[Case], flagged: Sequence[bool], *, seed: int = 0) -> dict[str, Measure]:
    """Share of right answers by functionality, in the suite's order."""
    right: dict[str, list[bool]] = {}
    for case, flag in zip(cases, flagged, strict=True):
        right.setdefault(case.functionality, []).append(case.hateful == flag)
    return {name: metrics.share(values, seed) for name, values in right.items()}


def flagged_by_target(
    cases: Sequence[Case], flagged: Sequence[bool], *, hateful: bool, seed: int = 0
) -> dict[str, Measure]:
    """Share of a group's hateful (or not hateful) cases that were flagged, by the group that they are about."""
    flags: dict[str, list[bool]] = {}
    for case, flag in zip(cases, flagged, strict=True):
        if case.target and case.hateful == hateful:
            flags.setdefault(case.target, []).append(flag)
    return {name: metrics.share(flags[name], seed) for name in sorted(flags, key=str.casefold)}
