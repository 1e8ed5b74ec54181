"""The tree's own rules: which way imports run, that no name hides an installed package, that pins and ranges agree."""

from __future__ import annotations

import ast
import importlib.machinery
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGES = ("common", "sbic_llama", "snli_roberta")
MAY_IMPORT = {"common": {"common"}, "sbic_llama": {"sbic_llama", "common"}, "snli_roberta": {"snli_roberta", "common"}}


def imported(path: Path) -> Iterator[str]:
    """Top-level names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield path.relative_to(ROOT).parts[0] if node.level else str(node.module).split(".")[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    wrong = [f"{path.relative_to(ROOT)} imports {name}" for path in files for name in imported(path)
             if name in {*PACKAGES, "tests", "benchmarks"} - MAY_IMPORT[package]]  # fmt: skip
    assert wrong == []


def shadowing(root: Path) -> list[str]:
    """Modules beside a runnable script whose name an installed or standard module has: they would hide it there."""
    # What the benchmarks alone bring is imported by no script of a project, and run() takes its folder off the path.
    benchmarks = set(pins("requirements-bench.txt"))
    installed = {
        name
        for name, owners in metadata.packages_distributions().items()
        if not {owner.lower().replace("_", "-") for owner in owners} <= benchmarks
    } | set(sys.stdlib_module_names)
    own = {*PACKAGES, "tests"}
    found = []
    for package in PACKAGES:
        for path in [*(root / package).glob("*.py"), *(p for p in (root / package).iterdir() if p.is_dir())]:
            if path.stem in installed - own and path.stem != "__init__" and not path.stem.startswith("__"):
                found.append(str(path.relative_to(root)))
    return found


def test_no_module_hides_an_installed_package(tmp_path):
    # Running `python sbic_llama/x.py` puts sbic_llama/ first on the path.
    assert shadowing(ROOT) == []
    for package in PACKAGES:
        (tmp_path / package).mkdir()
    for name in ("datasets.py", "evaluate_posts.py", "queue.py"):
        (tmp_path / "sbic_llama" / name).touch()
    assert shadowing(tmp_path) == ["sbic_llama/datasets.py", "sbic_llama/queue.py"]


@pytest.mark.parametrize("way", ["module", "path"])
@pytest.mark.parametrize("package", ["sbic_llama", "snli_roberta"])
def test_accelerate_launches_a_project_module_both_ways(tmp_path, package, way):
    target = ["-m", f"{package}.baselines"] if way == "module" else [f"{package}/baselines.py"]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_config.yaml", *target]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    environment.pop("PYTHONPATH", None)  # as a user has it: the packages come from the install
    result = subprocess.run(
        [*command, "--output_dir", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert len(list(tmp_path.glob("*.json"))) >= 3


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines if line and not line.startswith(("#", "-r"))]
    assert all(found), f"{name} holds something else than pins"
    return {match[1].lower().replace("_", "-"): match[2] for match in found if match}


def test_pins_ranges_and_the_installed_versions_agree():
    from packaging.requirements import Requirement

    exact = pins("requirements.txt")
    assert exact["torch"] == "2.13.0"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for text in project["project"]["dependencies"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(exact[requirement.name.lower().replace("_", "-")]), text
    together = {**exact, **pins("requirements-dev.txt")}
    for file, chief in (
        ("requirements-scale.txt", "ray"),
        ("requirements-app.txt", "gradio"),
        ("requirements-bench.txt", "lm_eval"),
    ):
        more = pins(file)
        assert all(together.get(name, version) == version for name, version in more.items()), (
            f"{file} could not be installed together with the others"
        )
        try:
            metadata.version(chief)
        except metadata.PackageNotFoundError:  # the slow tests and the benchmarks install them
            continue
        together |= more
    for name, version in together.items():
        assert metadata.version(name).split("+")[0] == version, f"{name} {version} is pinned but not what is tested"


def test_a_hosted_notebook_keeps_its_own_torch():
    colab = pins("requirements-colab.txt")
    assert not {"torch", "numpy", "pandas", "pyarrow"} & set(colab)
    assert colab.items() <= pins("requirements.txt").items()


def test_the_launch_config_holds_devices_only():
    config = yaml.safe_load((ROOT / "accelerate_config.yaml").read_text(encoding="utf-8"))
    assert config["mixed_precision"] == "no"  # unquoted it would be False
    assert config["distributed_type"] == "MULTI_GPU"
    assert config["num_processes"] == config["num_machines"] == 1


def make(tmp_path: Path, *arguments: str, path: str) -> subprocess.CompletedProcess:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.txt").touch()
    (tmp_path / "pyproject.toml").touch()
    # `make test` started this very process: its flags must not reach another make.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    environment["PATH"] = path
    return subprocess.run(
        [shutil.which("make") or "make", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_make_names_what_is_missing_in_one_line(tmp_path):
    """Each tool is taken away in turn; what is left is a folder of links."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "sh", "touch", "git", "python3"):
        found = shutil.which(name) if name != "python3" else sys.executable
        (tools / name).symlink_to(found)
    (tools / "python-old").write_text("#!/bin/bash\nexit 1\n")
    (tools / "python-old").chmod(0o755)
    (tmp_path / "work").mkdir()

    def errors(*arguments: str) -> list[str]:
        result = make(tmp_path / "work", "demo", *arguments, path=str(tools))
        assert result.returncode == 2
        return [line for line in result.stderr.splitlines() if line.startswith("error: ")]

    assert errors("PYTHON=python-old") == [
        "error: python-old is too old: install Python 3.11 or newer, or name one: make PYTHON=/path/to/python"
    ]
    assert errors("PYTHON=nowhere") == [
        "error: Python is missing: install Python 3.11 or newer, or name one: make PYTHON=/path/to/python"
    ]
    (tools / "git").unlink()
    assert errors() == ["error: git is missing: install it with the system's package manager"]


def test_make_help_lists_every_command(tmp_path):
    result = make(tmp_path, "help", path=os.environ["PATH"])
    listed = [line.split()[0] for line in result.stdout.splitlines()]
    assert listed == [
        "help",
        "demo",
        "demo-full",
        "test",
        "test-slow",
        "bench",
        "bench-gpu",
        "quality",
        "format",
        "clean",
    ]


def test_the_repository_has_no_token_and_no_weights_but_the_miniatures():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert [path for path in listed if path.endswith((".bin", ".pt", ".pkl", ".ckpt", ".whl", ".zip"))] == []
    weights = [path for path in listed if path.endswith(".safetensors")]
    assert weights == [f"common/miniature/models/tiny_{name}/model.safetensors" for name in ("llama", "roberta")]
    for path in weights:
        assert (ROOT / path).stat().st_size <= 4_000_000
    # The Hub's tokens are hf_ and 34 letters and digits.
    for path in listed:
        assert not re.search(rb"hf_[A-Za-z0-9]{30,}", (ROOT / path).read_bytes()), path


def test_loading_a_package_file_needs_no_site_hooks():
    # Every package is a plain folder with an __init__: nothing is found by accident of the working directory.
    for package in PACKAGES:
        assert importlib.machinery.PathFinder.find_spec(package, [str(ROOT)]).origin == str(
            ROOT / package / "__init__.py"
        )
