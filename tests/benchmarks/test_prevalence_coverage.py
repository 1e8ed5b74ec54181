"""How often intervals contain the true share, on invented scores."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from benchmarks import prevalence_coverage
from common.cli.errors import UserError
from common.results.finding import Listing, Measures, read_finding


@pytest.fixture
def scores(tmp_path):
    """Write scores of a machine that overlooks half of the class."""
    rng = np.random.default_rng(0)
    path = tmp_path / "scores.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label", "answer", "probability_Yes", "probability_No"])
        for number in range(800):
            label = rng.random() < 0.4
            answer = label and rng.random() < 0.5
            sure = 0.7 + 0.2 * rng.random()
            yes = sure if answer else 1 - sure
            names = ["Yes" if each else "No" for each in (label, answer)]
            writer.writerow([number, *names, round(yes, 6), round(1 - yes, 6)])
    return path


def run(monkeypatch, *words: object):
    monkeypatch.setattr("sys.argv", ["prevalence_coverage", *map(str, words)])
    prevalence_coverage.main()


def test_the_interval_contains_the_share_and_counting_misses_it(scores, tmp_path, monkeypatch, capsys):
    words = ("--scores", scores, "--draws", 300, "--labels", 40, 120, "--output", tmp_path / "finding.json")
    run(monkeypatch, *words)
    finding = read_finding(tmp_path / "finding.json")
    (coverage,) = [part for part in finding.parts if isinstance(part, Measures)]
    assert len(coverage.rows) == 6
    for name in ("40 labels, people and machine", "120 labels, people and machine", "120 labels, people alone"):
        assert coverage.rows[name]["value"] >= 0.93
        assert coverage.rows[name]["n"] == 300
    widths, counted = [part for part in finding.parts if isinstance(part, Listing)]
    assert [row[:2] for row in widths.rows] == [["Yes", 40], ["Yes", 120]]
    assert all(both < alone for _, _, both, alone, _ in widths.rows)
    assert widths.rows[1][2] < widths.rows[0][2]
    with open(scores, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert counted.rows[0][1:3] == [sum(row[name] == "Yes" for row in rows) / 800 for name in ("label", "answer")]
    assert "misses the true share of Yes." in finding.summary[-1]
    assert finding.summary[0] in capsys.readouterr().out
    # The draws depend on the seed alone.
    run(monkeypatch, *words)
    assert read_finding(tmp_path / "finding.json").parts == finding.parts
    run(monkeypatch, *words, "--seed", 1)
    assert read_finding(tmp_path / "finding.json").parts != finding.parts


def test_lists_of_groups_and_bad_scores(tmp_path, monkeypatch):
    path = tmp_path / "scores.csv"
    path.write_text("id,label,answer,margin\n" + "a,none,none,1\nb,florbs,none,1\n" * 20, encoding="utf-8")
    (only,) = prevalence_coverage.read_classes(path)
    assert only.labels.mean() == 0.5
    assert only.predictions.mean() == 0
    with pytest.raises(UserError, match="--labels: 100 labels of 40 items; expected fewer than 40"):
        run(monkeypatch, "--scores", path, "--labels", 20, 100)
    path.write_text("id,label\na,none\n", encoding="utf-8")
    with pytest.raises(UserError, match="missing column 'answer'"):
        run(monkeypatch, "--scores", path)
    path.write_text("id,label,answer,probability_A,probability_B\na,A,A,much,0\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"line 2, column .*is not a probability; expected a number from 0 to 1"):
        run(monkeypatch, "--scores", path)
