"""Evaluation and prediction as commands, on models trained for a few steps."""

from __future__ import annotations

import csv
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from common.cli.arguments import parse
from common.cli.errors import UserError
from common.models import encoder
from common.results.record import read_record
from common.runtime.hardware import cpu_has_bf16
from snli_roberta import evaluate, predict
from snli_roberta.data.corpus import LABELS, Pair, load_split
from snli_roberta.model.classifier import load as loaded_classifier
from snli_roberta.training.arguments import TrainArguments
from snli_roberta.training.run import train


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, Path]:
    """Train each method on the same tenth of the miniature, and a full model on another tenth."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("trained")
    for name, method, sample in (("full", "full", 33), ("lora", "lora", 33), ("other", "full", 34)):
        rate = {"full": 3e-4, "lora": 1e-3}[method]
        train(
            TrainArguments(
                output_dir=root / name,
                method=method,
                learning_rate=rate,
                sample_seed=sample,
                train_fraction=0.1,
                max_steps=12,
                evaluations=1,
            )
        )
    return {name: root / name for name in ("full", "lora", "other")}


def call(module, monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
    module.main()


def test_evaluate_scores_models_and_baselines_and_their_costs(trained, tmp_path, monkeypatch, capsys, miniature):
    page = tmp_path / "report.html"
    call(
        evaluate, monkeypatch, "--model", trained["full"], trained["lora"], "--title", "full fine-tuning", "LoRA",
        "--output_dir", tmp_path / "r", "--report", page,
    )  # fmt: skip
    records = {
        record.title: record for record in (read_record(path) for path in sorted((tmp_path / "r").glob("*.json")))
    }
    assert list(records) == [
        "majority label", "TF-IDF, hypothesis only", "TF-IDF, both sentences", "untrained head", "full fine-tuning", "LoRA",
    ]  # fmt: skip
    test = load_split("test", data_dir=miniature / "snli_1.0")
    for title, folder in (("full fine-tuning", "full"), ("LoRA", "lora")):
        model, tokenizer = encoder.load_trained(trained[folder], labels=LABELS)
        predictions = encoder.predict_logits(model, tokenizer, [pair.texts for pair in test.pairs]).argmax(-1)
        metrics = records[title].metrics
        assert metrics["accuracy"]["value"] == pytest.approx(accuracy_score(test.labels, predictions))
        for average in ("weighted", "macro"):
            expected = precision_recall_fscore_support(test.labels, predictions, average=average, zero_division=0)
            result = [metrics[f"{metric}/{average}"]["value"] for metric in ("precision", "recall", "f1")]
            assert result == pytest.approx(list(expected[:3]))
        assert metrics["accuracy"]["n"] == len(test.pairs)
    full, lora = records["full fine-tuning"], records["LoRA"]
    assert full.parameters["trainable"] == full.parameters["total"]
    assert lora.parameters["trainable"] < 0.2 * lora.parameters["total"]
    assert lora.storage_bytes < 0.3 * full.storage_bytes
    assert full.peak_memory_bytes["host"] > 0 and full.seconds > 0
    assert records["majority label"].storage_bytes is None
    shown = capsys.readouterr().out
    assert re.search(r"LoRA +115,203 +15\.18% +[\d,]+ MB +[\d.]+ s +0\.\d\d MB", shown)
    text = page.read_text()
    assert "<h3>Costs</h3>" in text and "train, sampled (n = 600)" in text
    assert str(trained["full"].parent) not in "".join(path.read_text() for path in (tmp_path / "r").glob("*.json"))


def test_evaluate_scores_one_model_and_the_baselines(trained, tmp_path, monkeypatch):
    call(evaluate, monkeypatch, "--model", trained["lora"], "--title", "my adapter", "--output_dir", tmp_path)
    assert [path.name for path in sorted(tmp_path.glob("*.json"))][-2:] == [
        "snli-4-untrained-head.json",
        "snli-5-my-adapter.json",
    ]


def test_runs_on_other_pairs_are_not_compared(trained, tmp_path, monkeypatch, miniature):
    both = ["--model", trained["other"], trained["lora"], "--title", "full fine-tuning", "LoRA"]
    with pytest.raises(UserError, match="'LoRA' was trained on other pairs than the first model"):
        call(evaluate, monkeypatch, *both, "--output_dir", tmp_path)
    with pytest.raises(UserError, match="--title: 2 models; expected as many different titles"):
        call(evaluate, monkeypatch, *both[:3], "--title", "one", "--output_dir", tmp_path)
    for split in ("train", "test"):
        text = (miniature / "snli_1.0" / f"snli_1.0_{split}.jsonl").read_text()
        (tmp_path / f"snli_1.0_{split}.jsonl").write_text(text.replace("dog", "hen"))
    with pytest.raises(UserError, match="trained on other pairs than those of this corpus"):
        call(evaluate, monkeypatch, "--model", trained["full"], "--data_dir", tmp_path, "--output_dir", tmp_path / "r")


@pytest.mark.parametrize(
    ("name", "value"), [("max_length", None), ("max_length", "abc"), ("train_fraction", 0), ("sample_seed", True)]
)
def test_an_invalid_training_record_is_refused(trained, tmp_path, monkeypatch, name, value):
    shutil.copytree(trained["lora"], tmp_path / "adapter", ignore=shutil.ignore_patterns("checkpoint-*"))
    facts = json.loads((tmp_path / "adapter" / "training.json").read_text())
    facts["settings"][name] = value
    (tmp_path / "adapter" / "training.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=f"not a classifier's record: {name} is {value!r}. Train the model again"):
        call(predict, monkeypatch, "--model", tmp_path / "adapter", "A dog.", "A pet.")


def test_an_adapter_of_another_label_order_is_refused(trained, tmp_path):
    shutil.copytree(trained["lora"], tmp_path / "adapter", ignore=shutil.ignore_patterns("checkpoint-*"))
    config = json.loads((tmp_path / "adapter" / "config.json").read_text())
    config["id2label"] = {str(i): label for i, label in enumerate(reversed(LABELS))}
    (tmp_path / "adapter" / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        UserError, match="the model has the labels contradiction, neutral, entailment; expected entailment"
    ):
        encoder.load_trained(tmp_path / "adapter", labels=LABELS)


def test_a_published_adapter_predicts_as_the_local_one(trained, hub, monkeypatch, capsys):
    from huggingface_hub import HfApi

    HfApi().create_repo("miniature/snli-lora")
    HfApi().upload_folder(
        repo_id="miniature/snli-lora",
        folder_path=trained["lora"],
        ignore_patterns=["checkpoint-*", "training.json", "run.json"],
    )
    shown = []
    for model in (trained["lora"], "miniature/snli-lora"):
        call(predict, monkeypatch, "--model", model, "A wet dog is asleep.", "A pet is dry.")
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    label, *lines = shown[0].splitlines()
    probabilities = {line.split()[0]: float(line.split()[1]) for line in lines}
    assert label == max(probabilities, key=probabilities.get)
    assert sum(probabilities.values()) == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize(
    ("source", "target"), [("csv", "csv"), ("tsv", "jsonl"), ("jsonl", "parquet"), ("csv.gz", "tsv.gz")]
)
def test_a_file_keeps_its_columns_rows_and_order(trained, tmp_path, monkeypatch, source, target):
    from common.tables.reading import read_rows
    from common.tables.writing import write_rows

    rows = [
        {"id": str(i), "sentence1": f"A dog is wet and {'old' * i}.", "sentence2": "A pet, é 🙂\nis dry."}
        for i in range(9)
    ]
    write_rows(tmp_path / f"in.{source}", rows)
    out = tmp_path / f"out.{target}"
    call(predict, monkeypatch, "--model", trained["full"], "--input", tmp_path / f"in.{source}", "--output", out,
         "--premise_column", "sentence1", "--hypothesis_column", "sentence2")  # fmt: skip
    result = [row.values for row in read_rows(out)]
    assert [{key: row[key] for key in rows[0]} for row in result] == rows
    for row in result:
        probabilities = [float(row[f"probability_{label}"]) for label in LABELS]
        assert row["predicted_label"] == LABELS[int(np.argmax(probabilities))]
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    if target == "parquet":
        assert str(pyarrow.parquet.read_schema(out).field("probability_neutral").type) == "double"


def test_columns_of_the_file_are_not_overwritten(trained, tmp_path, monkeypatch):
    from common.tables.reading import read_rows

    (tmp_path / "in.csv").write_text(
        "premise,hypothesis,predicted_label,probability_neutral\nA dog.,A pet.,mine,0.5\n", encoding="utf-8"
    )
    words = ["--model", trained["full"], "--input", tmp_path / "in.csv", "--output", tmp_path / "out.csv"]
    message = "the file already has a column 'predicted_label'. Rename that column, or choose another --prefix"
    with pytest.raises(UserError, match=message):
        call(predict, monkeypatch, *words)
    assert not (tmp_path / "out.csv").exists()
    call(predict, monkeypatch, *words, "--prefix", "full_")
    (row,) = (row.values for row in read_rows(tmp_path / "out.csv"))
    assert (row["predicted_label"], row["probability_neutral"]) == ("mine", "0.5")
    assert row["full_predicted_label"] in LABELS
    assert sum(float(row[f"full_probability_{label}"]) for label in LABELS) == pytest.approx(1, abs=1e-5)


def test_a_long_file_is_labelled_part_by_part(trained, tmp_path, monkeypatch):
    from common.tables.reading import read_rows

    rows = [
        {"premise": f"A dog is wet and {'old ' * (i % 5)}asleep.", "hypothesis": "A pet is dry."} for i in range(10)
    ]
    rows[7]["note"] = 1.5  # a column that begins late
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = {}
    for window, ending in ((4, "parquet"), (1000, "jsonl")):
        monkeypatch.setattr(predict, "WINDOW", window)
        out = tmp_path / f"out.{ending}"
        call(predict, monkeypatch, "--model", trained["full"], "--input", tmp_path / "in.jsonl", "--output", out)
        result[window] = [row.values for row in read_rows(out)]
    assert list(result[4][0])[:3] == ["premise", "hypothesis", "note"]
    for part, whole, row in zip(result[4], result[1000], rows, strict=True):
        assert (part["premise"], part["note"]) == (row["premise"], row.get("note"))
        assert part["predicted_label"] == whole["predicted_label"]
        for label in LABELS:
            assert part[f"probability_{label}"] == pytest.approx(whole[f"probability_{label}"], abs=1e-5)


def test_progress_is_told_batch_by_batch_from_the_longest(trained, miniature, monkeypatch):
    """Shorter batches fit into the memory of longer ones; in the other order, each would take more."""
    pairs = load_split("test", data_dir=miniature / "snli_1.0").pairs[:150]
    model, sizes, widths = loaded_classifier(str(trained["full"])), [], []
    forward = model.model.forward
    monkeypatch.setattr(model.model, "forward", lambda **x: widths.append(x["input_ids"].shape[1]) or forward(**x))
    model.probabilities(pairs, answered=sizes.append)
    assert sizes == [22, 64, 64]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > widths[-1]


@pytest.mark.skipif(not cpu_has_bf16(), reason="--precision bf16 is refused on a CPU without bf16 instructions")
def test_in_bf16_answers_are_nearly_those_of_fp32(trained, miniature):
    pairs = load_split("test", data_dir=miniature / "snli_1.0").pairs[:60]
    exact, fast = (
        loaded_classifier(str(trained["full"]), precision=precision).probabilities(pairs)
        for precision in ("fp32", "bf16")
    )
    assert 0 < np.abs(fast - exact).max() < 0.05
    sure = np.ptp(np.sort(exact, axis=1)[:, -2:], axis=1) > 0.1
    assert sure.sum() > 20
    assert (fast.argmax(1) == exact.argmax(1))[sure].all()


def test_non_finite_answers_are_refused_with_what_is_to_blame(trained, tmp_path):
    model = loaded_classifier(str(trained["full"]))
    weights = dict(model.model.named_parameters())["classifier.out_proj.bias"]
    pairs = [Pair("A dog.", "A pet.", 0)]
    with torch.no_grad():
        weights[0] = 3e38
        model.model.classifier.out_proj.weight.fill_(3e38)
    with pytest.raises(UserError, match=r"NaN or infinite scores in fp32, although the weights are finite$"):
        model.probabilities(pairs)
    with torch.no_grad():
        weights[0] = np.nan
    with pytest.raises(UserError, match=r"non-finite weights \(first in 'classifier.out_proj.bias'\)\. Download"):
        model.probabilities(pairs)


def test_a_file_that_grows_meanwhile_is_refused_and_nothing_is_written(trained, tmp_path, monkeypatch):
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("premise,hypothesis\nA dog is wet.,A pet is dry.\n")
    load = predict.Input.windows

    def grown(self):
        source.write_text(source.read_text() + "A dog is wet.,A pet is dry.\n")
        yield from load(self)

    monkeypatch.setattr(predict.Input, "windows", grown)
    with pytest.raises(UserError, match="the file had 1 row and now has 2"):
        call(predict, monkeypatch, "--model", trained["full"], "--input", source, "--output", out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (
            '{"premise": "A dog.", "hypothesis": null}\n',
            [],
            "line 1, column 'hypothesis': not a sentence: None; expected text",
        ),
        ('{"premise": "A dog.", "hypothesis": " "}\n', [], "line 1, column 'hypothesis': not a sentence: ' '"),
        ("\n", [], "in.jsonl: no rows; expected at least one pair"),
        ('{"sentence": "A dog."}\n', [], "line 1, column 'premise': missing"),
        ("{}", ["A dog."], "sentences and --input were given. Give only one of them"),
    ],
)
def test_bad_files_stop_before_the_model_loads(tmp_path, monkeypatch, content, arguments, message):
    (tmp_path / "in.jsonl").write_text(content)
    options = [
        "--model",
        "nobody/nothing",
        "--input",
        tmp_path / "in.jsonl",
        "--output",
        tmp_path / "out.csv",
        *arguments,
    ]
    with pytest.raises(UserError) as error:
        call(predict, monkeypatch, *options)
    assert message in str(error.value)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "a", "one"], "1 sentences were given; expected a premise and a hypothesis, or --input"),
        (["--model", "a", "--input", "x.csv"], "--input and --output go together"),
        (["--model", "a", "--input", "x.csv", "--output", "x.doc"], "x.doc: unknown file format"),
        (["--model", "a", "--input", "nowhere.csv", "--output", "x.csv"], "nowhere.csv: no such file"),
        (["--model", "a", "one", "two", "--prefix", "x"], "--prefix: it has no effect without --input"),
        (["--model", "a", "one", "two", "--premise_column", "x"], "--premise_column: it has no effect without --input"),
        (["--model", "./nowhere", "one", "two"], "./nowhere: no such folder; expected a trained model"),
        (["--model", "tests/nowhere", "one", "two"], "tests/nowhere: no such folder"),
        (["--model", "miniature/nowhere", "one", "two"], "miniature/nowhere: no such repository on"),
    ],
)
def test_bad_commands_are_refused(hub, monkeypatch, arguments, message):
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(UserError) as error:
        call(predict, monkeypatch, *arguments)
    assert message in str(error.value)


def test_the_answer_does_not_depend_on_the_file_format(trained, tmp_path, monkeypatch):
    pairs = [("A boy is wet.", "A child is dry."), ("A cat is old.", "A pet is aged.")]
    with open(tmp_path / "in.csv", "w", newline="") as file:
        csv.writer(file).writerows([("premise", "hypothesis"), *pairs])
    call(
        predict,
        monkeypatch,
        "--model",
        trained["full"],
        "--input",
        tmp_path / "in.csv",
        "--output",
        tmp_path / "out.jsonl",
    )
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(line["premise"], line["hypothesis"]) for line in lines] == pairs


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "pairs.csv").touch()
    for name, problem in (("pairs.sav", "unknown file format"), ("pairs.csv", "the output already exists")):
        with pytest.raises(UserError, match=rf"{name}: {problem}"):
            parse(predict.PredictArguments, ["--model", "m", "--input", "none.csv", "--output", str(tmp_path / name)])
