"""HANS and Breaking NLI: reading, refusals by line, and scores counted by hand; the command, and the conversation."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from common.cli.errors import UserError
from common.results import rendering
from common.results.finding import Finding, Measures, read_finding
from snli_roberta.adversarial import __main__ as adversarial
from snli_roberta.adversarial import challenge_sets as sets
from snli_roberta.adversarial.__main__ import AdversarialArguments
from snli_roberta.adversarial.challenge_sets import BreakingItem, HansItem, breaking_nli_finding, hans_finding
from snli_roberta.data.corpus import LABELS, Pair
from snli_roberta.training.arguments import TrainArguments
from snli_roberta.training.run import train

ABOUT = {"task": "t", "model": "m", "miniature": False, "command": "c"}
E, N, C = np.eye(3) * 0.7 + 0.1  # answers: .8 for one label, .1 for the others
CASES = [
    HansItem(Pair("p", "h", -1, id="ex1"), 0, "lexical_overlap", "le_x"),
    HansItem(Pair("p", "h", -1, id="ex2"), 0, "subsequence", ""),
    HansItem(Pair("p", "h", -1, id="ex3"), 1, "lexical_overlap", "ln_x"),
    HansItem(Pair("p", "h", -1, id="ex4"), 1, "lexical_overlap", "ln_x"),
    HansItem(Pair("p", "h", -1, id="ex5"), 1, "subsequence", ""),
    HansItem(Pair("p", "h", -1, id="ex6"), 1, "constituent", ""),
]


def measured(result: Finding, title: str) -> dict[str, tuple[float, int]]:
    (part,) = [part for part in result.parts if isinstance(part, Measures) and part.title == title]
    assert all(row["ci95"][0] <= row["value"] <= row["ci95"][1] for row in part.rows.values())
    return {name: (pytest.approx(row["value"]), row["n"]) for name, row in part.rows.items()}


def hans_path(folder: Path) -> Path:
    return folder / "hans" / sets.HANS_FILE


def breaking_path(folder: Path) -> Path:
    return folder / "breaking_nli" / sets.BREAKING_FILE


def test_the_real_sets_are_read(real_data, miniature):
    cases = sets.read_hans(hans_path(real_data))
    assert Counter((case.heuristic, case.label) for case in cases) == {
        (name, label): 150 for name in sets.HEURISTICS for label in (0, 1)
    }
    items = sets.read_breaking_nli(breaking_path(real_data))
    assert Counter(LABELS[item.pair.label] for item in items) == {
        "contradiction": 1315,
        "entailment": 174,
        "neutral": 11,
    }
    assert len({item.category for item in items}) == 14
    assert not sets.is_miniature(cases) and not sets.is_miniature(items)
    assert sets.is_miniature(sets.read_hans(hans_path(miniature)))
    assert sets.is_miniature(sets.read_breaking_nli(breaking_path(miniature)))


HANS_ROW = dict.fromkeys(("sentence1_binary_parse", "sentence2_binary_parse", "subcase", "template"), "") | {
    "gold_label": "entailment", "sentence1": "A b .", "sentence2": "B .", "pairID": "ex0", "heuristic": "subsequence",
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"gold_label": "neutral"},
            "line 3, column 'gold_label': unknown value 'neutral'; expected entailment, non-entailment",
        ),
        ({"heuristic": "overlap"}, "line 3, column 'heuristic': unknown value 'overlap'; expected lexical_overlap"),
        ({"sentence2": " "}, "line 3, column 'sentence2': empty; expected text"),
        ({"pairID": "ex0"}, "line 3, column 'pairID': pair 'ex0' occurs twice"),
        ({"template": "temp1\tx"}, "line 3: 10 fields; expected 9, as in the header"),
    ],
)
def test_invalid_hans_rows_are_refused_with_their_line(tmp_path, change, message):
    path = tmp_path / sets.HANS_FILE
    table = [HANS_ROW, HANS_ROW | {"pairID": "ex1"} | change]
    path.write_text("\n".join(["\t".join(HANS_ROW), *("\t".join(row.values()) for row in table)]))
    with pytest.raises(UserError) as error:
        sets.read_hans(path)
    assert message in str(error.value)
    path.write_text("\t".join(HANS_ROW))
    with pytest.raises(UserError, match="no pairs"):
        sets.read_hans(path)
    path.write_text("gold_label\tsentence1\n")
    with pytest.raises(UserError, match="missing column 'sentence2', 'pairID', 'heuristic', 'subcase', 'template'"):
        sets.read_hans(path)


BREAKING_ROW = {"sentence1": "A b.", "category": "colors", "gold_label": "neutral", "pairID": 1, "sentence2": "C b."}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gold_label": "-"}, "line 2, column 'gold_label': unknown value '-'; expected entailment, neutral"),
        ({"gold_label": ["neutral"]}, "line 2, column 'gold_label': unknown value ['neutral']"),
        ({"sentence1": None}, "line 2, column 'sentence1': not text: None"),
        ({"category": ""}, "line 2, column 'category': empty"),
        ({"pairID": {}}, "line 2, column 'pairID': not an ID: {}"),
        ({"pairID": 1}, "line 2: same pair as in line 1"),
    ],
)
def test_invalid_breaking_nli_rows_are_refused_with_their_line(tmp_path, change, message):
    path = tmp_path / sets.BREAKING_FILE
    path.write_text("\n".join(map(json.dumps, [BREAKING_ROW, BREAKING_ROW | {"pairID": 2} | change])))
    with pytest.raises(UserError) as error:
        sets.read_breaking_nli(path)
    assert message in str(error.value)
    path.write_text("\n")
    with pytest.raises(UserError, match="no pairs"):
        sets.read_breaking_nli(path)


def test_hans_scores_match_manual_counts():
    result = hans_finding(CASES, np.array([E, N, C, E, N, E]), seed=0, **ABOUT)
    assert result.summary[0].startswith("Accuracy on HANS is 0.5000 [")
    assert 'always answering "entailment" would give 0.3333' in result.summary[0]
    assert "Accuracy on non-entailment is 0.5000 [" in result.summary[1] and "(n = 4)" in result.summary[1]
    assert measured(result, "HANS: all pairs") == {
        "accuracy": (3 / 6, 6),
        "balanced accuracy": ((1 / 2 + 2 / 4) / 2, 6),
        "accuracy, entailment": (1 / 2, 2),
        "accuracy, non-entailment": (2 / 4, 4),
    }
    assert measured(result, "HANS: accuracy by heuristic and label") == {
        "lexical_overlap, entailment": (1, 1),
        "lexical_overlap, non-entailment": (1 / 2, 2),
        "subsequence, entailment": (0, 1),
        "subsequence, non-entailment": (1, 1),
        "constituent, non-entailment": (0, 1),
    }
    assert measured(result, "HANS: accuracy by subcase, non-entailment") == {"ln_x": (1 / 2, 2)}
    listing = result.parts[-1]
    assert [row[0] for row in listing.rows] == ["ex2", "ex4", "ex6"]
    # Not entailed is both other labels together: neutral .8 and contradiction .1.
    assert [row[-1] for row in listing.rows] == [0.9, 0.8, 0.8]
    one_label = hans_finding(CASES[2:], np.array([C, E, N, E]), seed=0, **ABOUT)
    assert list(measured(one_label, "HANS: all pairs")) == ["accuracy", "accuracy, non-entailment"]


def test_breaking_nli_scores_match_manual_counts():
    kinds = [(2, "colors"), (2, "colors"), (2, "rooms"), (0, "synonyms"), (2, "rooms")]
    items = [BreakingItem(Pair("p", "h", label, id=str(n)), category) for n, (label, category) in enumerate(kinds)]
    result = breaking_nli_finding(items, np.array([C, E, E, E, E]), seed=0, **ABOUT)
    assert result.summary[0].startswith("Balanced accuracy on Breaking NLI is 0.6250 [")
    assert 'always answering "contradiction" would give 0.8000' in result.summary[1]
    assert 'most frequent answer is "entailment", for 0.8000' in result.summary[2]
    assert result.summary[2].endswith("0.2000 have that label.")
    assert measured(result, "Breaking NLI: accuracy by category") == {
        "colors": (1 / 2, 2),
        "rooms": (0, 2),
        "synonyms": (1, 1),
    }
    assert measured(result, "Breaking NLI: accuracy by label") == {"entailment": (1, 1), "contradiction": (1 / 4, 4)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Train a model of the miniature for a few steps."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("adversarial") / "model"
    settings = {"learning_rate": 3e-4, "train_fraction": 0.1, "max_steps": 12, "evaluations": 1}
    train(TrainArguments(output_dir=folder, method="full", **settings))
    return folder


@pytest.fixture
def of_real_corpus(trained, tmp_path) -> Path:
    """Return the same model, marked as trained on a real corpus."""
    folder = tmp_path / "model"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("checkpoint-*", "evaluation"))
    facts = json.loads((folder / "training.json").read_text())
    facts["settings"]["dataset_name"] = "stanfordnlp/snli"
    (folder / "training.json").write_text(json.dumps(facts))
    return folder


def test_the_command_leaves_three_findings_and_a_table(trained, tmp_path, monkeypatch, capsys, miniature):
    monkeypatch.setattr(
        "sys.argv", ["x", "--model", str(trained), "--output_dir", str(tmp_path), "--title", "Full one"]
    )
    adversarial.main()
    printed = capsys.readouterr().out
    result = {name: read_finding(tmp_path / "findings" / f"snli-full-one-{name}.json")
             for name in ("hans", "breaking-nli", "adversarial")}  # fmt: skip
    for name, one in result.items():
        assert one == read_finding(trained / "evaluation" / "findings" / f"{name}.json")
        assert (one.model, one.miniature, one.task.split(":")[0]) == ("Full one", True, "SNLI")
        assert one.command.startswith("python -m snli_roberta.adversarial --model")
        assert "\n".join(rendering.lines(one)) in printed
        assert len(rendering.drawn(one, lambda figure, text: text)) >= 2
    assert [one.data["name"] for one in result.values()] == [
        "the HANS miniature", "the Breaking NLI miniature", "scenes of the SNLI miniature",
    ]  # fmt: skip
    files = sets.read_hans(hans_path(miniature)), sets.read_breaking_nli(breaking_path(miniature))
    text = json.dumps([vars(result[name]) for name in ("hans", "breaking-nli")], default=str)
    for pair in (one.pair for file in files for one in file):
        assert pair.premise not in text and pair.hypothesis not in text, "of corpora no sentence is shown"
    with open(tmp_path / "snli-full-one-adversarial.csv", encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    counts = {
        row[0]: row[2] for part in result["adversarial"].parts if part.title == "Answers by rule" for row in part.rows
    }
    assert Counter(row["rule"] for row in table) == counts
    for row in table:
        likeliest = max(LABELS, key=lambda name: float(row[f"probability_{name}"]))
        assert row["answer"] == likeliest
        assert row["passed"] == (
            "" if not row["expected"] else "yes" if likeliest in row["expected"].split(" or ") else "no"
        )


def test_a_model_of_a_real_corpus_gets_everyday_scenes_and_only_the_files_that_are_given(
    of_real_corpus, tmp_path, miniature, capsys
):
    run = {"model": str(of_real_corpus), "output_dir": tmp_path / "out"}
    first, own = adversarial.check(AdversarialArguments(**run, hans=hans_path(miniature)))
    assert "breaking_nli is skipped: no --breaking_nli" in capsys.readouterr().err
    assert (own.name, own.miniature, own.data["name"]) == ("adversarial", False, "everyday scenes of our own")
    assert not any("Left out" in sentence for sentence in own.summary)
    assert (first.name, first.miniature) == ("hans", True), "a file of the miniature is known as such"


def test_bad_files_are_refused_before_a_model_is_loaded(trained, tmp_path, monkeypatch, miniature):
    monkeypatch.setattr("snli_roberta.model.classifier.load", None)
    for name, path in (("hans", hans_path(miniature)), ("breaking_nli", breaking_path(miniature))):
        bad = tmp_path / path.name
        bad.write_text(path.read_text().replace("contradiction", "maybe").replace("non-entailment", "maybe"))
        with pytest.raises(UserError, match="unknown value 'maybe'"):
            adversarial.check(AdversarialArguments(model=str(trained), output_dir=tmp_path / "out", **{name: bad}))
    with pytest.raises(UserError, match=r"nowhere\.txt: no such file"):
        adversarial.check(AdversarialArguments(model=str(trained), hans=tmp_path / "nowhere.txt"))
    with pytest.raises(UserError, match="a file and --interactive were given"):
        AdversarialArguments(model="x", hans=tmp_path, interactive=True)
    assert not (tmp_path / "out").exists()


class MadeUp:
    """A mock classifier: contradiction if the premise contains "wet", otherwise entailment."""

    def __init__(self) -> None:
        self.asked: list[Pair] = []

    def probabilities(self, pairs: list[Pair]) -> np.ndarray:
        self.asked += pairs
        return np.array([[0.1, 0.1, 0.8] if "wet" in pair.premise else [0.75, 0.25, 0.0] for pair in pairs])


def typed(monkeypatch, data: bytes, encoding: str = "utf-8", columns: int = 80) -> tuple[MadeUp, str]:
    """Return what a conversation shows in a terminal with that encoding."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
    monkeypatch.setattr(sys, "stdout", out)
    model = MadeUp()
    adversarial.converse(model)
    out.flush()
    return model, out.buffer.getvalue().decode(encoding)


