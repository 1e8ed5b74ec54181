"""Notebooks run the product's commands and contain no logic; slow tests execute them offline on the miniature."""

from __future__ import annotations

import ast
import base64
import importlib
import json
import os
import re
import shlex
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from common import colab as colab_help
from common.cli import arguments
from common.cli.options import CorpusOptions
from common.miniature import cache as corpora
from common.miniature.pretrain import MODELS
from common.results.finding import read_finding
from common.runtime.project import PROJECT, SOURCE
from common.tables.reading import read_rows
from tests import forked

ROOT = Path(__file__).parents[1]
SBIC, SNLI = "sbic_llama/notebooks/train.ipynb", "snli_roberta/notebooks/full_vs_lora.ipynb"
ANNOTATE, TRUST = "sbic_llama/notebooks/annotate.ipynb", "snli_roberta/notebooks/trust.ipynb"
CODEBOOK = "sbic_llama/notebooks/codebook.ipynb"
LOOP = "sbic_llama/notebooks/loop.ipynb"
NOTEBOOKS = (SBIC, SNLI, ANNOTATE, CODEBOOK, LOOP, TRUST)
LOGIC = (
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.AsyncFor, ast.While),
    *(ast.If, ast.IfExp, ast.Match, ast.Try, ast.With, ast.comprehension),
)

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS)


def colab(notebook: str) -> str:
    """Return the address that opens a notebook of the repository in Colab."""
    return f"https://colab.research.google.com/github/{PROJECT}/blob/main/{notebook}"


def read(path: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / path, as_version=4)


def python_cells(path: str) -> list[str]:
    return [cell.source for cell in read(path).cells if cell.cell_type == "code" and not is_bash(cell)]


def bash_cells(path: str) -> list[str]:
    return [cell.source for cell in read(path).cells if cell.cell_type == "code" and is_bash(cell)]


def is_bash(cell: nbformat.NotebookNode) -> bool:
    return cell.source.startswith("%%bash\n")


def settings(path: str) -> dict[str, str]:
    """Return the environment variables that the settings cell sets, with placeholders replaced."""
    (cell,) = (cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", []))
    found = dict(variables(cell.source))
    for call, folder in (("()", colab_help.example()), ('("own_task")', colab_help.example("own_task"))):
        found = {name: value.replace(f"{{colab.example{call}}}", str(folder)) for name, value in found.items()}
    return {name: re.sub(r"\{.*\}", "folder", value) for name, value in found.items()}


def variables(source: str) -> list[tuple[str, str]]:
    return re.findall(r"^%env (\w+)=(.*)$", source, re.MULTILINE)


def commands(path: str, **other: str) -> Iterator[list[str]]:
    """Yield the ``python -m`` commands of cells and text as words, with variables replaced by their values or by ``other``."""
    fenced = [
        block
        for cell in read(path).cells
        if cell.cell_type == "markdown"
        for block in re.findall(r"```bash\n(.*?)```", cell.source, re.DOTALL)
    ]
    for source in (*bash_cells(path), *fenced):
        for line in source.replace("\\\n", " ").splitlines():
            if line.startswith("python -m ") and not line.startswith("python -m pip "):
                line = string.Template(line).substitute(settings(path) | other)
                # Earlier cells download or write them.
                own = corpora.build() / "own_task"
                for path_then, path_now in (
                    ("output/snli_1.0", corpora.build() / "snli_1.0"),
                    ("output/own_posts.xlsx", own / "posts.csv"),
                    ("folder/labeled.xlsx", own / "people.csv"),
                ):
                    line = line.replace(path_then, str(path_now))
                words = shlex.split(line)
                yield words[2 : words.index(">") if ">" in words else None]


@every_notebook
def test_a_notebook_is_short_and_stripped(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= 12
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


@every_notebook
def test_a_notebook_opens_in_colab_from_itself_and_its_readme(path):
    assert f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab(path)})" in (
        read(path).cells[0].source
    )
    shown = (ROOT / path).parents[1] / "README.md"
    assert f"[Open in Colab]({colab(path)})" in shown.read_text(encoding="utf-8")
    assert f"[Open in Colab]({colab(path)})" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert read(path).metadata.accelerator == "GPU"


@every_notebook
def test_the_first_code_clones_the_project_and_installs_around_colabs_torch(path):
    first = next(cell for cell in read(path).cells if cell.cell_type == "code")
    assert is_bash(first)
    assert re.findall(r"git clone --quiet (\S+)$", first.source, re.MULTILINE) == [SOURCE]
    clone = SOURCE.rpartition("/")[2]
    assert f" cd {clone}\n" in first.source
    assert f'sys.path += ["{clone}", *map(str, Path.cwd().parents)]\n' in python_cells(path)[0]
    installs = [line for line in first.source.splitlines() if "pip install" in line]
    assert [line.partition("--quiet ")[2] for line in installs] == ["-r requirements-colab.txt", "--no-deps -e ."]


