"""The GPU's measurements, run on the CPU with small shapes: what they count, what is recorded, and the refusal without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from benchmarks import gpu, gpu_jobs, random_models
from common.cli.arguments import parse
from common.cli.errors import UserError
from common.results.finding import Listing, read_finding

ROOT = Path(__file__).parents[2]
SHAPES = random_models.Shapes(
    llama=LlamaConfig(
        vocab_size=1000, hidden_size=128, intermediate_size=320, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=1024,
    ),
    base=random_models.roberta(64, 2, vocab_size=600),
    large=random_models.roberta(128, 3, vocab_size=600),
    matmul=128,
)  # fmt: skip


@pytest.fixture(scope="module")
def arguments(tmp_path_factory) -> gpu.Measured:
    return gpu.Measured(steps=2, repeats=2, posts=6, models_dir=tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def results(arguments):
    return {job: gpu_jobs.measure(job, arguments, SHAPES) for job in gpu.JOBS}


@pytest.mark.parametrize("job", gpu.JOBS)
def test_every_measurement_gives_rates_and_on_a_cpu_no_memory(results, job):
    found = results[job]
    assert len(found["seconds"]) == 2
    for key in ("examples_per_second", "tokens_per_second", "tokens_per_second_apart", "mfu"):
        assert 0 < found[key]["min"] <= found[key]["median"] <= found[key]["max"], key
    assert found["peak_bytes"] is None
    assert found["precision"] == "fp32" or not job.startswith("qlora")
    packed = job.startswith(("qlora", "annotation"))
    assert (found["tokens_per_second_apart"]["median"] > found["tokens_per_second"]["median"]) == packed


def test_examples_and_operations_are_those_of_the_recipes(results):
    """A batch of 16 posts, 32 pairs, or four of 8; two operations a weight forward, two backward, two more where it is trained."""
    sizes = {"qlora-training": 16, "base-full": 32, "base-lora": 32, "large-full": 32, "annotation-labels": 3}
    for job, size in sizes.items():
        rate = results[job]["examples_per_second"]
        assert rate["max"] * min(results[job]["seconds"]) == pytest.approx(2 * size), job
    weights = 2 * (4 * 128**2 + 3 * 128 * 320)
    adapter = 2 * 16 * (4 * 2 * 128 + 3 * (128 + 320))
    assert results["annotation-lists"]["operations_per_token"] == 2 * weights
    assert results["qlora-training"]["operations_per_token"] == 4 * weights + 6 * adapter
    assert results["base-full"]["operations_per_token"] == 6 * 2 * 12 * 64**2
    assert results["qlora-training"]["estimate_bytes"] > 1e6


def test_a_finding_says_what_was_measured_and_keeps_what_it_had(results, arguments, tmp_path):
    measured = {
        **results,
        "qlora-training": {**results["qlora-training"], "peak_bytes": 10**9, "estimate_bytes": 2 * 10**9},
    }
    measured["qlora-training-t4"] = {
        "precision": "fp16",
        "cap_bytes": gpu.T4_BYTES,
        "fits": False,
        "said": "too little",
    }
    found = gpu.gpu_finding("NVIDIA Test 40GB", measured, arguments)
    path = tmp_path / "finding.json"
    found.write(path)
    assert read_finding(path).name == "bench-gpu-nvidia-test-40gb"
    speed, memory = (part for part in read_finding(path).parts if isinstance(part, Listing))
    assert [row[0] for row in speed.rows] == [row[0] for row in memory.rows] == list(gpu.TITLES.values())
    said = " ".join(found.summary)
    assert "+100.0% off, NOT within 10%" in said
    assert "it did not fit the 15,3" in said
    assert gpu.earlier(path, "NVIDIA Test 40GB", arguments).keys() == results.keys()
    with pytest.raises(UserError, match="it holds what was measured on NVIDIA Test 40GB"):
        gpu.earlier(path, "NVIDIA Other", arguments)
    with pytest.raises(UserError, match=r"it holds what was measured with other steps and posts\. Choose"):
        gpu.earlier(path, "NVIDIA Test 40GB", replace(arguments, steps=9, posts=7))
    assert gpu.earlier(tmp_path / "nothing", "NVIDIA Other", arguments) == {}


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), UserError("does not fit into the GPU's memory")]
)
def test_what_does_not_fit_a_t4_is_recorded(arguments, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(gpu_jobs, "qlora_training", fail)
    found = gpu_jobs.measure("qlora-training-t4", arguments, SHAPES)
    assert (found["fits"], found["cap_bytes"]) == (False, gpu.T4_BYTES)
    with pytest.raises(type(error)):
        gpu_jobs.measure("qlora-training", arguments, SHAPES)


def test_the_command_writes_after_each_measurement(results, tmp_path, monkeypatch, capsys):
    output = tmp_path / "finding.json"
    done = []

    def measured(job, arguments):
        if job == "large-lora":
            raise UserError("the card broke")
        done.append(job)
        return results[job]

    monkeypatch.setattr(gpu, "gpu_name", lambda: "NVIDIA Test")
    monkeypatch.setattr(gpu, "measured_apart", measured)
    for jobs in (["base-full", "large-lora"], ["base-lora"]):
        monkeypatch.setattr("sys.argv", ["gpu", "--output", str(output), "--jobs", *jobs])
        if "large-lora" in jobs:
            with pytest.raises(UserError, match="the card broke"):
                gpu.main()
        else:
            gpu.main()
    assert done == ["base-full", "base-lora"]
    assert list(read_finding(output).facts["jobs"]) == done
    assert "roberta-base, LoRA" in capsys.readouterr().out


def test_a_measurement_in_a_process_of_its_own_hands_its_numbers_back(tmp_path, monkeypatch):
    """The process is a stand-in that echoes its arguments: the real shapes are for a GPU."""
    whole = subprocess.run

    def start(command):
        assert command[1:3] == ["-m", "benchmarks.gpu_jobs"]
        given = parse(gpu_jobs.JobArguments, command[3:])
        code = "import json, sys; json.dump({'posts': int(sys.argv[2])}, open(sys.argv[1], 'w'))"
        return whole([sys.executable, "-c", code, str(given.result), str(given.posts)])

    monkeypatch.setattr(gpu.subprocess, "run", start)
    asked = gpu.Measured(posts=7, sbic_dir=tmp_path)
    assert gpu.measured_apart("base-lora", asked) == {"posts": 7}
    monkeypatch.setattr(gpu.subprocess, "run", lambda command: whole([sys.executable, "-c", "raise SystemExit(3)"]))
    with pytest.raises(UserError, match="base-lora: it failed with status 3"):
        gpu.measured_apart("base-lora", asked)


def test_the_shapes_are_those_of_the_published_models():
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    shapes = random_models.Shapes()
    with torch.device("meta"):
        assert AutoModelForCausalLM.from_config(shapes.llama).num_parameters() == 6_738_415_616
        assert AutoModelForMaskedLM.from_config(shapes.base).num_parameters() == 124_697_433
        assert AutoModelForMaskedLM.from_config(shapes.large).num_parameters() == 355_412_057


def test_without_a_gpu_one_line_says_so():
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu"],
        cwd=ROOT,
        env={**os.environ, "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert line.startswith("error: no NVIDIA GPU is visible to PyTorch, and this measures one. Run it where")
    assert result.stdout == ""
