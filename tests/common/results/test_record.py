"""Run records are read as written, refused if damaged, and rendered as tables and pages."""

from __future__ import annotations

import dataclasses
import json
import os
import re

import pytest
import torch

from common import report
from common.cli.errors import UserError
from common.results import rendering
from common.results.record import RunRecord, count_parameters, git_commit, peak_memory, read_record
from common.results.scoring import ScoredSet, class_counts, command_line
from common.tables.reading import Row
from common.tables.report import DataReport, fingerprint

NAMES = ("yes", "no")


def scored_set(**changes) -> ScoredSet:
    labels = [0, 1] * 20
    data = DataReport("Corpus test", read=41, kept=40)
    data.drop(Row({}, "/home/somebody/corpus.csv", 7, 6), "no <label>")
    facts = {
        "task": "Corpus: <question>",
        "question": "Is it?",
        "limits": "Everything else.",
        "data": "the corpus",
        "split": "test",
        "names": NAMES,
        "labels": labels,
        "fingerprint": fingerprint(labels),
        "class_counts": {"train": {"yes": 30, "no": 10}, "test": class_counts(labels, NAMES)},
        "reports": [data],
        "policy": {"threshold": ">= .5"},
        "miniature": True,
    }
    return ScoredSet(**{**facts, **changes})


def record(title: str = "model", **changes) -> RunRecord:
    return scored_set(**changes).record(title, [0, 1, 1, 1] * 10, module="common.nothing", seconds=1.5)


def test_a_record_comes_back_as_it_was_written(tmp_path):
    written = record()
    written.write(tmp_path / "r.json")
    assert read_record(tmp_path / "r.json") == written
    assert written.confusion == [[10, 10], [0, 20]]
    assert written.metrics["accuracy"]["value"] == 0.75
    assert written.metrics["accuracy"]["n"] == 40
    assert {"python", "torch", "transformers"} <= set(written.versions)
    assert written.hardware["cores"] == len(os.sched_getaffinity(0))


def test_a_record_names_no_folder_of_anybody(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "sys.argv", ["x", "--data_dir", "/home/somebody/corpus", "--model", "../other/model", "--seed", "1"]
    )
    assert command_line("a.b") == "python -m a.b --data_dir corpus --model model --seed 1"
    record().write(tmp_path / "r.json")
    assert "somebody" not in (tmp_path / "r.json").read_text()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_never_written(tmp_path, value):
    bad = record()
    bad.metrics["accuracy"]["value"] = value
    with pytest.raises(ValueError, match="accuracy is NaN or infinite"):
        bad.write(tmp_path / "r.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schema": 99}', '{"schema": 1, "colour": "red"}'])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UserError, match=r"r\.json: not a run record: .*Evaluate the model again"):
        read_record(tmp_path / "r.json")


def test_the_commit_is_this_repositorys():
    assert re.fullmatch(r"([0-9a-f]{40})(\+changes)?|unknown", git_commit())


def test_parameters_of_a_quantized_model_are_counted_unpacked():
    import bitsandbytes

    plain = torch.nn.Sequential(torch.nn.Linear(128, 64), torch.nn.Linear(64, 2))
    packed = torch.nn.Sequential(
        bitsandbytes.nn.Linear4bit(128, 64, quant_type="nf4", compress_statistics=True), torch.nn.Linear(64, 2)
    )
    packed[0].load_state_dict(plain[0].state_dict())
    packed = packed.to("cpu")
    assert packed[0].weight.numel() < 128 * 64  # two numbers a byte
    packed[0].bias.requires_grad = False
    total = 128 * 64 + 64 + 64 * 2 + 2
    assert count_parameters(packed) == {"trainable": 64 * 2 + 2, "total": total}


def test_peak_memory_is_in_bytes():
    assert 50e6 < peak_memory()["host"] < 500e9


