"""Training runs that are killed, whose checkpoints are damaged, or whose disk is full lose nothing."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from common.cli.errors import UserError
from common.training import checkpoints
from common.training.run import require_space
from tests.common.training.killed_at import PLACES
from tests.forked import Forked, until

ROOT = Path(__file__).parents[3]
SNLI = [
    "snli_roberta.train_full", "--method", "full", "--learning_rate", "1e-3", "--max_steps", "24", "--evaluations", "4",
    "--train_fraction", "0.2", "--logging_steps", "1",
]  # fmt: skip
SBIC = [
    "sbic_llama.train_offensive_yn", "--learning_rate", "2e-3", "--max_steps", "16", "--evaluations", "4",
    "--logging_steps", "1", "--lora_dropout", "0.1",
]  # fmt: skip
RUNS = {"full": (SNLI, ""), "QLoRA": (SBIC, "offensiveYN")}
# Place → call at which the process is killed, in a run of four checkpoints that is continued each time. Both projects share what
# is called there; QLoRA's run is killed at every second one.
KILLS = [
    ("before a step", 3),
    ("before a checkpoint's weights", 1),
    ("before a checkpoint's optimizer", 1),
    ("before a checkpoint's random state", 2),
    ("before a checkpoint's manifest", 2),
    ("before an old checkpoint is removed", 1),
    ("before a step", 2),
    ("before the best checkpoint is loaded", 1),
    ("before the model is saved", 1),
    ("while the model is moved in place", 2),
    ("before the run's record", 1),
]


def start(command: list[str], folder: Path, *before: str) -> Forked:
    return Forked([*(before or ("-m",)), *command, "--output_dir", folder])


def end(process: Forked | subprocess.Popen) -> str:
    """Return the rest of a process's output."""
    return process.communicate(timeout=300)[0]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = folder.glob("*model.safetensors")
    return load_file(path)


def same(run: Path, other: Path) -> bool:
    """Return whether two finished runs have the same weights, bit for bit."""
    first, second = weights(run), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def whole_runs() -> dict[str, Path]:
    return {}


@pytest.fixture(params=list(RUNS))
def uninterrupted(request, small_miniature_for_module, whole_runs, tmp_path_factory) -> tuple[list[str], str, Path]:
    """Return each project's command, its folder's name in --output_dir, and an uninterrupted run."""
    command, name = RUNS[request.param]
    if request.param not in whole_runs:
        folder = tmp_path_factory.mktemp("uninterrupted") / "run"
        process = start(command, folder)
        output = end(process)
        assert process.returncode == 0, output[-3000:]
        whole_runs[request.param] = folder / name
    return command, name, whole_runs[request.param]


@pytest.mark.slow
def test_a_training_that_is_killed_anywhere_ends_with_the_same_weights(uninterrupted, tmp_path):
    """One kill after the other: each run continues what the one before left."""
    command, name, whole = uninterrupted
    assert {place for place, _ in KILLS} == set(PLACES)
    for place, count in KILLS if command is SNLI else KILLS[::2]:
        process = start(
            command, tmp_path / "run", str(ROOT / "tests" / "common" / "training" / "killed_at.py"), place, str(count)
        )
        output = end(process)
        assert process.returncode == -signal.SIGKILL, f"{place}: {output[-3000:]}"
        assert not (tmp_path / "run" / name / "training.json").exists()
    process = start(command, tmp_path / "run")
    output = end(process)
    assert process.returncode == 0, output[-3000:]
    assert same(whole, tmp_path / "run" / name)
    facts = json.loads((tmp_path / "run" / name / "training.json").read_text())
    best = json.loads((whole / "training.json").read_text())["best"]
    assert facts["best"] == best


@pytest.mark.slow
def test_a_training_that_is_killed_at_any_time_ends_with_the_same_weights(uninterrupted, tmp_path):
    command, name, whole = uninterrupted
    chance = random.Random(name)
    for _ in range(2):
        process = start(command, tmp_path / "run")
        until(process, ", loss ")
        time.sleep(chance.uniform(0, 1.5))
        process.kill()
        end(process)
    process = start(command, tmp_path / "run")
    output = end(process)
    assert process.returncode == 0, output[-3000:]
    assert same(whole, tmp_path / "run" / name)