def test_a_conversation_shows_bars_and_what_changes_the_answer(monkeypatch):
    model, shown = typed(monkeypatch, b"A dog is wet.\nA dog is happy.\n\nnever read\n")
    lines = shown.splitlines()
    contradiction = next(line for line in lines if line.startswith("contradiction"))
    assert contradiction.split()[1] == "80.0%"
    assert contradiction.count("█") == pytest.approx(0.8 * 57, abs=1)
    assert all(len(line.rpartition(": entailment")[2]) <= 80 for line in lines), "prompts of a pipe stand in one line"
    assert "answer: contradiction" in lines
    changes = {line[2:25].strip(): line[25:] for line in lines if line.startswith("  ")}
    assert changes["premise = hypothesis"].split() == ["entailment", "75.0%", "right,", "expected:", "entailment"]
    assert changes["irrelevant clause"].split() == [
        "contradiction",
        "80.0%",
        "right,",
        "expected:",
        "the",
        "answer",
        "stays",
    ]
    assert changes["shuffled premise"].split()[:3] == ["contradiction", "80.0%", "same,"]
    assert changes["empty premise"].split()[2:] == ["wrong,", "expected:", "neutral"]
    assert "typo in the premise" not in changes, "no word is long enough"
    assert (model.asked[0].premise, model.asked[0].hypothesis) == ("A dog is wet.", "A dog is happy.")
    assert not any("never" in pair.premise for pair in model.asked)


def test_a_conversation_ends_where_the_input_does(monkeypatch):
    for data in (b"", b"A dog is wet.", b"A dog is wet.\n\nA cat.\n"):
        model, shown = typed(monkeypatch, data)
        assert model.asked == []
        assert shown.endswith("\n")
    assert "no hypothesis" in shown


def test_pasted_control_characters_do_not_reach_the_terminal(monkeypatch):
    pasted = "A \x1b[2Jdog\x07 is wet \u202e\ud7ff.\r\nÉtoile \x9b31m naïve\n".encode() + b"A \xff dog.\nA cat.\n"
    model, shown = typed(monkeypatch, pasted, encoding="ascii", columns=30)
    assert not set(shown) & {chr(n) for n in (*range(10), *range(11, 32), 127)}
    assert "█" not in shown and "-----" in shown
    assert all(text.isprintable() for pair in model.asked for text in (pair.premise, pair.hypothesis))
    assert model.asked[0].hypothesis.startswith("Étoile"), "an honest letter stays"
