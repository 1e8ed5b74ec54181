from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.cli.errors import UserError
from common.runtime import hardware
from tests import forked

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")], ids=["T4", "A100", "H100"]
)
def test_precision_follows_the_compute_capability(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: capability)
    # A T4 emulates bf16, so this returns True and must not be trusted.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert hardware.choose_precision(width=768).value == expected
    if capability < (8, 0):
        with pytest.raises(UserError, match=r"bf16 is not supported here \(compute capability 7.5\)"):
            hardware.choose_precision("bf16", width=768)


def test_the_oldest_of_several_cards_decides(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: ((9, 0), (7, 5))[i])
    assert hardware.choose_precision(width=768).value == "fp16"


@pytest.mark.parametrize("fast", [True, False])
def test_a_cpu_with_bf16_computes_wide_models_in_bf16(monkeypatch, fast):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(hardware, "cpu_has_bf16", lambda: fast)
    assert hardware.choose_precision(width=384).value == ("bf16" if fast else "fp32")
    assert hardware.choose_precision(width=128).value == "fp32"
    assert hardware.choose_precision("fp32", width=384).value == "fp32"
    if fast:
        assert hardware.choose_precision("bf16", width=128).value == "bf16"
    else:
        with pytest.raises(UserError, match="bf16 is not supported here"):
            hardware.choose_precision("bf16", width=384)
    with pytest.raises(UserError, match="fp16 is not supported here"):
        hardware.choose_precision("fp16", width=384)


def test_threads_are_shared_among_local_processes(monkeypatch):
    cores = len(os.sched_getaffinity(0))
    assert hardware.cpu_threads() == cores
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(4 * cores))
    assert hardware.cpu_threads() == 1


CHECK = (
    "import sys; from common.cli.errors import run; from common.runtime.hardware import check_processes\n"
    # One write per line: two processes share standard output.
    "run(lambda: sys.stdout.write(f'together {check_processes()}\\n'), several=True)"
)


def launch(tmp_path: Path, config: Path, *options: str, **environment: str) -> subprocess.CompletedProcess:
    script = tmp_path / "check.py"
    script.write_text(CHECK)
    return forked.launch(["--config_file", config, *options, script], PYTHONPATH=str(ROOT), **environment)


@pytest.mark.xdist_group("launches")
@pytest.mark.slow
def test_two_processes_train_together(tmp_path):
    result = launch(tmp_path, ROOT / "accelerate_config.yaml", "--num_processes", "2", ACCELERATE_USE_CPU="true")
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.count("together 2") == 2


@pytest.mark.xdist_group("launches")
@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="only happens on a CPU")
def test_two_processes_that_would_train_alone_are_refused(tmp_path):
    result = launch(tmp_path, ROOT / "accelerate_config.yaml", "--num_processes", "2")
    assert result.returncode != 0
    assert "together" not in result.stdout
    assert result.stderr.count("error: 2 processes were started but each would work alone. On a machine") == 1


@pytest.mark.xdist_group("launches")
@pytest.mark.slow
def test_one_process_where_two_were_requested_is_refused(tmp_path):
    config = tmp_path / "cpu.yaml"
    text = (ROOT / "accelerate_config.yaml").read_text()
    config.write_text(text.replace("MULTI_GPU\n", "MULTI_CPU\n").replace("use_cpu: false", "use_cpu: true"))
    result = launch(tmp_path, config, "--cpu", "--num_processes", "2")
    assert result.returncode != 0
    assert "error: several processes were requested but only one was started" in result.stderr


@pytest.mark.xdist_group("launches")
@pytest.mark.slow
def test_one_process_is_fine_with_and_without_a_launcher(tmp_path):
    assert "together 1" in launch(tmp_path, ROOT / "accelerate_config.yaml", ACCELERATE_USE_CPU="true").stdout
    plain = [sys.executable, "-c", CHECK]
    result = subprocess.run(plain, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert "together 1" in result.stdout


def test_several_gpus_behind_one_process_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=r"2 GPUs are visible to one process\. Use accelerate launch"):
        hardware.check_processes()