@pytest.mark.slow
@pytest.mark.parametrize("uninterrupted", ["full"], indirect=True)
def test_damaged_checkpoints_are_named_and_the_previous_is_continued(uninterrupted, tmp_path):
    command, name, whole = uninterrupted
    shutil.copytree(whole, tmp_path / "run" / name)
    folder = tmp_path / "run" / name
    (folder / "training.json").unlink()
    newest, before, *_ = sorted(
        folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True
    )
    path = newest / "optimizer.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # one bit
    path.write_bytes(content)
    process = start(command, tmp_path / "run")
    output = end(process)
    assert process.returncode == 0, output[-3000:]
    assert f"removing damaged {newest.name}: optimizer.pt is not as it was written" in output
    assert f"continuing from {before.name}" in output
    assert same(whole, folder)


@pytest.mark.slow
@pytest.mark.parametrize(("uninterrupted", "smallest"), [("full", False), ("QLoRA", True)], indirect=["uninterrupted"])
def test_a_full_disk_is_a_one_line_error_and_costs_nothing(uninterrupted, tmp_path, smallest):
    """Limit the file size, so that writing the optimizer's state fails, or the weights' too."""
    command, name, whole = uninterrupted
    size = (whole / next(whole.glob("*model.safetensors")).name).stat().st_size
    process = start(command, tmp_path / "run")
    until(process, ", validation:")
    until(process, ", loss ")
    limit = size // 2 if smallest else size * 3 // 2
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    output = end(process)
    assert process.returncode == 2, output[-3000:]
    assert "Traceback" not in output
    assert f"error: {tmp_path / 'run' / name}: can't be written: " in output.splitlines()[-1]
    assert output.rstrip().endswith("Fix that, then the same command continues from the last intact checkpoint")
    process = start(command, tmp_path / "run")
    output = end(process)
    assert process.returncode == 0, output[-3000:]
    assert "continuing from checkpoint-" in output
    assert same(whole, tmp_path / "run" / name)


@pytest.mark.xdist_group("launches")
@pytest.mark.slow
@pytest.mark.parametrize(("run", "processes"), [("full", "1"), ("QLoRA", "2")])
def test_a_launch_that_is_stopped_leaves_no_orphan(run, tmp_path, processes):
    command, name = RUNS[run]
    launch = [
        "accelerate.commands.launch",
        "--config_file",
        "accelerate_config.yaml",
        "--num_processes",
        processes,
        "-m",
    ]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    words = [sys.executable, "-m", *launch, *command, "--output_dir", str(tmp_path / "run")]

    def launched() -> subprocess.Popen:
        return subprocess.Popen(
            words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )

    process = launched()
    until(process, ", loss ")
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.terminate()
    output = end(process)
    assert process.returncode != 0
    assert "the same command continues from the last checkpoint (ignore the traceback below" in output
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    # On a busy machine a validation may come before the signal, which leaves a checkpoint, too.
    saved = (tmp_path / "run" / name).glob("checkpoint-*")
    checkpoint = max(saved, key=lambda path: int(path.name.partition("-")[2]))
    assert (checkpoint / checkpoints.MANIFEST).is_file()
    process = launched()
    until(process, f"continuing from {checkpoint.name}")
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    assert not psutil.wait_procs(children, timeout=10)[1], "a killed launcher leaves processes at work"


@pytest.mark.slow
@pytest.mark.parametrize("uninterrupted", ["full"], indirect=True)
def test_a_second_training_of_a_folder_waits_for_the_first(uninterrupted, tmp_path):
    """As after a launcher was killed and its process trains on."""
    command, name, whole = uninterrupted
    first = start(command, tmp_path / "run")
    until(first, ", loss ")
    first.send_signal(signal.SIGSTOP)
    second = start(command, tmp_path / "run")
    until(second, "waiting until it has ended")
    first.kill()
    end(first)
    output = end(second)
    assert second.returncode == 0, output[-3000:]
    assert same(whole, tmp_path / "run" / name)


