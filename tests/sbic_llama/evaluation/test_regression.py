"""Differences, trends and coefficients of a file: what the words say, and columns that do not fit."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from common.cli.errors import UserError
from common.results.finding import Finding, read_finding
from common.tables.writing import write_rows
from sbic_llama import regression
from sbic_llama.data.features import FEATURES

LEVELS = FEATURES["offensiveYN"].labels


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    """Return 1,500 posts, more of them offensive on a board, where the model errs most, and people's labels of 300."""
    chance, folder = random.Random(1), tmp_path_factory.mktemp("regression")
    annotated, people = [], []
    for number in range(1500):
        source = "rare" if number % 300 == 0 else chance.choice(("forum", "forum", "board"))
        level = 0 if chance.random() < (0.55 if source == "board" else 0.25) else chance.choice((1, 2))
        answer = level if chance.random() < (0.6 if source == "board" else 0.9) else chance.choice((0, 1, 2))
        annotated.append(
            {
                "id": number,
                "source": source,
                "day": f"{chance.randint(2018, 2023)}-{chance.randint(1, 12):02d}-11" if number % 50 else "",
                "likes": round(chance.gauss(10, 3) + 2 * (level == 0), 2),
                "seen": int(chance.random() < (0.7 if level == 0 else 0.4)),
                "model_offensiveYN": LEVELS[answer],
                **{
                    f"model_offensiveYN_probability_{label}": 0.8 if n == answer else 0.1
                    for n, label in enumerate(LEVELS)
                },
                "model_targetMinority": "florbs" if level == 0 else "none",
                "model_targetMinority_mean_log_probability": -0.1,
            }
        )
        people.append(
            {"id": number, "offensiveYN": LEVELS[level], "targetMinority": "florbs" if level == 0 else "none"}
        )
    write_rows(folder / "annotated.csv", annotated)
    write_rows(folder / "labels.csv", chance.sample(people, 300))
    return folder / "annotated.csv", folder / "labels.csv"


@pytest.fixture
def call(files, tmp_path, monkeypatch):
    def run(*words: object, feature: str = "offensiveYN") -> Finding:
        given = [files[0], "--human_labels", files[1], "--key", "id", "--feature", feature]
        monkeypatch.setattr("sys.argv", ["regression", *map(str, given), *words, "--output", str(tmp_path / "f.json")])
        regression.main()
        return read_finding(tmp_path / "f.json")

    return run


def rows_of(finding: Finding) -> dict[str, dict]:
    return finding.parts[0].rows


def test_groups_and_a_trend(call, capsys):
    finding = call("--on", "source", "day")
    both = rows_of(finding)["source: board against forum (people and machine)"]
    assert both["ci95"][0] <= 0.3 <= both["ci95"][1]
    machine = rows_of(finding)["source: board against forum (machine alone, as if right)"]
    assert machine["ci95"][1] < 0.3, "the model hides half of the difference"
    assert f"The share of Offensive differs by {both['value']:.4f} [" in finding.summary[0]
    assert "where source is board, compared with forum. The other covariates are held equal." in finding.summary[0]
    trend = rows_of(finding)["day (people and machine)"]
    assert trend["ci95"][0] <= 0 <= trend["ci95"][1]
    text = " ".join(finding.summary)
    assert "1 value of source with fewer than 10 labels each (5 posts) are left out" in text
    assert "outside that interval" in text
    assert "What goes with offensiveYN: Offensive?" in capsys.readouterr().out


def test_the_label_as_a_covariate(call):
    finding = call("--outcome", "likes")
    both, machine = (
        rows_of(finding)[f"offensiveYN: Offensive ({source})"]
        for source in ("people and machine", "machine alone, as if right")
    )
    assert both["ci95"][0] <= 2 <= both["ci95"][1]
    assert machine["value"] < both["value"], "errors of a covariate weaken its coefficient"
    assert "The mean of likes differs by" in finding.summary[0]
    odds = call("--outcome", "seen", "--kind", "logistic", "--on", "source")
    assert "The log-odds of seen differ by" in odds.summary[0]


def test_another_label_and_a_group(call):
    last = call("--on", "source", "--label", "Not offensive")
    assert rows_of(last)["source: board against forum (people and machine)"]["value"] < 0
    groups = call("--on", "source", "--label", "florbs", feature="targetMinority")
    assert rows_of(groups)["source: board against forum (people and machine)"]["value"] == pytest.approx(0.3, abs=0.15)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--on: no covariates; expected columns of the annotated file"),
        (("--on", "source", "--label", "offensive"), "--label: unknown label 'offensive'; expected Offensive, Maybe"),
        (("--on", "id", "--categories", "id"), "column 'id': 1 value with enough labels; expected 2 to 30 values"),
        (("--on", "source", "--categories", "day"), "--categories: not a covariate: day; expected columns of --on"),
        (("--outcome", "source"), "column 'source': not a column of numbers; expected numbers as the outcome"),
        (("--outcome", "likes", "--kind", "logistic"), "column 'likes': not a column of 0 and 1"),
        (("--outcome", "likes", "--on", "likes"), "--on: 'likes' is the outcome. Leave it out"),
        (("--on", "likes", "seen", "likes", "nowhere"), "missing column 'nowhere'"),
        (
            ("--on", "source", "model_offensiveYN_probability_Offensive", "model_offensiveYN"),
            "one covariate repeats others",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(call, words, message):
    with pytest.raises(UserError) as error:
        call(*words)
    assert message in str(error.value)
