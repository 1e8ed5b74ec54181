"""Evaluation in two processes gives the same numbers, and one process writes every file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests import forked

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.xdist_group("launches")
TWO = ["--config_file", "accelerate_config.yaml", "--num_processes", "2"]
ON_CPU = {"ACCELERATE_USE_CPU": "true"}
# Runs a module and logs the files that it replaces: the file to log to, the module and its arguments.
AUDITED = """
import os, runpy, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def note(event, paths):
    if event in ("os.rename", "os.replace"):
        os.write(log, f"{os.environ['RANK']} {paths[1]}\\n".encode())
sys.addaudithook(note)
sys.argv = sys.argv[2:]
sys.path.insert(0, os.getcwd())
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


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
    single = forked.run(["-m", *command, str(tmp_path / "one")], env={**os.environ, **ON_CPU})
    assert single.returncode == 0, single.stderr[-3000:]
    audited = tmp_path / "audited.py"
    audited.write_text(AUDITED)
    two = forked.launch([*TWO, audited, tmp_path / "written", *command, tmp_path / "two"], **ON_CPU)
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
    words = ["-m", "snli_roberta.predict", "--model", runs["snli_full"], "A dog runs.", "A pet moves."]
    ended = forked.launch([*TWO, *words], **ON_CPU)
    assert ended.returncode != 0
    assert (
        ended.stderr.count(
            "error: this command was started as several processes; expected one. Start it with python -m"
        )
        == 1
    )
