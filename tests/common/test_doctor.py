"""The doctor: what it says of this machine, the Hub and every recipe, and what it proposes to run."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import shlex
import sys
from pathlib import Path
from unittest import mock

import pytest

from common import doctor
from common.doctor import Machine
from common.miniature.pretrain import MODELS
from common.models import exactness
from common.models.exactness import Exactness
from common.models.step_memory import Forecast
from common.runtime import hardware
from common.runtime.project import PROJECTS
from tests.forecasts import measure

ROOT = Path(__file__).parents[2]
CPU = Machine("cpu", 24 * 10**9, hardware.Choice("bf16", "a reason"), 5e11)
STUDY = "-m snli_roberta.compare --config snli_roberta/recipes/study_cpu.yaml --estimate_only"
T4 = Machine("cuda", 15_600 * 10**6, hardware.Choice("fp16", "a reason"), 2e13)


@pytest.fixture(scope="module")
def forecasts() -> list[Forecast]:
    """What the tables that come with the recipes have, of machines with 16-bit precision."""
    with mock.patch.object(hardware, "cpu_has_bf16", return_value=True):
        return [one for name in PROJECTS for one in importlib.import_module(f"{name}.training.forecast").forecasts()]


def test_every_recipe_is_told(forecasts):
    assert list(dict.fromkeys(ROOT / one.recipe for one in forecasts)) == sorted(
        ROOT.glob("*/recipes/*.yaml"), key=lambda path: (PROJECTS.index(path.parts[-3]), path.name)
    )
    assert all(one.memory and one.operations and one.steps for one in forecasts), "every base is of a known shape"
    lines = doctor.recipe_lines(forecasts, T4)
    assert len(lines) == 1 + len(forecasts)
    assert re.search(
        r"llama2_7b_t4.yaml +meta-llama/Llama-2-7b-hf +SBIC +[4-7]\.\d GB +yes +\S+ .* to \d", "\n".join(lines)
    )
    small = doctor.recipe_lines(forecasts, Machine("cuda", 4 * 10**9, T4.wide, T4.rate))
    assert re.search(r"llama2_7b_t4.yaml .* GB +no ", "\n".join(small))
    unknown = Forecast(Path("a"), "b", None, None, 3, "c")
    assert doctor.recipe_lines([unknown], CPU)[1].split() == ["a", "b", "c", "?", "?", "?"]


def test_what_fits_and_would_not_end_is_told(forecasts):
    """Memory is one question, a week another."""
    lines = doctor.recipe_lines(forecasts, CPU)
    slow = {line.split()[0] for line in lines if line.endswith(": too slow")}
    assert "snli_roberta/recipes/study_large.yaml" in slow
    assert "snli_roberta/recipes/study_cpu.yaml" not in slow
    assert re.search(r"study_large.yaml .* GB +yes +\d+ days to \d+ days: too slow", "\n".join(lines))
    week = 7 * 86400 * CPU.rate
    ends = [
        doctor.recipe_lines([Forecast(Path("a"), "b", 1, operations, 0, "c")], CPU)[1].endswith("slow")
        for operations in (week / 7, week / 5)  # half way is six times the operations' own seconds
    ]
    assert ends == [False, True]


def test_the_corpus_told_is_the_recipes(forecasts):
    corpora = {one.recipe.as_posix(): one.corpus for one in forecasts}
    assert {recipe for recipe, corpus in corpora.items() if corpus == "miniature"} == {
        recipe for recipe in corpora if "miniature" in recipe
    }
    assert corpora["sbic_llama/recipes/study.yaml"] == "SBIC"
    assert corpora["snli_roberta/recipes/study.yaml"] == "SNLI"
    assert re.search(r"llama/recipes/miniature.yaml +\S+ +miniature ", "\n".join(doctor.recipe_lines(forecasts, CPU)))


@pytest.mark.parametrize("project", PROJECTS)
def test_the_memory_told_is_about_what_a_training_would_say(project, forecasts):
    """LoRA trains less and full fine-tuning keeps four numbers a weight."""
    by_name = {one.recipe.name: one for one in forecasts if one.recipe.parts[0] == project}
    if project == "sbic_llama":
        assert by_name["llama2_7b_t4.yaml"].memory > 3.5e9 + 4 * by_name["miniature.yaml"].memory
        assert by_name["llama2_7b_t4.yaml"].memory == pytest.approx(5.1e9, rel=0.05), "as a training says on real posts"
        return
    base, lora = by_name["full.yaml"], by_name["lora.yaml"]
    assert base.memory - lora.memory > 10 * 124_000_000, "gradients and two moments of nearly every weight"
    assert lora.memory > 4 * 124_000_000
    assert by_name["study.yaml"].operations > base.operations, "ten trainings on a half of its pairs"


def test_time_is_a_range_that_operations_and_steps_widen():
    one = Forecast(Path("a"), "b", 1, 1e12, 10, "c")
    low, high = one.seconds(1e12)
    assert (low, high) == (pytest.approx(2 + 0.2), pytest.approx(10 + 2))


@pytest.mark.parametrize(
    ("machine", "readable", "expected"),
    [
        (T4, True, "gpu.yaml --model_name_or_path Qwen/Qwen3-8B --output_dir output/Qwen3-8B"),
        (
            dataclasses.replace(T4, memory=8 * 10**9),
            True,
            "gpu.yaml --model_name_or_path meta-llama/Llama-3.1-8B-Instruct",
        ),
        (dataclasses.replace(T4, memory=8 * 10**9), False, "gpu.yaml --model_name_or_path Qwen/Qwen3-4B-Instruct-2507"),
        (
            dataclasses.replace(T4, memory=4_500 * 10**6),
            True,
            "gpu.yaml --model_name_or_path Qwen/Qwen3-4B-Instruct-2507",
        ),
        (dataclasses.replace(T4, rate=2e12), True, "gpu.yaml --model_name_or_path meta-llama/Llama-3.2-1B-Instruct"),
        (dataclasses.replace(T4, rate=2e12), False, "tinyllama_t4.yaml"),
        (CPU, True, "smollm2_cpu.yaml"),
        (dataclasses.replace(CPU, memory=10**9), True, "make demo"),
    ],
)
def test_the_largest_base_that_trains_here_in_a_day_is_proposed_first(
    forecasts, machine, readable, expected, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "may_read", lambda base: readable or not base.startswith(doctor.GATED))
    lines = doctor.next_command(forecasts, machine)
    assert lines[0].startswith("next: ")
    assert lines[1].endswith(expected) or f"{expected} " in lines[1]
    assert any("larger, but cannot be read: meta-llama/Llama-3.1-8B-Instruct" in line for line in lines) == (
        not readable and machine.rate == T4.rate
    )


def test_a_base_that_overflows_in_fp16_is_not_proposed_for_it():
    gemma = Forecast(Path("recipes/gpu.yaml"), "google/gemma-3-4b-it", 1, 1e12, 1, "SBIC")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(doctor, "may_read", lambda base: True)
        assert doctor.best([gemma], T4) == (None, [])
        assert doctor.best([gemma], dataclasses.replace(T4, wide=hardware.Choice("bf16", "a reason")))[0] is gemma


def test_the_tables_have_every_recipe_and_the_sizes_of_today(tmp_path):
    for project in PROJECTS:
        module = importlib.import_module(f"{project}.training.forecast")
        known = json.loads(module.SIZES.read_text())
        part = {key: sizes for key, sizes in known.items() if "miniature/" not in key}
        (tmp_path / "sizes.json").write_text(json.dumps(part))
        assert len(known) > len(part)
        assert measure(project, tmp_path / "sizes.json") == known, "python -m tests.forecasts writes them again"


@pytest.mark.slow
@pytest.mark.parametrize("project", PROJECTS)
def test_the_tables_have_the_sizes_of_today(project, tmp_path):
    known = json.loads(importlib.import_module(f"{project}.training.forecast").SIZES.read_text())
    assert measure(project, tmp_path / "nothing") == known


@pytest.mark.parametrize(
    ("page", "proposed"), [(True, ["-m sbic_llama.app", STUDY]), (False, [STUDY])], ids=["gradio", "no gradio"]
)
def test_after_the_demo_comes_what_follows_it(forecasts, page, proposed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object() if page else None)
    doctor.DEMO.parent.mkdir(parents=True)
    assert "  make demo" in doctor.next_command(forecasts, CPU)
    doctor.DEMO.touch()
    lines = doctor.next_command(forecasts, CPU)
    assert lines[0].startswith("next: ")
    assert [line.partition("python ")[2] for line in lines if line.startswith("  python")] == proposed


def test_programs_are_called_as_they_run_without_an_environment_that_is_active(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctor.program("python") == "python", "its environment lies elsewhere"
    (tmp_path / "my env" / "bin").mkdir(parents=True)
    (tmp_path / "my env" / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "my env" / "bin" / "python"))
    assert shlex.split(doctor.program("python")) == ["my env/bin/python"]
    assert doctor.program("accelerate") == "accelerate", "not beside it"


def test_login_and_access_to_a_gated_base(hub, monkeypatch):
    gated = "meta-llama/Llama-3.1-8B-Instruct"
    hub.add_model(gated, MODELS / "tiny_llama", gated=True)
    assert doctor.hub_lines() == ["Hub         logged in as miniature"]
    assert not doctor.may_read(gated)
    hub.add_model(gated, MODELS / "tiny_llama")
    assert doctor.may_read(gated)
    monkeypatch.delenv("HF_TOKEN")
    assert doctor.hub_lines()[0].startswith("Hub         not logged in: run hf auth login")
    assert doctor.may_read(gated)
    hub.repositories.clear()
    assert not doctor.may_read(gated)
    assert doctor.may_read("Qwen/Qwen3-8B"), "has no license to accept: the Hub is not asked"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert doctor.hub_lines() == ["Hub         not checked: HF_HUB_OFFLINE is set"]
    assert not doctor.may_read(gated)


def test_a_wrong_token_and_a_hub_that_fails_are_told(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 30)
    lines = doctor.hub_lines()
    assert lines[0] == "Hub         the token is not valid: run hf auth login"
    monkeypatch.undo()
    hub.fail(".", 503, times=-1)
    lines = doctor.hub_lines()
    assert lines[0].startswith("Hub         cannot be reached: ")
    assert not doctor.may_read("meta-llama/Llama-3.1-8B-Instruct")
    assert not any(os.environ["HF_TOKEN"] in line for line in lines)


def test_the_command_ends_with_what_to_run(hub, monkeypatch, capsys, forecasts):
    monkeypatch.setattr("sys.argv", ["doctor"])
    monkeypatch.setattr(doctor, "forecasts", lambda: forecasts)
    doctor.main()
    said = capsys.readouterr().out
    for word in (
        "device ",
        "memory ",
        "precision ",
        "disk ",
        "Hub ",
        "versions ",
        "torch 2.13.0",
        "snli_roberta/recipes/full.yaml",
    ):
        assert word in said, word
    assert doctor.NOTE in said
    assert said.partition("\nnext: ")[2].count("\n") <= 6


def test_checked_bases_are_listed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert doctor.checked_lines() == []
    found = {"padded": 0.0, "packed": None, "scores": 1e-7, "generation": 1e-7}
    for name, packed in (("user/hybrid", False), ("user/llama", True)):
        known = Exactness(name, "fp32", "nf4", packed=packed, padded=True, cached=packed, differences=found)
        exactness.remember(exactness.key_of({"base": name}), known)
    before = exactness.key_of({"base": name, "code": "of an earlier version"})
    exactness.remember(before, dataclasses.replace(known, packed=False))
    os.utime(tmp_path / "finetuning-bases" / f"{before}.json", (0, 0))
    (tmp_path / "finetuning-bases" / "damaged.json").write_text("[")
    (tmp_path / "a file").touch()
    with monkeypatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
        exactness.remember("key", known)  # no cache can be written there: the base is checked again next time
        assert exactness.recall("key") is None
    assert doctor.checked_lines() == [
        "bases checked on this machine:",
        "  user/hybrid (fp32, nf4): no packed training and no cached answering",
        "  user/llama (fp32, nf4): packed training and cached answering exact",
        "",
    ]
