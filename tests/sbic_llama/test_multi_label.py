"""Codebooks with several labels per text: their table, training, answers, scores, pages, card and learning curve."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_score, recall_score

from common.cli.errors import UserError
from common.hub import __main__ as hub_command
from common.miniature.pretrain import MODELS
from common.models.prompt import answer_ids
from common.results.finding import read_finding
from common.results.record import read_record
from common.stats.calibration import best_threshold
from common.tables.reading import read_rows
from common.tables.writing import write_rows
from sbic_llama import Annotator, annotate, baselines, prevalence, trust
from sbic_llama import learning_curve as learning_curve_command
from sbic_llama.baselines import BaselineArguments
from sbic_llama.data.choices import evaluate_choices, masi
from sbic_llama.data.codebook import Codebook, read_codebook
from sbic_llama.data.corpus import clean
from sbic_llama.data.features import feature_of
from sbic_llama.data.label_files import annotated_features, labels_of, read_annotated, read_human_votes, shared_feature
from sbic_llama.data.table import Item, Vote, load_table
from sbic_llama.evaluate import EvaluateArguments, score_adapter
from sbic_llama.model.adapter import read_description
from sbic_llama.model.annotator import read_adapters
from sbic_llama.model.packing import IGNORED
from sbic_llama.model.scoring import score_plainly
from sbic_llama.model.untrained import untrained
from sbic_llama.robustness.__main__ import RobustnessArguments, check
from sbic_llama.training.arguments import TrainArguments
from sbic_llama.training.run import build_trainer, load_data, prepare_device, train
from sbic_llama.training.trainer import learned_answers, weighted_rows

CODEBOOK = """
name: topics
question: What is the text about?
instruction: Decide what the text is about.
multi_label: true
labels:
  Market: a market is named
  Music (live): ""
  Bread: bread is named
