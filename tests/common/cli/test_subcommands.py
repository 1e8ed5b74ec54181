"""One command per project runs its modules by name."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize(
    ("line", "offered", "not_offered"),
    [
        ("sbic preva", {"prevalence"}, {"trust"}),
        ("sbic ", {"annotate", "trust", "hub"}, {"train-lora"}),
        ("sbic annotate --adap", {"--adapter"}, {"--codebook"}),
        ("sbic annotate posts.csv --quantization ", {"nf4", "int8", "none"}, set()),
        ("snli train-lora --learn", {"--learning_rate"}, set()),
        ("sbic hub pu", {"publish"}, {"card"}),
        ("snli hub publish output/run --priv", {"--private"}, {"--adapter"}),
    ],
)
def test_a_shell_completes_subcommands_options_and_choices(line, offered, not_offered, tmp_path):
    """As bash asks: by environment variables, with the answer on file descriptor 8."""
    package = {"sbic": "sbic_llama", "snli": "snli_roberta"}[line.split()[0]]
    answer = tmp_path / "answer"
    asked = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_IFS": "\n"}
    asked |= {"_ARGCOMPLETE_STDOUT_FILENAME": str(answer), "_ARGCOMPLETE_SHELL": "bash"}
    result = subprocess.run([sys.executable, "-m", package], env=os.environ | asked, capture_output=True, timeout=60)
    assert result.returncode == 0, result.stderr.decode()
    words = {word.strip() for word in answer.read_text(encoding="utf-8").split("\n")}
    assert offered <= words, words
    assert not not_offered & words
