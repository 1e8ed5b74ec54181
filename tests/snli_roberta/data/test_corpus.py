from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pyarrow
import pyarrow.parquet
import pytest

from common.cli.arguments import parse
from common.cli.errors import UserError
from common.results.record import read_record
from snli_roberta import baselines
from snli_roberta.data.corpus import LABELS, load_split
from snli_roberta.model.evaluation import task_of
from snli_roberta.training.arguments import CorpusArguments, TrainArguments

ROW = {
    "annotator_labels": ["neutral"],
    "gold_label": "neutral",
    "pairID": "1",
    "sentence1": "A dog.",
    "sentence2": "A pet.",
}


def write(folder, rows):
    (folder / "snli_1.0_dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_miniature_is_read_and_what_is_dropped_is_counted(miniature):
    raw = [json.loads(line) for line in (miniature / "snli_1.0" / "snli_1.0_dev.jsonl").read_text().splitlines()]
    gold = Counter(row["gold_label"] for row in raw)
    split = load_split("dev", data_dir=miniature / "snli_1.0")
    assert Counter(LABELS[pair.label] for pair in split.pairs) == {name: gold[name] for name in LABELS}
    assert (split.report.read, split.report.kept) == (len(raw), len(raw) - gold["-"])
    assert split.report.dropped == {"no gold label": gold["-"]}
    first = next(n for n, row in enumerate(raw, 1) if row["gold_label"] == "-")
    assert split.report.first_dropped == {"no gold label": f"snli_1.0_dev.jsonl, line {first}"}
    assert all(len(pair.annotator_labels) == 5 for pair in split.pairs)


def test_the_real_corpus_is_read(real_data):
    counts = {name: load_split(name, data_dir=real_data / "snli_1.0") for name in ("train", "dev", "test")}
    assert {name: split.report.kept for name, split in counts.items()} == {"train": 58721, "dev": 5016, "test": 4826}
    assert Counter(counts["train"].labels) == {0: 23423, 1: 10968, 2: 24330}


def test_the_hubs_rows_give_the_same_split(hub, miniature, tmp_path):
    from huggingface_hub import HfApi

    files = load_split("dev", data_dir=miniature / "snli_1.0")
    rows = [{"premise": pair.premise, "hypothesis": pair.hypothesis, "label": pair.label} for pair in files.pairs]
    rows.insert(3, {"premise": "A dog.", "hypothesis": "A pet.", "label": -1})
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "validation-00000-of-00001.parquet")
    HfApi().create_repo("miniature/snli", repo_type="dataset")
    HfApi().upload_folder(repo_id="miniature/snli", repo_type="dataset", folder_path=tmp_path, path_in_repo="data")
    split = load_split("dev", dataset_name="miniature/snli")
    assert split.fingerprint() == files.fingerprint()
    assert split.report.dropped == {"no gold label": 1}


def test_a_split_whose_labels_are_hidden_is_refused_before_anything_is_trained(tmp_path):
    write(tmp_path, [ROW | {"gold_label": "-"}])
    with pytest.raises(UserError, match=r"no pair of the dev split has a gold label\. Check the files"):
        CorpusArguments(data_dir=tmp_path).load("dev")


