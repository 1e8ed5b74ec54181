"""Annotating with several processes and on Ray: the bytes of one process, whoever is killed."""

from __future__ import annotations

import contextlib
import csv
import os
import random
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import psutil
import pytest

from sbic_llama.annotate import parts_of
from sbic_llama.corpus import load_splits

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
LAUNCH = ["accelerate.commands.launch", "--config_file", "accelerate_config.yaml", "--num_processes", "2", "-m"]


@pytest.fixture(scope="module")
def adapters(trained_adapters) -> list[str]:
    return [word for name in ("offensiveYN", "targetMinority") for word in ("--adapter", str(trained_adapters / name))]


@pytest.fixture(scope="module")
def source(miniature, tmp_path_factory) -> Path:
    posts, words = [post.text for post in load_splits(data_dir=miniature / "SBIC.v2")["test"].posts], random.Random(0)
    path = tmp_path_factory.mktemp("scale") / "in.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "post"])
        for number in range(4000):
            writer.writerow([number, "" if number % 97 == 5 else f"{words.choice(posts)} {number % 331}"])
    return path


@pytest.fixture(scope="module")
def whole(source, adapters) -> bytes:
    """What one process writes."""
    output = source.with_name("whole.csv")
    result = finish(start(["sbic_llama.annotate", str(source), *adapters, "--output", str(output)]))
    assert result == 0
    return output.read_bytes()


@pytest.fixture
def launched(source, adapters):
    return lambda output: [*LAUNCH, "sbic_llama.annotate", str(source), *adapters, "--output", str(output)]


@pytest.fixture
def on_ray(source, adapters):
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install -r requirements-scale.txt")
    assert not ray.is_initialized()

    def words(output: Path, actors: int = 2) -> list[str]:
        words = ["sbic_llama.annotate", str(source), *adapters, "--output", str(output)]
        return [*words, "--engine", "ray", "--actors", str(actors)]

    return words


def start(words: list[str], **how) -> subprocess.Popen:
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-m", *words], cwd=ROOT, env=environment, **how)


def finish(process: subprocess.Popen) -> int:
    return process.wait(timeout=300)


def parts(output: Path) -> int:
    return len(list(parts_of(output).glob("*.jsonl")))


def until(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def children(process: subprocess.Popen, *, title: str = "") -> list[psutil.Process]:
    found = psutil.Process(process.pid).children(recursive=True)
    return [one for one in found if title in " ".join(one.cmdline())]


def workers(process: subprocess.Popen) -> list[psutil.Process]:
    return children(process, title="sbic_llama.annotate")


def gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert alive == [], "they outlive what started them"


def check(output: Path, whole: bytes) -> None:
    assert output.read_bytes() == whole
    assert sorted(path.name for path in output.parent.iterdir()) == [output.name]


def test_two_processes_write_what_one_does_and_both_work(launched, whole, tmp_path):
    output = tmp_path / "out.csv"
    process = start(launched(output), stderr=subprocess.PIPE, text=True)
    until(lambda: len(workers(process)) == 2)
    spent, both = {}, workers(process)
    while process.poll() is None and any(one.is_running() for one in both):
        for one in both:
            with contextlib.suppress(psutil.Error):
                spent[one.pid] = one.cpu_times().user
        time.sleep(0.2)
    said = process.communicate()[1]
    assert process.returncode == 0, said[-2000:]
    check(output, whole)
    assert min(spent.values()) > 0.4 * max(spent.values())
    assert said.count("42 rows in all are kept") == said.count("4,000 rows") == said.count("2 processes share") == 1
    assert said.count("100%") == 1


def test_two_processes_take_standard_input_once(adapters, source, whole):
    # accelerate launch does not take a - as the first word of the module.
    words = [*LAUNCH, "sbic_llama.annotate", *adapters, "--output", "-", "-"]
    with open(source, "rb") as file:
        process = start(words, stdin=file, stdout=subprocess.PIPE)
        assert process.communicate(timeout=300)[0] == whole
    assert process.returncode == 0


def test_processes_that_do_not_know_of_each_other_write_nothing(launched, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    output = tmp_path / "out.csv"
    result = subprocess.run(
        [sys.executable, "-m", *launched(output)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if "each would train alone" in result.stderr:  # a machine without GPUs
        assert result.returncode != 0
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("victim", ["launcher", "first", "second"])
def test_a_process_is_killed_and_the_same_command_ends_in_the_same_bytes(launched, whole, tmp_path, victim):
    output, moments = tmp_path / "out.csv", random.Random(victim)
    process = start(launched(output), stderr=subprocess.DEVNULL)
    enough = moments.randint(2, 8)
    until(lambda: parts(output) >= enough)
    both = {one.environ()["RANK"]: one for one in workers(process) if "RANK" in one.environ()}
    assert sorted(both) == ["0", "1"]
    time.sleep(moments.uniform(0, 0.3))
    {"launcher": process, "first": both["0"], "second": both["1"]}[victim].kill()
    assert finish(process) != 0
    gone(list(both.values()))
    assert not output.exists()
    before = parts(output)
    assert before >= enough
    process = start(launched(output), stderr=subprocess.PIPE, text=True)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said[-2000:]
    assert f"continuing: {before} of 16 parts" in said
    check(output, whole)


def test_two_actors_write_what_one_process_does(on_ray, whole, tmp_path):
    output = tmp_path / "out.csv"
    process = start(on_ray(output), stderr=subprocess.PIPE, text=True)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said[-2000:]
    assert "2 actors with a core each" in said
    check(output, whole)


def test_killed_actors_and_readers_lose_no_row(on_ray, whole, tmp_path):
    output = tmp_path / "out.csv"
    process = start(on_ray(output), stderr=subprocess.PIPE, text=True)
    for number in range(3):  # an actor, another, and the one that reads the posts
        until(lambda number=number: parts(output) >= 2 + 2 * number)
        kind = "ray::MapWorker" if number < 2 else "ray::ReadWindows"
        found = children(process, title=kind)
        assert found or number == 2, f"no process is called {kind}"
        if found:
            found[number % len(found)].kill()
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said[-2000:]
    check(output, whole)


def test_a_killed_run_on_ray_is_continued_by_it_and_by_one_process(on_ray, source, adapters, whole, tmp_path):
    output = tmp_path / "out.csv"
    for enough in (2, 6):
        process = start(on_ray(output), stderr=subprocess.DEVNULL)
        until(lambda enough=enough: parts(output) >= enough)
        rest = children(process)
        process.send_signal(signal.SIGKILL)
        assert finish(process) == -signal.SIGKILL
        gone(rest)
        assert not output.exists()
    words = ["sbic_llama.annotate", str(source), *adapters, "--output", str(output)]
    process = start(words, stderr=subprocess.PIPE, text=True)
    said = process.communicate(timeout=300)[1]
    assert "continuing: " in said
    assert process.returncode == 0, said[-2000:]
    check(output, whole)


def test_the_pins_of_ray_are_what_is_tested(on_ray):
    lines = (ROOT / "requirements-scale.txt").read_text(encoding="utf-8").splitlines()
    for name, version in [line.split("==") for line in lines if "==" in line]:
        assert metadata.version(name) == version
