"""Run every command that a README or a page of docs/ shows, and check its numbers, links and pictures against the repository.

Real corpora are replaced with the miniature's files, Hub datasets with ones on the loopback.
``python -m tests.test_readme`` draws the pictures in docs/images again.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib
import importlib.util
import io
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import yaml

from common.cli import arguments
from common.miniature.loopback_hub import Blob, LocalHub, Repository
from common.miniature.pretrain import MODELS
from common.results import pictures
from common.results.finding import read_finding
from common.results.record import read_record
from common.results.rendering import by_task, drawn, markdown_lines, tables, with_interval
from common.runtime.project import SOURCE
from sbic_llama.data.codebook import Codebook, Columns, read_codebook
from snli_roberta.data.corpus import load_split
from tests import forked

ROOT = Path(__file__).parents[1]
DOCS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
PAGES = ("README.md", "sbic_llama/README.md", "snli_roberta/README.md", *DOCS)
# Pages whose commands run one after the other in one folder: later ones use what earlier ones trained.
SESSIONS = {
    "first": ("README.md", "docs/train.md", "docs/hub.md", "docs/scaling.md", "docs/architecture.md"),
    "sbic_llama": (
        *("sbic_llama/README.md", "docs/annotate.md", "docs/label.md", "docs/trust.md", "docs/codebook.md"),
        "docs/export.md",
    ),
    "snli_roberta": ("snli_roberta/README.md", "docs/study.md", "docs/classifier.md"),
}
SBIC = "results/sbic_smollm2/findings/sbic-offensiveYN-at-least-half-qlora"
SNLI = "results/snli_minilm/findings/snli"
PICTURES = {  # picture of docs/images -> a finding, and which of its pictures
    "sbic_alpha.png": (f"{SBIC}-agreement.json", "Krippendorff's alpha"),
    "sbic_risk_coverage.png": (f"{SBIC}-risk-coverage.json", "Accuracy of the items that the model keeps"),
    "sbic_obfuscation.png": (f"{SBIC}-robustness.json", "Answers that change: obfuscation"),
    "snli_difference.png": (f"{SNLI}-study-comparison.json", "LoRA minus full fine-tuning, by gold label"),
    "snli_learning_curves.png": (f"{SNLI}-study-comparison.json", "Learning curves of the chosen rates"),
    "snli_by_agreement.png": (f"{SNLI}-lora-disagreement.json", "Accuracy by agreement"),
    "snli_hans.png": (f"{SNLI}-lora-hans.json", "HANS: accuracy by heuristic and label"),
    "snli_rules.png": (f"{SNLI}-lora-adversarial.json", "Adversarial pairs that pass, by rule"),
}
MADE_OTHERWISE = {"trust.png", "architecture.svg"}  # by `make picture`; by hand


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def commands(name: str) -> list[str]:
    """The shell commands of a page in order, continued lines joined."""
    blocks = re.findall(r"```bash\n(.*?)```", text_of(name).replace("\\\n", " "), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def publish(hub: LocalHub, id: str, splits: dict[str, list[dict]], ref: str = "refs/heads/main") -> None:
    files = {}
    for split, rows in splits.items():
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
        files[f"data/{split}-00000-of-00001.parquet"] = Blob(buffer.getvalue(), lfs=True)
        hub.lfs[files[f"data/{split}-00000-of-00001.parquet"].sha256] = buffer.getvalue()
    repository = Repository()
    if ref != "refs/heads/main":  # like a dataset that is a script: its main branch holds no data
        repository.add("refs/heads/main", "script", {"dataset.py": Blob(b"raise SystemExit", lfs=False)})
    repository.add(ref, "data", files)
    hub.repositories["datasets", id] = repository


@pytest.fixture
def corpora_on_the_hub(hub, small_miniature):
    """The corpora and base models that the pages name, with the miniature's content."""
    bases = {
        "miniature/tiny_roberta": "tiny_roberta",
        "miniature/tiny_llama": "tiny_llama",
        "FacebookAI/roberta-base": "tiny_roberta",
        "sentence-transformers/all-MiniLM-L6-v2": "tiny_roberta",
        "meta-llama/Llama-2-7b-hf": "tiny_llama",
        "TinyLlama/TinyLlama_v1.1": "tiny_llama",
        "HuggingFaceTB/SmolLM2-135M-Instruct": "tiny_llama",
        "Qwen/Qwen3-4B-Instruct-2507": "tiny_llama",
    }
    for id, name in bases.items():
        hub.add_model(id, MODELS / name)
    names = {"train": "train", "dev": "validation", "test": "test"}
    snli = {
        names[split]: [
            {"premise": pair.premise, "hypothesis": pair.hypothesis, "label": pair.label}
            for pair in load_split(split, data_dir=small_miniature / "snli_1.0").pairs
        ]
        for split in names
    }
    publish(hub, "stanfordnlp/snli", snli)
    columns = ("text_a", "text_b", "gold")
    others = {split: [dict(zip(columns, row.values(), strict=True)) for row in rows] for split, rows in snli.items()}
    publish(hub, "miniature/pairs", {"dev" if name == "validation" else name: rows for name, rows in others.items()})
    sbic = {}
    for split, name in zip(names.values(), ("trn", "dev", "tst"), strict=True):
        with open(small_miniature / "SBIC.v2" / f"SBIC.v2.{name}.csv", encoding="utf-8", newline="") as file:
            sbic[split] = list(csv.DictReader(file))
    with open(small_miniature / "own_file" / "posts.csv", encoding="utf-8", newline="") as file:
        publish(hub, "miniature/posts", {"train": list(csv.DictReader(file))})
    publish(hub, "allenai/social_bias_frames", sbic, ref="refs/convert/parquet")


