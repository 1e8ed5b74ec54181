"""What is verified of a published model, and what the verification catches."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from common.cli.errors import UserError
from common.hub import __main__ as command
from common.hub import verify as verification
from common.hub.verify import compare

ID = "miniature/model"


def call(monkeypatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["hub", *map(str, words)])
    command.main()


@pytest.fixture
def published(runs, bases, tmp_path, monkeypatch):
    """Publishes a copy of a run, unverified, and gives its folder."""

    def publish(kind: str) -> Path:
        folder = shutil.copytree(runs[kind], tmp_path / kind)
        call(monkeypatch, "publish", folder, "--repo_id", ID, "--tag", "v1", "--verify", "false")
        return folder

    return publish


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("sbic_groups", "snli_adapter", "snli_full")]


@pytest.mark.parametrize("kind", ["sbic_labels", *SLOW])
def test_publishing_ends_with_a_verification(kind, runs, bases, few, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(runs[kind], tmp_path / "model")
    items = 8 if kind == "sbic_groups" else 20
    call(monkeypatch, "publish", folder, "--repo_id", ID, "--private", "--data_dir", few, "--items", items)
    shown = capsys.readouterr().out
    found = re.fullmatch(
        rf"verified: {ID}: (\d+) of {items} answers match the record.*; largest difference (\S+) \(scored again in "
        rf"float32, recorded in fp32; {items} of its \d+ items; commit ([0-9a-f]{{12}})\)\n",
        shown,
    )
    assert found, shown
    assert float(found[2]) < 1e-2
    assert HfApi().model_info(ID).sha.startswith(found[3])
    weights = sum(line.startswith("GET /_lfs/") for line in bases.log)
    assert weights >= 1, "the weights were downloaded, not found in a cache"


@pytest.mark.slow
def test_a_tag_and_a_commit_can_be_verified_and_not_what_came_later(published, few, monkeypatch, capsys, bases):
    folder = published("snli_adapter")
    first = HfApi().model_info(ID).sha
    # Later the answers on the Hub are no longer the model's.
    rows = list(csv.DictReader(open(folder / "evaluation" / "scores.csv", encoding="utf-8", newline="")))
    for row in rows:
        row["answer"] = {"entailment": "neutral"}.get(row["answer"], "entailment")
    with open(folder / "evaluation" / "scores.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    call(monkeypatch, "publish", folder, "--repo_id", ID, "--verify", "false")
    for words in ((f"{ID}@v1",), (ID, "--revision", first)):
        call(monkeypatch, "verify", *words, "--data_dir", few, "--items", 10)
        assert f"commit {first[:12]}" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"the record states accuracy 0\.\d+, but its answers have 0\.\d+"):
        call(monkeypatch, "verify", ID, "--data_dir", few, "--items", 10)


def test_a_revision_may_be_part_of_the_name(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(verification, "verify", lambda *words, **_: seen.append(words[:2]) or "all")
    call(monkeypatch, "verify", f"{ID}@v1")
    call(monkeypatch, "verify", f"{ID}@v1", "--revision", "v1")
    assert seen == [(ID, "v1")] * 2
    with pytest.raises(UserError, match="--revision: 'v2', but the name ends in 'v1'"):
        call(monkeypatch, "verify", f"{ID}@v1", "--revision", "v2")


def test_code_that_is_not_this_projects_is_not_run(published, few, monkeypatch, tmp_path):
    published("snli_adapter")
    mark = tmp_path / "ran"
    card = Path(__import__("huggingface_hub").hf_hub_download(ID, "README.md")).read_text()
    evil = card.replace("```python\n", f"```python\nopen({str(mark)!r}, 'w')\n", 1)
    assert evil != card
    HfApi().upload_file(repo_id=ID, path_in_repo="README.md", path_or_fileobj=evil.encode())
    with pytest.raises(UserError, match="the code on the card is not what this version of the project writes"):
        call(monkeypatch, "verify", ID, "--data_dir", few)
    assert not mark.exists()


def test_weights_that_were_changed_are_caught(published, few, monkeypatch, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = published("snli_adapter")
    weights = load_file(folder / "adapter_model.safetensors")
    tensors = {name: -tensor if "lora_B" in name or "out_proj" in name else tensor for name, tensor in weights.items()}
    save_file(tensors, tmp_path / "other.safetensors", metadata={"format": "pt"})
    HfApi().upload_file(
        repo_id=ID, path_in_repo="adapter_model.safetensors", path_or_fileobj=tmp_path / "other.safetensors"
    )
    with pytest.raises(UserError, match=r"\d+ of \d+ answers differ from the record"):
        call(monkeypatch, "verify", ID, "--data_dir", few)


def test_pickled_weights_are_not_verified(published, few, monkeypatch, tmp_path):
    import torch
    from safetensors.torch import load_file

    folder = published("snli_adapter")
    torch.save(load_file(folder / "adapter_model.safetensors"), tmp_path / "adapter_model.bin")
    HfApi().upload_file(repo_id=ID, path_in_repo="adapter_model.bin", path_or_fileobj=tmp_path / "adapter_model.bin")
    HfApi().delete_file("adapter_model.safetensors", ID)
    with pytest.raises(UserError, match=f"{ID}: no weights in safetensors format.*pickles are never loaded"):
        call(monkeypatch, "verify", ID, "--data_dir", few)


def test_a_card_whose_accuracy_is_not_that_of_its_answers(published, few, monkeypatch):
    folder = published("snli_adapter")
    record = json.loads((folder / "evaluation" / "record.json").read_text())
    record["metrics"]["accuracy"]["value"] += 0.01
    HfApi().upload_file(repo_id=ID, path_in_repo="evaluation/record.json", path_or_fileobj=json.dumps(record).encode())
    with pytest.raises(UserError, match=r"the record states accuracy 0\.\d+, but its answers have 0\.\d+"):
        call(monkeypatch, "verify", ID, "--data_dir", few)


def changed(path: Path, *keys: str, value: object) -> bytes:
    content = json.loads(path.read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return json.dumps(content).encode()


def test_whatever_a_repository_holds_it_is_one_plain_line(published, few, monkeypatch):
    """Records, settings and cards come from anybody: nothing in them is a traceback, or an escape for the terminal."""
    folder = published("snli_adapter")
    training, record = folder / "training.json", folder / "evaluation" / "record.json"
    scores = (folder / "evaluation" / "scores.csv").read_bytes()
    for name, content in (
        *(("training.json", changed(training, key, value=value)) for key, value in {
            "settings": [], "base": "x", "data": [], "log": 5, "parameters": {"trainable": "\x1b"}, "kind": "\x1b[31m",
            "project": "os", "hardware": None, "best": 1, "processes": "two", "versions": [],
        }.items()),
        ("training.json", changed(training, "base", "name", value="a/\0b")),
        ("training.json", changed(training, "settings", "max_length", value="x")),
        ("training.json", b"[]"),
        ("training.json", b"\xff"),
        ("evaluation/record.json", changed(record, "policy", value=[])),
        ("evaluation/record.json", changed(record, "metrics", value={"accuracy": {}})),
        ("evaluation/record.json", changed(record, "metrics", "accuracy", "n", value="many")),
        ("evaluation/record.json", changed(record, "labels", value=5)),
        ("evaluation/record.json", b"{}"),
        ("evaluation/scores.csv", b"id,label,answer\n1,2,3\n"),
        ("evaluation/scores.csv", scores.replace(b"0.", b"zero.")),
        ("evaluation/scores.csv", scores + b"x," + b"y" * 200_000 + b",z\n"),
        ("evaluation/scores.csv", scores + b"\xff\xfe\n"),
        ("README.md", None),
    ):  # fmt: skip
        if content is None:
            HfApi().delete_file(name, ID)
        else:
            HfApi().upload_file(repo_id=ID, path_in_repo=name, path_or_fileobj=content)
        with pytest.raises(UserError) as error:
            call(monkeypatch, "verify", ID, "--data_dir", few)
        assert str(error.value).isprintable()
        before = {"training.json": training, "evaluation/record.json": record}.get(name, folder / name)
        HfApi().upload_file(repo_id=ID, path_in_repo=name, path_or_fileobj=before)


def test_what_a_record_says_is_printed_without_escapes(capsys):
    from common.cli.console import log
    from common.cli.errors import plain

    log("scored in \x1b[31mred\x1b]0;title\x07")
    assert "\x1b" not in capsys.readouterr().err
    assert plain("a\x1b[31m\nb") == "a [31m b"


def test_the_corpus_of_the_record_is_asked_for(published, monkeypatch, miniature, few, tmp_path):
    published("snli_adapter")
    with pytest.raises(
        UserError, match=r"--data_dir: verification needs the texts of SNLI 1.0; expected the folder of that corpus"
    ):
        call(monkeypatch, "verify", ID)
    text = (few / "snli_1.0_test.jsonl").read_text().replace("dog", "hen")
    (tmp_path / "snli_1.0_test.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"\d+ of \d+ scored items are not in this corpus"):
        call(monkeypatch, "verify", ID, "--data_dir", tmp_path)


def test_a_model_that_nobody_here_published_is_named(bases, monkeypatch):
    with pytest.raises(UserError, match=r"missing training.json; expected a model published by this project"):
        call(monkeypatch, "verify", "miniature/tiny_llama")
    with pytest.raises(UserError, match="miniature/nothing: no such repository on"):
        call(monkeypatch, "verify", "miniature/nothing")


def test_the_code_on_a_card_runs_as_printed(published, tmp_path):
    """Other kinds' code is run by their verification."""
    card = (published("sbic_labels") / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "'Maybe offensive': 0" in result.stdout


ROW = {"id": "a", "answer": "yes", "probability_yes": "0.504", "probability_no": "0.496"}
GENERATED = {"id": "a", "answer": "cats, dogs", "mean_log_probability": "-0.2", "margin": "0.005"}


EXACT = {"commit": "0" * 40, "of": 1, "precision": "float32", "recorded": "fp32"}


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        (ROW | {"probability_yes": "0.9", "probability_no": "0.1"}, {"yes": 0.7, "no": 0.3}),
        (GENERATED, ["cats, dogs", -0.5]),
    ],
)
def test_another_probability_of_the_same_label_is_refused(row, answer):
    for facts in (EXACT, EXACT | {"recorded": "bf16"}, EXACT | {"precision": "float16"}):
        with pytest.raises(UserError, match="1 of 1 answers differ from the record"):
            compare([row], [answer], ID, **facts)


