"""The benchmark: its jobs, bad arguments, and one job from end to end."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as bench
from benchmarks import inference, solo
from benchmarks.__main__ import NAMES, WORDS, BenchArguments, default_output
from benchmarks.jobs import COLUMNS, JOBS, OURS, JobResult, agreement, targets
from benchmarks.processes import Measured, Setting
from common.cli.arguments import parse
from common.cli.errors import UserError
from common.results import rendering
from common.results.finding import Listing, read_finding, worded
from common.runtime import hardware
from common.runtime.project import MINIATURE_MODELS

ROOT = Path(__file__).parents[2]


def test_every_side_of_every_job_can_be_loaded_by_name():
    assert [*(job.name for job in JOBS), "start", "size", "width", "growth"] == list(NAMES)
    for job in JOBS:
        assert job.tools[0].name == OURS
        for tool in job.tools:
            module, _, function = tool.load.partition(".")
            assert callable(getattr(importlib.import_module(f"benchmarks.{module}"), function)), tool.load
            assert tool.quick <= tool.items <= job.tools[0].items


def test_a_quick_run_leaves_out_what_compares_with_no_other_tool_and_takes_long(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert BenchArguments().jobs == NAMES
    assert set(NAMES) - set(BenchArguments(quick=True).jobs) == {"size", "growth"}
    assert BenchArguments(quick=True, jobs=("growth",)).jobs == ("growth",)


def test_a_target_holds_in_every_precision_of_a_tool():
    by_name = {job.name: job for job in JOBS}

    def targets(job, *, bf16):
        return {name: tool.target for name, (tool, _) in by_name[job].sides(bf16=bf16).items()}

    half = {"trl sft, bf16": 1.8, "trl sft --dtype bfloat16, bf16": 1.8}
    assert targets("QLoRA training", bf16=True) == {OURS: None, "trl sft, fp32": 1.8, **half}
    assert targets("QLoRA training", bf16=False) == {OURS: None, "trl sft, fp32": 1.8}
    pipeline = "text-classification pipeline, batches of 32"
    both = {f"{pipeline}, fp32": 3, f"{pipeline}, bf16": 3}
    assert targets("SNLI prediction", bf16=True).items() >= both.items()
    assert set(targets("SBIC three features", bf16=True)) == {OURS, "a command for each adapter"}


def measured(items, seconds, precision, **answers):
    return Measured(items, seconds, 60, precision, answers)


def test_a_side_with_different_answers_is_refused():
    same = {f"post{i}": "Offensive" if i % 2 else "Not offensive" for i in range(10)}
    sides = {OURS: measured(10, 1, "fp32", **same), "a": measured(10, 2, "fp32", **same | {"post0": "I think"})}
    assert agreement("a job", sides) == {"a": 0.9}
    wrong = same | {"post0": "I think", "post1": ""}
    assert agreement("a job", sides | {"a": measured(10, 2, "fp32", **wrong)}) == {"a": 0.8}, "few items may have ties"
    wrong["post2"] = ""
    with pytest.raises(UserError, match=r"a job: a answers as ours on 70% of 10 items, .*; expected at least 90%"):
        agreement("a job", sides | {"a": measured(10, 2, "fp32", **wrong)})
    assert agreement("a job", sides | {"a": measured(10, 2, "bf16", **wrong)}) == {"a": 0.7}
    with pytest.raises(UserError, match="0% of 0 items"):
        agreement("a job", sides | {"a": measured(10, 2, "fp32", other="Offensive")})
    alike = measured(10, 1, "fp32", **dict.fromkeys(same, "Offensive"))
    with pytest.raises(UserError, match="ours gives all 10 items the same answer; expected different answers"):
        agreement("a job", {OURS: alike, "a": alike})


def test_a_training_with_a_different_loss_is_refused():
    def trained(loss, precision="fp32"):
        return Measured(10, 1, 60, precision, facts={"loss": loss})

    assert agreement("a job", {OURS: trained(2.0), "a": trained(2.1)}) == {"a": 1.05}
    assert agreement("a job", {OURS: trained(2.0), "a": trained(1.7, "bf16")}) == {"a": 0.85}
    with pytest.raises(UserError, match=r"a job: a has a loss of 1\.700 and ours 2\.000, .* at most 10%"):
        agreement("a job", {OURS: trained(2.0), "a": trained(1.7)})


def test_only_a_full_run_on_real_corpora_goes_to_the_results(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    real = {"sbic_dir": tmp_path, "snli_dir": tmp_path}
    for name in ("SBIC.v2.trn.csv", "snli_1.0_train.jsonl"):
        (tmp_path / name).touch()
    assert default_output(BenchArguments(**real), 2) == Path("results/bench-cpu-2-cores.json")
    for part in ({"quick": True}, {"rounds": 1}, {"jobs": ("start",)}, {"sbic_dir": None}, {"snli_dir": None}):
        assert default_output(BenchArguments(**real | part), 2) == Path("output/bench.json"), part


def test_a_side_uses_batches_of_the_posts_of_the_largest_side(miniature):
    setting = Setting(sbic_dir=str(miniature / "SBIC.v2"), snli_dir="", scratch="", most=320)
    most, some = (inference.posts_for(setting, count) for count in (320, 96))
    lengths = sorted(len(post) for post in most)
    batches = [lengths[i : i + 32] for i in range(0, 320, 32)]
    chosen = sorted(len(post) for post in some)
    assert set(some) < set(most)
    assert [chosen[i : i + 32] for i in range(0, 96, 32)] == [batches[i] for i in (1, 5, 8)]


def test_a_row_has_ratio_rates_utilization_and_whether_the_target_is_met():
    job = JOBS[-1]
    names = list(job.sides(bf16=True))
    rounds = [{name: measured(90 if name == OURS else 30, seconds, "fp32") for name in names} for seconds in (1, 2, 3)]
    rows = JobResult(job, rounds, dict.fromkeys(names[1:], 0.987)).rows({"fp32": 120.0, "bf16": 1.0})
    row = ["SNLI prediction, pairs", names[1], "3.00 (3.00–3.00)", "45", "15", "25% of fp32", "98.7%", "≥ 3", True]
    assert rows[0] == row
    quick = [{name: each[name] for name in names[:2]} for each in rounds]  # the others are left out
    assert JobResult(job, quick, {names[1]: 0.987}).rows({"fp32": 120.0, "bf16": 1.0}) == [row]
    size = Listing("Size", ["what", "met"], [["a", True], ["b", False]])
    parts = [Listing("", COLUMNS, [[*rows[0][:-1], False]]), size]
    assert worded(WORDS, **targets(parts))["summary"] == [
        "1 of 3 targets were met.",
        f"Not met: SNLI prediction, pairs, {names[1]} (3.00 (3.00–3.00)); Size, b.",
    ]


def test_an_error_in_one_job_costs_no_other(tmp_path, miniature, monkeypatch):
    machine = {"rates": {"fp32": 1.0, "bf16": 1.0}, "hardware": {}}
    data = {"sbic_dir": str(miniature / "SBIC.v2"), "snli_dir": str(miniature / "snli_1.0")}

    def run_job(job, setting, arguments):
        if job.name == "QLoRA training":
            raise UserError("it failed")
        names = job.sides(bf16=hardware.cpu_has_bf16())
        return JobResult(job, [{name: measured(2, 1, "fp32") for name in names}], dict.fromkeys(names, 1.0))

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which the benchmark sets
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(bench, "finished", lambda *_: json.dumps(machine))
    monkeypatch.setattr(bench, "prepare", lambda *_: Setting(**data, scratch=""))
    monkeypatch.setattr(bench, "run_job", run_job)
    words = ["--jobs", "SBIC generation", "QLoRA training", "--output", str(tmp_path / "bench.json")]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    with pytest.raises(UserError, match="it failed"):
        bench.main()
    (path,) = tmp_path.iterdir()
    assert path.name == "bench.part.json"
    assert list(read_finding(path).facts["timings"]) == ["SBIC generation"]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words[:2], *words[3:]])
    bench.main()
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


def commands() -> list[str]:
    names = []
    for path in sorted([*(ROOT / "sbic_llama").rglob("*.py"), *(ROOT / "snli_roberta").rglob("*.py")]):
        text = path.read_text(encoding="utf-8")
        if '__name__ == "__main__"' in text and not text.startswith('"""Former name of'):
            parts = path.relative_to(ROOT).with_suffix("").parts
            names.append(".".join(parts[:-1] if parts[-1] == "__main__" else parts))
    return names