@every_notebook
def test_setup_can_be_repeated_and_leaves_an_installed_checkout_alone(path, tmp_path):
    """Stand-ins for git and python list their calls; the first pip fails."""
    programs, content = tmp_path / "bin", tmp_path / "content"
    programs.mkdir()
    for name, then in {
        "git": 'mkdir "$(basename "$3")"',
        "python": f"mkdir {tmp_path}/failed 2>/dev/null && exit 1",
    }.items():
        (programs / name).write_text(f'#!/bin/bash\necho "{name} $*" >> {tmp_path}/calls\n{then}\nexit 0\n')
        (programs / name).chmod(0o755)
    script = bash_cells(path)[0].removeprefix("%%bash\n").replace("/content", str(content))

    def run(folder: Path) -> tuple[int, list[str]]:
        (tmp_path / "calls").write_text("")
        environment = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
        result = subprocess.run(["bash"], input=script, text=True, cwd=folder, env=environment, capture_output=True)
        return result.returncode, (tmp_path / "calls").read_text().splitlines()

    assert run(tmp_path) == (1, [])  # neither in Colab nor in a checkout
    assert run(ROOT) == (0, [])
    assert run((ROOT / path).parent) == (0, []), "Jupyter starts a kernel in the notebook's own folder"
    content.mkdir()
    clone = f"git clone --quiet {SOURCE}"
    install = [f"python -m pip install --quiet {what}" for what in ("-r requirements-colab.txt", "--no-deps -e .")]
    assert run(content) == (1, [clone, install[0]])
    assert run(content) == (0, install)
    (content / clone.rpartition("/")[2] / "common").mkdir()
    assert run(content / clone.rpartition("/")[2]) == (0, install)


def test_the_repository_is_found_from_the_notebooks_own_folder_and_from_above_its_clone(tmp_path):
    """Run the first cell of Python, where no path leads to the package yet."""
    (cell,) = {"\n".join(python_cells(path)[0].splitlines()[:9]) for path in NOTEBOOKS}
    (tmp_path / SOURCE.rpartition("/")[2]).symlink_to(ROOT)
    code = "from IPython.core.interactiveshell import InteractiveShell as Shell\n"
    code += f"Shell().run_cell({cell!r}).raise_error()\nprint(os.getcwd())"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for folder in ((ROOT / SBIC).parent, tmp_path):
        command = [sys.executable, "-c", f"import os\n{code}"]
        ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert Path(ended.stdout.split()[-1]).resolve() == ROOT


@every_notebook
def test_a_notebook_has_no_logic_of_its_own(path):
    for source in python_cells(path):
        tree = ast.parse(TransformerManager().transform_cell(source))
        assert [type(node).__name__ for node in ast.walk(tree) if isinstance(node, LOGIC)] == []
    for source in bash_cells(path):
        lines = [line for line in source.splitlines() if not line.startswith("#")]
        assert lines[:2] == ["%%bash", "set -e"]  # or only the last command's failure would be one
        assert not re.search(r"\b(for|while|until|if|case|function|select)\b|\(\)", "\n".join(lines[2:]))


class Parsed(Exception):
    """Carries the parsed arguments, and ends the command."""


@pytest.fixture
def parsed(monkeypatch):
    """Return a function that parses a command's arguments in the repository's root."""

    def parse(*args, **kwargs):
        raise Parsed(arguments.parse(*args, **kwargs))

    def read_words(name: str, *words: str) -> object:
        folder = (ROOT / name.replace(".", "/")).is_dir()  # a folder's command is its __main__
        module = importlib.import_module(f"{name}.__main__" if folder else name)
        monkeypatch.setattr(module, "parse", parse)
        monkeypatch.setattr(sys, "argv", [name, *words])
        with pytest.raises(Parsed) as caught:
            module.main()
        return caught.value.args[0]

    monkeypatch.chdir(ROOT)
    return read_words


@every_notebook
def test_a_notebooks_commands_parse(path, parsed):
    lines = list(commands(path))
    assert len(lines) >= 4
    for words in lines:
        parsed(*words)


@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if "CORPUS" in settings(path)])
def test_a_readers_corpus_reaches_every_command_that_reads_one(path, parsed, tmp_path):
    """Otherwise a model would train on the recipe's corpus and be scored on the reader's."""
    reading = [
        (words, given)
        for words in commands(path, CORPUS=f"--data_dir {tmp_path}")
        if isinstance(given := parsed(*words), CorpusOptions)
    ]
    assert len(reading) >= 2
    assert [words for words, given in reading if given.data_dir != tmp_path] == []
    for source in python_cells(path):
        assert ('os.environ["CORPUS"]' in source) == ("--config" in source), "a cell of Python that reads the recipe"


