"""The study as a command: which runs it makes and reuses, how it chooses and concludes, and how it stops and continues."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from common.cli.arguments import parse
from common.cli.errors import UserError
from common.miniature.pretrain import MODELS
from common.results.finding import read_finding, read_findings
from common.results.record import read_record
from common.tables.reading import read_rows
from snli_roberta import compare
from snli_roberta.data.corpus import LABELS, load_split, pair_id
from snli_roberta.study.runs import StudyArguments, check_free
from tests import forked

ROOT = Path(__file__).parents[3]
SMALL = {
    "full_learning_rates": "1e-6 3e-4",
    "lora_learning_rates": "1e-6 1e-3",
    "seeds": "33 34",
    "train_fraction": "0.05",
    "max_steps": "6",
    "evaluations": "2",
    "logging_steps": "2",
}


def words(folder: Path, **changes: str) -> list[str]:
    return [
        "--output_dir", str(folder),
        *(word for key, value in {**SMALL, **changes}.items() for word in (f"--{key}", *value.split())),
    ]  # fmt: skip


def made(folder: Path) -> dict[str, int]:
    """Return the study's runs and when each ended."""
    return {path.parent.name: path.stat().st_mtime_ns for path in (folder / "runs").glob("*/training.json")}


@pytest.fixture(scope="module", autouse=True)
def small(small_miniature_for_module) -> Path:
    """Return the small miniature, on which every study of these tests is."""
    return small_miniature_for_module


@pytest.fixture(scope="module")
def study(tmp_path_factory, small) -> Path:
    folder = tmp_path_factory.mktemp("study")
    compare.compare(parse(StudyArguments, words(folder)))
    return folder


@pytest.mark.slow
def test_each_method_gets_as_many_trials_and_its_best_rate_the_other_seeds(study):
    runs = sorted(name.rsplit("-", 1)[0] for name in made(study))
    assert runs == [
        "full-0.0003-seed33", "full-0.0003-seed34", "full-1e-06-seed33",
        "lora-0.001-seed33", "lora-0.001-seed34", "lora-1e-06-seed33",
    ]  # fmt: skip
    settings = [json.loads((path / "training.json").read_text())["settings"] for path in (study / "runs").iterdir()]
    own = {"method", "learning_rate", "seed"}
    assert len({json.dumps({k: v for k, v in one.items() if k not in own}, sort_keys=True) for one in settings}) == 1


@pytest.mark.slow
def test_a_methods_record_is_the_mean_of_its_seeds_models(study, small):
    test = load_split("test", data_dir=small / "snli_1.0")
    record = read_record(study / "records" / "snli-6-lora.json")
    each = []
    for folder in sorted((study / "runs").glob("lora-0.001-*")):
        with open(folder / "evaluation" / "scores.csv", newline="") as file:
            answers = {row["id"]: row["answer"] for row in csv.DictReader(file)}
        each.append(accuracy_score(test.labels, [LABELS.index(answers[pair_id(pair)]) for pair in test.pairs]))
    assert record.metrics["accuracy"]["value"] == pytest.approx(np.mean(each))
    assert record.metrics["accuracy"]["sd"] == pytest.approx(np.std(each, ddof=1))
    assert np.sum(record.confusion) == 2 * len(test.pairs)
    assert record.settings["seeds"] == [33, 34]
    assert record.settings["learning_rate"] == 0.001