def test_another_dataset_has_its_own_columns_splits_and_order_of_labels(hub):
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    names = ["Contradiction", "entailment", "neutral"]
    features = Features({"a": Value("string"), "b": Value("string"), "gold": ClassLabel(names=names)})
    rows = [{"a": f"A dog {i}.", "b": "A pet.", "gold": gold} for i, gold in enumerate((0, 1, 2, -1))]
    pairs = Dataset.from_list(rows, features=features)
    DatasetDict({"train": pairs, "validation_matched": pairs}).push_to_hub("miniature/pairs", config_name="mnli")
    DatasetDict({"test": pairs}).push_to_hub("miniature/pairs", config_name="other")
    settings = ["--dataset_name", "miniature/pairs", "--dataset_columns", "a", "b", "gold", "--dataset_splits"]
    settings += ["mnli/train", "mnli/validation_matched", "other/test"]
    arguments = parse(CorpusArguments, settings)
    for split in arguments.load("train", "dev", "test"):
        assert split.labels == [2, 0, 1]
        assert split.report.dropped == {"no gold label": 1} and split.report.name.startswith("miniature/pairs ")
    assert (arguments.corpus_name, task_of(arguments)) == (
        *("miniature/pairs", "miniature/pairs: does the premise entail the hypothesis?"),
    )
    with pytest.raises(UserError, match=r"missing column 'premise'.* Name those of the premise.*--dataset_columns"):
        parse(CorpusArguments, [*settings[:2], *settings[-4:]]).load("train")
    with pytest.raises(UserError, match=r"several subsets; expected one of \['mnli', 'other'\]"):
        parse(CorpusArguments, settings[:2]).load("train")
    Dataset.from_list([{"premise": "A", "hypothesis": "B", "label": 1.0}]).push_to_hub("miniature/numbers")
    (pair,) = load_split("train", dataset_name="miniature/numbers").pairs
    assert pair.label == 1 and type(pair.label) is int, "as a loss takes it"
    Dataset.from_list([{"premise": "A", "hypothesis": "B", "label": "maybe"}]).push_to_hub("miniature/wrong")
    with pytest.raises(UserError, match=r"row 1, column 'label': unknown label 'maybe'; expected entailment, neutral"):
        load_split("train", dataset_name="miniature/wrong")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--dataset_columns", "a", "b", "c"], "--dataset_columns: it has no effect without --dataset_name"),
        (["--dataset_name", "a/b", "--dataset_columns", "a", "a", "b"], "--dataset_columns: a column is named twice"),
        (["--dataset_name", "a/b", "--dataset_splits", "train", "test"], "--dataset_splits: 2 names; expected three"),
        (["--dataset_name", "a/b", "--push_to_hub", "--hub_model_id", "a/c"], "cards describe models trained on SNLI"),
    ],
)
def test_options_of_another_dataset_are_checked(tmp_path, words, problem):
    more = ["--method", "lora", "--learning_rate", "1e-3", "--output_dir", str(tmp_path)]
    with pytest.raises(UserError, match=problem):
        parse(TrainArguments, [*words, *more])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gold_label": "Entailment"}, "line 2, column 'gold_label': unknown label 'Entailment'; expected entailment"),
        ({"gold_label": ""}, "line 2, column 'gold_label': unknown label ''"),
        ({"gold_label": 0}, "line 2, column 'gold_label': unknown label 0"),
        ({"gold_label": None}, "line 2, column 'gold_label': unknown label None"),
        ({"sentence1": None}, "line 2, column 'sentence1': not a sentence: None; expected text"),
        ({"sentence2": 7}, "line 2, column 'sentence2': not a sentence: 7"),
        ({"annotator_labels": "neutral"}, "line 2, column 'annotator_labels': not labels: 'neutral'"),
        ({"annotator_labels": ["yes"]}, "line 2, column 'annotator_labels': not labels: ['yes']"),
    ],
)
def test_invalid_rows_are_refused_by_file_and_line(tmp_path, change, message):
    write(tmp_path, [ROW, {**ROW, **change}])
    with pytest.raises(UserError) as error:
        load_split("dev", data_dir=tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/snli_1.0_dev.jsonl, ")
    assert message in str(error.value)


def test_empty_sentences_are_dropped_and_odd_ones_kept(tmp_path):
    odd = [{**ROW, "sentence2": text} for text in (" ", "n/a", "\u200f שלום", '"', "a" * 100_000)]
    write(tmp_path, odd)
    split = load_split("dev", data_dir=tmp_path)
    assert split.report.dropped == {"empty sentence": 1}
    assert [pair.hypothesis for pair in split.pairs] == [row["sentence2"].strip() for row in odd[1:]]


def test_a_missing_file_or_column_is_named(tmp_path):
    with pytest.raises(UserError, match=r"snli_1.0_test.jsonl: no such file"):
        load_split("test", data_dir=tmp_path)
    write(tmp_path, [{"gold_label": "neutral", "sentence1": "A dog."}])
    with pytest.raises(UserError, match="line 1, column 'sentence2': missing"):
        load_split("dev", data_dir=tmp_path)


def test_the_miniature_is_not_solvable_by_counting_words(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["x", "--output_dir", str(tmp_path)])
    baselines.main()
    records = {record.title: record for record in map(read_record, sorted(tmp_path.glob("*.json")))}
    assert list(records) == ["majority label", "TF-IDF, hypothesis only", "TF-IDF, both sentences"]
    for record in records.values():
        assert record.miniature
        assert record.metrics["accuracy"]["value"] <= 0.45
    assert "SNLI test: 1,200 rows read" in capsys.readouterr().out


def test_the_former_name_of_the_baselines_works_and_names_the_new_one():
    command = [sys.executable, "-m", "snli_roberta.controls", "--no_such"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    notice, error = result.stderr.splitlines()
    assert (
        notice
        == "snli_roberta.controls is now snli_roberta.baselines; the old name will be removed in the next release"
    )
    assert error.startswith("error: unknown argument --no_such")