@pytest.mark.parametrize(("path", "recipe"), [(SBIC, "RECIPE"), (SNLI, "STUDY")])
def test_the_corpus_in_the_settings_is_that_of_the_recipe(path, recipe):
    named = re.search(
        r"^dataset_name: (\S+)$", (ROOT / settings(path)[recipe]).read_text(encoding="utf-8"), re.MULTILINE
    )
    assert settings(path)["CORPUS"] == f"--dataset_name {named[1]}"


def test_the_default_base_of_sbic_is_open_and_snlis_recipe_is_a_study():
    assert settings(SBIC)["RECIPE"] == "sbic_llama/recipes/tinyllama_t4.yaml"
    assert "sbic_llama/recipes/llama2_7b_t4.yaml" in "".join(python_cells(SBIC))
    assert settings(SNLI)["STUDY"] == "snli_roberta/recipes/study.yaml"


@pytest.fixture
def execute(small_miniature, tmp_path, monkeypatch):
    """Return a function that runs a notebook with other settings, in a folder with the repository's files but no output."""
    from nbclient import NotebookClient

    work = tmp_path / "work"
    work.mkdir()
    for entry in ROOT.iterdir():
        if entry.name not in ("output", ".git", ".venv"):
            (work / entry.name).symlink_to(entry)
    kernel = tmp_path / "jupyter" / "kernels" / "this"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(
        json.dumps(
            {
                "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
                "display_name": "this",
                "language": "python",
            }
        )
    )
    # Keep the developer's own Jupyter out.
    for name in ("JUPYTER_PATH", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / ("jupyter" if name == "JUPYTER_PATH" else name)))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", "")

    def run(path: str, **other: str) -> nbformat.NotebookNode:
        notebook = read(path)
        assert other.keys() <= settings(path).keys()
        (at,) = (i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
        injected = "\n".join(f"%env {name}={value}" for name, value in other.items())
        notebook.cells.insert(at + 1, nbformat.v4.new_code_cell(injected))
        # A failing cell raises an error with its source and output.
        NotebookClient(notebook, timeout=300, kernel_name="this", resources={"metadata": {"path": str(work)}}).execute()
        return notebook

    with forked.as_python(tmp_path / "bin"):
        yield run


def pictures(notebook: nbformat.NotebookNode) -> list[bytes]:
    return [
        base64.b64decode(output.data["image/png"])
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]


def tables(notebook: nbformat.NotebookNode) -> str:
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(data["text/markdown"] for data in shown if "text/markdown" in data)


def printed(notebook: nbformat.NotebookNode) -> str:
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))


@pytest.mark.slow
def test_the_sbic_notebook_runs_on_the_miniature(execute, tmp_path):
    output = tmp_path / "out"
    notebook = execute(
        SBIC,
        RECIPE="sbic_llama/recipes/miniature.yaml",
        CORPUS="",
        EXTRA="--max_steps 6 --evaluations 2 --logging_steps 2",
        OUTPUT_DIR=str(output),
    )
    adapter = output / "offensiveYN"
    shown = [(adapter / "pictures" / f"{name}.png").read_bytes() for name in ("scores", "confusion", "learning_curve")]
    assert pictures(notebook) == shown
    assert "| QLoRA |" in tables(notebook)
    assert (adapter / "adapter_model.safetensors").is_file()
    log = printed(notebook)
    assert "not in Colab" in log
    assert re.search(r"about .* on this machine for 6 steps", log)
    assert "nothing was sent to the Hub or written" in log


@pytest.mark.slow
def test_the_loop_runs_from_an_excel_file_to_a_corrected_estimate(execute, tmp_path):
    output = tmp_path / "out"
    notebook = execute(
        LOOP,
        POSTS=str(tmp_path / "posts.xlsx"),
        RECIPE="sbic_llama/recipes/miniature.yaml",
        EXTRA="--max_steps 20 --evaluations 1",
        SIZE="80",
        OUTPUT_DIR=str(output),
    )
    drawn = [row.values for row in read_rows(output / "to_label.xlsx")]
    assert len(drawn) == 80 and not any("model_" in column for column in drawn[0])
    assert {row["complaint"] for row in drawn} == {""}
    prevalence = read_finding(output / "prevalence.json")
    assert prevalence.facts["human labels"] == 80 and prevalence.facts["strata"] > 1
    assert "effective sample size" in (output / "trust" / "trust.html").read_text(encoding="utf-8")
    assert "more labeled texts changed balanced accuracy by" in printed(notebook)