@pytest.mark.slow
def test_the_findings_have_the_difference_the_verdict_and_the_costs(study, capsys):
    comparison, tuning = (
        read_finding(study / "records" / "findings" / f"snli-study-{name}.json") for name in ("comparison", "tuning")
    )
    full, lora = (read_record(study / "records" / f"snli-{name}.json") for name in ("5-full-fine-tuning", "6-lora"))
    gap = lora.metrics["accuracy"]["value"] - full.metrics["accuracy"]["value"]
    assert comparison.facts["difference"]["value"] == pytest.approx(gap)
    assert f"LoRA minus full fine-tuning: {100 * gap:+.2f} points" in comparison.summary[0]
    assert comparison.miniature
    assert "a verdict takes at least 3 seeds" in comparison.summary[0]
    assert comparison.facts["verdict"] is None
    assert "at the edge of this range" in tuning.summary[1]
    assert tuning.summary[-1] == "Test pairs played no part in the choice."
    (runs,) = tuning.parts
    assert [row[:3] for row in runs.rows] == [
        ["full fine-tuning", "1e-06", "33"], ["full fine-tuning", "0.0003", "33"], ["full fine-tuning", "0.0003", "34"],
        ["LoRA", "1e-06", "33"], ["LoRA", "0.001", "33"], ["LoRA", "0.001", "34"],
    ]  # fmt: skip
    assert [row[4] is None for row in runs.rows] == [True, False, False] * 2, (
        "only what was chosen is scored on the test pairs"
    )
    kept = read_findings(next((study / "runs").glob("lora-0.001-seed33-*")) / "evaluation" / "findings")
    assert [finding.name for finding in kept] == ["comparison", "tuning"]


@pytest.mark.slow
def test_the_models_to_use_lie_where_they_are_found(study, monkeypatch, capsys):
    from snli_roberta import predict

    assert not list(study.glob("runs/*/checkpoint-*")), "which nobody continues"
    for method, rate in (("full", "0.0003"), ("lora", "0.001")):
        (run,) = study.glob(f"runs/{method}-{rate}-seed33-*")
        for name in ("training.json", "evaluation/record.json", "evaluation/findings/comparison.json"):
            assert (study / method / name).read_text() == (run / name).read_text()
        monkeypatch.setattr(sys, "argv", ["x", "--model", str(study / method), "A boy is wet.", "A child is dry."])
        predict.main()
        assert capsys.readouterr().out.split()[0] in LABELS


@pytest.mark.slow
def test_the_pairs_on_which_the_methods_differ_are_listed_with_their_answers(study):
    rows = [row.values for row in read_rows(study / "disagreements.csv")]
    assert rows
    for row in rows:
        shares = []
        for method in ("full", "lora"):
            right = row[f"{method}_answers"].split().count(row["gold_label"])
            assert row[f"{method}_right"] == f"{right} of 2"
            shares.append(right)
        assert shares[0] != shares[1]


@pytest.mark.slow
def test_a_second_time_nothing_is_trained_or_scored_again(study, capsys):
    before, text = made(study), (study / "records" / "snli-6-lora.json").read_text()
    answers = {path: path.stat().st_mtime_ns for path in study.glob("runs/*/evaluation/scores.csv")}
    own = study / "lora" / "evaluation" / "findings" / "disagreement.json"
    own.write_text("found by another command, for the card")
    other = study / "runs" / "lora-0.5-seed33-abcdef" / "evaluation" / "record.json"
    other.parent.mkdir(parents=True)
    other.write_text("of another setting")
    _, (_, tuning) = compare.compare(parse(StudyArguments, words(study)))
    assert own.read_text() == "found by another command, for the card"
    own.unlink()
    shutil.rmtree(other.parents[1])
    assert "has 1 more run with other settings that was scored on test pairs too" in tuning.summary[-1]
    assert made(study) == before
    assert {path: path.stat().st_mtime_ns for path in study.glob("runs/*/evaluation/scores.csv")} == answers
    # But for the command, which the tests' runner lends.
    assert json.loads((study / "records" / "snli-6-lora.json").read_text()) == json.loads(text)
    assert "full fine-tuning: nothing to train, 3 runs found" in capsys.readouterr().err


@pytest.mark.slow
def test_another_adapter_takes_the_full_runs_that_are_there(study, tmp_path, capsys):
    before = made(study)
    compare.compare(parse(StudyArguments, words(study, r="4", estimate_only="true")))
    output = capsys.readouterr().err
    assert "full fine-tuning: nothing to train, 3 runs found" in output
    assert re.search(r"LoRA: 3 to train, each about .* for 6 steps", output)
    assert re.search(r"about \d+ s of training in total", output)
    assert made(study) == before, "an estimate makes no run"


@pytest.mark.slow
def test_other_training_pairs_are_other_runs(study):
    made = compare.study_of(parse(StudyArguments, words(study, sample_seed="1")))[0]
    assert made.made("full") == made.made("lora") == 0


