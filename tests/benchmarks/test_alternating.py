"""Sides in turn: who begins, what a ratio is, and what is said when a side fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from benchmarks.alternating import Worker, alternate, finished, middle, ratios
from benchmarks.setting import Measured, spread
from common.cli.errors import UserError


def measured(items: int, seconds: float) -> Measured:
    return Measured(items, seconds, flops=0, precision="fp32")


def test_another_side_begins_each_round_and_a_ratio_compares_within_one():
    asked = []

    def side(name, *seconds):
        left = list(seconds)

        def ask():
            asked.append(name)
            return measured(10 if name == "ours" else 5, left.pop(0))

        return ask

    # In the second round the machine is twice as slow, for all: the ratios are the same.
    ask = {"ours": side("ours", 1.0, 2.0), "a": side("a", 1.0, 2.0), "b": side("b", 5.0, 10.0)}
    rounds = list(alternate(ask, 2))
    assert asked == ["ours", "a", "b", "a", "b", "ours"]
    assert ratios(rounds, "ours", "a") == [2.0, 2.0]
    assert ratios(rounds, "ours", "b") == [10.0, 10.0]
    assert middle([3.0, 1.0, 2.0]) == "2.00 (1.00–3.00)"


def test_a_smaller_side_takes_its_items_from_all_lengths():
    assert spread(list(range(100)), 4) == [12, 37, 62, 87]
    assert spread([1, 2], 5) == [1, 2]


def test_a_worker_answers_line_by_line_and_a_failing_one_is_one_line():
    code = (
        "import json, sys\nprint('{}', flush=True)\n"
        "for line in sys.stdin:\n"
        "    n = json.loads(line)['n']\n"
        "    if n > 1: sys.exit(f'first line\\nno {n} here')\n"
        "    print(json.dumps({'twice': 2 * n}), flush=True)\n"
    )
    worker = Worker("a side", [sys.executable, "-c", code])
    try:
        assert worker.receive() == {}
        assert worker.ask({"n": 1}) == {"twice": 2}
        with pytest.raises(UserError, match=r"^a side: it ended with status 1: no 2 here$"):
            worker.ask({"n": 2})
        with pytest.raises(UserError, match="no 2 here"):
            worker.ask({"n": 1})
    finally:
        worker.end()


def test_a_command_that_fails_is_one_line():
    with pytest.raises(UserError, match=r"^it: it ended with status 3: it said nothing$"):
        finished("it", [sys.executable, "-c", "raise SystemExit(3)"], dict(os.environ))


def test_a_worker_ends_with_what_it_has_started():
    code = (
        "import json, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(json.dumps({'child': child.pid}), flush=True)\nsys.stdin.read()\n"
    )
    worker = Worker("a side", [sys.executable, "-c", code])
    child = worker.receive()["child"]
    worker.end()
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
        str(tmp_path / "found.json"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    while "--help" not in (line := process.stderr.readline()):
        assert line, "it ended early"
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) == 130
    assert not (tmp_path / "found.json").exists()