def test_ci_runs_the_make_commands_of_the_pages():
    shown = [line for name in PAGES for line in commands(name) if line.startswith("make ")]
    assert shown == ["make demo", "make test"]
    run = (ROOT / ".ci" / "run").read_text().splitlines()
    assert {*shown, "make test-slow"} <= set(run)


def test_the_address_to_install_from_is_the_projects():
    (line,) = (line for line in commands("README.md") if line.startswith("pip "))
    name = tomllib.loads(text_of("pyproject.toml"))["project"]["name"]
    assert line == f'pip install "{name}[all] @ git+{SOURCE}"'


def test_every_page_with_commands_is_run():
    assert {name for name in PAGES if commands(name)} == {name for pages in SESSIONS.values() for name in pages}


@pytest.mark.slow
@pytest.mark.parametrize("session", SESSIONS)
def test_the_commands_of_the_pages_run_in_the_order_shown(
    session, small_miniature, corpora_on_the_hub, parsed, tmp_path, monkeypatch
):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    # Outputs stay out of the tree: commands run in a folder that has the tree's files but not its output.
    for entry in ROOT.iterdir():
        if entry.name not in ("output", ".git", ".venv"):
            (tmp_path / entry.name).symlink_to(entry)
    for command in AS_THE_DEMO if session == "first" else ():
        check(forked.run(["-m", *command.split()], cwd=tmp_path), command)
    launched, done = False, {"ray"}  # which another test runs
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    scripts = {name: place.partition(".")[0] for name, place in project["scripts"].items()}
    for command in (line for name in SESSIONS[session] for line in commands(name) if not line.startswith("make ")):
        words = shlex.split(
            command.removeprefix("ACCELERATE_USE_CPU=true ")  # which is set
            .replace("path/to/", f"{small_miniature}/")
            .replace(" you/", " miniature/")
            .replace("datasets/you/", "datasets/miniature/")
        )
        if words[:2] == ["pip", "install"]:  # which tests/test_house.py does
            continue
        if words[0] in scripts:
            words = [".venv/bin/python", "-m", scripts[words[0]], *words[1:]]
        given = words[1:]
        if any(Path(word).parent.name == "recipes" for word in words):
            given += ["--max_steps", "2", "--evaluations", "1"]  # the command as shown, cut short
            if "snli_roberta.compare" in words:
                given += ["--seeds", "33"]
        if "--encoder" in words:
            given += ["--encoder_epochs", "0.05"]
        if "sbic_llama.learning_curve" in words:
            given[given.index("--num_train_epochs") + 1] = "0.5"
        elif "train" in words and "--max_steps" in words:
            given[given.index("--max_steps") + 1] = "2"
        if kind := long_kind(words):
            if kind in done:
                parsed(words[2], *words[3:], folder=tmp_path)
                continue
            done.add(kind)
        if "sbic_llama/recipes/study.yaml" in words:
            given += ["--optim", "adamw_torch"]  # the study's own optimizer needs a GPU
        if words[2].endswith(".app"):
            if importlib.util.find_spec("gradio") is None:
                warnings.warn(f"not run, because gradio is not installed: {command}", stacklevel=1)
            else:
                check_page(given, tmp_path)
        elif words[0] == ".venv/bin/python":
            check(forked.run(given, cwd=tmp_path), command)
        elif launched and "--num_processes" not in words:  # one launch of one process stands for them all
            options = ["launch", "--config_file", "accelerate_config.yaml"]
            assert given[:3] == options, command
            check(forked.run(given[3:], cwd=tmp_path), command)
        else:
            launched = True
            assert words[:2] == [".venv/bin/accelerate", "launch"], command
            check(forked.launch(given[1:], cwd=tmp_path), command)