def test_a_data_report_gives_counts_shares_and_the_first_place():
    lines = scored_set().reports[0].lines()
    assert lines == [
        "Corpus test: 41 rows read, 40 kept",
        "  1 dropped (2.44%): no <label> (first: corpus.csv, line 7)",
    ]


def test_fingerprints_depend_on_content_and_order():
    assert fingerprint([1, "a"]) == fingerprint([1, "a"]) != fingerprint(["a", 1])


def test_the_page_is_self_contained_escaped_and_labelled_as_the_miniatures():
    records = [record("model <b>"), record("baseline")]
    page = rendering.render(records, "Results & more")
    assert "Results &amp; more" in page
    assert "model &lt;b&gt;" in page and "<b>" not in page
    assert "Numbers of the miniature" in page
    assert not re.search(r'(src|href)="(?!#)', page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)), "pictures share ids"
    assert page.count('role="img"') == 3
    assert "0.750" in page and "python -m common.nothing" in page
    assert "Numbers of the miniature" not in rendering.render([record(miniature=False)], "Results")


def test_the_page_begins_with_the_best_trained_model_and_the_best_baseline():
    def of(title: str, value: float, stored: int | None) -> RunRecord:
        measured = {"value": value, "ci95": [value - 0.05, value + 0.05], "n": 40}
        scores = {**record().metrics, "balanced_accuracy": measured}
        return dataclasses.replace(record(title), metrics=scores, storage_bytes=stored)

    weak, strong, model = of("majority", 0.5, None), of("TF-IDF", 0.6, None), of("LoRA", 0.8, 9)
    worse, alike = of("LoRA", 0.45, 9), of("LoRA", 0.65, 9)
    best = "The best trained model is LoRA: balanced accuracy "
    baseline = "the best baseline, TF-IDF: balanced accuracy 0.6000 [0.550, 0.650]."
    assert rendering.answer([weak, strong, model]) == f"{best}0.8000 [0.750, 0.850]. It beats {baseline}"
    assert rendering.answer([weak, strong, worse]) == f"{best}0.4500 [0.400, 0.500]. It is worse than {baseline}"
    assert rendering.answer([weak, strong, alike]).endswith(f"Its interval overlaps that of {baseline}")
    assert rendering.answer([model, worse]) == f"{best}0.8000 [0.750, 0.850]. No baseline was scored."
    assert rendering.answer([weak, strong]).startswith("The best baseline is TF-IDF: balanced accuracy 0.6000")
    assert rendering.answer([weak, strong]) in rendering.render([weak, strong], "Results")


def test_the_page_says_that_scores_are_means_over_seeds():
    one = record()
    metrics = {name: {**measure, "sd": 0.0123} for name, measure in one.metrics.items()}
    twice = [[2 * count for count in row] for row in one.confusion]
    page = rendering.render([dataclasses.replace(one, metrics=metrics, confusion=twice)], "Results")
    assert "means of 2 seeds ± standard deviation" in page
    assert "all seeds together" in page
    assert "± 0.0123" in page
    assert "seeds" not in rendering.render([one], "Results")


def test_records_of_different_items_are_not_put_in_one_table():
    other = dataclasses.replace(record("other"), data={**record().data, "fingerprint": "0"})
    with pytest.raises(UserError, match="were scored on different items"):
        rendering.render([record(), other], "Results")


def test_the_command_prints_tables_and_the_pages_path(tmp_path, capsys, monkeypatch):
    record().write(tmp_path / "a.json")
    page = tmp_path / "report.html"
    monkeypatch.setattr("sys.argv", ["x", "--records", str(tmp_path), "--output", str(page)])
    report.main()
    shown = capsys.readouterr()
    assert "Corpus: <question> (miniature): test, n = 40" in shown.out
    assert f"report: {page}" in shown.err
    assert page.read_text().startswith("<!doctype html>")
    assert json.loads((tmp_path / "a.json").read_text())["schema"] == 1