@pytest.mark.slow
def test_runs_are_told_apart_by_what_base_and_data_are_not_by_where_they_lie(study, tmp_path, small):
    """The base's weights and the validation pairs count too: they determine what a run keeps."""
    shutil.copytree(MODELS / "tiny_roberta", tmp_path / "base")
    shutil.copytree(small / "snli_1.0", tmp_path / "snli")
    elsewhere = {
        "model_name_or_path": str(tmp_path / "base"),
        "data_dir": str(tmp_path / "snli"),
        "estimate_only": "true",
    }

    def to_train() -> int:
        made = compare.study_of(parse(StudyArguments, words(study, **elsewhere)))[0]
        return sum(made.runs_each(method) - made.made(method) for method in ("full", "lora"))

    assert to_train() == 0
    config = tmp_path / "base" / "config.json"
    config.write_text(config.read_text().replace('"hidden_dropout_prob": 0.0', '"hidden_dropout_prob": 0.1'))
    assert to_train() == 6
    shutil.copy(MODELS / "tiny_roberta" / "config.json", config)
    assert to_train() == 0
    dev = tmp_path / "snli" / "snli_1.0_dev.jsonl"
    dev.write_text("".join(dev.read_text().splitlines(keepends=True)[1:]))
    assert to_train() == 6


@pytest.mark.slow
def test_a_rate_whose_other_seeds_fail_gives_way_to_the_next(study, tmp_path, capsys):
    shutil.copytree(study / "runs", tmp_path / "runs")
    for name, accuracy in {"lora-0.001-seed33": 0.8, "lora-0.001-seed34": 0.0, "lora-1e-06-seed33": 0.6}.items():
        (path,) = tmp_path.glob(f"runs/{name}-*/training.json")
        facts = json.loads(path.read_text())
        facts["best"]["validation_accuracy"] = accuracy
        path.write_text(json.dumps(facts))
    arguments = parse(StudyArguments, words(tmp_path))
    made = compare.study_of(arguments)[0]
    assert (made.chosen_rate("full"), made.chosen_rate("lora")) == (3e-4, 1e-6)
    compare.compare(arguments)
    assert "LoRA: 1 to train" in capsys.readouterr().err
    assert len(list(tmp_path.glob("runs/lora-1e-06-seed34-*/training.json"))) == 1
    tuning = read_finding(tmp_path / "records" / "findings" / "snli-study-tuning.json")
    assert re.search(
        r"^LoRA tried 1e-06 \(0\.\d{4} over 2 seeds\), 0\.001 \(0\.\d{4} over 2 seeds\)", tuning.summary[2]
    )
    assert [row[:3] for row in tuning.parts[0].rows if row[0] == "LoRA"] == [
        ["LoRA", "1e-06", "33"], ["LoRA", "1e-06", "34"], ["LoRA", "0.001", "33"], ["LoRA", "0.001", "34"],
    ]  # fmt: skip
    assert [row[4] is None for row in tuning.parts[0].rows if row[0] == "LoRA"] == [False, False, True, True]


@pytest.mark.slow
def test_a_rate_that_diverges_is_reported_and_not_chosen(study, tmp_path, capsys):
    shutil.copytree(study / "runs", tmp_path / "runs")
    # No command line takes such a rate: with it, a loss that is no number comes soon.
    arguments = replace(parse(StudyArguments, words(tmp_path)), full_learning_rates=(3e-4, 1e38))
    compare.compare(arguments)
    assert "The command continues without this rate" in capsys.readouterr().err
    tuning = read_finding(tmp_path / "records" / "findings" / "snli-study-tuning.json")
    assert re.search(
        r"^full fine-tuning tried 0\.0003 \(0\.\d{4} over 2 seeds\), 1e\+38 \(diverged\)", tuning.summary[1]
    )
    assert ["full fine-tuning", "1e+38", "33", "diverged", None, None, None] in tuning.parts[0].rows
    capsys.readouterr()
    compare.compare(arguments)
    assert "full fine-tuning: nothing to train" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"full_learning_rates.*full fine-tuning diverged with every learning rate"):
        compare.compare(replace(arguments, full_learning_rates=(1e38, 2e38)))


