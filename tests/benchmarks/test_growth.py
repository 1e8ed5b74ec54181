"""How cost grows with the input: the exponent, the cost of a process, and inputs without repeated texts."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import growth
from benchmarks.growth import GROWING, SIZES, START
from common.cli.errors import UserError
from common.results import rendering
from common.results.finding import read_finding
from common.runtime.project import ROOT
from common.tables.reading import read_rows


def costs(power: float, factor: float) -> growth.Costs:
    """Costs of a command that takes 5 s to start and then a power of the size."""
    sizes = {size: 5 + factor * (size - START) ** power for size in SIZES}
    return {START: [(4, 1e8), (5, 1e8), (9, 1e8)], **{size: [(seconds, 2e8)] for size, seconds in sizes.items()}}


@pytest.mark.parametrize("power", [1, 1.5, 2])
def test_the_exponent_is_that_of_the_time_beyond_the_start(power):
    assert growth.exponent(costs(power, 1e-3)) == pytest.approx(power)


def test_sizes_that_take_no_time_say_nothing():
    short = costs(1, 1e-5)  # of three sizes, only the last one takes longer than the start
    assert growth.exponent(short) is None
    of_all = {growing.command: costs(1, 1e-3) for growing in GROWING}
    of_all[GROWING[0].command] = short
    of_all[GROWING[1].command] = costs(1.2, 1e-3)
    rows = growth.growth_rows(of_all)
    assert [row[-3:] for row in rows[:3]] == [
        ["too short to tell", "≤ 1.1", False],
        ["1.20", "≤ 1.1", False],
        ["1.00", "≤ 1.1", True],
    ]
    quick = {name: {size: each[size] for size in (START, *SIZES[:2])} for name, each in of_all.items()}
    assert growth.growth_rows(quick)[2][2:6] == ["5.9, 200", "14.9, 200", "–", "1.00"]


def test_the_cost_of_a_process_is_its_own():
    ours = b"1" * 200_000_000  # must not count
    _, small = growth.cost_of("small", [sys.executable, "-c", "pass"])
    assert small < len(ours)
    _, large = growth.cost_of("large", [sys.executable, "-c", "b'1' * 200_000_000"])
    assert 190e6 < large - small < 210e6
    with pytest.raises(UserError, match="bad exited with status 3: no output"):
        growth.cost_of("bad", [sys.executable, "-c", "raise SystemExit(3)"])


@pytest.mark.parametrize("growing", GROWING, ids=[growing.command for growing in GROWING])
def test_inputs_have_as_many_rows_as_they_should_and_all_differ(tmp_path, miniature, growing):
    growing.prepare(tmp_path, 70, {"adapter": tmp_path, "classifier": tmp_path})
    files = {
        "posts": ("posts.jsonl", "post"),
        "pairs": ("pairs.csv", "hypothesis"),
        "one step": ("snli/snli_1.0_train.jsonl", "sentence2"),
        "agreement": ("answers.csv", "item"),
    }
    name, column = next((files[key] for key in files if key in growing.of + growing.command), ("", ""))
    if growing.command.endswith("train_full, one step"):
        name, column = files["one step"]
    if growing.scale > 1:
        titles = {json.loads(path.read_text())["title"] for path in (tmp_path / "records").glob("*.json")}
        assert len(titles) == 70
    else:
        assert len({row.values[column] for row in read_rows(tmp_path / name)}) == 70
    if (tmp_path / "votes.csv").exists():
        votes = [tuple(row.values.values())[:2] for row in read_rows(tmp_path / "votes.csv")]
        assert len(set(votes)) == len(votes) == 70 * (3 if "3 labels" in growing.of else 2)


def test_the_table_in_the_documentation_is_the_record():
    finding = read_finding(ROOT / "results" / "growth-cpu-2-cores.json")
    costs = {
        name: {int(size): [tuple(run) for run in runs] for size, runs in each.items()}
        for name, each in finding.facts["growth"].items()
    }
    assert finding.parts[0].rows == growth.growth_rows(costs)
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    ((_, rows),) = rendering.tables(finding)
    for row in rows:
        assert f"| {' | '.join(map(rendering.in_markdown, row))} |" in text
