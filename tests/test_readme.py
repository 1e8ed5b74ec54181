"""Every command that a README shows is run: real corpora stand in as the miniature's files, Hub datasets on the loopback."""

from __future__ import annotations

import csv
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from common.miniature.hub import Blob, LocalHub, Repository
from snli_roberta.corpus import load_split

ROOT = Path(__file__).parents[1]
READMES = ("README.md", "sbic_llama/README.md", "snli_roberta/README.md")


def commands() -> list[str]:
    found = []
    for name in READMES:
        for block in re.findall(r"```bash\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL):
            found += [line for line in block.splitlines() if line.strip()]
    return list(dict.fromkeys(found))


def publish(hub: LocalHub, id: str, splits: dict[str, list[dict]], ref: str = "refs/heads/main") -> None:
    files = {}
    for split, rows in splits.items():
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
        files[f"data/{split}-00000-of-00001.parquet"] = Blob(buffer.getvalue(), lfs=True)
        hub.lfs[files[f"data/{split}-00000-of-00001.parquet"].sha256] = buffer.getvalue()
    repository = Repository()
    repository.add("refs/heads/main", "data", files)
    repository.refs[ref] = repository.refs["refs/heads/main"]
    hub.repositories["datasets", id] = repository


@pytest.fixture
def corpora_on_the_hub(hub, miniature):
    names = {"train": "train", "dev": "validation", "test": "test"}
    snli = {
        names[split]: [
            {"premise": pair.premise, "hypothesis": pair.hypothesis, "label": pair.label}
            for pair in load_split(split, data_dir=miniature / "snli_1.0").pairs
        ]
        for split in names
    }
    publish(hub, "stanfordnlp/snli", snli)
    sbic = {}
    for split, name in zip(names.values(), ("trn", "dev", "tst"), strict=True):
        with open(miniature / "SBIC.v2" / f"SBIC.v2.{name}.csv", encoding="utf-8", newline="") as file:
            sbic[split] = list(csv.DictReader(file))
    publish(hub, "allenai/social_bias_frames", sbic, ref="refs/convert/parquet")


MAKE = [line for line in commands() if line.startswith("make ")]
PYTHON = [line for line in commands() if not line.startswith("make ")]


def test_the_readmes_make_commands_are_what_ci_runs():
    assert MAKE == ["make demo", "make test"]
    assert set(MAKE) <= set((ROOT / ".ci" / "run").read_text().splitlines())


@pytest.mark.parametrize("command", PYTHON)
def test_a_readmes_command_runs(command, corpora_on_the_hub, miniature, tmp_path):
    words = shlex.split(command.replace("path/to/", f"{miniature}/"))
    program = {
        ".venv/bin/python": [sys.executable],
        ".venv/bin/accelerate": [sys.executable, "-m", "accelerate.commands.accelerate_cli"],
    }
    arguments = [*program[words[0]], *words[1:]]
    # Outputs stay out of the tree: commands run in a folder that has the tree's files but not its output.
    for entry in ROOT.iterdir():
        if entry.name not in ("output", ".git", ".venv"):
            (tmp_path / entry.name).symlink_to(entry)
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    if "common.report" in command:
        subprocess.run(
            [sys.executable, "-m", "snli_roberta.controls"], cwd=tmp_path, env=environment, check=True, timeout=300
        )
    result = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "n = " in result.stdout
