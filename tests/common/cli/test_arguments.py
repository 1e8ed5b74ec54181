from __future__ import annotations

import subprocess
import sys
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Literal

import pytest

from common.cli.arguments import option, parse
from common.cli.errors import UserError

ROOT = Path(__file__).parents[3]


@dataclass
class Arguments:
    """Train something."""

    name: str = option(help="what to train")
    learning_rate: float = option(1e-3, "peak rate", above=0, maximum=1)
    epochs: int = option(3, "passes over the data", minimum=1)
    precision: Literal["auto", "fp32"] = option("auto", "compute precision")
    resume: bool = option(False, "continue the last run")
    seeds: tuple[int, ...] = option((0,), "seeds")
    data_dir: Path | None = option(None, "100 % local files")

    def __post_init__(self) -> None:
        if self.name == "bad":
            raise UserError("no such model", key="name")


def recipe(tmp_path: Path, text: str) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_command_line_overrides_recipe_overrides_default(tmp_path):
    config = recipe(tmp_path, "name: a\nlearning_rate: 2e-4\nepochs: 5\nseeds: [1, 2]\nresume: true\n")
    arguments = parse(Arguments, ["--config", config, "--epochs", "7"])
    assert arguments == Arguments("a", 2e-4, 7, "auto", True, (1, 2), None)


def test_yaml_scientific_notation_is_a_number(tmp_path):
    # YAML 1.1 reads 1e-4 as text.
    assert parse(Arguments, ["--config", recipe(tmp_path, "name: a\nlearning_rate: 1e-4\n")]).learning_rate == 1e-4


def test_text_that_looks_like_a_number_is_kept(tmp_path):
    """YAML would read 010 as 8 and 1.10 as 1.1, and pathlib accepts no numbers."""
    config = recipe(tmp_path, "name: 010\nepochs: 010\ndata_dir: 2020-01-02\n")
    arguments = parse(Arguments, ["--config", config])
    assert (arguments.name, arguments.epochs, arguments.data_dir) == ("010", 10, Path("2020-01-02"))
    assert parse(Arguments, ["--config", recipe(tmp_path, "name: 1.10\ndata_dir: 3\n")]).name == "1.10"


@pytest.mark.parametrize(("words", "value"), [((), True), (("true",), True), (("false",), False)])
def test_booleans(words, value):
    assert parse(Arguments, ["--name", "a", "--resume", *words]).resume is value


