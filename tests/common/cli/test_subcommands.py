"""One command per project runs its modules by name."""

from __future__ import annotations

import subprocess
import sys

import pytest


def start(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("package", "own", "other"),
    [("sbic_llama", "learning-curve", "train-lora"), ("snli_roberta", "train-lora", "learning-curve")],
)
def test_help_lists_the_commands_of_the_project_and_of_common(package, own, other):
    result = start(package, "--help")
    assert result.returncode == 0
    listed = [line.split()[0] for line in result.stdout.splitlines() if line.startswith("  ")]
    assert {own, "doctor", "hub"} <= set(listed)
    assert not {other, "controls", "miniature", "web"} & set(listed)


@pytest.mark.parametrize("words", [("annotate", "--help"), ("doctor", "--help"), ("robustness", "--help")])
def test_a_subcommand_prints_what_its_module_prints(words):
    room = "common" if words[0] == "doctor" else "sbic_llama"
    direct, named = start(f"{room}.{words[0]}", *words[1:]), start("sbic_llama", *words)
    assert direct.returncode == 0
    assert (named.returncode, named.stdout, named.stderr) == (0, direct.stdout, direct.stderr)


@pytest.mark.parametrize(("name", "fix"), [("trian", "Did you mean sbic train?"), ("xyzzy", "See sbic --help")])
def test_an_unknown_subcommand_exits_with_status_2(name, fix):
    result = start("sbic_llama", name)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"error: sbic has no subcommand '{name}'. {fix}\n"


def test_a_recipe_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = start("sbic_llama", "train", "--config", "smollm2_gpu")
    assert result.returncode == 2
    assert result.stderr.startswith("error: --config: no such recipe 'smollm2_gpu'; expected a path, or one of gpu, ")
    # The recipe has all that training needs but a feature.
    result = start("sbic_llama", "train", "--config", "miniature")
    assert result.returncode == 2
    assert result.stderr.startswith("error: key 'feature': neither a feature nor a codebook")
    result = start("sbic_llama.sample", "--config", "nowhere")
    assert "or one of gpu, " in result.stderr
