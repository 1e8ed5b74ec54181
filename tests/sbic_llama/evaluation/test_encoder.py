"""The encoder baseline: trained once, scored on the same posts as everything else, compared post by post."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path

import pytest

from common.cli.arguments import parse
from common.cli.errors import UserError
from common.results import rendering
from common.results.finding import read_finding
from common.results.record import read_record
from sbic_llama import baselines, evaluate
from sbic_llama.data.corpus import load_splits

FEATURE = "hasBiasedImplication"
TITLES = ["majority label", "TF-IDF", "encoder, full fine-tuning", "encoder, LoRA"]
WORDS = ["--encoder", "miniature/tiny_roberta", "--feature", FEATURE, "--encoder_epochs", "0.05"]
WORDS += ["--full_learning_rates", "1e-6", "3e-4", "--lora_learning_rates", "1e-3", "--encoder_seeds", "33", "34"]


def call_baselines(monkeypatch, folder: Path, *words: str) -> None:
    monkeypatch.setattr("common.runtime.child_process.call", lambda function, argument, *, preload: function(argument))
    monkeypatch.setattr(sys, "argv", ["x", *words, "--output_dir", str(folder)])
    baselines.main()


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("baselines")
    with pytest.MonkeyPatch.context() as monkeypatch:
        call_baselines(monkeypatch, folder, *WORDS)
    return folder


def trainings(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("encoder/*/*/training.json")}


@pytest.mark.slow
def test_each_method_gets_its_best_rate_and_a_row_with_its_costs(scored):
    made = sorted(name.rpartition("-")[0] for name in trainings(scored))
    assert [name for name in made if name.startswith("lora")] == ["lora-0.001-seed33", "lora-0.001-seed34"]
    assert len(made) == 5, "both rates with the first seed, the better one with the second"
    chosen_by = {next(iter(json.loads(path.read_text())["best"])) for path in scored.glob("encoder/*/*/training.json")}
    assert chosen_by == {"validation_balanced_accuracy"}
    records = [read_record(path) for path in sorted(scored.glob("*.json"))]
    assert [record.title for record in records] == TITLES
    rendering.by_task(records)  # all were scored on the same posts
    for record, path in zip(records[2:], sorted(scored.glob("*encoder*.json")), strict=True):
        assert record.storage_bytes
        assert record.seconds
        assert record.peak_memory_bytes["host"]
        assert record.settings["model_name_or_path"] == "miniature/tiny_roberta"
        assert record.settings["seeds"] == [33, 34]
        assert record.policy["label"]
        with open(path.with_suffix(".csv"), newline="") as file:
            rows = list(csv.DictReader(file))
        shares = [sum(row["label"] == row[name] for row in rows) / len(rows) for name in ("answer", "answer_seed34")]
        assert record.metrics["accuracy"]["value"] == pytest.approx(sum(shares) / 2)
    assert records[2].parameters["trainable"] > records[3].parameters["trainable"]
    assert "encoder, LoRA" in rendering.render(records, "Page")


@pytest.mark.slow
def test_answers_of_baselines_are_kept_without_the_posts(scored, miniature):
    posts = load_splits(data_dir=miniature / "SBIC.v2")["test"].posts
    files = sorted(scored.glob("*.csv"))
    assert len(files) == len(TITLES)
    for path in [*files, *scored.glob("encoder/*/*/evaluation/scores.csv")]:
        text = path.read_text(encoding="utf-8")
        assert len({row["id"] for row in csv.DictReader(text.splitlines())}) == len(posts)
        assert not any(post.text in text for post in posts if len(post.text) > 20)


@pytest.mark.slow
def test_a_second_time_nothing_is_trained_and_the_numbers_are_the_same(scored, monkeypatch, capsys):
    before, path = trainings(scored), scored / f"sbic-{FEATURE}-2-encoder-lora.json"
    metrics = read_record(path).metrics
    call_baselines(monkeypatch, scored, *WORDS)
    assert trainings(scored) == before
    assert read_record(path).metrics == metrics
    assert "LoRA: nothing to train, 2 runs found" in capsys.readouterr().err


@pytest.mark.slow
def test_an_adapter_is_compared_with_the_encoder_post_by_post(scored, trained_adapters, tmp_path, capsys):
    records = shutil.copytree(scored, tmp_path / "records", ignore=shutil.ignore_patterns("encoder"))
    adapter = shutil.copytree(trained_adapters / FEATURE, tmp_path / FEATURE)
    run = evaluate.EvaluateArguments(adapter=str(adapter), output_dir=records, untouched_base=False)
    rows, findings = evaluate.score_adapter(run)
    assert [row.title for row in rows] == [*TITLES, "QLoRA"]
    comparison = findings[0]
    differences = comparison.parts[0].rows
    assert list(differences) == TITLES[1:]
    for row in rows[1:-1]:
        gap = rows[-1].metrics["balanced_accuracy"]["value"] - row.metrics["balanced_accuracy"]["value"]
        assert differences[row.title]["value"] == pytest.approx(gap)
        low, high = differences[row.title]["ci95"]
        assert comparison.facts["verdicts"][row.title] == ("better" if low > 0 else "worse" if high < 0 else "open")
    kept = read_finding(adapter / "evaluation" / "findings" / "comparison.json")
    assert kept.summary == comparison.summary
    assert "Is it better than the baselines?" in rendering.render(rows, "Page", [kept])


@pytest.mark.slow
@pytest.mark.parametrize("change", ["fingerprint", "label", "aggregation"])
def test_an_encoder_of_other_posts_or_labels_is_left_out(change, scored, tmp_path, capsys):
    from sbic_llama.data.features import get_feature
    from sbic_llama.evaluation.scores import encoder_records, test_set

    arguments = parse(baselines.BaselineArguments, [])
    feature = get_feature(FEATURE)
    expected = test_set(feature, arguments.load(), arguments)
    path = shutil.copy(scored / f"sbic-{FEATURE}-2-encoder-lora.json", tmp_path)
    assert list(encoder_records(tmp_path, feature, expected)) == [Path(path)]
    record = json.loads(Path(path).read_text())
    record["data" if change == "fingerprint" else "policy"][change] = "other"
    Path(path).write_text(json.dumps(record))
    assert encoder_records(tmp_path, feature, expected) == {}
    assert "encoder-lora.json: left out, because it is of other posts" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label,answer\n", "a test post has no answer. Score it again into this folder"),
        (None, "no such file"),
        ("{id},Biased,Perhaps\n", "line 2, column 'answer': 'Perhaps' is not an answer; expected Biased, Not biased"),
    ],
)
def test_damaged_answers_are_one_line(text, message, tmp_path, miniature):
    from sbic_llama.data.corpus import post_id
    from sbic_llama.data.features import get_feature
    from sbic_llama.evaluation.scores import read_answers

    posts = load_splits(data_dir=miniature / "SBIC.v2")["test"].posts[:1]
    if text is not None:
        header = "" if text.startswith("id") else "id,label,answer\n"
        (tmp_path / "r.csv").write_text(header + text.format(id=post_id(posts[0])))
    with pytest.raises(UserError, match=message):
        read_answers(tmp_path / "r.json", get_feature(FEATURE), posts)


def test_a_list_of_groups_gets_no_encoder(tmp_path, monkeypatch, capsys):
    call_baselines(monkeypatch, tmp_path, *WORDS[:2], "--feature", "targetMinority")
    assert "targetMinority: no encoder, because it chooses one label" in capsys.readouterr().err
    assert not (tmp_path / "encoder").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--encoder_seeds", "1"], "--encoder_seeds: it has no effect without --encoder"),
        (["--encoder", "miniature/tiny_roberta", "--encoder_seeds", "1", "1"], "--encoder_seeds: a value occurs twice"),
        (["--encoder", "./absent"], "./absent: no such folder"),
        (["--encoder", "miniature/tiny_roberta", "--encoder_revision", "v1"], "a folder has no revisions"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_the_corpus_is_read(words, message):
    with pytest.raises(UserError, match=message):
        parse(baselines.BaselineArguments, words)
