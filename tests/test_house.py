"""The tree's own rules: which way imports run, that no name hides an installed package, that pins and ranges agree."""

from __future__ import annotations

import ast
import importlib.machinery
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from tests import forked

ROOT = Path(__file__).parents[1]
PACKAGES = ("common", "sbic_llama", "snli_roberta")
# Layers of common, lowest first: an import goes down or stays within its layer. Commands and the miniature lie above them all.
LAYERS = ("cli", "runtime", "tables", "stats", "models", "results", "training", "hub")
LIBRARIES_AT_THE_TOP = {
    "common.web",
    "common.colab",
}  # for pages and notebooks; what else lies at the top level is a command
MOST_AT_THE_TOP = 8  # modules at the top level of common
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 400, 60

House = dict[str, ast.Module]


def read_house(root: Path = ROOT) -> House:
    """Parse the modules of the packages by dotted name."""
    paths = [path for package in (*PACKAGES, "benchmarks") for path in sorted((root / package).rglob("*.py"))]
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
        for path in paths
    }


def imports_of(house: House, module: str) -> Iterator[str]:
    """Yield what a module imports of the house, anywhere in it; relative imports would escape this and are refused."""
    for node in ast.walk(house[module]):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            while name and name not in house:
                if f"{name}.__init__" in house:
                    name = f"{name}.__init__"
                    break
                name = name.rpartition(".")[0]
            if name and name != module:
                yield name


def room(module: str) -> str:
    return module.partition(".")[0]


def layer(module: str) -> int:
    parts = module.split(".")
    return LAYERS.index(parts[1]) if parts[1] in LAYERS and parts[-1] != "__main__" else len(LAYERS)


def is_command(module: str) -> bool:
    """Whether a module is run: a file at the top level of a package, or the ``__main__`` of a folder."""
    parts = module.split(".")
    top = len(parts) == 2 and parts[0] != "benchmarks" and parts[1] not in ("__init__", "publication")
    return (top and module not in LIBRARIES_AT_THE_TOP) or parts[-1] == "__main__"


def in_miniature(module: str) -> bool:
    return module.split(".")[1] == "miniature"


def faults(house: House) -> list[str]:
    """List the imports that break a rule of the house."""
    wrong = []
    for module in house:
        for other in imports_of(house, module):
            line = f"{module} imports {other}"
            if room(other) not in {room(module), "common"} and room(module) != "benchmarks":
                wrong.append(f"{line}: a project imports common and itself, common only itself")
            if room(module) == room(other) == "common" and not in_miniature(module) and layer(other) > layer(module):
                wrong.append(f"{line}: upward")
            if is_command(other):
                wrong.append(f"{line}: a command is run, not imported")
            if in_miniature(other) and not in_miniature(module):
                wrong.append(f"{line}: product code runs on the miniature but does not import it")
    return wrong


def circles(house: House) -> list[list[str]]:
    """List groups of modules that import each other, by removing what imports nothing that is left."""
    left = {module: set(imports_of(house, module)) for module in house}
    while free := [module for module, others in left.items() if not others & left.keys()]:
        for module in free:
            del left[module]
    while free := [module for module in left if not any(module in others for others in left.values())]:
        for module in free:
            del left[module]
    return [sorted(left)] if left else []


def test_imports_keep_the_rules_of_the_house():
    house = read_house()
    assert len(house) > 50
    assert faults(house) == []
    assert circles(house) == []


@pytest.mark.parametrize(
    ("module", "line", "fault"),
    [
        ("common.stats.metrics", "from sbic_llama.data import corpus", "common only itself"),
        ("sbic_llama.data.corpus", "from snli_roberta.data.corpus import Pair", "a project imports common and itself"),
        ("common.runtime.files", "import common.models.loading", "upward"),
        ("common.hub.upload", "from common import doctor", "upward"),
        ("sbic_llama.model.scoring", "    from sbic_llama.evaluate import main", "a command is run"),
        ("sbic_llama.trust", "from sbic_llama import annotate", "a command is run"),
        ("snli_roberta.model.classifier", "from snli_roberta.disagreement.__main__ import main", "a command is run"),
        ("common.models.loading", "from common.miniature.cache import build", "does not import it"),
        ("sbic_llama.data.corpus", "from sbic_llama.miniature import sbic", "does not import it"),
    ],
)
def test_a_broken_rule_is_noticed(module, line, fault):
    house = read_house()
    house[module] = ast.parse("def function():\n    pass\n" + line.strip())
    assert [found for found in faults(house) if found.startswith(f"{module} imports ") and fault in found]