def long_kind(words: list[str]) -> str | None:
    """Name what a long command shares with others of its session: one of them is run, and the rest are parsed."""
    if "snli_roberta.compare" in words:
        return "estimate" if "--estimate_only" in words else "study"
    if "sbic_llama.robustness" in words:
        return "robustness"
    if "ray" in words:
        return "ray"
    return "encoder" if "--encoder" in words else None


def check(result: subprocess.CompletedProcess[str], command: str) -> None:
    assert result.returncode == 0, f"{command}\n{result.stderr[-3000:]}"


def check_page(command: list[str], folder: Path) -> None:
    """Start a command that serves a page, wait for its address, and interrupt it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    process = forked.Forked([*command, "--port", port], cwd=folder)
    try:
        forked.until(process, "http://127.0.0.1:")
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


class Parsed(Exception):
    """Carries what a command was about to parse, and ends the command."""


@pytest.fixture
def parsed(monkeypatch):
    """A function that starts a command and returns the dataclass of its arguments, and their values if asked to parse."""
    original = arguments.parse

    def start(name: str, *words: str, values: bool = True, folder: Path = ROOT) -> tuple[type, object]:
        monkeypatch.chdir(folder)
        is_folder = (ROOT / name.replace(".", "/")).is_dir()
        module = importlib.import_module(f"{name}.__main__" if is_folder else name)

        def parse(*given, **more):
            raise Parsed(given[0], original(*given, **more) if values else None)

        for loaded in list(sys.modules.values()):  # a command may leave parsing to a library of its project
            if getattr(loaded, "parse", None) is original:
                monkeypatch.setattr(loaded, "parse", parse)
        monkeypatch.setattr(sys, "argv", [name, *words])
        with pytest.raises(Parsed) as caught:
            module.main()
        return caught.value.args

    return start


INLINE = [(name, text) for name in PAGES for text in re.findall(r"`(python -m [^`]*? [^`]+)`", text_of(name))]


@pytest.mark.parametrize(("name", "text"), INLINE)
def test_a_command_within_a_sentence_or_table_parses(name, text, miniature, parsed):
    module, *words = shlex.split(text.replace("path/to/", f"{miniature}/"))[2:]
    # In place of a model that would have to be trained first.
    words = [re.sub(r"^output/.*(?<!\.html)$", str(MODELS / "tiny_llama"), word) for word in words]
    parsed(module, *words)


LISTED = re.findall(
    r"^\| `((?:common|sbic_llama|snli_roberta|benchmarks)\b[\w.]*(?: \w+)?)` \| [^|]+ \|([^|]*)\|$",
    text_of("docs/commands.md"),
    re.MULTILINE,
)
OLD_NAMES = {"sbic_llama.controls", "sbic_llama.estimate", "snli_roberta.controls"}


def test_the_reference_lists_every_command():
    listed = {name.split()[0] for name, _ in LISTED}
    for folder in ("common", "sbic_llama", "snli_roberta"):
        for path in (ROOT / folder).rglob("*.py"):
            if '\nif __name__ == "__main__":\n' in path.read_text(encoding="utf-8"):
                name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
                # The two that run the others as subcommands have no options of their own.
                assert name in listed | OLD_NAMES | {"sbic_llama", "snli_roberta"}
    assert all(f"`{name}`" in text_of("docs/commands.md") for name in OLD_NAMES)


@pytest.mark.parametrize(("name", "options"), LISTED, ids=[name for name, _ in LISTED])
def test_a_command_has_the_options_that_the_reference_lists(name, options, parsed):
    kind, _ = parsed(*name.split(), values=False)
    fields = {field.name for field in dataclasses.fields(kind)}
    assert set(re.findall(r"`--(\w+)`", options)) <= fields


def test_the_feature_on_the_page_is_the_one_in_the_code():
    (code,) = re.findall(r"```python\n(.*?)```", text_of("docs/architecture.md"), re.DOTALL)
    assert code in text_of("sbic_llama/data/features.py")


def test_the_codebook_on_the_page_is_the_miniatures(miniature, tmp_path):
    shown, pair, lines = re.findall(r"```yaml\n(.*?)```", text_of("docs/codebook.md"), re.DOTALL)
    (tmp_path / "codebook.yaml").write_text(f"name: topics\nquestion: What?\ninstruction: Decide.\n{lines}")
    assert read_codebook(tmp_path / "codebook.yaml").multi_label
    start = "name: stance\nquestion: What?\ninstruction: Decide.\nlabels: [Against, For]\n"
    (tmp_path / "codebook.yaml").write_text(start + pair)
    (text,) = read_codebook(tmp_path / "codebook.yaml").example_texts()
    assert f"`{text}`" in text_of("docs/codebook.md")
    assert shown == (miniature / "own_task" / "codebook.yaml").read_text(encoding="utf-8")
    keys = {f"`{field.name}`" for field in dataclasses.fields(Codebook)} - {"`columns`"}
    keys |= {f"`columns.{field.name}`" for field in dataclasses.fields(Columns)}
    rows = re.findall(r"^\| ((?:`[\w.]+`(?:, )?)+) \|", text_of("docs/codebook.md"), re.MULTILINE)
    assert keys <= {key for row in rows for key in row.split(", ")}


def test_the_tree_on_the_page_is_the_tree():
    (tree,) = re.findall(r"```\n(common/.*?)```", text_of("docs/architecture.md"), re.DOTALL)
    assert len(tree.splitlines()) <= 60
    shown, top = set(), ""
    for line in tree.splitlines():
        names = line.partition(" — ")[0]
        if not line.startswith(" "):
            top, _, names = names.partition("/")
        folder, _, files = names.rpartition("/ ")
        shown |= {
            "/".join(filter(None, (top, folder.strip(), name.strip()))) for name in files.split(",") if name.strip()
        }
    assert {path for path in shown if not (ROOT / f"{path}.py").is_file() and not (ROOT / path).is_dir()} == set()
    tracked = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    modules = {name.removesuffix(".py") for name in tracked.split() if not name.startswith("tests/")}
    hidden = {name for name in modules if Path(name).name in ("__init__", "__main__")} | {
        name for name in modules if any(f"{folder}/" in name for folder in shown)
    }
    old = {name.replace(".", "/") for name in OLD_NAMES}
    assert {name for name in modules - hidden - old if (ROOT / f"{name}.py").is_file()} - shown == set()


def test_who_to_cite():
    cited = yaml.safe_load(text_of("CITATION.cff"))
    assert cited["cff-version"] == "1.2.0"
    assert cited["repository-code"] == SOURCE
    assert f"# {cited['title']}\n" in text_of("README.md")
    assert [each["year"] for each in cited["references"]] == [2020, 2015]


def test_the_pages_are_short():
    assert len(text_of("README.md").splitlines()) <= 160
    assert all(len(text_of(f"{name}/README.md").splitlines()) <= 150 for name in ("sbic_llama", "snli_roberta"))


@pytest.mark.slow
def test_the_python_on_the_page_runs(miniature, tmp_path, monkeypatch, capsys):
    from sbic_llama.training.arguments import TrainArguments
    from sbic_llama.training.run import train

    (code,) = re.findall(r"```python\n(.*?)```", text_of("docs/annotate.md"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    for name in ("offensiveYN", "targetMinority"):
        train(
            TrainArguments(
                output_dir=tmp_path / "output" / "miniature_sbic", learning_rate=2e-3, max_steps=5, evaluations=1
            ),
            name,
        )
    exec(compile(code, "annotate.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 2


def anchors(name: str) -> set[str]:
    """The headings of a page as GitHub links to them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text_of(name), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_and_paths_lead_to_something(name):
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(name)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.relative_to(ROOT).as_posix()), link
    project = Path(name).parent if name.endswith("/README.md") else Path()
    for path in re.findall(r"`([a-z_]+/[\w/.-]+\.(?:py|yaml|json))`", text_of(name)):
        assert (ROOT / path).exists() or (ROOT / project / path).exists(), path


