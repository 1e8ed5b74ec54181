"""The benchmark: what its jobs declare, what it refuses, and one job from end to end."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmark
from benchmarks import jobs, sbic_sides, size, start, width
from benchmarks.__main__ import NAMES, BenchArguments, place
from benchmarks.jobs import JOBS, OURS
from benchmarks.setting import Measured, Setting
from benchmarks.table import COLUMNS, Ran, agreement, compared, summary
from common.cli.arguments import parse
from common.cli.errors import UserError
from common.results import rendering
from common.results.finding import Listing, read_finding
from common.runtime import hardware

ROOT = Path(__file__).parents[2]


def test_every_side_of_every_job_can_be_loaded_by_its_name():
    assert [*(job.name for job in JOBS), "start", "size", "width"] == list(NAMES)
    for job in JOBS:
        assert job.tools[0].name == OURS
        for tool in job.tools:
            module, _, function = tool.load.partition(".")
            assert callable(getattr(importlib.import_module(f"benchmarks.{module}"), function)), tool.load
            assert tool.quick <= tool.items <= job.tools[0].items


def test_a_target_holds_in_every_precision_that_a_tool_has_here():
    by_name = {job.name: job for job in JOBS}

    def targets(job, *, bf16):
        return {name: tool.target for name, (tool, _) in jobs.sides(by_name[job], bf16=bf16).items()}

    half = {"trl sft, bf16": 1.8, "trl sft --dtype bfloat16, bf16": 1.8}
    assert targets("QLoRA training", bf16=True) == {OURS: None, "trl sft, fp32": 1.8, **half}
    assert targets("QLoRA training", bf16=False) == {OURS: None, "trl sft, fp32": 1.8}
    assert list(targets("SNLI prediction", bf16=True).values()) == [None, 3, 3]
    assert set(targets("SBIC three features", bf16=True)) == {OURS, "a command for each adapter"}


def measured(items, seconds, precision, **answers):
    return Measured(items, seconds, 60, precision, answers)


def test_a_side_that_answers_otherwise_than_ours_does_not_count():
    same = {f"post{i}": "Offensive" if i % 2 else "Not offensive" for i in range(10)}
    sides = {OURS: measured(10, 1, "fp32", **same), "a": measured(10, 2, "fp32", **same | {"post0": "I think"})}
    assert agreement("a job", sides) == {"a": 0.9}
    wrong = same | {"post0": "I think", "post1": ""}
    with pytest.raises(UserError, match=r"a job: a gives ours' answer for 80% of 10 items; expected 90%"):
        agreement("a job", sides | {"a": measured(10, 2, "fp32", **wrong)})
    assert agreement("a job", sides | {"a": measured(10, 2, "bf16", **wrong)}) == {"a": 0.8}
    with pytest.raises(UserError, match="0% of 0 items"):
        agreement("a job", sides | {"a": measured(10, 2, "fp32", other="Offensive")})
    alike = measured(10, 1, "fp32", **dict.fromkeys(same, "Offensive"))
    with pytest.raises(UserError, match="ours answers all of 10 items alike; expected answers that differ"):
        agreement("a job", {OURS: alike, "a": alike})


def test_a_training_with_another_loss_than_ours_does_not_count():
    def trained(loss):
        return Measured(10, 1, 60, "bf16", facts={"train_loss": loss})

    assert agreement("a job", {OURS: trained(2.0), "a": trained(2.1)}) == {"a": 1.05}
    with pytest.raises(
        UserError, match=r"a job: a trains with a loss of 1\.700, ours with 2\.000; expected at most 10%"
    ):
        agreement("a job", {OURS: trained(2.0), "a": trained(1.7)})


def test_only_a_whole_run_on_real_corpora_is_put_among_the_records(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "has_harness", lambda: True)
    real = {"sbic_dir": tmp_path, "snli_dir": tmp_path, "llama_tokenizer": tmp_path, "encoder_tokenizer": tmp_path}
    for name in ("SBIC.v2.trn.csv", "snli_1.0_train.jsonl"):
        (tmp_path / name).touch()
    assert place(BenchArguments(**real), 2) == Path("results/bench-cpu-2-cores.json")
    for part in ({"quick": True}, {"rounds": 1}, {"jobs": ("start",)}, {"sbic_dir": None}, {"llama_tokenizer": None}):
        assert place(BenchArguments(**real | part), 2) == Path("output/bench.json"), part


def test_a_side_gets_batches_of_the_posts_of_the_side_that_takes_most(miniature):
    setting = Setting(sbic_dir=str(miniature / "SBIC.v2"), snli_dir="", scratch="", most=320)
    most, some = (sbic_sides.posts_for(setting, count) for count in (320, 96))
    lengths = sorted(len(post) for post in most)
    batches = [lengths[i : i + 32] for i in range(0, 320, 32)]
    chosen = sorted(len(post) for post in some)
    assert set(some) < set(most)
    assert [chosen[i : i + 32] for i in range(0, 96, 32)] == [batches[i] for i in (1, 5, 8)]


def test_a_row_says_ratio_rates_utilisation_and_whether_the_target_is_met():
    job = JOBS[-1]
    names = list(jobs.sides(job, bf16=True))
    rounds = [{name: measured(90 if name == OURS else 30, seconds, "fp32") for name in names} for seconds in (1, 2, 3)]
    rows = compared(Ran(job, rounds, dict.fromkeys(names[1:], 0.987)), {"fp32": 120.0, "bf16": 1.0})
    said = ["SNLI prediction, pairs", names[1], "3.00 (3.00–3.00)", "45", "15", "25% of fp32", "99%", "≥ 3", True]
    assert rows[0] == said
    size = Listing("Size", ["what", "met"], [["a", True], ["b", False]])
    assert summary([Listing("", COLUMNS, [[*rows[0][:-1], False]]), size]) == [
        "1 of 3 targets were met.",
        f"Not met: SNLI prediction, pairs, {names[1]} (3.00 (3.00–3.00)); Size, b.",
    ]


def test_every_command_of_both_projects_is_started_and_the_slowest_counts():
    assert sorted(start.commands()) == sorted(start.MISSING)
    found = {"--help": {"a": [1.0, 1.1, 9.0], "b": [1.6, 1.4, 1.7]}}
    assert start.rows(found) == [["--help", 2, 1.35, 1.6, "b", "< 1.5 s", False]]
    with pytest.raises(UserError, match=r"status 1: .*No module named no_such"):
        start.seconds_of([sys.executable, "-m", "no_such", "--help"], 0, 1)


def test_speed_and_memory_of_many_rows_are_set_against_few():
    few, many = {"rates": [100.0, 90.0, 110.0], "peak_bytes": 1e9}, {"rates": [95.0], "peak_bytes": 1.2e9}
    (row,) = size.rows({"predict": {1000: few, 100_000: many}})
    assert row == [size.WAYS["predict"], 1000, 100, 1000, 100_000, 95, 1200, 0.95, 1.2, "≥ 0.9, and ≤ 1.1", False]


def test_the_product_is_meant_to_choose_the_faster_precision(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(hardware, "cpu_has_bf16", lambda: True)
    rows = width.rows({size: {"fp32": [10.0, 20.0], "bf16": [11.0, 23.0]} for size in (128, 512)})
    assert rows[0] == [128, 15, 17, "1.12 (1.10–1.15)", "fp32", "the faster", False]
    assert rows[1][-3:] == ["bf16", "the faster", True]
    monkeypatch.setattr(hardware, "cpu_has_bf16", lambda: False)
    assert width.measure("", "", 1, 1, quick=True) == {}


def test_what_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "has_harness", lambda: False)
    with pytest.raises(UserError, match=r"the evaluation harness is missing\. Pip install -r requirements-bench\.txt"):
        parse(BenchArguments, ["--quick"])
    with pytest.raises(UserError, match=r"--sbic_dir: .*SBIC\.v2\.trn\.csv is not there"):
        parse(BenchArguments, ["--sbic_dir", str(tmp_path), "--jobs", "start"])
    with pytest.raises(UserError, match="expected one of SBIC classification"):
        parse(BenchArguments, ["--jobs", "everything"])


@pytest.mark.slow
def test_one_job_from_end_to_end(tmp_path):
    path = tmp_path / "found.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1", "--output", str(path)]
    result = subprocess.run(
        [*command, "--jobs", "SNLI prediction", "--besides", "tests"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stderr.splitlines()[-1].endswith(f"written: {path}")
    found = read_finding(path)
    assert found.miniature
    assert found.facts["ran besides"] == "tests"
    assert found.facts["matmul_flops_per_second"]["fp32"] > 1e9
    timings = found.facts["timings"]["SNLI prediction"]
    assert all(len(each) == 1 and each[0]["seconds"] > 0 for each in timings.values())
    assert min(found.facts["agreement"]["SNLI prediction"].values()) >= 0.9
    (table,) = found.parts
    assert len(table.rows) == len(timings) - 1
    own, theirs = timings[OURS][0], timings[table.rows[0][1]][0]
    ratio = own["items"] / own["seconds"] / (theirs["items"] / theirs["seconds"])
    assert table.rows[0][2] == f"{ratio:.2f} ({ratio:.2f}–{ratio:.2f})"
    assert all("/" not in json.dumps(each) for each in timings.values()), "no path of this machine"


RESULTS = sorted((ROOT / "results").glob("bench-*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_the_tables_in_the_readme_are_those_of_the_results(path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = read_finding(path)
    assert not found.miniature
    for _, (head, *rows) in rendering.tables(found):
        for row in (head, *rows):
            assert f"| {' | '.join(map(rendering.plain, row))} |" in text
    assert str(Path.home()) not in path.read_text(encoding="utf-8")
    assert os.sep + "tmp" not in path.read_text(encoding="utf-8")