@pytest.mark.slow
def test_the_snli_notebook_runs_on_the_miniature(execute, tmp_path):
    output = tmp_path / "out"
    notebook = execute(
        SNLI,
        STUDY="snli_roberta/recipes/miniature_study.yaml",
        CORPUS="",
        EXTRA="--max_steps 20 --evaluations 2 --logging_steps 5 --seeds 33",
        OUTPUT_DIR=str(output),
    )
    names = ("comparison-1", "comparison-2", "scores", "confusion")
    assert pictures(notebook) == [(output / "lora" / "pictures" / f"{name}.png").read_bytes() for name in names]
    assert "| full fine-tuning |" in tables(notebook)
    assert "| LoRA |" in tables(notebook)
    assert (output / "full" / "model.safetensors").is_file()
    assert (output / "lora" / "adapter_model.safetensors").is_file()
    (page,) = (shown.data["text/html"] for shown in notebook.cells[-2].outputs)
    assert page == (output / "report.html").read_text(encoding="utf-8")
    for heading in (
        "Full fine-tuning or LoRA?",
        "where people disagree?",
        "(HANS)",
        "(Breaking NLI)",
        "Our own rules",
    ):
        assert heading in page
    log = printed(notebook)
    assert "4 trainings: each method tries 2 learning rates with seed 33" in log
    estimates = re.findall(r"2 to train, each about .* on this machine for 20 steps", log)
    assert len(estimates) == 4, "of both methods: asked for by itself, and before the study starts"
    assert re.search(r"^(entailment|neutral|contradiction)\n +entailment +0\.\d{4}$", log, re.MULTILINE)
    subwords = next(
        output.data["text/plain"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "execute_result"
    )
    assert "subword" in subwords
    assert "<s>" in subwords


@pytest.mark.slow
def test_the_notebook_that_annotates_runs_on_the_miniature(execute, tmp_path):
    from sbic_llama.training.arguments import TrainArguments
    from sbic_llama.training.run import train

    train(TrainArguments(output_dir=tmp_path / "sbic", learning_rate=2e-3, max_steps=20, evaluations=1), "offensiveYN")
    output = tmp_path / "annotated"
    notebook = execute(ANNOTATE, ADAPTERS=f"--adapter {tmp_path}/sbic/offensiveYN", OUTPUT_DIR=str(output))
    assert (output / "annotated.csv").is_file()
    shown = [each.get("data", {}) for cell in notebook.cells for each in cell.get("outputs", [])]
    table = next(data["text/html"] for data in shown if "text/html" in data)
    assert "model_offensiveYN" in table
    assert ">post<" not in table, "no texts"
    assert [data["text/html"] for data in shown if "text/html" in data][-1] == (
        output / "trust" / "trust.html"
    ).read_text()
    log = printed(notebook)
    assert "Krippendorff" in log
    assert "human labels, people and machine" in log, "how many are of a class"


@pytest.mark.slow
def test_the_notebook_on_a_codebook_runs_on_the_miniature(execute, tmp_path):
    output, base = tmp_path / "own", str(MODELS / "tiny_llama")
    recipe = {"RECIPE": "sbic_llama/recipes/miniature.yaml", "EXTRA": "--max_steps 10 --evaluations 1"}
    notebook = execute(CODEBOOK, BASE=base, OUTPUT_DIR=str(output), **recipe)
    shown = [each.get("data", {}) for cell in notebook.cells for each in cell.get("outputs", [])]
    (page,) = (data["text/html"] for data in shown if "text/html" in data)
    assert page == (output / "trust" / "trust.html").read_text()
    assert (output / "untrained" / "trust.html").is_file()
    assert "model_complaint" in (output / "annotated.csv").read_text().partition("\n")[0]
    log = printed(notebook)
    assert "question: Does the author complain?" in log
    for title in ("majority label", "TF-IDF", "untouched base", "QLoRA"):
        assert title in log


@pytest.mark.slow
def test_the_notebook_on_trust_runs_on_the_miniature(execute, tmp_path):
    from snli_roberta.training.arguments import TrainArguments
    from snli_roberta.training.run import train

    model = tmp_path / "model"
    train(TrainArguments(method="lora", output_dir=model, learning_rate=2e-3, max_steps=20, evaluations=1))
    output = tmp_path / "out"
    notebook = execute(TRUST, MODEL=str(model), SNLI="", CORPUS="", OUTPUT_DIR=str(output))
    (page,) = (shown.data["text/html"] for shown in notebook.cells[-2].outputs)
    assert page == (output / "report.html").read_text(encoding="utf-8")
    for heading in ("where people disagree?", "(HANS)", "Our own rules"):
        assert heading in page
    log = printed(notebook)
    assert len(re.findall(r"^(entailment|neutral|contradiction)\n +entailment +0\.\d{4}$", log, re.MULTILINE)) == 2
    assert "shuffled" in log