def test_probabilities_may_differ_by_what_half_precision_rounds():
    row = ROW | {"probability_yes": "0.9", "probability_no": "0.1"}
    near, off, far = ({"yes": 0.9 - d, "no": 0.1 + d} for d in (0.0005, 0.015, 0.05))
    assert "1 of 1 answers match" in compare([row], [near], ID, **EXACT)
    with pytest.raises(UserError, match="1 of 1 answers differ from the record"):
        compare([row], [off], ID, **EXACT)
    half = EXACT | {"recorded": "bf16"}
    assert "3 of 3 answers match" in compare([row] * 3, [near, far, near], ID, **half)
    with pytest.raises(UserError, match=r"differ from the record by 0\.050 on average.*expected at most 0\.02"):
        compare([row] * 3, [far] * 3, ID, **half)


@pytest.mark.parametrize("answer", [{"yes": float("nan"), "no": 0.5}, ["cats, dogs", float("nan")]])
def test_an_answer_that_is_not_a_number_is_refused(answer):
    with pytest.raises(UserError, match="1 of 1 answers differ from the record"):
        compare([ROW if isinstance(answer, dict) else GENERATED], [answer], ID, **EXACT | {"recorded": "bf16"})


@pytest.mark.parametrize("kind", ["snli_adapter", pytest.param("sbic_labels", marks=pytest.mark.slow)])
def test_a_record_of_other_probabilities_is_refused_before_the_upload(kind, runs, bases, few, tmp_path, monkeypatch):
    """All its labels are the model's: only the numbers beside them are not."""
    folder = shutil.copytree(runs[kind], tmp_path / "model")
    path = folder / "evaluation" / "scores.csv"
    rows = list(csv.DictReader(path.open(encoding="utf-8", newline="")))
    for row in rows:
        names = [name for name in row if name.startswith("probability_")]
        answer = f"probability_{row['answer']}"
        for name in names:  # a sharper distribution of the same order
            share = float(row[name]) * 0.8
            row[name] = share + 0.2 if name == answer else share
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    message = rf"{folder}: 10 of 10 answers differ from the record.*Evaluate the model again"
    with pytest.raises(UserError, match=message):
        call(monkeypatch, "publish", folder, "--repo_id", ID, "--data_dir", few, "--items", 10)
    assert ("models", ID) not in bases.repositories


