"""Every command that a README shows is run: real corpora stand in as the miniature's files, Hub datasets on the loopback."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import io
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import yaml

from common.cli import arguments
from common.miniature.loopback_hub import Blob, LocalHub, Repository
from common.miniature.pretrain import MODELS
from common.results.finding import read_finding
from common.results.record import read_record
from common.results.rendering import by_task, markdown_lines, sentence
from common.runtime.project import SOURCE
from snli_roberta.data.corpus import load_split

ROOT = Path(__file__).parents[1]
READMES = ("README.md", "sbic_llama/README.md", "snli_roberta/README.md")


def commands(name: str) -> list[str]:
    """The shell commands that a README shows, in order, continued lines joined."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def publish(hub: LocalHub, id: str, splits: dict[str, list[dict]], ref: str = "refs/heads/main") -> None:
    files = {}
    for split, rows in splits.items():
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
        files[f"data/{split}-00000-of-00001.parquet"] = Blob(buffer.getvalue(), lfs=True)
        hub.lfs[files[f"data/{split}-00000-of-00001.parquet"].sha256] = buffer.getvalue()
    repository = Repository()
    if ref != "refs/heads/main":  # as a dataset that is a script: its main branch holds no data
        repository.add("refs/heads/main", "script", {"dataset.py": Blob(b"raise SystemExit", lfs=False)})
    repository.add(ref, "data", files)
    hub.repositories["datasets", id] = repository


@pytest.fixture
def corpora_on_the_hub(hub, miniature):
    """The corpora and base models that the READMEs name, as the miniature's."""
    bases = {
        "miniature/tiny_roberta": "tiny_roberta",
        "miniature/tiny_llama": "tiny_llama",
        "FacebookAI/roberta-base": "tiny_roberta",
        "sentence-transformers/all-MiniLM-L6-v2": "tiny_roberta",
        "meta-llama/Llama-2-7b-hf": "tiny_llama",
        "TinyLlama/TinyLlama_v1.1": "tiny_llama",
    }
    for id, name in bases.items():
        hub.add_model(id, MODELS / name)
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