def test_every_command_of_both_projects_is_started_and_the_slowest_counts():
    assert sorted(commands()) == sorted(solo.missing_files())
    seconds = {"--help": {"a": [1.0, 1.1, 9.0], "b": [1.6, 1.4, 1.7]}}
    assert solo.start_rows(seconds) == [["--help", 2, 1.35, 1.6, "b", "< 1.5 s", False]]
    with pytest.raises(UserError, match=r"status 1: .*No module named no_such"):
        solo.seconds_of([sys.executable, "-m", "no_such", "--help"], 0)


def test_speed_and_memory_of_many_rows_are_compared_with_few():
    few, many = {"rates": [100.0, 90.0, 110.0], "peak_bytes": 1e9}, {"rates": [95.0], "peak_bytes": 1.2e9}
    (row,) = solo.size_rows({"predict": {1000: few, 100_000: many}})
    assert row == [solo.WAYS["predict"], 1000, 100, 1000, 100_000, 95, 1200, 0.95, 1.2, "≥ 0.9, and ≤ 1.1", False]


def test_the_product_should_choose_the_faster_precision(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(hardware, "cpu_has_bf16", lambda: True)
    rows = solo.width_rows({size: {"fp32": [10.0, 20.0], "bf16": [11.0, 23.0]} for size in (128, 512)})
    assert rows[0] == [128, 15, 17, "1.12 (1.10–1.15)", "fp32", "the faster", False]
    assert rows[1][-3:] == ["bf16", "the faster", True]
    monkeypatch.setattr(hardware, "cpu_has_bf16", lambda: False)
    assert solo.measure_width(Setting(sbic_dir="", snli_dir="", scratch=""), 1, quick=True) == {}


@pytest.mark.slow
@pytest.mark.skipif(not hardware.cpu_has_bf16(), reason="the CPU multiplies bf16 in software")
def test_each_width_is_trained_in_both_precisions(miniature, tmp_path, monkeypatch):
    monkeypatch.setattr(solo, "QUICK_WIDTHS", (32,))
    monkeypatch.setattr(solo, "QUICK_WIDTH_PAIRS", 32)
    setting = Setting(sbic_dir="", snli_dir=str(miniature / "snli_1.0"), scratch=str(tmp_path))
    ((width, rates),) = solo.measure_width(setting, 1, quick=True).items()
    assert (width, {name: len(values) for name, values in rates.items()}) == (32, {"fp32": 1, "bf16": 1})
    assert min(rates["fp32"] + rates["bf16"]) > 0


def test_bad_arguments_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick"])
    with pytest.raises(UserError, match=r"lm-evaluation-harness is not .*\. Pip install -r requirements-bench\.txt"):
        bench.main()
    with pytest.raises(UserError, match=r"--sbic_dir: .*SBIC\.v2\.trn\.csv does not exist"):
        parse(BenchArguments, ["--sbic_dir", str(tmp_path), "--jobs", "start"])
    with pytest.raises(UserError, match="expected one of SBIC classification"):
        parse(BenchArguments, ["--jobs", "everything"])


@pytest.fixture
def one_core():
    """Bind this process and those that it starts to one core.

    With a thread for each core, every operator would wait for the core that another test occupies.
    """
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


@pytest.mark.slow
def test_one_job_from_end_to_end(one_core, tmp_path):
    path = tmp_path / "bench.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1", "--output", str(path)]
    command += ["--encoder", str(MINIATURE_MODELS / "tiny_roberta")]
    result = subprocess.run(
        [*command, "--jobs", "SNLI prediction", "--besides", "tests"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stderr.splitlines()[-1].endswith(f"written: {path}")
    finding = read_finding(path)
    assert finding.miniature
    assert finding.facts["ran besides"] == "tests"
    assert finding.facts["matmul_flops_per_second"]["fp32"] > 1e9
    timings = finding.facts["timings"]["SNLI prediction"]
    assert all(len(each) == 1 and each[0]["seconds"] > 0 for each in timings.values())
    assert min(finding.facts["agreement"]["SNLI prediction"].values()) >= 0.9
    (table,) = finding.parts
    assert len(table.rows) == len(timings) - 1
    own, theirs = timings[OURS][0], timings[table.rows[0][1]][0]
    ratio = own["items"] / own["seconds"] / (theirs["items"] / theirs["seconds"])
    assert table.rows[0][2] == f"{ratio:.2f} ({ratio:.2f}–{ratio:.2f})"
    assert all("/" not in json.dumps(each) for each in timings.values()), "no path of this machine"


RESULTS = sorted((ROOT / "results").glob("bench-*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_tables_in_the_documentation_equal_the_results(path):
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    finding = read_finding(path)
    assert not finding.miniature
    for _, (head, *rows) in rendering.tables(finding):
        for row in (head, *rows):
            cells = [rendering.in_markdown(cell).replace("\\", "") for cell in row]
            assert f"| {' | '.join(cells)} |" in text
    assert str(Path.home()) not in path.read_text(encoding="utf-8")
    assert os.sep + "tmp" not in path.read_text(encoding="utf-8")
