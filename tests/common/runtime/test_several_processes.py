"""Evaluation in two processes gives the same numbers, and one process writes every file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forked

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.xdist_group("launches")
TWO = ["accelerate.commands.launch", "--config_file", "accelerate_config.yaml", "--num_processes", "2", "-m"]


def run(*words: str, audit: Path | None = None) -> subprocess.CompletedProcess:
    """Run a module; each process logs the files it replaces to the folder ``audit``."""
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    if audit:
        (audit / "sitecustomize.py").write_text(
            "import os, sys\n"
            f"log = os.open({str(audit / 'written')!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n"
            "def note(event, paths):\n"
            "    if event in ('os.rename', 'os.replace') and 'RANK' in os.environ:\n"
            "        os.write(log, f\"{os.environ['RANK']} {paths[1]}\\n\".encode())\n"
            "sys.addaudithook(note)\n"
        )
        environment["PYTHONPATH"] = str(audit)
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300
    )


def numbers(folder: Path) -> dict[str, dict[str, float]]:
    """Return record → metric → value for a folder of records."""
    values = {}
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        values[path.name] = {name: metric["value"] for name, metric in record["metrics"].items()}
    return values


@pytest.mark.slow
@pytest.mark.parametrize("project", ["sbic", "snli"])
def test_two_processes_give_the_numbers_of_one_and_write_once(runs, few, tmp_path, project):
    if project == "sbic":
        command = ["sbic_llama.evaluate", "--adapter", str(runs["sbic_labels"])]
    else:
        command = [
            "snli_roberta.evaluate", "--model", str(runs["snli_full"]), str(runs["snli_adapter"]), "--title", "full", "LoRA",
        ]  # fmt: skip
    command += ["--data_dir", str(few), "--output_dir"]
    single = forked.run(["-m", *command, str(tmp_path / "one")], env={**os.environ, "ACCELERATE_USE_CPU": "true"})
    assert single.returncode == 0, single.stderr[-3000:]
    two = run(*TWO, *command, str(tmp_path / "two"), audit=tmp_path)
    assert two.returncode == 0, two.stderr[-3000:]
    first, second = numbers(tmp_path / "one"), numbers(tmp_path / "two")
    assert first
    assert first.keys() == second.keys()
    for name, metrics in first.items():
        assert metrics == pytest.approx(second[name], abs=1e-6), name
    assert two.stdout.count("majority") == single.stdout.count("majority"), "the second process must not print"
    written = [line.split(" ", 1) for line in (tmp_path / "written").read_text().splitlines()]
    assert {rank for rank, path in written if path.startswith((str(tmp_path), str(runs["sbic_labels"].parent)))} == {
        "0"
    }


@pytest.mark.slow
def test_other_commands_are_not_started_twice(runs, tmp_path):
    ended = run(*TWO, "snli_roberta.predict", "--model", str(runs["snli_full"]), "A dog runs.", "A pet moves.")
    assert ended.returncode != 0
    assert (
        ended.stderr.count(
            "error: this command was started as several processes; expected one. Start it with python -m"
        )
        == 1
    )
