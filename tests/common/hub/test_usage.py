"""The commands on a card: run as they are shown, on a published model and a user's table, as far as that goes offline."""

from __future__ import annotations

import csv
import os
import re
import shlex
import shutil
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from common.hub import __main__ as command
from common.runtime.project import DISTRIBUTION, SOURCE
from tests import forked

ROOT = Path(__file__).parents[3]
ID = "miniature/Model"
POSTS = ("the florbs by the river sing well", "what a quiet day", "the quillans are rude", "I love it", "I hate it", "")
PROGRAMS = {"sbic": "sbic_llama", "snli": "snli_roberta"}


def usage(card: str) -> list[list[str]]:
    """Return the shell commands under "How to use"."""
    (section,) = re.findall(r"\n## How to use\n(.*?)\n## ", card, re.DOTALL)
    blocks = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines()]


@pytest.fixture
def commands(bases, monkeypatch, tmp_path):
    """Publish a copy of a trained model, and return the commands of its card."""

    def of(folder: Path) -> list[list[str]]:
        words = ["publish", str(shutil.copytree(folder, tmp_path / "model")), "--repo_id", ID, "--verify", "false"]
        monkeypatch.setattr("sys.argv", ["hub", *words])
        command.main()
        return usage(bases.repositories["models", ID].files()["README.md"].data.decode())

    return of


def run(words: list[str], folder: Path) -> str:
    """Run a command of the project in a folder, or check one of others that cannot run offline."""
    if words[:2] == ["pip", "install"]:
        requirement = Requirement(words[2])
        optional = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        if requirement.name == DISTRIBUTION:
            assert requirement.url == f"git+{SOURCE}"
        else:
            assert requirement.name in {Requirement(text).name for text in optional["export"]}
    elif words[:2] == ["ollama", "create"]:
        modelfile = folder / words[words.index("-f") + 1]
        source = re.match(r"FROM (.*)\n", modelfile.read_text())[1]
        assert (modelfile.parent / source).is_file()
        assert re.fullmatch(r"[a-z0-9._-]+", words[2])
    elif words[:2] != ["ollama", "run"]:
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
        result = forked.run(["-m", PROGRAMS[words[0]], *words[1:]], cwd=folder, env=environment)
        assert result.returncode == 0, f"{shlex.join(words)}\n{result.stderr[-2000:]}"
        return result.stdout
    return ""


@pytest.mark.parametrize("kind", ["snli_adapter", pytest.param("snli_full", marks=pytest.mark.slow)])
def test_a_classifier_labels_the_pair_on_its_card(kind, runs, commands, tmp_path):
    install, predict = commands(runs[kind])
    run(install, tmp_path)
    assert re.search("entailment|neutral|contradiction", run(predict, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sbic_labels", "sbic_groups", "own"])
def test_an_adapter_annotates_and_is_taken_along_as_its_card_shows(kind, runs, own, commands, tmp_path):
    if find_spec("gguf") is None:
        pytest.skip("gguf is not installed")
    folder, column = (own.folder, "text") if kind == "own" else (runs[kind], "post")
    with open(tmp_path / "posts.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", column], *enumerate(POSTS)])
    shown = commands(folder)
    assert [words[:2] for words in shown] == [
        *(["pip", "install"], ["sbic", "annotate"], ["sbic", "export"], ["pip", "install"], ["sbic", "export"]),
        *(["ollama", "create"], ["ollama", "run"]),
    ]
    for words in shown:
        run(words, tmp_path)
    with open(tmp_path / "annotated.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row[column] for row in rows] == list(POSTS)
    assert [bool(row["model_problem"]) for row in rows] == [not post for post in POSTS]
    assert {"model.safetensors", "README.md"} <= {path.name for path in (tmp_path / "merged").iterdir()}