def test_several_values_and_paths():
    arguments = parse(Arguments, ["--name", "a", "--seeds", "3", "4", "--data_dir", "x"])
    assert (arguments.seeds, arguments.data_dir) == ((3, 4), Path("x"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nlearnin_rate: 1\n", "line 2: unknown key 'learnin_rate'. Did you mean 'learning_rate'?"),
        ("name: a\nname: b\n", "line 2: duplicate key 'name'. Keep one of them"),
        ("name: a\n\nepochs: 0\n", "line 3, key 'epochs': '0' is not valid; expected an integer at least 1"),
        ("name: a\nepochs: 2.5\n", "line 2, key 'epochs': '2.5' is not valid; expected an integer at least 1"),
        ("name: a\nepochs: true\n", "line 2, key 'epochs': True is not valid"),
        ("name: a\nlearning_rate: .inf\n", "line 2, key 'learning_rate': '.inf' is not valid"),
        ("name: a\nprecision: no\n", "line 2, key 'precision': False is not valid; expected one of auto, fp32"),
        ("name: a\nresume: 1\n", "line 2, key 'resume': '1' is not valid; expected true or false"),
        ("name: [a]\n", "line 1, key 'name': ['a'] is not valid; expected text"),
        ("name:\n", "line 1, key 'name': no value"),
        ("name: a: b\n", "line 1: mapping values are not allowed here; expected YAML"),
        ("- a\n", "not a recipe"),
        ("name: !thing a\n", "line 1, key 'name': could not determine a constructor for the tag '!thing'"),
        ("name: !!timestamp 2020-13-45\n", "line 1, key 'name': month must be in 1..12"),
        ("name: !!binary aGk=\n", "line 1, key 'name': b'hi' is not valid; expected text"),
        ("name: ''\n", "line 1, key 'name': the value is empty; expected text"),
        ("name: a\ndata_dir: ' '\n", "line 2, key 'data_dir': the value is empty; expected a path"),
        ('name: a\ndata_dir: "a\\0b"\n', "line 2, key 'data_dir': 'a\\x00b' is not valid; expected a path"),
        ('name: "\\uD800"\n', "line 1, key 'name': '\\ud800' is not valid"),
        ("name: a\nseeds: []\n", "line 2, key 'seeds': an empty list"),
        (
            "name: a\nepochs: 1000000000000\n",
            "line 2, key 'epochs': '1000000000000' is not valid; expected an integer at least 1, and at most 1000000000",
        ),
        ("name: a\nepochs: 1_0\n", "line 2, key 'epochs': '1_0' is not valid"),
        ("name: a\nepochs: 1:30\n", "line 2, key 'epochs': '1:30' is not valid"),
        ("? [a]\n: b\n", "line 1: the key is not a word"),
        ("name: " + "[" * 5000, "nested too deeply"),
        ("name: bad\n", "line 1, key 'name': no such model"),
    ],
)
def test_bad_recipes_are_refused_by_line(tmp_path, text, message):
    with pytest.raises(UserError) as error:
        parse(Arguments, ["--config", recipe(tmp_path, text)])
    assert message in str(error.value)
    assert "recipe.yaml" in str(error.value)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--name", "a", "--epoch", "2"], "unknown argument --epoch. Did you mean 'epochs'?"),
        (["--name", "a", "stray"], "unexpected argument 'stray'"),
        ([], "--name is missing"),
        (["--name", "a", "--epochs", "two"], "--epochs: 'two' is not valid"),
        (["--name", "a", "--epochs"], "expected one argument"),
        (["--name", "a", "--epochs", "2", "--epochs=3"], "--epochs: given twice. Keep one of them"),
        (
            ["--name", "a", "--learning_rate", "-1e-4"],
            "--learning_rate: '-1e-4' is not valid; expected a number above 0 and at most 1",
        ),
        (["--name", ""], "--name: the value is empty; expected text"),
        (["--name", "a", "--data_dir", ""], "--data_dir: the value is empty; expected a path"),
        (["--name", "bad"], "--name: no such model"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such recipe"),
    ],
)
def test_bad_command_lines_are_refused(argv, message):
    with pytest.raises(UserError) as error:
        parse(Arguments, argv)
    assert message in str(error.value)


def test_help_shows_defaults_and_survives_percent_signs(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Arguments, ["--help"], examples="  train --name a")
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert "100 % local files" in shown
    assert "(default: 0.001)" in shown
    assert "train --name a" in shown