RESULTS = sorted(path for path in (ROOT / "results").iterdir() if path.is_dir()) if (ROOT / "results").is_dir() else []
# Findings alone, not records of models.
RESULTS = [path for path in RESULTS if path.name not in ("annotation_scale", "export_smollm2")]


@pytest.mark.parametrize("folder", RESULTS, ids=lambda path: path.name)
def test_the_tables_of_the_records_are_on_the_pages(folder):
    records = [read_record(path) for path in sorted(folder.glob("*.json"))]
    shown = "".join(map(text_of, PAGES))
    for group in by_task(records):
        assert not group[0].miniature
        assert "\n".join(markdown_lines(group)) in shown
        assert all("/home/" not in record.command and "/tmp/" not in record.command for record in group)


def test_every_score_with_an_interval_is_that_of_a_record_or_a_finding():
    known = set()
    for folder in RESULTS:
        for record in map(read_record, sorted(folder.glob("*.json"))):
            known |= {with_interval(record, metric) for metric in record.metrics}
            known |= {with_interval(record, metric).replace(" ± ", " ") for metric in record.metrics}
        for finding in map(read_finding, sorted(folder.glob("findings/*.json"))):
            known |= {cell for _, rows in tables(finding) for row in rows for cell in row}
    shown = [
        (name, " ".join(score.split()))
        for name in PAGES
        for score in re.findall(r"-?\d\.\d{4}(?: ± \d\.\d{4})?\s\[[^]]*\]", text_of(name))
    ]
    assert len(shown) > 100
    # Some stand in a finding's sentences only, as ρ of the Alternative Annotator Test.
    said = " ".join(path.read_text(encoding="utf-8") for folder in RESULTS for path in folder.glob("findings/*.json"))
    assert [(name, score) for name, score in shown if score not in known and score not in said] == []