def test_a_circle_is_noticed():
    house = read_house()
    house["common.runtime.files"] = ast.parse("from common.runtime import processes")
    house["common.runtime.processes"] = ast.parse("from common.runtime.files import loads")
    (found,) = circles(house)
    assert {"common.runtime.files", "common.runtime.processes"} <= set(found)


def test_every_file_at_the_top_level_of_a_project_can_be_run():
    top = [
        (package, path)
        for package in ("sbic_llama", "snli_roberta")
        for path in sorted((ROOT / package).glob("*.py"))
        if path.stem not in ("__init__", "publication")
    ]
    assert len(top) > 10
    runs = 'if __name__ == "__main__":'
    assert [f"{package}/{path.name}" for package, path in top if runs not in path.read_text(encoding="utf-8")] == []


def test_the_house_stays_easy_to_see():
    house = read_house()
    assert (
        len([module for module in house if module.startswith("common.") and module.count(".") == 1]) <= MOST_AT_THE_TOP
    )
    long = []
    for module, tree in house.items():
        path = ROOT / (module.replace(".", "/") + ".py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES:
            long.append(f"{module}: {lines} lines")
        long += [
            f"{module}.{node.name}: {node.end_lineno - node.lineno + 1} lines"
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > MOST_LINES_OF_A_FUNCTION
        ]
    assert long == []


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


@pytest.mark.xdist_group("launches")
@pytest.mark.slow
@pytest.mark.parametrize(("package", "way"), [("sbic_llama", "module"), ("snli_roberta", "path")])
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
    optional = project["project"]["optional-dependencies"]
    for text in [*project["project"]["dependencies"], *optional["plots"], *optional["tables"], *optional["texts"]]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(exact[requirement.name.lower().replace("_", "-")]), text
    together = {**exact, **pins("requirements-dev.txt")}
    for file, chief in (
        ("requirements-scale.txt", "ray"),
        ("requirements-app.txt", "gradio"),
        ("requirements-bench.txt", "lm_eval"),
        ("requirements-export.txt", "xllamacpp"),
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


def test_the_lock_has_the_pinned_versions_and_what_the_project_depends_on():
    from packaging.requirements import Requirement

    packages = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    locked = {package["name"]: package["version"] for package in packages}
    assert len(locked) == len(packages), "one version of each, on every system"
    for path in ROOT.glob("requirements*.txt"):
        pinned = {name.replace(".", "-"): version for name, version in pins(path.name).items()}
        assert pinned.items() <= locked.items(), (
            f"{path.name}: renew uv.lock with `uv lock --upgrade-package NAME==VERSION`"
        )
    (own,) = (package["metadata"] for package in packages if package["name"] == "finetuning-projects")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    optional = project["project"]["optional-dependencies"].values()
    direct = [*project["project"]["dependencies"], *(text for extra in optional for text in extra)]
    for texts, rows in (
        (direct, own["requires-dist"]),
        (project["dependency-groups"]["dev"], own["requires-dev"]["dev"]),
    ):
        wanted = [Requirement(text) for text in texts]
        ranges = {(each.name.lower().replace("_", "-"), frozenset(str(each.specifier).split(","))) for each in wanted}
        assert ranges == {(row["name"], frozenset(row.get("specifier", "").split(","))) for row in rows}


HIDDEN = (
    "matplotlib",
    "python_calamine",
    "xlsxwriter",
    "pyreadstat",
    "sacrebleu",
    "rouge_score",
    "gradio",
    "ray",
    "gguf",
)
WITHOUT_EXTRAS = f"""
import sys


class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, *more):
        return None if name.partition(".")[0] in {HIDDEN} else self.finder.find_spec(name, *more)


sys.meta_path[:] = map(Hiding, sys.meta_path)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Return the folder into which the package was installed from a wheel."""
    tmp_path = tmp_path_factory.mktemp("installed")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *PACKAGES, "pyproject.toml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    wanted = [name for name in listed if (ROOT / name).is_file()]
    for name in wanted:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "wheel", "."]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    (wheel,) = (tmp_path / "wheel").glob("*.whl")
    packed = zipfile.ZipFile(wheel).namelist()
    assert len(wanted) > 100
    assert sorted(set(wanted) - {"pyproject.toml"} - set(packed)) == []
    assert not [name for name in packed if name.startswith("tests")]
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return site


def as_installed(site: Path, folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the installed package where nothing of the repository lies, without the packages of any extra."""
    (folder / "sitecustomize.py").write_text(WITHOUT_EXTRAS, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{site}"}
    name, *rest = words
    return subprocess.run(
        [site / "bin" / name, *rest], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize(("name", "subcommand"), [("sbic", "annotate"), ("snli", "train-lora")])
def test_an_installed_package_has_recipes_templates_notebooks_models_and_commands(
    installed, tmp_path, name, subcommand
):
    result = as_installed(installed, tmp_path, name, subcommand, "--help")
    assert result.returncode == 0, result.stderr
    assert "--config" in result.stdout


@pytest.mark.slow
def test_an_installed_package_trains_and_annotates_without_extras(installed, tmp_path, miniature):
    """And says in one line, before it works, what a page or a workbook needs."""
    own = miniature / "own_file"
    recipe = ["--config", "miniature", "--max_steps", "2", "--output_dir", tmp_path / "out"]
    result = as_installed(installed, tmp_path, "sbic", "train-offensive-yn", *recipe)
    assert result.returncode == 0, result.stderr
    adapter = ["--adapter", tmp_path / "out" / "offensiveYN"]
    result = as_installed(
        installed, tmp_path, "sbic", "annotate", own / "posts.csv", *adapter, "--output", tmp_path / "a.csv"
    )
    assert result.returncode == 0, result.stderr
    assert "model_offensiveYN" in (tmp_path / "a.csv").read_text(encoding="utf-8")
    people = ["--human_labels", own / "human_labels.csv", "--key", "id", "--output_dir", tmp_path / "trust"]
    for words, line in (
        (["trust", own / "posts.csv", *people], "pictures need matplotlib. Run pip install matplotlib"),
        (
            ["annotate", own / "posts.csv", "--output", tmp_path / "a.xlsx"],
            "files of spreadsheets and survey programs need python-calamine, XlsxWriter, pyreadstat. Run pip install "
            "python-calamine XlsxWriter pyreadstat",
        ),
    ):
        result = as_installed(installed, tmp_path, "sbic", *words, *adapter)
        assert (result.returncode, result.stderr.strip()) == (2, f"error: {line}")
    assert not (tmp_path / "trust").exists()


def test_a_hosted_notebook_keeps_its_own_torch():
    colab = pins("requirements-colab.txt")
    assert not {"torch", "numpy", "pandas"} & set(colab)
    assert colab.items() <= pins("requirements.txt").items()


@pytest.mark.xdist_group("launches")
def test_tests_that_launch_processes_are_a_group_of_one_worker(request):
    """Otherwise two of them may run at the same time; see tests/conftest.py. Of a page's many commands, few launch processes."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        assert request.node.nodeid.endswith("@launches"), "this version of pytest-xdist does not make groups"
    for path in sorted({*(ROOT / "tests").rglob("test_*.py")} - {ROOT / "tests" / "test_readme.py"}):
        text = path.read_text(encoding="utf-8")
        launches = '"accelerate.commands.launch"' in text or "forked.launch(" in text
        assert not launches or 'xdist_group("launches")' in text, path


def test_a_fork_of_the_tests_starts_without_modules_of_the_product(tmp_path):
    """Whatever a command of the product asks the fork server to import; otherwise the order of tests decides what they test."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["snli_roberta.train_full"])
    script = tmp_path / "loaded.py"
    script.write_text(
        "import sys\nprint([name for name in sys.modules if name.startswith(('snli_roberta', 'common.training'))])"
    )
    assert forked.run([script]).stdout == "[]\n"


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
        "picture",
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