def test_the_readmes_make_commands_are_what_ci_runs():
    shown = [line for name in READMES for line in commands(name) if line.startswith("make ")]
    assert shown == ["make demo", "make test"]
    run = (ROOT / ".ci" / "run").read_text().splitlines()
    assert {"make demo-full", "make test", "make test-slow"} <= set(run)
    assert "\ndemo-full: demo " in (ROOT / "Makefile").read_text(), "which runs the demo first"


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) for name in READMES],
)
def test_a_readmes_commands_run_in_the_order_shown(name, corpora_on_the_hub, miniature, tmp_path):
    # Outputs stay out of the tree: commands run in a folder that has the tree's files but not its output.
    for entry in ROOT.iterdir():
        if entry.name not in ("output", ".git", ".venv"):
            (tmp_path / entry.name).symlink_to(entry)
    programs = {
        ".venv/bin/python": [sys.executable],
        ".venv/bin/accelerate": [sys.executable, "-m", "accelerate.commands.accelerate_cli"],
    }
    shown = [line for line in commands(name) if not line.startswith("make ")]
    assert shown
    for command in AS_THE_DEMO if name == "README.md" else ():
        subprocess.run([sys.executable, "-m", *command.split()], cwd=tmp_path, check=True, timeout=300)
    for command in shown:
        words = shlex.split(command.replace("path/to/", f"{miniature}/").replace(" you/", " miniature/"))
        given = [*programs[words[0]], *words[1:]]
        recipes = [word for word in words if Path(word).parent.name == "recipes"]
        if any("miniature" not in word or name == "README.md" for word in recipes):
            given += ["--max_steps", "2", "--evaluations", "1"]  # the command as shown, cut short
        if "sbic_llama/recipes/study.yaml" in words:
            given += ["--optim", "adamw_torch"]  # the study's own needs a GPU
        if words[2].endswith(".app"):
            if importlib.util.find_spec("gradio") is None:
                warnings.warn(f"not run, for gradio is not installed: {command}", stacklevel=1)
            else:
                check_page(given, tmp_path)
            continue
        result = subprocess.run(
            given,
            cwd=tmp_path,
            env={**os.environ, "ACCELERATE_USE_CPU": "true"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert result.returncode == 0, f"{command}\n{result.stderr[-3000:]}"


def check_page(command: list[str], folder: Path) -> None:
    """A command that serves a page until it is interrupted."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    process = subprocess.Popen(
        [*command, "--port", port],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        said = ""
        while "the page is at http://127.0.0.1:" not in said:
            line = process.stderr.readline()
            assert line, f"{command}\n{said}"
            said += line
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


# Stands in for `make demo`: the same models in the same folders, hardly trained.
SHORT = "--learning_rate 1e-3 --max_steps 2 --evaluations 1 --output_dir output/demo/"
AS_THE_DEMO = (
    f"snli_roberta.train_full --method full {SHORT}snli_full",
    f"snli_roberta.train_lora --method lora {SHORT}snli_lora",
    f"sbic_llama.train_offensive_yn {SHORT}sbic",
    f"sbic_llama.train_target_minority {SHORT}sbic",
)
INLINE = [
    (name, text) for name in READMES for text in re.findall(r"`(python -m [^`]*? [^`]+)`", (ROOT / name).read_text())
]


@pytest.mark.parametrize(("name", "text"), INLINE)
def test_a_command_within_a_sentence_or_table_can_be_parsed(name, text, miniature, monkeypatch):
    class Parsed(Exception):
        pass

    def parse(*given, **more):
        raise Parsed(arguments.parse(*given, **more))

    monkeypatch.chdir(ROOT)
    module, *words = shlex.split(text.replace("path/to/", f"{miniature}/"))[2:]
    found = importlib.import_module(module)
    monkeypatch.setattr(found, "parse", parse)
    # A model that would first have to be trained.
    words = [str(MODELS / "tiny_llama") if word.startswith("output/") else word for word in words]
    monkeypatch.setattr(sys, "argv", [module, *words])
    with pytest.raises(Parsed):
        found.main()


def test_the_feature_that_the_readme_shows_is_the_one_that_there_is():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert code in (ROOT / "sbic_llama" / "data" / "features.py").read_text(encoding="utf-8")


def test_who_to_cite():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0"
    assert cited["repository-code"] == SOURCE
    assert f"# {cited['title']}\n" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert [each["year"] for each in cited["references"]] == [2020, 2015]


@pytest.mark.slow
def test_the_python_that_a_readme_shows_runs(miniature, tmp_path, monkeypatch, capsys):
    from sbic_llama.training.arguments import TrainArguments
    from sbic_llama.training.run import train

    (code,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "sbic_llama" / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    monkeypatch.chdir(tmp_path)
    for name in ("offensiveYN", "targetMinority"):
        train(
            TrainArguments(
                output_dir=tmp_path / "output" / "miniature_sbic", learning_rate=2e-3, max_steps=5, evaluations=1
            ),
            name,
        )
    exec(compile(code, "README.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_what_a_readme_says_of_findings_is_what_was_found():
    shown = [line for name in READMES for line in listed(name) if re.match(r"- \*[^*]", line)]
    known = {sentence(read_finding(path)) for path in (ROOT / "results").glob("*/findings/*.json")}
    assert shown
    assert set(shown) <= known


def listed(name: str) -> list[str]:
    """The items of a README's lists, each on one line."""
    text = re.sub(r"\n  +", " ", (ROOT / name).read_text(encoding="utf-8"))
    return [" ".join(line.split()) for line in text.splitlines()]


RESULTS = sorted(path for path in (ROOT / "results").iterdir() if path.is_dir()) if (ROOT / "results").is_dir() else []
RESULTS = [path for path in RESULTS if path.name != "annotation_scale"]  # a benchmark's finding, not records of models


@pytest.mark.parametrize("folder", RESULTS, ids=lambda path: path.name)
def test_the_results_in_the_readmes_are_those_of_the_records(folder):
    records = [read_record(path) for path in sorted(folder.glob("*.json"))]
    shown = "".join((ROOT / name).read_text(encoding="utf-8") for name in READMES)
    for group in by_task(records):
        assert not group[0].miniature
        assert "\n".join(markdown_lines(group)) in shown
        assert all("/home/" not in record.command and "/tmp/" not in record.command for record in group)


def test_every_row_of_scores_in_the_readmes_is_a_records():
    rows = set()
    for folder in RESULTS:
        for group in by_task([read_record(path) for path in sorted(folder.glob("*.json"))]):
            rows |= set(markdown_lines(group))
    shown = [
        line
        for name in READMES
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines()
        if re.match(r"\| .*\d\.\d{4}.* \[\d?\.\d{3}, ", line)
    ]
    assert len(shown) > 20
    assert set(shown) <= rows
