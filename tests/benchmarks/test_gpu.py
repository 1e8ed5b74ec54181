"""The GPU measurements, run on the CPU with small shapes; and the refusal without a GPU."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from benchmarks import gpu, gpu_jobs
from benchmarks.jobs import GPU_JOBS, T4_BYTES, GpuSettings
from common.cli.errors import UserError
from common.results.finding import Listing, read_finding

ROOT = Path(__file__).parents[2]
SHAPES = gpu_jobs.Shapes(
    llama=LlamaConfig(
        vocab_size=1000, hidden_size=128, intermediate_size=320, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=1024,
    ),
    base=gpu_jobs.roberta(64, 2, vocab_size=600),
    large=gpu_jobs.roberta(128, 3, vocab_size=600),
    matmul=128,
)  # fmt: skip


@pytest.fixture(scope="module")
def arguments(tmp_path_factory) -> GpuSettings:
    return GpuSettings(steps=2, repeats=2, posts=6, models_dir=tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def results(arguments):
    return {job: gpu_jobs.measure(job, arguments, SHAPES) for job in GPU_JOBS}


@pytest.mark.slow
@pytest.mark.parametrize("job", GPU_JOBS)
def test_every_measurement_has_rates_and_on_a_cpu_no_memory(results, job):
    result = results[job]
    assert len(result["seconds"]) == 2
    for key in ("examples_per_second", "tokens_per_second", "tokens_per_second_apart", "mfu"):
        assert 0 < result[key]["min"] <= result[key]["median"] <= result[key]["max"], key
    assert result["peak_bytes"] is None
    assert result["precision"] == "fp32" or not job.startswith("qlora")
    packed = job.startswith(("qlora", "annotation"))
    assert (result["tokens_per_second_apart"]["median"] > result["tokens_per_second"]["median"]) == packed


@pytest.mark.slow
def test_examples_and_operations_are_those_of_the_recipes(results):
    """A batch is 16 posts, 32 pairs, or four times 8; per weight 2 operations forward, 2 backward, 2 more where it is trained."""
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


@pytest.mark.slow
def test_a_finding_reports_what_was_measured_and_keeps_earlier_measurements(results, arguments, tmp_path):
    qlora = {**results["qlora-training"], "peak_bytes": 10**9, "estimate_bytes": 2 * 10**9}
    t4 = {"precision": "fp16", "cap_bytes": T4_BYTES, "fits": False, "said": "too little"}
    finding = gpu.gpu_finding(
        "NVIDIA Test 40GB", results | {"qlora-training": qlora, "qlora-training-t4": t4}, arguments
    )
    path = tmp_path / "finding.json"
    finding.write(path)
    assert read_finding(path).name == "bench-gpu-nvidia-test-40gb"
    speed, memory = (part for part in read_finding(path).parts if isinstance(part, Listing))
    assert [row[0] for row in speed.rows] == [row[0] for row in memory.rows] == list(gpu.TITLES.values())
    headline, *details = finding.summary
    assert headline.startswith("Llama-2-7B, QLoRA training: ")
    assert len(details) == len(GPU_JOBS)
    assert "+100.0% off, NOT within 10%" in details[0]
    assert "it does not fit the 15,3" in details[1]
    assert gpu.earlier(path, "NVIDIA Test 40GB", arguments).keys() == results.keys()
    with pytest.raises(UserError, match="it holds measurements of NVIDIA Test 40GB; expected NVIDIA Other"):
        gpu.earlier(path, "NVIDIA Other", arguments)
    with pytest.raises(UserError, match=r"were made with different steps and posts\. Choose"):
        gpu.earlier(path, "NVIDIA Test 40GB", replace(arguments, steps=9, posts=7))
    assert gpu.earlier(tmp_path / "nothing", "NVIDIA Other", arguments) == {}


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), UserError("does not fit into the GPU's memory")]
)
def test_what_does_not_fit_a_t4_is_recorded(arguments, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(gpu_jobs, "qlora_training", fail)
    result = gpu_jobs.measure("qlora-training-t4", arguments, SHAPES)
    assert (result["fits"], result["cap_bytes"]) == (False, T4_BYTES)
    with pytest.raises(type(error)):
        gpu_jobs.measure("qlora-training", arguments, SHAPES)


@pytest.mark.slow
def test_the_command_writes_after_each_measurement(results, tmp_path, monkeypatch, capsys):
    output = tmp_path / "finding.json"
    done = []

    def call(measure, settings, *, preload):
        pickle.dumps((measure, settings))  # they go to another process
        (job,) = measure.args
        if job == "large-lora":
            raise UserError("the card broke")
        done.append(job)
        return results[job]

    monkeypatch.setattr(gpu, "gpu_name", lambda: "NVIDIA Test")
    monkeypatch.setattr(gpu, "call", call)
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


def test_the_shapes_are_those_of_the_published_models():
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    shapes = gpu_jobs.PUBLISHED
    with torch.device("meta"):
        assert AutoModelForCausalLM.from_config(shapes.llama).num_parameters() == 6_738_415_616
        assert AutoModelForMaskedLM.from_config(shapes.base).num_parameters() == 124_697_433
        assert AutoModelForMaskedLM.from_config(shapes.large).num_parameters() == 355_412_057


def test_without_a_gpu_the_command_is_refused():
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
    assert line.startswith("error: PyTorch sees no NVIDIA GPU, and this command measures one. Run it where")
    assert result.stdout == ""
