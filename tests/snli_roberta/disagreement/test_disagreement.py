"""Disagreement: numbers counted by hand on mock answers, and the command on the miniature."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from common.cli.errors import UserError
from common.results import rendering
from common.results.finding import Curve, Finding, Listing, Measures, read_finding
from common.stats.calibration import fit_temperature, tempered
from snli_roberta.data import chaosnli
from snli_roberta.data.corpus import LABELS, NO_LABEL, Pair, Split, load_split
from snli_roberta.disagreement import __main__ as disagreement
from snli_roberta.disagreement.__main__ import DisagreementArguments
from snli_roberta.disagreement.findings import (
    LISTED,
    agreement_parts,
    annotators_finding,
    disputed_parts,
    drawn_anew,
    no_gold_parts,
    people_parts,
)
from snli_roberta.disagreement.people import COLUMNS, AnnotatedPairs, ValidationTemperature, label_counts, order, table
from snli_roberta.model.evaluation import TASK
from snli_roberta.training.arguments import TrainArguments

E, N, C = LABELS


def pair(number: int, gold: int, *labels: str) -> Pair:
    return Pair(f"premise {number}", "hypothesis", gold, labels, f"id{number}")


FIVE = [
    pair(1, 0, E, E, E, E, E),
    pair(2, 0, E, E, E, E, N),
    pair(3, 0, E, E, E, N, N),
    pair(4, 1, N, N, N, E, C),
    pair(5, NO_LABEL, E, E, N, N, C),
]
GIVEN = np.array([[0.8, 0.1, 0.1], [0.95, 0.05, 0], [0.01, 0.98, 0.01], [0.3, 0.6, 0.1], [0.05, 0.03, 0.92]])
JUDGED = AnnotatedPairs(FIVE, label_counts(FIVE), GIVEN, tempered(GIVEN, 2.0))


def part(parts: list, title: str) -> Measures | Listing | Curve:
    (result,) = [one for one in parts if one.title.startswith(title)]
    return result


def values(measures: Measures) -> dict[str, tuple[float, int]]:
    return {name: (pytest.approx(row["value"]), row["n"]) for name, row in measures.rows.items()}


def test_accuracy_and_confidence_go_by_how_many_gave_the_gold_label():
    levels, parts = agreement_parts(JUDGED, 0)
    assert values(part(parts, "Accuracy by agreement")) == {"5 of 5": (1, 1), "4 of 5": (1, 1), "3 of 5": (0.5, 2)}
    assert part(parts, "Accuracy by agreement").reference == 0.75
    sure = values(part(parts, "Mean confidence by agreement"))
    assert sure["3 of 5, as given"] == ((0.98 + 0.6) / 2, 2)
    assert sure["3 of 5, after temperature scaling"][0] == JUDGED.tempered[2:4].max(1).mean()
    assert [(level["number"], level["accuracy"]["value"]) for level in levels] == [(5, 1), (4, 1), (3, 0.5)]
    without = AnnotatedPairs(FIVE[4:], JUDGED.counts[4:], GIVEN[4:], GIVEN[4:])
    assert agreement_parts(without, 0) == ([], [])


def test_answers_to_pairs_without_a_gold_label():
    pairs = [FIVE[4], pair(6, NO_LABEL, E, E, N, N), pair(7, NO_LABEL, E, N, C, C, E)]
    given = np.array([[0.1, 0.2, 0.7], [0.2, 0.5, 0.3], [0.6, 0.2, 0.2]])
    judged = AnnotatedPairs(pairs, label_counts(pairs), given, given)
    numbers, parts = no_gold_parts((GIVEN[:4], GIVEN[:4]), (given, given), judged, 0)
    assert part(parts, "Answers to pairs").rows == [[E, 1, 1 / 3, 2, 0.5], [N, 1, 1 / 3, 2, 0.5], [C, 1, 1 / 3, 0, 0]]
    rows = values(part(parts, "Mean confidence without"))
    assert rows["without a gold label, as given"] == (0.6, 3)
    assert rows["with one, as given"] == ((0.8 + 0.95 + 0.98 + 0.6) / 4, 4)
    two = part(parts, "Answers that at least two")
    assert values(two) == {"the model's": (2 / 3, 3)}, "two gave neutral, two gave entailment, one gave contradiction"
    assert two.reference == pytest.approx(2 / 3)
    assert numbers["answers"] == {E: 1, N: 1, C: 1}
    none = (np.zeros((0, 3)), np.zeros((0, 3)))
    assert no_gold_parts((GIVEN, GIVEN), none, judged, 0)[1] == []


def test_distances_to_people_are_means_over_pairs():
    numbers, parts, measures = people_parts(JUDGED, "the five annotators", 0)

    def jsd(p, q):
        middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        return math.sqrt(
            sum(a * math.log(a / m) for one in (p, q) for a, m in zip(one, middle, strict=True) if a > 0) / 2
        )

    people = [[1, 0, 0], [0.8, 0.2, 0], [0.6, 0.4, 0], [0.2, 0.6, 0.2], [0.4, 0.4, 0.2]]
    away = part(parts, "Jensen-Shannon distance").rows
    for name, result in (
        ("the model, as given", GIVEN.tolist()),
        ("the model, after temperature scaling", JUDGED.tempered.tolist()),
        ("a third for each label", [[1 / 3] * 3] * 5),
        ("all on the people's commonest label", [[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0]]),
    ):
        expected = sum(jsd(p, q) for p, q in zip(people, result, strict=True)) / 5
        assert away[name]["value"] == pytest.approx(expected), name
    assert measures["jsd/change"]["value"] == pytest.approx(
        measures["jsd/as given"]["value"] - measures["jsd/after temperature scaling"]["value"]
    )
    kl = [
        sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)
        for p, q in zip(people, GIVEN.tolist(), strict=True)
    ]
    assert measures["kl/as given"]["value"] == pytest.approx(sum(kl) / 5)
    rows = part(parts, "KL divergence").rows
    assert [row[2] is None for row in rows] == [False, False, False, True, True], "where a 0 would make it infinite"
    # Of the five, 1, .8, .4, .6 and .2 gave the model's answer.
    assert numbers["same"]["share"]["value"] == pytest.approx(0.6)
    curve = part(parts, "Share of the five annotators who gave the model's answer, by")
    assert curve.diagonal
    assert curve.series["as given"][-1] == pytest.approx([(0.95 + 0.98) / 2, 0.6])
    correlation = part(parts, "Correlation").rows
    assert list(correlation) == [
        f"{name}, {how}" for name in ("Spearman", "Pearson") for how in ("as given", "after temperature scaling")
    ]


def test_the_most_disputed_come_first_without_their_sentences():
    assert order(JUDGED) == [4, 3, 2, 1, 0]
    again = AnnotatedPairs(FIVE[::-1], JUDGED.counts[::-1], GIVEN[::-1], JUDGED.tempered[::-1])
    assert [row["id"] for row in table(again, "x")] == [row["id"] for row in table(JUDGED, "x")]
    numbers, parts = disputed_parts(JUDGED, 0)
    listed = {row[0]: row[-1] for row in part(parts, "The most disputed").rows}
    assert listed == {"id5": 1.522, "id4": 1.371, "id3": 0.971, "id2": 0.722, "id1": 0.0}, "ids and what was computed"
    assert list(listed)[:2] == ["id5", "id4"]
    # Disputed are 3, 4 and 5; sure (from .9 on) it is of 3 and 5, and of 2, on which people agree.
    assert [row[0] for row in part(parts, "Where the model is surest").rows] == ["id3", "id5"]
    assert values(part(parts, "Disputed pairs"))["as given"] == (2 / 3, 3)
    assert (numbers["n"], numbers["of"]) == (3, 5)
    assert "premise" not in json.dumps([numbers, [vars(one) for one in parts]])
    rows = {row["id"]: row for row in table(JUDGED, "x")}
    assert [rows[f"id{n}"]["sure_and_disputed"] for n in range(1, 6)] == [False, False, True, False, True]
    assert list(rows["id3"]) == COLUMNS
    assert rows["id3"]["human_neutral"] == 0.4 and rows["id3"]["model_neutral"] == 0.98
    assert rows["id5"]["human_entropy"] == pytest.approx(1.521928)


def test_equally_disputed_pairs_are_ordered_by_confidence_and_then_by_id():
    pairs = [pair(n, 0, E, E, E, N, N) for n in (3, 1, 2)]
    given = np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [0.4, 0.6, 0]])
    assert order(AnnotatedPairs(pairs, label_counts(pairs), given, given)) == [2, 1, 0]


def test_no_pair_gets_a_temperature_that_was_fitted_on_itself():
    """The model is always right on one half of the premises, so the halves' temperatures differ widely."""
    pairs = [Pair(f"premise {n // 2}", f"hypothesis {n}", n % 3 if n // 2 % 2 else 0) for n in range(120)]
    given = np.tile([0.7, 0.2, 0.1], (120, 1))
    fitted = ValidationTemperature(pairs, given)
    labels = np.array([one.label for one in pairs])
    half = np.array([n // 2 % 2 for n in range(120)], dtype=bool)
    whole, own, other = (
        fit_temperature(given[chosen], labels[chosen]) for chosen in (np.ones(120, dtype=bool), ~half, half)
    )
    assert own < whole < other
    asked = [Pair("premise 0", "hypothesis  1", -1), pairs[2], Pair("premise 0", "new", -1)]
    assert fitted.of(asked) == pytest.approx([other, own, whole])
    assert fitted.value == whole
    result = fitted.apply(asked, given[:3])
    for row, temperature in zip(result, (other, own, whole), strict=True):
        assert row == pytest.approx(tempered(given[:1], temperature)[0])
    with pytest.raises(UserError, match="fewer than two premises in the validation split"):
        ValidationTemperature(pairs[:2], given[:2])


def test_five_drawn_anew_follow_the_shares():
    people = np.tile([0.6, 0.4, 0.0], (4000, 1))
    result = drawn_anew(people, 0)
    assert set((result * 5).round(6).ravel().tolist()) == {0, 1, 2, 3, 4, 5}
    assert result.mean(0) == pytest.approx([0.6, 0.4, 0], abs=0.02)
    assert (result.sum(1) == pytest.approx(1)) and (result[:, 2] == 0).all()


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Train a model that has learned a little."""
    from snli_roberta.training.run import train

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained") / "full"
    train(
        TrainArguments(
            output_dir=folder, method="full", learning_rate=1e-3, max_steps=30, evaluations=1, train_fraction=0.2
        )
    )
    return folder


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory) -> dict:
    """Return the command's findings and table on the miniature."""
    folder = tmp_path_factory.mktemp("out")
    words = ["disagreement", "--model", str(trained), "--output_dir", str(folder), "--title", "Full"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        disagreement.main()
    with open(folder / "snli-full-disagreement.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    result = {
        name: read_finding(folder / "findings" / f"snli-full-{name}.json") for name in ("disagreement", "chaosnli")
    }
    return {"rows": rows, **result}


def test_pairs_without_a_gold_label_can_be_had_and_change_nothing_else(miniature):
    raw = [json.loads(line) for line in (miniature / "snli_1.0" / "snli_1.0_test.jsonl").read_text().splitlines()]
    split = load_split("test", data_dir=miniature / "snli_1.0")
    without = [row for row in raw if row["gold_label"] == "-"]
    assert [(p.id, p.label, list(p.annotator_labels)) for p in split.without_gold] == [
        (row["pairID"], NO_LABEL, row["annotator_labels"]) for row in without
    ]
    assert len(split.pairs) == split.report.kept == len(raw) - len(without)
    assert {p.label for p in split.pairs} == {0, 1, 2}


def test_the_findings_say_what_the_table_holds(run, miniature):
    """Recount every main number from the table and the corpus's own file."""
    raw = {
        row["pairID"]: row
        for row in map(json.loads, (miniature / "snli_1.0" / "snli_1.0_test.jsonl").read_text().splitlines())
    }
    five = [row for row in run["rows"] if row["source"] == "SNLI test"]
    assert sorted(row["id"] for row in five) == sorted(raw)
    for row in five:
        assert (row["premise"], row["gold"]) == (raw[row["id"]]["sentence1"], raw[row["id"]]["gold_label"])
    finding: Finding = run["disagreement"]
    accuracy = part(finding.parts, "Accuracy by agreement").rows
    for number in (3, 4, 5):
        chosen = [row for row in five if raw[row["id"]]["annotator_labels"].count(row["gold"]) == number]
        assert accuracy[f"{number} of 5"]["n"] == len(chosen)
        right = sum(row["answer"] == row["gold"] for row in chosen) / len(chosen)
        assert accuracy[f"{number} of 5"]["value"] == pytest.approx(right)
    assert accuracy["5 of 5"]["value"] > 0.5, "it has learnt something"
    none = [row for row in five if row["gold"] == "-"]
    rows = part(finding.parts, "Answers to pairs").rows
    assert [row[1] for row in rows] == [sum(row["answer"] == label for row in none) for label in LABELS]
    hundred = {row["id"]: row for row in run["rows"] if row["source"] == "ChaosNLI"}
    items = chaosnli.read_items(miniature / "chaosnli" / chaosnli.FILE_NAME)
    assert set(hundred) == {item.pair.id for item in items}
    chaos: Finding = run["chaosnli"]
    result = chaos.facts["measures"]
    for name, label_of in (("old", lambda item: item.pair.label), ("new", lambda item: item.majority)):
        right = [hundred[item.pair.id]["answer"] == LABELS[label_of(item)] for item in items]
        assert result[f"accuracy/{name}"]["value"] == pytest.approx(np.mean(right))
        assert result[f"accuracy/{name}"]["n"] == len(items)
    for source, measures in (("SNLI test", finding.facts["measures"]), ("ChaosNLI", result)):
        away = [float(row["jensen_shannon"]) for row in run["rows"] if row["source"] == source]
        assert measures["jsd/as given"]["value"] == pytest.approx(np.mean(away), abs=1e-5)
        assert all(low <= row["value"] <= high for row in measures.values() for low, high in [row["ci95"]])
    both = [(row, next(one for one in five if one["id"] == row["id"])) for row in hundred.values()]
    assert all(one[f"model_{E}"] == other[f"model_{E}"] for one, other in both), "the same pair, the same answer"
    assert all(other["human_entropy"] in ("0.970951", "1.370951") for _, other in both), "three of five agreed"


def test_the_findings_lie_where_every_page_finds_them(run, trained):
    for name in ("disagreement", "chaosnli"):
        finding: Finding = run[name]
        assert finding == read_finding(trained / "evaluation" / "findings" / f"{name}.json")
        assert (finding.task, finding.model, finding.miniature) == (TASK, "Full", True)
        assert "miniature" in finding.data["name"]
        assert finding.command.startswith("python -m snli_roberta.disagreement --model")
        assert len(rendering.drawn(finding, lambda figure, text: text)) >= 4
        assert all(0 <= row["value"] <= 1 for one in finding.parts if isinstance(one, Measures)
                   and "Correlation" not in one.title for row in one.rows.values())  # fmt: skip
        text = json.dumps(vars(finding), default=vars)
        assert not any(row["premise"] in text or row["hypothesis"] in text for row in run["rows"])
        assert len(part(finding.parts, "The most disputed").rows) == LISTED
    assert not any("Published" in sentence for sentence in run["chaosnli"].summary), "these are not the real items"
    assert "63 are in this corpus's test split" in run["chaosnli"].summary[1]


def renamed(miniature: Path, folder: Path, *extra: dict) -> Path:
    """Write the miniature's first items under IDs that are not the miniature's."""
    lines = (miniature / "chaosnli" / chaosnli.FILE_NAME).read_text().replace("miniature-", "mini-").splitlines()
    path = folder / chaosnli.FILE_NAME
    path.write_text("\n".join([*lines[:12], *map(json.dumps, extra)]) + "\n")
    return path


def rounded(finding: Finding) -> list:
    text = json.dumps([dataclasses.asdict(each) for each in finding.parts])
    return json.loads(text, parse_float=lambda number: round(float(number), 6))


def test_items_that_the_model_was_trained_on_are_left_out_and_real_ones_beside_what_was_published(
    trained, run, miniature, tmp_path
):
    (train,) = DisagreementArguments(model="x").load("train")
    item = json.loads((miniature / "chaosnli" / chaosnli.FILE_NAME).read_text().splitlines()[20])
    item["uid"] = item["example"]["uid"] = "mini-0"
    item["example"] |= {"premise": train.pairs[7].premise.upper(), "hypothesis": f" {train.pairs[7].hypothesis}"}
    path = renamed(miniature, tmp_path, item)
    arguments = DisagreementArguments(model=str(trained), chaosnli=path, output_dir=tmp_path, title="x")
    again, finding = disagreement.check(arguments)
    # Pairs are in other batches than before, which on some CPUs changes the last digits.
    assert rounded(again) == rounded(run["disagreement"]), "the same model and seed find the same"
    assert finding.facts["items"] == 12
    assert finding.facts["standing_in"] == {"train": 1, "dev": 0, "test": 12}
    assert finding.data["name"] == "ChaosNLI-SNLI"
    assert "12 of ChaosNLI's 1,514 SNLI items" in finding.summary[1]
    assert "1 more are in the training split and left out" in finding.summary[1]
    (published,) = [sentence for sentence in finding.summary if sentence.startswith("Published")]
    assert all(number in published for number in ("0.2294", "0.5045", "0.7272", "0.7536", "these 12 items are a part"))
    path.write_text(json.dumps(item) + "\n")
    with pytest.raises(UserError, match="every item is in the training split"):
        disagreement.check(arguments)


def test_missing_annotators_labels_are_reported():
    """The Hub's edition has only gold labels."""
    test = Split("test", [Pair(f"p{n}", "h", n % 3) for n in range(6)], None, [Pair("p", "h", NO_LABEL)])
    given = np.tile([0.6, 0.3, 0.1], (7, 1))
    temperature = ValidationTemperature(test.pairs, given[:6])
    data = {"name": "x", "split": "test", "fingerprint": "0"}
    finding, judged = annotators_finding(
        test, (given[:6], given[:6]), (given[6:], given[6:]), temperature,
        seed=0, data=data, task="t", model="m", miniature=False,
    )  # fmt: skip
    assert judged.pairs == []
    assert any("None of the 7 test pairs has 5 annotators' labels" in sentence for sentence in finding.summary)
    assert any("1 test pair has no gold label" in sentence for sentence in finding.summary)
    assert [one.title for one in finding.parts] == [
        "Answers to pairs without and with a gold label",
        "Mean confidence without and with a gold label",
    ]


def test_invalid_input_is_refused_before_a_model_is_loaded(trained, miniature, tmp_path, monkeypatch):
    monkeypatch.setattr("snli_roberta.model.classifier.load", None)
    run = {"model": str(trained), "output_dir": tmp_path / "out"}
    with pytest.raises(UserError, match=r"nowhere\.jsonl: no such file"):
        disagreement.check(DisagreementArguments(**run, chaosnli=tmp_path / "nowhere.jsonl"))
    other = tmp_path / "snli_1.0"
    other.mkdir()
    for path in (miniature / "snli_1.0").iterdir():
        lines = path.read_text().splitlines(keepends=True)
        (other / path.name).write_text("".join(lines[:60]))
    with pytest.raises(UserError, match="was trained on other pairs than those of this corpus"):
        disagreement.check(DisagreementArguments(**run, data_dir=other))
    assert not (tmp_path / "out").exists()