def test_a_folder_of_the_users_is_not_replaced_by_a_model(tmp_path):
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="lora: not a model of this study, which would replace it"):
        compare.compare(parse(StudyArguments, words(tmp_path)))
    assert (tmp_path / "lora" / "precious.txt").read_text() == "mine"


def test_a_model_that_another_command_trained_is_not_replaced(tmp_path):
    for folder, trained in (("runs/full-1", "{}"), ("full", "{}"), ("lora", '{"seed": 1}')):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "training.json").write_text(trained)
    check_free(tmp_path / "full")
    check_free(tmp_path / "none")
    with pytest.raises(UserError, match="lora: not a model of this study"):
        check_free(tmp_path / "lora")


@pytest.mark.slow
def test_the_trials_alone_leave_the_test_split_alone(study, tmp_path, capsys):
    shutil.copytree(study / "runs", tmp_path / "runs", ignore=shutil.ignore_patterns("evaluation", "records"))
    assert compare.compare(parse(StudyArguments, words(tmp_path, trials_only="true"))) == ([], [])
    assert re.search(r"LoRA, learning rate 0\.001, seed 33: validation accuracy 0\.\d{4}", capsys.readouterr().err)
    assert not list(tmp_path.glob("runs/*/evaluation"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"lora_learning_rates": "1e-3"},
            "--lora_learning_rates: 2 and 1 learning rates; expected as many trials for each",
        ),
        ({"seeds": "33 33"}, "--seeds: a value occurs twice; expected different values"),
        ({"full_learning_rates": "0 1"}, "--full_learning_rates: '0' is not valid; expected a number above 0"),
    ],
)
def test_bad_studies_are_refused_before_anything_is_trained(tmp_path, changes, message):
    with pytest.raises(UserError) as error:
        compare.compare(parse(StudyArguments, words(tmp_path, **changes)))
    assert message in str(error.value)
    assert not made(tmp_path) if (tmp_path / "runs").is_dir() else True


def test_a_study_that_was_launched_as_several_processes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"launched as several processes.* Start it as python -m snli_roberta\.compare"):
        compare.compare(parse(StudyArguments, words(tmp_path)))


@pytest.mark.slow
def test_a_study_that_is_stopped_is_continued_by_the_same_command(study, tmp_path):
    """Interrupted in its second run and killed in its third: the scores are as without, and no run is made twice."""
    command = ["-m", "snli_roberta.compare", *words(tmp_path)]
    for run, number in ((2, signal.SIGINT), (3, signal.SIGKILL)):
        process = forked.Forked(command)
        output = forked.until(process, f"run {run} of 4", "step 2 of 6")
        process.send_signal(number)
        output += process.communicate(timeout=60)[0]
        assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number), output[-2000:]
        if number == signal.SIGKILL:
            time.sleep(3)  # its process, which ends by itself
        before = made(tmp_path)
        assert len(before) == run - 1, "the runs before"
    result = forked.run(command)
    assert result.returncode == 0, result.stderr[-2000:]
    assert before.items() <= made(tmp_path).items()
    for name in ("snli-5-full-fine-tuning", "snli-6-lora"):
        one, other = (read_record(folder / "records" / f"{name}.json") for folder in (study, tmp_path))
        assert one.metrics == other.metrics


@pytest.mark.slow
def test_the_page_and_the_table_show_means_and_deviations(study, tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.html"
    monkeypatch.setattr(sys, "argv", ["x", *words(study), "--report", str(page)])
    compare.main()
    shown = capsys.readouterr().out
    assert shown.count("What this does not show: ") == 2, "of both findings"
    assert re.search(r"LoRA +0\.\d{4} ± 0\.\d{4} \[0\.\d{3}, 0\.\d{3}\]", shown)
    text = page.read_text()
    for heading in (
        "Full fine-tuning or LoRA?",
        "Which learning rates were tried?",
        "Accuracy against megabytes stored",
    ):
        assert heading in text