def checkpoint(folder: Path, step: int, best: int | None = None) -> Path:
    """Make an intact checkpoint of two files."""
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "trainer_state.json").write_text(json.dumps({"best_global_step": best or step}))
    (path / checkpoints.MANIFEST).write_text(json.dumps(checkpoints._digests(path)))
    return path


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: (path / "manifest.json").unlink(), r"removing damaged checkpoint-4: it has no manifest\.json"),
        (lambda path: (path / "manifest.json").write_text("[]"), r"its manifest\.json is damaged"),
        (lambda path: (path / "manifest.json").write_text('{"mod'), r"its manifest\.json is damaged"),
        (lambda path: (path / "model.safetensors").unlink(), r"model\.safetensors is missing"),
        (
            lambda path: (path / "model.safetensors").write_bytes(b"weightz"),
            r"model\.safetensors is not as it was written",
        ),
        (lambda path: (path / "rng_state.pth").touch(), r"rng_state\.pth is not as it was written"),
    ],
)
def test_damage_to_a_checkpoint_is_named(tmp_path, capsys, spoil, message):
    first, second = checkpoint(tmp_path, 2), checkpoint(tmp_path, 4)
    spoil(second)
    assert checkpoints.last_intact(tmp_path) == first
    assert re.search(message, capsys.readouterr().err)
    assert not second.exists()


def test_a_temporary_disk_error_costs_no_checkpoint(tmp_path, monkeypatch):
    first, second = checkpoint(tmp_path, 2), checkpoint(tmp_path, 4)

    def stale(*_):
        raise OSError(116, "Stale file handle")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints.hashlib, "file_digest", stale)
        with pytest.raises(UserError, match=r"checkpoint-[24]: can't be read: Stale file handle"):
            checkpoints.last_intact(tmp_path)
    assert first.is_dir()
    assert checkpoints.last_intact(tmp_path) == second


def test_checkpoints_of_an_earlier_version_are_continued(tmp_path):
    """Their manifests contain sizes."""
    path = checkpoint(tmp_path, 2)
    sizes = {file.name: file.stat().st_size for file in path.iterdir() if file.name != checkpoints.MANIFEST}
    (path / checkpoints.MANIFEST).write_text(json.dumps(sizes))
    assert checkpoints.last_intact(tmp_path) == path
    (path / "model.safetensors").write_bytes(b"weight")
    assert checkpoints.last_intact(tmp_path) is None


@pytest.mark.parametrize("gone", [False, True])
def test_without_the_best_checkpoint_later_ones_are_not_used(tmp_path, capsys, gone):
    best = checkpoint(tmp_path, 2)
    checkpoint(tmp_path, 4, best=2)
    if gone:
        shutil.rmtree(best)
    else:
        (best / "model.safetensors").write_bytes(b"other")
    assert checkpoints.last_intact(tmp_path) is None
    printed = capsys.readouterr().err
    assert "removing damaged checkpoint-4: its best checkpoint, checkpoint-2, is damaged or missing" in printed
    assert "no intact checkpoint: training starts over" in printed


def test_a_disk_that_is_too_small_is_refused_before_training(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    require_space(tmp_path, free // 2, "a model")
    with pytest.raises(UserError, match=r"only .* MB are free on this disk; expected about .* MB for 3 checkpoints"):
        require_space(tmp_path, 2 * free, "3 checkpoints")


@pytest.mark.parametrize(("limit", "best", "kept"), [(3, 4, {4, 6, 8}), (3, 2, {2, 6, 8}), (2, 2, {2, 8}), (2, 8, {8})])
def test_the_newest_and_the_best_checkpoints_are_kept(tmp_path, limit, best, kept):
    for step in (2, 4, 6, 8):
        checkpoint(tmp_path, step, best=min(step, best))
    checkpoints.remove_old(tmp_path, limit)
    assert {int(path.name.split("-")[1]) for path in tmp_path.iterdir()} == kept