@pytest.mark.parametrize(
    ("row", "answer", "ties"),
    [
        (ROW | {"answer": "no", "probability_yes": "0.9", "probability_no": "0.1"}, {"yes": 0.9, "no": 0.1}, None),
        (ROW, {"yes": 0.51, "no": 0.49}, 0),
        (ROW, {"yes": 0.49, "no": 0.51}, 1),  # .008 apart: a tie may fall to either side
        (ROW | {"probability_yes": "0.506", "probability_no": "0.494"}, {"yes": 0.49, "no": 0.51}, None),
        (GENERATED, ["dogs, cats", -0.2], 0),
        (GENERATED, ["cats", -0.9], 1),
        (GENERATED | {"margin": "0.011"}, ["cats", -0.2], None),
    ],
)
def test_labels_may_differ_only_near_a_tie(row, answer, ties):
    facts = {"commit": "0" * 40, "of": 1, "precision": "float32", "recorded": "bf16"}
    if ties is None:
        with pytest.raises(UserError, match="1 of 1 answers differ from the record, beyond ties"):
            compare([row], [answer], ID, **facts)
        return
    line = compare([row], [answer], ID, **facts)
    assert ("1 differ within 0.01 of a tie" in line) == bool(ties)
    assert f"{1 - ties} of 1 answers match the record" in line
    assert "scored again in float32, recorded in bf16" in line
