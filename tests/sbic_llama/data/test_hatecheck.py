"""Test HateCheck: invalid files are refused by line, and scores equal those counted by hand."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from common.cli.errors import UserError
from common.tables.reading import read_rows
from common.tables.writing import write_rows
from sbic_llama.data import hatecheck
from sbic_llama.data.features import FEATURES, OFFENSIVE_POLICIES
from sbic_llama.data.hatecheck import Case

CASES = [
    Case("1", "derog_h", "a", True, "florbs"),
    Case("2", "derog_h", "b", True, "drevins"),
    Case("3", "derog_h", "c", True, "drevins"),
    Case("4", "derog_h", "d", True, ""),
    Case("5", "plain_nh", "e", False, "florbs"),
    Case("6", "plain_nh", "f", False, ""),
]
FLAGGED = [True, True, False, True, False, True]


@pytest.fixture(scope="module")
def path(miniature) -> Path:
    return miniature / "hatecheck" / hatecheck.FILE_NAME


def test_the_miniatures_cases(path):
    cases = hatecheck.read_cases(path)
    assert hatecheck.is_miniature(cases)
    assert len({case.functionality for case in cases}) == 29
    assert {case.hateful for case in cases} == {True, False}
    assert all(case.target == "" or case.target.rstrip("s") in case.text for case in cases)


def test_the_real_cases(real_data):
    cases = hatecheck.read_cases(real_data / "hatecheck" / hatecheck.FILE_NAME)
    assert len(cases) == 1864
    assert Counter(case.hateful for case in cases) == {True: 1287, False: 577}
    assert len({case.functionality for case in cases}) == 29
    assert Counter(case.target for case in cases)[""] == 139
    assert not hatecheck.is_miniature(cases)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows[1].update(label_gold="hate"),
            r"line 3, column 'label_gold': unknown label 'hate'; expected hat",
        ),
        (lambda rows: rows[2].update(test_case=" "), r"line 4, column 'test_case': empty"),
        (lambda rows: rows[2].update(test_case="&nbsp;"), r"line 4, column 'test_case': blank"),
        (
            lambda rows: rows[0].update(functionality="derog_nh"),
            r"line 2, column 'functionality': 'derog_nh' for a hateful",
        ),
        (lambda rows: rows[0].update(functionality="derog"), r"line 2, column 'functionality': 'derog' for a hateful"),
        (lambda rows: rows[3].update(case_id="2"), r"line 5, column 'case_id': duplicate case '2'"),
        (lambda rows: rows.clear(), r"no test cases"),
        (lambda rows: [row.pop("target_ident") for row in rows], r"missing column 'target_ident'"),
    ],
)
def test_what_is_no_hatecheck_is_refused(path, tmp_path, change, message):
    rows = [row.values for row in read_rows(path)][:6]
    columns = list(rows[0])
    change(rows)
    write_rows(tmp_path / "cases.csv", rows, columns if not rows else ())
    with pytest.raises(UserError, match=message):
        hatecheck.read_cases(tmp_path / "cases.csv")


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        hatecheck.read_cases(tmp_path / "test_suite_cases.csv")


def test_scores_are_those_of_a_hand():
    result = hatecheck.score(CASES, FLAGGED)
    assert {name: (row["value"], row["n"]) for name, row in result.items()} == {
        "accuracy": (4 / 6, 6),
        "balanced_accuracy": ((3 / 4 + 1 / 2) / 2, 6),
        "accuracy/hateful": (3 / 4, 4),
        "accuracy/non-hateful": (1 / 2, 2),
    }
    rows = hatecheck.by_functionality(CASES, FLAGGED)
    assert {name: (row["value"], row["n"]) for name, row in rows.items()} == {
        "derog_h": (3 / 4, 4),
        "plain_nh": (0.5, 2),
    }
    targets = hatecheck.flagged_by_target(CASES, FLAGGED, hateful=True)
    assert {name: (row["value"], row["n"]) for name, row in targets.items()} == {"drevins": (0.5, 2), "florbs": (1, 1)}
    assert hatecheck.flagged_by_target(CASES, FLAGGED, hateful=False)["florbs"]["value"] == 0
    for measures in (result, rows, targets):
        assert all(row["ci95"][0] <= row["value"] <= row["ci95"][1] for row in measures.values())


def test_a_suite_of_one_kind_has_no_balanced_accuracy():
    assert set(hatecheck.score(CASES[:4], FLAGGED[:4])) == {"accuracy", "accuracy/hateful"}
    with pytest.raises(ValueError, match="6 cases against 5"):
        hatecheck.score(CASES, FLAGGED[:5])
    with pytest.raises(ValueError, match="0 cases"):
        hatecheck.score([], [])


def test_which_answers_are_taken_as_hateful():
    def table(feature, labels):
        return {name: [counts(label) for label in labels] for name, counts in hatecheck.policies(feature).items()}

    assert table(FEATURES["offensiveYN"], (0, 1, 2)) == {
        '"Offensive"': [True, False, False],
        '"Offensive" or "Maybe offensive"': [True, True, False],
    }
    assert table(OFFENSIVE_POLICIES["above_half"], (0, 1)) == {'"Offensive"': [True, False]}
    assert table(FEATURES["hasBiasedImplication"], (0, 1)) == {'"Biased"': [True, False]}
    assert table(FEATURES["targetMinority"], (("florbs",), ())) == {"any group": [True, False]}


def test_the_miniatures_columns_are_the_official_ones(path, real_data):
    headers = []
    for folder in (path.parent, real_data / "hatecheck"):
        with open(folder / hatecheck.FILE_NAME, encoding="utf-8", newline="") as file:
            headers.append(next(csv.reader(file)))
    assert headers[0] == headers[1]
    names = [{case.functionality for case in hatecheck.read_cases(one)} for one in
             (path, real_data / "hatecheck" / hatecheck.FILE_NAME)]  # fmt: skip
    assert names[0] == names[1]