columns: {text: text, label: topics, annotator: coder, item: id}
"""
WORDS = {"Market": "market", "Music (live)": "music", "Bread": "bread"}
BOOK = Codebook("topics", "About?", "Decide.", dict.fromkeys(WORDS, ""), multi_label=True)


@pytest.fixture(scope="module")
def files(miniature, tmp_path_factory) -> SimpleNamespace:
    """A codebook, a table of 300 texts with two coders each, and 200 further texts of which people labeled 120."""
    folder, draw = tmp_path_factory.mktemp("topics"), random.Random(0)
    (folder / "codebook.yaml").write_text(CODEBOOK)

    def texts(name: str) -> list[str]:
        return list(dict.fromkeys(str(row.values["post"]) for row in read_rows(miniature / "own_task" / name)))

    def cell(text: str) -> str:
        topics = [label for label, word in WORDS.items() if word in text and draw.random() < 0.97]
        return draw.choice([", ", "; "]).join(topics) or "none"

    paths = {name: folder / f"{name}.csv" for name in ("table", "posts", "people")}
    table, posts = texts("labels.csv"), texts("posts.csv")[:200]
    write_rows(
        paths["table"],
        [
            {"id": i, "text": text, "coder": who, "topics": cell(text)}
            for i, text in enumerate(table)
            for who in ("ann", "bo")
        ],
    )
    write_rows(paths["posts"], [{"id": i, "text": text} for i, text in enumerate(posts)])
    write_rows(
        paths["people"],
        [
            {"id": i, "annotator": who, "topics": cell(text)}
            for i, text in enumerate(posts[:120])
            for who in ("ann", "bo", "cy")
        ],
    )
    return SimpleNamespace(folder=folder, **paths, book=folder / "codebook.yaml", texts=len(table))


@pytest.fixture(scope="module")
def arguments(files) -> TrainArguments:
    return TrainArguments(
        codebook=files.book,
        data=files.table,
        output_dir=files.folder / "out",
        learning_rate=3e-3,
        max_steps=120,
        evaluations=2,
    )


@pytest.fixture(scope="module")
def adapter(arguments) -> Path:
    train(arguments, "")
    return arguments.output_dir / "topics"


@pytest.mark.parametrize(
    ("first", "second", "similarity"),
    [
        ("", "", 1),
        ("ab", "ba", 1),
        ("a", "ab", 1 / 2 * 2 / 3),
        ("ab", "bc", 1 / 3 * 1 / 3),
        ("a", "b", 0),
        ("", "a", 0),
    ],
)
def test_masi_is_passonneaus(first, second, similarity):
    assert masi(tuple(first), tuple(second)) == pytest.approx(similarity)
    assert masi(tuple(second), tuple(first)) == pytest.approx(similarity)


def test_scores_are_scikit_learns():
    draw, names = np.random.default_rng(0), ["a", "b", "c"]
    gold, given = draw.random((200, 3)) < 0.3, draw.random((200, 3)) < [0.3, 0.5, 0.0]
    sets = [[tuple(np.array(names)[row]) for row in each] for each in (gold, given)]
    results = evaluate_choices(*sets, names, seed=0)
    for average in ("micro", "macro"):
        assert results[f"f1/{average}"]["value"] == pytest.approx(
            f1_score(gold, given, average=average, zero_division=0)
        )
    for metric, function in {"f1": f1_score, "precision": precision_score, "recall": recall_score}.items():
        for name, value in zip(names, function(gold, given, average=None, zero_division=0), strict=True):
            low, high = results[f"{metric}/{name}"]["ci95"]
            assert results[f"{metric}/{name}"]["value"] == pytest.approx(value)
            assert low <= value <= high
            assert results[f"{metric}/{name}"]["n"] == gold[:, names.index(name)].sum()
    assert results["exact"]["value"] == pytest.approx((gold == given).all(1).mean())
    again = evaluate_choices(*sets, names, seed=0)
    assert again == results


def test_a_threshold_has_the_highest_f1_and_is_near_one_half():
    probabilities, holds = np.array([0.9, 0.3, 0.28, 0.1, 0.05]), np.array([True, True, False, False, False])
    assert best_threshold(probabilities, holds) == pytest.approx(0.29)
    assert best_threshold(np.array([0.8, 0.7, 0.2, 0.1]), np.array([True, True, False, False])) == 0.5
    assert best_threshold(probabilities, np.zeros(5, bool)) == 0.5
    assert 0 < best_threshold(np.array([1e-9, 1e-9, 3e-9]), np.array([True, False, True])) < 1


def test_peoples_labels_become_those_that_half_of_them_gave():
    votes = [("Bread",), ("Bread", "Market"), ("Market",), ("Bread",)]
    assert BOOK.combine(votes) == ("Bread", "Market")
    assert BOOK.combine(votes[:1] + votes[3:] + votes[:1] + votes[2:3]) == ("Bread",)
    assert replace(BOOK, several="any").combine([("Bread",), (), ()]) == ("Bread",)
    assert BOOK.combine([(), ()]) == ()


def test_a_table_is_read_and_every_split_has_every_label(files):
    report, splits = load_table(files.table, read_codebook(files.book))
    assert sum(len(split.posts) for split in splits.values()) == files.texts
    shares = {
        label: sum(word in str(row.values["text"]) for row in read_rows(files.table)) / files.texts / 2
        for label, word in WORDS.items()
    }
    for split in splits.values():
        counts = Counter(label for item in split.posts for label in item.label)
        assert counts.keys() == WORDS.keys()
        assert {label: split.report.notes[label] for label in WORDS} == counts
        for label in WORDS:  # about the same share in each
            assert counts[label] / len(split.posts) == pytest.approx(shares[label], abs=0.1)
    assert any(item.label == () for item in splits["test"].posts)
    assert report.notes["annotators"] == 2


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("labels: {A: a, 'B, C': b}", r"line 4, key 'labels.B, C': 'B, C' can't be told from a list of labels"),
        ("labels: {A: a, none: b}", "labels without , and ;, and none called none"),
        ("labels: {etc: a, etc.: b}", "'etc.' is like another label in a list; expected different labels"),
        ("labels: {A: a, B: b}\nordered: true", "key 'ordered': several labels may hold; expected no ordered"),
        ("labels: {A: a, B: b}\nexamples: [{text: t, label: A}]", "key 'examples': several labels may hold"),
        ("labels: {A: a, B: b}\nseveral: mean", "a mean needs an order"),
        ("text: true", "key 'multi_label': the answers are free text"),
    ],
)
def test_a_codebook_that_contradicts_itself_is_refused(tmp_path, lines, message):
    path = tmp_path / "codebook.yaml"
    path.write_text(f"name: a\nquestion: b?\ninstruction: c.\n{lines}\nmulti_label: true\n")
    with pytest.raises(UserError, match=message):
        read_codebook(path)


def test_labels_that_the_codebook_lacks_are_listed_one_by_one(files, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(files.table.read_text().replace("Bread", "Bred"))
    with pytest.raises(UserError, match=r"the codebook lacks 1 label of the table \('bred' \d+, nearest is 'Bread'\)"):
        load_table(table, read_codebook(files.book))


def test_rows_whose_person_is_unknown_or_contradicts_herself_are_refused(files, tmp_path):
    book, table = read_codebook(files.book), tmp_path / "table.csv"
    with pytest.raises(UserError, match=r"line 3, column 'topics': a further row of an item, and nothing says whose"):
        load_table(files.table, replace(book, columns=replace(book.columns, annotator=None)))
    rows = [row.values for row in read_rows(files.table)]
    first = next(row for row in rows if row["topics"] != "none")
    write_rows(table, [*rows, first | {"topics": "none"}])
    with pytest.raises(UserError, match="gave the same item both labels and none"):
        load_table(table, book)


def test_people_are_combined_by_the_rule_of_the_codebook(tmp_path):
    people, book = tmp_path / "people.csv", Codebook("mood", "Mood?", "Decide.", {"A": "", "B": ""})
    votes = zip("abc", ["B", "B", "A"], strict=True)
    write_rows(people, [{"id": 1, "annotator": who, "mood": label} for who, label in votes])
    for several, label in {"majority": 1, "any": 0}.items():
        feature = feature_of(replace(book, several=several))
        assert labels_of(read_human_votes(people, "id", feature), feature) == {"1": label}
    write_rows(people, [{"id": 1, "topics": "Bread"}, {"id": 1, "topics": "Market"}])
    with pytest.raises(UserError, match="several rows of an item, and nothing says whose"):
        read_human_votes(people, "id", feature_of(BOOK))


def test_names_that_would_collide_are_refused():
    assert replace(BOOK, name="raw_record").problem()[0] == "name"
    assert replace(BOOK, labels={"micro": "", "b": ""}).problem()[0] == "labels.micro"
    asked = [untrained(replace(BOOK, name=name), str(MODELS / "tiny_llama")) for name in ("topics", "topics_label")]
    with pytest.raises(UserError, match="the columns of topics_label would look like labels of topics"):
        read_adapters(asked)
    with pytest.raises(
        UserError, match="several labels of topics may hold; expected an adapter whose answer is one label"
    ):
        read_adapters(asked[:1], {"Bread": 1.0})


ITEMS = [
    Item("x", ("Bread",), (Vote("a", ("Bread",)), Vote("b", ("Bread", "Market")))),
    Item("y", (), (Vote("a", ()), Vote("b", ()))),
    Item("z", ("Market",), (Vote("a", ("Market",)), Vote("b", ("Market",)))),
]


def test_yes_and_no_of_every_label_are_learned():
    learned = [
        (item.text, answer, weight) for item, answer, weight in learned_answers(feature_of(BOOK), ITEMS, balanced=False)
    ]
    assert learned[:3] == [("x", "Market: no", 1), ("x", "Music (live): no", 1), ("x", "Bread: yes", 1)]
    assert len(learned) == 9
    soft = feature_of(replace(BOOK, several="soft"))
    learned = {(item.text, answer): weight for item, answer, weight in learned_answers(soft, ITEMS, balanced=False)}
    assert learned["x", "Market: yes"] == learned["x", "Market: no"] == 0.5
    assert learned["x", "Bread: yes"] == 1
    balanced = learned_answers(feature_of(BOOK), ITEMS, balanced=True)
    totals: Counter[str] = Counter()
    for _, answer, weight in balanced:
        totals[answer] += weight
    assert totals["Market: yes"] == pytest.approx(totals["Market: no"]) == pytest.approx(1.5)
    assert totals["Music (live): no"] == pytest.approx(3), "the only answer about it"


def test_only_yes_or_no_is_learned_and_not_the_label_before_it(tokenizer):
    feature = feature_of(BOOK)
    rows = weighted_rows(tokenizer, feature, learned_answers(feature, ITEMS, balanced=False), max_post_tokens=32)
    for ids, labels, answer in zip(rows.input_ids, rows.labels, rows.answers, strict=True):
        learned = [label for label in labels if label != IGNORED]
        assert learned == answer[-len(learned) :] == ids[-len(learned) :]
        assert tokenizer.decode(learned, skip_special_tokens=True).strip() in ("yes", "no")


def test_validation_is_the_loss_of_yes_or_no(arguments, tmp_path):
    settings = replace(arguments, output_dir=tmp_path, max_steps=2, evaluations=1)
    context = prepare_device(settings)
    data = load_data(settings, settings.declared(""))
    trainer = build_trainer(settings, context, data)
    loss = trainer._validate()["loss"]
    model, branches = (
        trainer.model.eval(),
        answer_ids(trainer.processing_class, data.feature.branches, data.feature.template),
    )
    losses = []
    with torch.inference_mode():
        for item, prompt in zip(data.dev_posts[:8], trainer.validation.encoded.prompts[::3], strict=False):
            scores = np.array(score_plainly(model, prompt, branches)).reshape(3, 2)
            for label, (yes, no) in zip(data.feature.choices, scores, strict=True):
                losses.append(np.logaddexp(yes, no) - (yes if label in item.label else no))
    kept = replace(
        trainer.validation,
        encoded=trainer.validation.encoded.select(range(24)),
        answers=trainer.validation.answers[:24],
    )
    trainer.validation = kept
    assert trainer._validate()["loss"] == pytest.approx(np.mean(losses), abs=1e-4)
    assert loss > 0


@pytest.mark.slow
def test_answers_are_those_of_a_plain_pass_with_the_thresholds_of_training(adapter, files):
    annotator = Annotator(adapter)
    (one,) = annotator.adapters
    described = json.loads((adapter / "annotator.json").read_text())
    assert one.feature.thresholds == tuple(described["thresholds"])
    texts = [str(row.values["text"]) for row in read_rows(files.posts)][:12]
    rows = list(annotator.annotate(texts))
    assert annotator.columns == ["topics", *(f"topics_label_probability_{label}" for label in WORDS)]
    branches = answer_ids(annotator._tokenizer, one.feature.branches, one.feature.template)
    for text, row in zip(texts, rows, strict=True):
        prompt = annotator._tokenizer(one.feature.prompt(clean(text))).input_ids
        with torch.inference_mode():
            scores = (
                np.array(score_plainly(annotator._model, prompt, branches)).reshape(3, 2) / described["temperature"]
            )
        expected = np.exp(scores[:, 0] - np.logaddexp(*scores.T))
        assert [row[column] for column in annotator.columns[1:]] == pytest.approx(expected, abs=1e-4)
        holds = [label for label, p, t in zip(WORDS, expected, described["thresholds"], strict=True) if p >= t]
        assert row["topics"] == (", ".join(sorted(holds)) or "none")
    assert len({row["topics"] for row in rows}) > 2


def test_a_feature_is_not_taken_for_several_labels_of_one_with_a_shorter_name(tmp_path):
    names = [f"model_{name}{end}" for name in ("a", "a_label") for end in ("", "_probability_Yes", "_probability_No")]
    write_rows(tmp_path / "annotated.csv", [{"id": 1} | {name: "0.5" if "_p" in name else "Yes" for name in names}])
    write_rows(tmp_path / "people.csv", [{"id": 1, "a": "Yes"}])
    assert shared_feature(tmp_path / "annotated.csv", tmp_path / "people.csv").labels == ("Yes", "No")


@pytest.mark.slow
@pytest.mark.parametrize("key", ["thresholds", "label_shares"])
def test_an_adapter_with_a_number_too_few_is_refused(adapter, tmp_path, key):
    folder = shutil.copytree(adapter, tmp_path / "adapter", ignore=shutil.ignore_patterns("checkpoint-*"))
    described = json.loads((folder / "annotator.json").read_text())
    (folder / "annotator.json").write_text(json.dumps(described | {key: [0.5, 0.5]}))
    with pytest.raises(UserError, match=rf"annotator.json, key '{key}': 2 numbers; expected"):
        Annotator(folder)


@pytest.mark.slow
def test_it_is_scored_annotates_and_gets_a_trust_page(adapter, files, tmp_path, monkeypatch, capsys):
    records, findings = score_adapter(
        EvaluateArguments(adapter=str(adapter), data=files.table, output_dir=tmp_path / "records")
    )
    scores = {record.title: record.metrics for record in records}
    assert scores["QLoRA"]["f1/macro"]["value"] > scores["untouched base"]["f1/macro"]["value"] + 0.15
    reader, _ = EvaluateArguments(adapter=str(adapter), data=files.table).load_reader(
        read_description(adapter, adapter)
    )
    base = reader([str(row.values["text"]) for row in read_rows(files.posts)][:40], base=True)
    for label, details in zip(base.labels, base.details, strict=True):  # without the adapter's thresholds
        assert label == tuple(sorted(name for name in WORDS if details[f"label_probability_{name}"] >= 0.5))
    assert {f"recall/{label}" for label in WORDS} <= scores["QLoRA"].keys()
    assert {finding.name for finding in findings} >= {"risk-coverage", "agreement"}
    assert read_record(tmp_path / "records" / "topics-4-qlora.json").data["choices"] == list(WORDS)

    def command(module, *words: object) -> str:
        monkeypatch.setattr("sys.argv", ["command", *map(str, words)])
        module.main()
        return capsys.readouterr().out

    output = tmp_path / "annotated.csv"
    command(
        annotate, files.posts, "--text_column", "text", "--adapter", adapter, "--review_share", 0.2, "--output", output
    )
    columns = list(next(read_rows(output)).values)
    assert annotated_features(columns, "model_") == ["topics"]
    feature = shared_feature(output, files.people)
    assert feature.choices == tuple(WORDS)
    assert read_annotated(output, feature, key="id").probabilities.shape == (200, 3)
    given = [files.posts, "--human_labels", files.people, "--key", "id", "--text_column", "text", "--adapter", adapter]
    said = command(trust, *given, "--output_dir", tmp_path / "trust")
    assert said.startswith("topics: use ")
    page = (tmp_path / "trust" / "trust.html").read_text()
    for shown in ("<td>Music (live)</td>", "F1 macro", "similarity masi", "Market: people and machine"):
        assert shown in page, shown
    said = command(prevalence, output, "--human_labels", files.people, "--key", "id", "--feature", "topics")
    for label in WORDS:
        share = next(line for line in said.splitlines() if line.strip().startswith(f"{label}: people and machine "))
        actual = np.mean([WORDS[label] in str(row.values["text"]) for row in read_rows(files.posts)])
        assert float(share.split("[")[1].split(",")[0]) < actual < float(share.split(", ")[-1].rstrip("]"))
    # One person of three names the labels: with "any" they hold, with "majority" none does.
    (tmp_path / "any.yaml").write_text(f"{CODEBOOK}several: any\n")
    votes = [row.values for row in read_rows(files.people)]
    write_rows(
        tmp_path / "one.csv", [vote if vote["annotator"] == "ann" else vote | {"topics": "none"} for vote in votes]
    )
    given = [output, "--human_labels", tmp_path / "one.csv", "--key", "id"]
    for rule, held in (("--feature", "topics"), False), (("--codebook", tmp_path / "any.yaml"), True):
        (line,) = (line for line in command(prevalence, *given, *rule).splitlines() if "Market: people alone " in line)
        assert (float(line.split()[4]) > 0.1) is held
    people = files.people.read_text().replace("Bread", "Cake", 1)
    (tmp_path / "people.csv").write_text(people)
    with pytest.raises(UserError, match="expected Market, Music \\(live\\), Bread"):
        command(prevalence, output, "--human_labels", tmp_path / "people.csv", "--key", "id", "--feature", "topics")


@pytest.mark.slow
def test_edits_and_injections_are_measured(adapter, files, tmp_path):
    settings = RobustnessArguments(adapter=str(adapter), data=files.table, output_dir=tmp_path, posts=10)
    check(settings)
    (path,) = (tmp_path / "findings").glob("*robustness.json")
    titles = [part.title for part in read_finding(path).parts]
    assert "Answers that change: obfuscation" in titles
    assert not [title for title in titles if title.startswith("How often each group")]


def test_baselines_of_a_codebook(files, tmp_path, monkeypatch, capsys):
    words = ["--codebook", files.book, "--data", files.table, "--base", MODELS / "tiny_llama", "--shots", 0, 4]
    monkeypatch.setattr("sys.argv", ["baselines", *map(str, words), "--output_dir", str(tmp_path)])
    baselines.main()
    printed, logged = capsys.readouterr()
    assert [line.partition("  ")[0] for line in printed.splitlines()[2:]] == ["always none", "TF-IDF", "untouched base"]
    assert "topics: no examples are shown, because each label is asked about by itself" in logged
    assert read_record(tmp_path / "topics-2-baseline.json").metrics["f1/macro"]["value"] > 0.8


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"data": None}, "key 'codebook': it needs --data"),
        ({"codebook": None}, "key 'data': it needs --codebook"),
        ({"feature": ("offensiveYN",)}, "key 'feature': a codebook has no such choice"),
        ({"label_policy": "above_half"}, "key 'label_policy': a codebook has no such choice"),
    ],
)
def test_baselines_are_those_of_a_codebook_or_of_sbic(files, more, message):
    with pytest.raises(UserError, match=message):
        BaselineArguments(**{"codebook": files.book, "data": files.table} | more)


@pytest.mark.slow
def test_it_is_published_and_its_card_answers_the_same(adapter, files, hub, tmp_path, monkeypatch, capsys):
    hub.add_model("miniature/tiny_llama", Path("common/miniature/models/tiny_llama"))
    score_adapter(EvaluateArguments(adapter=str(adapter), data=files.table, output_dir=tmp_path / "records"))
    words = ["publish", adapter, "--repo_id", "miniature/topics", "--data", files.table, "--items", 0]
    monkeypatch.setattr("sys.argv", ["hub", *map(str, words)])
    hub_command.main()
    assert "verified: miniature/topics: " in capsys.readouterr().out
    card = hub.repositories["models", "miniature/topics"].files()["README.md"].data.decode()
    assert "Any number of these labels may hold." in card
    assert "| Music (live) | " in card


@pytest.mark.slow
def test_a_learning_curve_scores_sets(files, tmp_path, monkeypatch):
    words = ["--codebook", files.book, "--data", files.table, "--learning_rate", "3e-3", "--num_train_epochs", 2]
    words += ["--evaluations", 1, "--sizes", 40, 80, "--output_dir", tmp_path]
    monkeypatch.setattr("sys.argv", ["learning_curve", *map(str, words)])
    learning_curve_command.main()
    assert "set F1" in (tmp_path / "learning_curve.html").read_text()
