"""Sides take turns, and a side that fails is one line of error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from benchmarks.jobs import JOBS, OURS, JobResult
from benchmarks.processes import Measured, Setting, SideProcess, alternate, finished, middle, spread
from common.cli.errors import UserError
from tests import forked


def measured(items: int, seconds: float) -> Measured:
    return Measured(items, seconds, flops=0, precision="fp32")


def test_each_round_starts_with_another_side_and_ratios_compare_within_rounds():
    calls = []

    def side(name, *seconds):
        left = list(seconds)

        def ask():
            calls.append(name)
            return measured(10 if name == OURS else 5, left.pop(0))

        return ask

    # In the second round the machine is half as fast for all sides: the ratios stay the same.
    ask = {OURS: side(OURS, 1.0, 2.0), "a": side("a", 1.0, 2.0), "b": side("b", 5.0, 10.0)}
    rounds = list(alternate(ask, 2))
    assert calls == [OURS, "a", "b", "a", "b", OURS]
    assert JobResult(JOBS[0], rounds, {}).ratios() == {"a": [2.0, 2.0], "b": [10.0, 10.0]}
    assert middle([3.0, 1.0, 2.0]) == "2.00 (1.00–3.00)"


def test_a_smaller_side_uses_items_of_all_lengths():
    assert spread(list(range(100)), 4) == [12, 37, 62, 87]
    assert spread([1, 2], 5) == [1, 2]


def doubling(setting):
    def measure(items):
        if items > 1:
            print("first line")
            raise UserError(f"no {items} here")
        return measured(2 * items, 1.0)

    return measure


def with_a_child(setting):
    child = subprocess.Popen(["sleep", "60"])
    return lambda items: measured(child.pid, 1.0)


@pytest.fixture
def side():
    """Return a function that starts a side that this module loads, from the server of all tests."""
    forked.start_server()
    sides = []

    def start(load):
        sides.append(
            SideProcess("a side", f"{__name__}.{load.__name__}", Setting(sbic_dir="", snli_dir="", scratch=""))
        )
        return sides[-1]

    yield start
    for each in sides:
        each.end()


def test_a_side_answers_and_its_failure_is_one_line(side, capfd):
    started = side(doubling)
    started.loaded()
    assert started.measure(1) == measured(2, 1.0)
    for _ in range(2):
        with pytest.raises(UserError, match=r"^a side exited with status 1: error: no 2 here$"):
            started.measure(2)
    shown = capfd.readouterr().err
    assert "a side: first line" in shown and "Traceback" not in shown


def test_a_failing_command_is_one_line():
    with pytest.raises(UserError, match=r"^it exited with status 3: no output$"):
        finished("it", [sys.executable, "-c", "raise SystemExit(3)"])


def test_a_side_ends_with_its_own_children(side):
    started = side(with_a_child)
    started.loaded()
    child = started.measure(0).items
    assert running(child)
    started.end()
    for _ in range(100):
        if not running(child):
            break
        time.sleep(0.05)
    assert not running(child)


def running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_ctrl_c_ends_the_benchmark_and_its_sides(tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "--quick",
        "--jobs",
        "start",
        "--output",
        str(tmp_path / "bench.json"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    while "--help" not in (line := process.stderr.readline()):
        assert line, "ended early"
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) == 130
    assert not (tmp_path / "bench.json").exists()
