"""Test several processes and Ray: the output has the bytes of a single process, whatever is killed."""

from __future__ import annotations

import contextlib
import csv
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import psutil
import pytest
import torch

from sbic_llama.annotation.run import parts_of
from sbic_llama.data.corpus import load_splits
from tests import forked
from tests.once import once

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.slow
SECONDS = 900  # Ray starts slowly where other tests use all cores
LAUNCH = ["accelerate.commands.launch", "--config_file", "accelerate_config.yaml", "--num_processes", "2", "-m"]


@pytest.fixture(scope="module")
def adapters(trained_adapters) -> list[str]:
    return [word for name in ("offensiveYN", "targetMinority") for word in ("--adapter", str(trained_adapters / name))]


@pytest.fixture(scope="module")
def made(miniature, adapters, tmp_path_factory) -> Path:
    """Return a folder with a table, and what one process writes for it."""

    def make(folder: Path) -> None:
        posts = [post.text for post in load_splits(data_dir=miniature / "SBIC.v2")["test"].posts]
        words, source = random.Random(0), folder / "in.csv"
        folder.mkdir()
        with open(source, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["number", "post"])
            for number in range(1700):
                writer.writerow([number, "" if number % 97 == 5 else f"{words.choice(posts)} {number % 331}"])
        command = ["sbic_llama.annotate", str(source), *adapters, "--output", str(folder / "whole.csv")]
        assert forked.run(["-m", *command]).returncode == 0

    return once(tmp_path_factory, "annotated", make)


@pytest.fixture(scope="module")
def source(made) -> Path:
    return made / "in.csv"


@pytest.fixture(scope="module")
def whole(made) -> bytes:
    """Return what one process writes."""
    return (made / "whole.csv").read_bytes()


@pytest.fixture(scope="module")
def alone(source, adapters):
    return lambda output: ["sbic_llama.annotate", str(source), *adapters, "--output", str(output)]


@pytest.fixture
def launched(alone):
    return lambda output: [*LAUNCH, *alone(output)]


@pytest.fixture
def on_ray(alone):
    pytest.importorskip("ray", reason="Ray is not installed: pip install -r requirements-scale.txt")
    return lambda output: [*alone(output), "--engine", "ray", "--actors", "2"]


def start(words: list[str], **how) -> subprocess.Popen:
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-m", *words], cwd=ROOT, env=environment, **how)


def finish(process: subprocess.Popen) -> int:
    return process.wait(timeout=SECONDS)


def parts(output: Path) -> int:
    return len(list(parts_of(output).glob("*.jsonl")))


def until(condition) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def children(process: subprocess.Popen, *, title: str = "") -> list[psutil.Process]:
    result = []
    for one in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has just ended
            if title in " ".join(one.cmdline()):
                result.append(one)
    return result


def workers(process: subprocess.Popen) -> list[psutil.Process]:
    return children(process, title="sbic_llama.annotate")


def gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert alive == [], "they outlive what started them"


def check(output: Path, whole: bytes) -> None:
    assert output.read_bytes() == whole
    assert sorted(path.name for path in output.parent.iterdir()) == [output.name]


@pytest.mark.xdist_group("launches")
def test_two_processes_read_standard_input_once_write_what_one_does_and_both_work(adapters, source, whole, tmp_path):
    # accelerate launch does not take a - as the first word of the module.
    words = [*LAUNCH, "sbic_llama.annotate", *adapters, "--output", "-", "-"]
    with open(source, "rb") as file, open(tmp_path / "out.csv", "wb") as output:
        process = start(words, stdin=file, stdout=output, stderr=subprocess.PIPE, text=True)
    until(lambda: len(workers(process)) == 2)
    spent, both = {}, workers(process)
    while process.poll() is None and any(one.is_running() for one in both):
        for one in both:
            with contextlib.suppress(psutil.Error):
                spent[one.pid] = one.cpu_times().user
        time.sleep(0.2)
    said = process.communicate()[1]
    assert process.returncode == 0, said[-2000:]
    check(tmp_path / "out.csv", whole)
    assert min(spent.values()) > 0.4 * max(spent.values())
    assert said.count("18 rows in all are kept") == said.count("1,700 rows") == said.count("2 processes share") == 1
    bars = set(re.findall(r"\d+%.*?/(\d+) \[", said))
    assert bars == {"932"}, "the first one's four parts: three of 256 rows, and the last"
    assert "932/932 [" in said