def test_pictures_are_small_and_drawn_from_the_findings():
    from PIL import Image

    shown = {Path(path).name for name in PAGES for path in re.findall(r"!\[[^]]+\]\(([^)]+)\)", text_of(name))}
    assert shown == PICTURES.keys() | MADE_OTHERWISE
    for path in (ROOT / "docs" / "images").iterdir():
        assert path.name in shown
        assert path.stat().st_size <= 300_000, path.name
    for name in PICTURES:
        with Image.open(ROOT / "docs" / "images" / name) as picture:
            assert picture.info["Description"] == draw(name, lambda _, description: description)


def draw(name: str, finish=pictures.png):
    """A picture of docs/images as its finding gives it."""
    path, title = PICTURES[name]
    finding = read_finding(ROOT / path)
    kept = [part for part in finding.parts if part.title == title]
    if name == "sbic_alpha.png":  # the difference would stretch the axis below 0
        rows = {row: kept[0].rows[row] for row in ("model and people", "people among themselves")}
        kept = [dataclasses.replace(kept[0], rows=rows)]
    ((_, picture),) = drawn(dataclasses.replace(finding, parts=kept), finish)
    return picture


if __name__ == "__main__":
    for picture in PICTURES:
        (ROOT / "docs" / "images" / picture).write_bytes(draw(picture))
