"""The command that scores an adapter, on the miniature: records, single answers, the page, rejected input."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from common.cli.errors import UserError
from common.results import rendering
from common.results.finding import read_findings
from common.results.record import read_record
from sbic_llama import evaluate
from sbic_llama.data.corpus import load_splits
from sbic_llama.training.arguments import TrainArguments
from sbic_llama.training.run import train

NAMES = ("offensiveYN", "targetMinority")
TITLES = {
    "offensiveYN": ["majority label", "TF-IDF", "untouched base", "QLoRA"],
    "targetMinority": ["always none", "TF-IDF", "untouched base", "QLoRA"],
}


@pytest.fixture(scope="module")
def adapters(trained_adapters, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    for name in NAMES:  # an evaluation is written into the adapter's folder: use copies
        shutil.copytree(trained_adapters / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def scored(adapters) -> dict[str, list]:
    return {
        name: evaluate.score_adapter(
            evaluate.EvaluateArguments(adapter=str(adapters / name), output_dir=adapters / "records")
        )[0]
        for name in NAMES
    }


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_is_scored_next_to_its_baselines_and_beats_its_base(scored, adapters, name):
    records = scored[name]
    assert [record.title for record in records] == TITLES[name]
    metric = "balanced_accuracy" if name == "offensiveYN" else "set_f1"
    values = {record.title: record.metrics[metric] for record in records}
    assert values["QLoRA"]["ci95"][0] > values["untouched base"]["ci95"][1]
    assert values["QLoRA"]["value"] > values[TITLES[name][0]]["value"]
    record = records[-1]
    assert record.miniature
    assert record.parameters["total"] == 985_216 + record.parameters["trainable"]
    assert record.storage_bytes
    assert record.settings["model_name_or_path"] == "miniature/tiny_llama"
    assert record.policy["label"]
    assert len({record.data["fingerprint"] for record in records}) == 1
    assert read_record(adapters / name / "evaluation" / "record.json") == record
    assert str(adapters) not in json.dumps(vars(record), default=str)


@pytest.mark.parametrize("name", NAMES)
def test_single_answers_are_kept_without_the_posts(scored, adapters, name, miniature):
    posts = load_splits(data_dir=miniature / "SBIC.v2")["test"].posts
    text = (adapters / name / "evaluation" / "scores.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == len({row["id"] for row in rows}) == len(posts) == 456
    assert not any(post.text in text for post in posts if len(post.text) > 20)
    if name == "offensiveYN":
        columns = [column for column in rows[0] if column.startswith("probability_")]
        assert len(columns) == 3
        for row in rows:
            probabilities = {column.removeprefix("probability_"): float(row[column]) for column in columns}
            assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
            assert max(probabilities, key=probabilities.get) == row["answer"]
        right = sum(row["label"] == row["answer"] for row in rows) / len(rows)
        assert right == pytest.approx(scored[name][-1].metrics["accuracy"]["value"])


def test_the_page_and_the_tables_show_both_kinds_of_features(scored):
    records = [record for name in NAMES for record in scored[name]]
    page = rendering.render(records, "Both")
    assert page.count('<h2 id="task-') == 2
    assert "set F1 targeted" in page
    assert "balanced acc" in page
    assert "Numbers of the miniature" in page
    lines = rendering.table_lines(scored["targetMinority"])
    assert lines[0].startswith("SBIC targetMinority (miniature): test, n = 456; set F1 with its 95 % interval")
    table = rendering.markdown_lines(scored["offensiveYN"])
    assert table[2].startswith("|  | accuracy [95 %] | balanced acc [95 %] |")
    assert {line.count("|") for line in table[2:]} == {table[2].count("|")}


def test_the_untouched_base_may_be_left_out(adapters, tmp_path):
    records, _ = evaluate.score_adapter(
        evaluate.EvaluateArguments(
            adapter=str(adapters / "offensiveYN"), output_dir=tmp_path, untouched_base=False, title="mine"
        )
    )
    assert [record.title for record in records] == ["majority label", "TF-IDF", "mine"]


def test_the_policy_of_the_adapter_makes_the_labels(adapters, tmp_path, scored):
    """An adapter for the binary labels is scored on those, whatever the default is."""
    run = TrainArguments(
        output_dir=tmp_path, learning_rate=2e-3, max_steps=2, evaluations=1, label_policy="at_least_half"
    )
    train(run, "offensiveYN")
    records, _ = evaluate.score_adapter(
        evaluate.EvaluateArguments(
            adapter=str(tmp_path / "offensiveYN"), output_dir=tmp_path / "r", untouched_base=False
        )
    )
    assert records[-1].labels == ["Offensive", "Not offensive"]
    assert "at least .5" in records[-1].policy["label"]
    # The two policies have different labels, so they are two tables, in separate files.
    assert records[-1].task == "SBIC offensiveYN, at least half"
    assert len(rendering.by_task([*records, *scored["offensiveYN"]])) == 2
    assert (tmp_path / "r" / "sbic-offensiveYN-at-least-half-4-qlora.json").is_file()


def test_an_adapter_is_scored_on_its_own_corpus(scored, adapters, tmp_path, miniature):
    """The miniature is the default, so a real adapter's record must not become the miniature's, or the reverse."""
    record = (adapters / "offensiveYN" / "evaluation" / "record.json").read_bytes()
    run = {"adapter": str(adapters / "offensiveYN"), "output_dir": tmp_path / "records"}
    with pytest.raises(UserError, match="was trained on the SBIC miniature, not on SBIC v2"):
        evaluate.score_adapter(evaluate.EvaluateArguments(**run, data_dir=miniature / "SBIC.v2"))
    folder = shutil.copytree(adapters / "offensiveYN", tmp_path / "real")
    path = folder / "annotator.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "corpus": "SBIC v2"}))
    with pytest.raises(UserError, match=r"not on the SBIC miniature\. Give --data_dir or --dataset_name"):
        evaluate.score_adapter(evaluate.EvaluateArguments(**{**run, "adapter": str(folder)}))
    assert not (tmp_path / "records").exists()
    assert (adapters / "offensiveYN" / "evaluation" / "record.json").read_bytes() == record


def test_an_adapter_of_another_prompt_is_rejected(adapters, tmp_path):
    folder = shutil.copytree(adapters / "offensiveYN", tmp_path / "adapter")
    path = folder / "annotator.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prompt_hash": "0" * 16}))
    with pytest.raises(UserError, match="trained with another prompt or other labels"):
        evaluate.score_adapter(evaluate.EvaluateArguments(adapter=str(folder), output_dir=tmp_path / "records"))
    assert not (tmp_path / "records").exists()


@pytest.mark.slow
def test_findings_of_two_adapters_in_one_folder_stay_apart_and_do_not_go_stale(adapters, tmp_path, miniature):
    run = {"adapter": str(adapters / "offensiveYN"), "output_dir": tmp_path, "untouched_base": False}
    items = miniature / "md_agreement" / "MD-Agreement_dev.json"
    evaluate.score_adapter(evaluate.EvaluateArguments(**run, title="One", md_agreement=items))
    evaluate.score_adapter(evaluate.EvaluateArguments(**run, title="One 2"))
    own = {path.name for path in (tmp_path / "findings").glob("sbic-offensiveYN-one-*.json")}
    assert {"sbic-offensiveYN-one-md-agreement.json", "sbic-offensiveYN-one-2-calibration.json"} < own
    evaluate.score_adapter(evaluate.EvaluateArguments(**run, title="One"))
    left = {path.name for path in (tmp_path / "findings").glob("sbic-offensiveYN-one-*.json")}
    assert own - left == {
        "sbic-offensiveYN-one-md-agreement.json",
        "sbic-offensiveYN-one-md-agreement-people.json",
    }, "not requested this time"
    records = [read_record(path) for path in sorted(tmp_path.glob("*.json"))]
    page = rendering.render(records, "Two", read_findings(tmp_path / "findings"))
    assert "Can its probabilities be trusted? (One)" in page
    assert "Can its probabilities be trusted? (One 2)" in page


def test_other_corpora_are_rejected_before_a_model_is_loaded(adapters, tmp_path, miniature, monkeypatch):
    monkeypatch.setattr("sbic_llama.model.adapter.load_adapter", None)
    items = miniature / "md_agreement" / "MD-Agreement_dev.json"
    run = {"output_dir": tmp_path / "out"}
    with pytest.raises(UserError, match="MD-Agreement has labels for offensiveYN only"):
        evaluate.score_adapter(
            evaluate.EvaluateArguments(**run, adapter=str(adapters / "targetMinority"), md_agreement=items)
        )
    with pytest.raises(UserError, match="unknown file format"):
        evaluate.score_adapter(
            evaluate.EvaluateArguments(**run, adapter=str(adapters / "targetMinority"), hatecheck=items)
        )