@pytest.mark.xdist_group("launches")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the fault is a CPU's")
def test_processes_that_do_not_know_of_each_other_write_nothing(alone, tmp_path):
    options = ["--config_file", "accelerate_config.yaml", "--num_processes", "2", "-m"]
    result = forked.launch([*options, *alone(tmp_path / "out.csv")])
    assert result.returncode != 0
    assert result.stderr.count("error: 2 processes were started but each would work alone") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.xdist_group("launches")
def test_whichever_process_is_killed_the_same_command_ends_in_the_same_bytes(launched, whole, tmp_path):
    output, moments, before = tmp_path / "out.csv", random.Random(0), 0
    for victim in ("launcher", "first", "second"):
        process = start(launched(output), stderr=subprocess.DEVNULL)
        until(lambda before=before: parts(output) > before)
        both = {one.environ()["RANK"]: one for one in workers(process) if "RANK" in one.environ()}
        assert sorted(both) == ["0", "1"]
        time.sleep(moments.uniform(0, 0.3))
        {"launcher": process, "first": both["0"], "second": both["1"]}[victim].kill()
        assert finish(process) != 0
        gone(list(both.values()))
        assert not output.exists()
        assert parts(output) > before
        before = parts(output)
    process = start(launched(output), stderr=subprocess.PIPE, text=True)
    said = process.communicate(timeout=SECONDS)[1]
    assert process.returncode == 0, said[-2000:]
    assert f"continuing: {before} of 7 parts" in said
    check(output, whole)


@contextlib.contextmanager
def cluster() -> Iterator[tuple[subprocess.Popen, str]]:
    """Start Ray on this machine and yield its process and address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    code = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
    words = f"start --head --block --num-cpus 2 --port {address.partition(':')[2]} --disable-usage-stats"
    head = subprocess.Popen(
        [sys.executable, "-c", code, *words.split(), "--include-dashboard", "false"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(tuple(address.split(":")), timeout=1):
                break
            time.sleep(0.1)
        yield head, address
    finally:
        for one in [*children(head), head]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        head.wait(timeout=60)


@pytest.mark.xdist_group("launches")
def test_a_cluster_goes_on_where_a_run_on_ray_was_killed_and_an_actors_death_loses_no_row(
    on_ray, whole, tmp_path, monkeypatch
):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # all of it is this test's, and on the loopback
    # Ray's workers have a low priority by default, and tests that run at the same time would leave them no time.
    monkeypatch.setenv("RAY_worker_niceness", "0")
    output = tmp_path / "out.csv"
    process = start(on_ray(output), stderr=subprocess.DEVNULL)
    until(lambda: parts(output) >= 1)
    actors = children(process, title="ray::MapWorker")
    process.kill()
    assert finish(process) == -signal.SIGKILL
    gone(actors)
    assert not output.exists()
    before = parts(output)
    with cluster() as (head, address):
        process = start(
            [*on_ray(output), "--ray_address", address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        until(lambda: parts(output) > before)
        actors = children(head, title="ray::MapWorker")
        assert 1 <= len(actors) <= 2, "one may start later than the other"
        actors[0].kill()
        printed, said = process.communicate(timeout=SECONDS)
        assert printed == "", "what Ray tells of a death would be among annotated posts"
        assert process.returncode == 0, said[-2000:]
        assert f"continuing: {before} of 7 parts" in said
        assert "2 actors with a core each" in said
        check(output, whole)
        assert head.poll() is None, "a cluster that was there before stays"


def test_the_pins_of_ray_are_what_is_tested(on_ray):
    lines = (ROOT / "requirements-scale.txt").read_text(encoding="utf-8").splitlines()
    for name, version in [line.split("==") for line in lines if "==" in line]:
        assert metadata.version(name) == version