@pytest.mark.parametrize(
    "module",
    [
        *("snli_roberta.baselines", "snli_roberta.compare", "snli_roberta.disagreement", "snli_roberta.adversarial"),
        *("sbic_llama.baselines", "common.report", "common.miniature"),
    ],
)
def test_help_and_refusals_come_before_heavy_imports(module):
    code = (
        f"import sys, runpy; sys.argv = ['x', '--no_such']\n"
        f"try: runpy.run_module('{module}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as stop: status = stop.code\n"
        "print(status, sorted({'torch', 'transformers', 'trl', 'datasets', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "2 []"
    assert result.stderr == "error: unknown argument --no_such. See --help for the arguments\n"


def test_a_corpus_on_the_command_line_replaces_the_recipes(tmp_path):
    from common.cli.options import CorpusOptions

    (tmp_path / "r.yaml").write_text("dataset_name: a/b\n")
    recipe = ["--config", str(tmp_path / "r.yaml")]
    assert parse(CorpusOptions, recipe) == CorpusOptions(dataset_name="a/b")
    there = str(tmp_path)
    assert parse(CorpusOptions, [*recipe, "--data_dir", there]) == CorpusOptions(data_dir=tmp_path)
    with pytest.raises(UserError, match="--data_dir: two corpora were given"):
        parse(CorpusOptions, ["--data_dir", there, "--dataset_name", "a/b"])
    with pytest.raises(UserError, match="--dataset_revision: it has no effect without --dataset_name"):
        parse(CorpusOptions, ["--data_dir", there, "--dataset_revision", "v1"])


@dataclass
class Writing:
    """Write something."""

    tables: tuple[str, ...] = option((), "tables", positional=True)
    labels: Path | None = option(None, "labels")
    output: Path | None = option(None, "file to write", writes=(".json", ".htm"))
    title: str = option("", "its title")


def test_a_file_to_write_has_its_ending_and_is_none_that_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.json", "b.json", "old.json"):
        (tmp_path / name).touch()
    words = ["a.json", "--labels", str(tmp_path / "b.json"), "--title", "old.json", "--output"]
    for name in ("old.json", "new.json", "x.HTM"):
        assert parse(Writing, [*words, name]).output == Path(name)
    for name in ("a.json", "b.json", "../" + tmp_path.name + "/b.json"):
        with pytest.raises(UserError, match=r"--output: the command reads this file\. Choose another"):
            parse(Writing, [*words, name])
    for name in ("labels.csv", "json", ".", "/", "a.json.gz"):
        with pytest.raises(UserError, match=r"--output: .* is not valid; expected a path that ends with .json or .htm"):
            parse(Writing, [*words, name])
    with pytest.raises(UserError, match=r"recipe.yaml, line 1, key 'output': the command reads this file"):
        parse(Writing, ["a.json", "--config", recipe(tmp_path, "output: a.json\n")])


def test_findings_pages_and_datasets_replace_no_table():
    from common.agreement import AgreementArguments
    from common.report import ReportArguments
    from sbic_llama.prevalence import PrevalenceArguments
    from sbic_llama.regression import RegressionArguments
    from sbic_llama.training.arguments import FeatureArguments
    from snli_roberta.evaluate import EvaluateArguments
    from snli_roberta.study.runs import StudyArguments

    outputs = dict.fromkeys((AgreementArguments, ReportArguments, PrevalenceArguments, RegressionArguments), "--output")
    outputs |= {EvaluateArguments: "--report", StudyArguments: "--report", FeatureArguments: "--dump_dataset"}
    for kind, key in outputs.items():
        needed = [
            word
            for field in fields(kind)
            if field.default is MISSING
            for word in (f"--{field.name}", "1e-3" if "rate" in field.name else "full")
        ]
        with pytest.raises(UserError, match=f"{key}: 'labels.csv' is not valid; expected a path that ends with"):
            parse(kind, [*needed, key, "labels.csv"])


QUIET = """
import dataclasses
from common.cli.arguments import parse
from common.cli.errors import UserError, run
from common.cli.console import bar, log, stage

@dataclasses.dataclass
class Arguments:
    'Print something.'

def main():
    parse(Arguments)
    with stage('working'), bar(3, 'post', show=True) as done, bar(5, 'post', show=True, delay=60) as soon:
        done.update(3)
        soon.update(5)
    log('logged')
    print('a result')
    raise UserError('wrong')

run(main)
"""


@pytest.mark.parametrize(
    ("words", "printed"), [([], ["working", "3/3", "logged", "error: wrong"]), (["--quiet"], ["error: wrong"])]
)
def test_quiet_silences_progress_and_nothing_else(words, printed):
    result = subprocess.run([sys.executable, "-c", QUIET, *words], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "a result\n")
    assert [word for word in ("working", "3/3", "logged", "error: wrong") if word in result.stderr] == printed
    assert "5/5" not in result.stderr, "what is done soon has no bar"
    assert "\r" not in result.stderr, "a log cannot be overwritten"
    assert "\x1b" not in result.stderr, "no colors in a log, with or without NO_COLOR"
