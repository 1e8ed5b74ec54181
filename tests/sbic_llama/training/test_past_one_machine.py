"""Test training with the configurations for several GPUs and machines, as far as CPUs can run them."""

from __future__ import annotations

import csv
import itertools
import re
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from common.runtime.hardware import cpu_has_bf16
from tests import forked

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.xdist_group("launches")
COMMAND = [
    "sbic_llama.train_offensive_yn", "--learning_rate", "2e-3", "--max_steps", "6", "--evaluations", "3", "--logging_steps", "1",
]  # fmt: skip


def launch(config: str, *words: str, status: int = 0) -> str:
    """Launch with a configuration to the end, and return what is printed."""
    ended = forked.launch(["--config_file", f"accelerate_configs/{config}", *words], ACCELERATE_USE_CPU="true")
    assert ended.returncode == status, ended.stderr[-4000:]
    return ended.stdout + ended.stderr


def printed_steps(output: str) -> list[str]:
    """Return what a training printed about its steps and validations."""
    return re.findall(r"step \d of 6, (?:loss|validation:)[^,\n]*(?:, loss [\d.]+)?", output)


@pytest.fixture(scope="module")
def command(miniature, tmp_path_factory) -> list[str]:
    """Return a training on so few posts that an epoch, whose last step is a part of one, ends within its six steps."""
    corpus = tmp_path_factory.mktemp("corpus")
    for name, count in {"trn": 500, "dev": 160, "tst": 2}.items():
        lines = (miniature / "SBIC.v2" / f"SBIC.v2.{name}.csv").open(encoding="utf-8", newline="")
        with lines, open(corpus / f"SBIC.v2.{name}.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(itertools.islice(csv.reader(lines), count + 1))
    return [*COMMAND, "--data_dir", str(corpus)]


@pytest.fixture(scope="module")
def alone(command, tmp_path_factory) -> tuple[Path, list[str]]:
    """Train with one process on the batch size of two."""
    folder = tmp_path_factory.mktemp("alone")
    words = [*command, "--output_dir", str(folder), "--per_device_train_batch_size", "32"]
    ended = forked.run(["-m", *words])
    assert ended.returncode == 0, ended.stderr[-4000:]
    return folder / "offensiveYN", printed_steps(ended.stderr)


def largest_difference(one: Path, other: Path) -> float:
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (one, other))
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.mark.slow
def test_a_run_of_one_process_continues_on_two_to_the_same_weights(alone, command, tmp_path):
    folder = shutil.copytree(alone[0], tmp_path / "offensiveYN")
    for name in ("training.json", "adapter_model.safetensors", "checkpoint-6/trainer_state.json"):
        (folder / name).unlink()
    words = ["--num_processes", "2", "-m", *command, "--output_dir", str(tmp_path)]
    output = launch("../accelerate_config.yaml", *words, "--per_device_train_batch_size", "16")
    assert "each step takes 2 × 16 = 32 items" in output
    continued = int(re.search(r"continuing from checkpoint-(\d)", output)[1])
    assert printed_steps(output) == [line for line in alone[1] if int(line.split()[1]) > continued]
    assert largest_difference(alone[0], folder) < 1e-5


@pytest.mark.slow
def test_a_sharded_4_bit_base_trains_the_same_adapter_and_continues(alone, command, tmp_path):
    worker = [
        str(ROOT / "tests" / "sbic_llama" / "training" / "fsdp_on_cpu.py"),
        *command,
        "--output_dir",
        str(tmp_path),
    ]
    output = launch("fsdp_qlora.yaml", *worker)
    assert "95 of 95 parameters in shards, 0.50 of them here" in output
    assert printed_steps(output) == alone[1]
    folder = tmp_path / "offensiveYN"
    assert largest_difference(alone[0], folder) < 1e-5
    before = load_file(folder / "checkpoint-6" / "adapter_model.safetensors")
    for name in ("training.json", "checkpoint-6/trainer_state.json"):
        (folder / name).unlink()
    output = launch("fsdp_qlora.yaml", *worker)
    assert "removing damaged checkpoint-6: " in output
    assert re.search(r"continuing from checkpoint-[24]", output)
    again = load_file(folder / "checkpoint-6" / "adapter_model.safetensors")
    assert all(torch.equal(before[name], again[name]) for name in before)


@pytest.mark.slow
def test_a_sharded_base_trains_in_half_precision_too(tmp_path):
    """Gathered weights must not be cast, as they hold 4-bit numbers. Losses differ a little: bf16 sums depend on order."""
    if not cpu_has_bf16():
        pytest.skip("this CPU has no bf16")
    words = [*COMMAND, "--precision", "bf16", "--output_dir"]
    ended = forked.run(["-m", *words, tmp_path / "one", "--per_device_train_batch_size", "32"])
    assert ended.returncode == 0, ended.stderr[-4000:]
    worker = str(ROOT / "tests" / "sbic_llama" / "training" / "fsdp_on_cpu.py")
    output = launch("fsdp_qlora.yaml", worker, *words, str(tmp_path / "two"))
    one, two = ([float(loss) for loss in re.findall(r"of 6, loss ([\d.]+)", text)] for text in (ended.stderr, output))
    assert len(one) == 6
    assert one == pytest.approx(two, rel=0.05)


@pytest.mark.slow
def test_two_machines_train_the_same_adapter_and_write_once(alone, command, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    words = [
        "--main_process_ip",
        "127.0.0.1",
        "--main_process_port",
        port,
        "-m",
        *command,
        "--output_dir",
        str(tmp_path),
    ]
    with ThreadPoolExecutor() as machines:
        first, second = machines.map(lambda rank: launch("multi_node.yaml", "--machine_rank", rank, *words), "01")
    assert printed_steps(first) == alone[1]
    assert not printed_steps(second), "the second machine prints too"
    assert largest_difference(alone[0], tmp_path / "offensiveYN") < 1e-5
    assert sorted(path.name for path in (tmp_path / "offensiveYN").iterdir()) == sorted(
        path.name for path in alone[0].iterdir()
    )


@pytest.mark.slow
def test_fsdp_without_gpus_is_refused_instead_of_left_out(tmp_path):
    output = launch("fsdp_qlora.yaml", "-m", *COMMAND, "--output_dir", str(tmp_path / "run"), status=1)
    assert "error: FSDP was requested, but 2 processes on this device would train without it" in output
    assert not (tmp_path / "run").exists()
