"""Agreement of a model with people: coefficients match published values and other implementations; bad files are refused."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from nltk.metrics.agreement import AnnotationTask
from sklearn.metrics import cohen_kappa_score

from common.agreement import main
from common.cli.errors import UserError
from common.results.checks import agreement_finding
from common.results.finding import Finding, read_finding
from common.results.rendering import lines, markdown
from common.stats import agreement, metrics
from common.stats.agreement import alpha, code, kappa
from common.stats.scale import Scale
from common.tables.writing import write_rows

# Krippendorff's example (2011, "Computing Krippendorff's Alpha-Reliability", section C): four observers, twelve units.
OBSERVERS = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
TABLE = {
    unit: {who: int(row[unit]) for who, row in enumerate(OBSERVERS) if row[unit] != "."}
    for unit in range(len(OBSERVERS[0]))
}
# Published to three digits; the others are from the krippendorff package 0.9.0.
PUBLISHED = {"nominal": 0.743421052631579, "ordinal": 0.8153875037548814, "real": 0.8491071428571428}
DATA = {"name": "table", "split": "all", "fingerprint": "0"}


def close(one: object, other: object) -> float:
    """A similarity of numbers from 1 to 5."""
    return 1 - abs(float(one) - float(other)) / 4  # type: ignore[arg-type]


SCALES = [Scale("nominal"), Scale("ordinal"), Scale("real"), Scale(similarity=close)]


def answers(seed: int = 0) -> dict[int, int]:
    draw = random.Random(seed)
    return {unit: draw.choice(list(said.values())) for unit, said in TABLE.items()}


@pytest.mark.parametrize("scale", SCALES, ids=["nominal", "ordinal", "real", "similarity"])
def test_alpha_is_the_published_one(scale):
    pairs = code(TABLE, answers(), scale).of_several().among_people()
    expected = 0.800383877159309 if scale.similarity else PUBLISHED[scale.name]
    assert alpha(pairs) == pytest.approx(expected, rel=1e-12)


def alpha_of_nltk(units: list[list[int]], scale: Scale) -> float:
    """Alpha of units with codes of labels, which are the labels minus one."""
    together = Counter(label for unit in units for label in unit)
    ranks = {
        label: sum(together[other] for other in together if other < label) + together[label] / 2 for label in together
    }
    distances = {
        "nominal": lambda one, other: one != other,
        "ordinal": lambda one, other: (ranks[one] - ranks[other]) ** 2,
        "real": lambda one, other: (one - other) ** 2,
    }
    distance = (lambda one, other: abs(one - other) / 4) if scale.similarity else distances[scale.name]
    triples = [(who, number, label) for number, unit in enumerate(units) for who, label in enumerate(unit)]
    return AnnotationTask(data=triples, distance=distance).alpha()


@pytest.mark.parametrize("scale", SCALES, ids=["nominal", "ordinal", "real", "similarity"])
def test_alpha_of_drawn_items_is_that_of_a_table_with_them(scale):
    """The weighted sums behind the intervals equal nltk's alpha of a table with every drawn item as a unit."""
    coded = code(TABLE, answers(), scale).of_several()
    assert coded.values == [1, 2, 3, 4, 5]
    assert len(coded.counts) < len(coded.items), "some items have the same labels"
    units = {item: [label - 1 for label in TABLE[item].values()] for item in coded.items}
    rng, n = np.random.default_rng(0), len(units)
    for chosen in [np.arange(n), *rng.integers(n, size=(5, n))]:
        drawn = np.bincount(coded.kind[chosen], minlength=len(coded.counts))
        names = [coded.items[place] for place in chosen]
        people = alpha_of_nltk([units[name] for name in names], scale)
        model = alpha_of_nltk([[answers()[name] - 1, label] for name in names for label in units[name]], scale)
        assert alpha(coded.among_people(), drawn) == pytest.approx(people, rel=1e-12)
        assert alpha(coded.model_and_people(), drawn) == pytest.approx(model, rel=1e-12)
    assert alpha(coded.among_people()) == pytest.approx(alpha_of_nltk(list(units.values()), scale), rel=1e-12)


@pytest.mark.parametrize("scale", [Scale("nominal"), Scale("real")], ids=["nominal", "real"])
def test_intervals_are_those_of_drawing_items(scale):
    """Drawing how many items are of each kind gives the intervals that drawing the items one by one gives, up to chance."""
    people, model = crowd(300, 16, model=0.6)
    numbers = {"a": 0, "b": 1, "c": 3}
    triples = [(row["item"], row["annotator"], numbers[row["label"]]) for row in people]
    coded = code(agreement.by_item(triples), {row["item"]: numbers[row["label"]] for row in model}, scale)
    alike, among = coded.model_and_people(), coded.among_people()
    one_by_one = {
        "model and people": lambda counts: alpha(alike, counts),
        "people among themselves": lambda counts: alpha(among, counts),
        "difference": lambda counts: alpha(alike, counts) - alpha(among, counts),
    }
    (rows,) = agreement.compared(coded, [alpha], seed=1)
    assert rows.keys() == one_by_one.keys()
    for name, statistic in one_by_one.items():
        expected = metrics.measure(
            lambda chosen, of=statistic: of(np.bincount(coded.kind[chosen], minlength=len(coded.counts))), 300, seed=2
        )
        assert (rows[name]["value"], rows[name]["n"]) == (expected["value"], 300)
        width = np.diff(expected["ci95"])[0]
        assert rows[name]["ci95"] == pytest.approx(expected["ci95"], abs=0.08 * width)


def test_alpha_of_numbers_is_the_same_from_moments_and_from_pairs(monkeypatch):
    draw = random.Random(5)
    table = {n: {who: draw.gauss(n % 7, 1) for who in range(draw.choice((1, 2, 5)))} for n in range(80)}
    coded = code(table, {n: draw.gauss(n % 7, 1) for n in table}, Scale("real"))
    drawn = np.bincount(np.random.default_rng(0).integers(80, size=80), minlength=80)
    pairs = (coded.among_people(), coded.model_and_people())
    quick = [alpha(each, counts) for each in pairs for counts in (None, drawn)]
    monkeypatch.setattr(agreement, "CANCELED", 1)
    assert [alpha(each, counts) for each in pairs for counts in (None, drawn)] == pytest.approx(quick, rel=1e-11)


def test_kappa_is_that_of_all_pairs():
    draw = random.Random(1)
    table = {n: {who: draw.choice("aab") for who in range(draw.choice((1, 2, 4)))} for n in range(60)}
    model = {n: draw.choice("abc") for n in table}
    coded = code(table, model, Scale())
    pairs = [(model[n], label) for n in table for label in table[n].values()]
    assert kappa(coded.model_and_people()) == pytest.approx(cohen_kappa_score(*zip(*pairs, strict=True)))
    both_orders = [
        (one, other) for said in table.values() for i, one in said.items() for j, other in said.items() if i != j
    ]
    among = coded.of_several().among_people()
    assert kappa(among) == pytest.approx(cohen_kappa_score(*zip(*both_orders, strict=True)))


def test_kappa_of_ranks_has_squared_weights():
    coded = code({n: {"a": said["a"]} for n, said in two_people().items()}, answers_of_two(), Scale("ordinal"))
    people = [said["a"] for said in two_people().values()]
    expected = cohen_kappa_score(list(answers_of_two().values()), people, weights="quadratic")
    assert kappa(coded.model_and_people()) == pytest.approx(expected)


def two_people() -> dict[int, dict[str, int]]:
    draw = random.Random(2)
    return {n: {"a": draw.randrange(1, 4), "b": draw.randrange(1, 4)} for n in range(50)}


def answers_of_two() -> dict[int, int]:
    draw = random.Random(3)
    return {n: said["a"] if draw.random() < 0.5 else draw.randrange(1, 4) for n, said in two_people().items()}


@pytest.mark.parametrize("scale", SCALES, ids=["nominal", "ordinal", "real", "similarity"])
def test_where_all_labels_are_the_same_there_is_no_value(scale):
    coded = code({n: {"a": 3, "b": 3} for n in range(9)}, dict.fromkeys(range(9), 3), scale)
    for pairs in (coded.among_people(), coded.model_and_people()):
        assert np.isnan([alpha(pairs), kappa(pairs)]).all()


def test_numbers_far_from_zero_or_drawn_alone_lose_no_digits():
    draw = random.Random(4)
    table = {n: {"a": draw.random(), "b": draw.random()} for n in range(30)}
    model = {n: said["a"] for n, said in table.items()}
    far = code({n: {who: label + 1e8 for who, label in said.items()} for n, said in table.items()},
               {n: label + 1e8 for n, label in model.items()}, Scale("real"))  # fmt: skip
    near = code(table, model, Scale("real"))
    drawn = np.arange(30) % 3
    assert alpha(far.among_people(), drawn) == pytest.approx(alpha(near.among_people(), drawn), abs=1e-6)
    # Draws in which one number occurs alone.
    once = code({n: dict.fromkeys("ab", label) for n, label in model.items()}, model, Scale("real"))
    for n in range(30):
        assert np.isnan([of(once.among_people(), np.eye(30)[n] * 7) for of in (alpha, kappa)]).all()


def crowd(items: int, seed: int, right: float = 0.85, model: float = 0.85) -> tuple[list[dict], list[dict]]:
    """Rows of four annotators and of a model who give the true one of three labels with a probability."""
    draw = random.Random(seed)

    def says(truth: str, probability: float) -> str:
        return truth if draw.random() < probability else draw.choice("abc")

    truths = [draw.choice("abc") for _ in range(items)]
    people = [
        {"item": f"i{n}", "annotator": f"p{who}", "label": says(truth, right)}
        for n, truth in enumerate(truths)
        for who in range(4)
    ]
    return people, [{"item": f"i{n}", "label": says(truth, model)} for n, truth in enumerate(truths)]


def found_of(people: list[dict], model: list[dict], **settings: object) -> Finding:
    triples = [(row["item"], row["annotator"], row["label"]) for row in people]
    predictions = {row["item"]: row["label"] for row in model}
    return agreement_finding(triples, predictions, task="t", model="m", data=DATA, **settings)


@pytest.mark.parametrize(("quality", "word"), [(0.2, "less"), (0.85, "no difference"), (1.0, "more")])
def test_the_difference_says_whether_the_model_agrees_less(quality, word):
    finding = found_of(*crowd(200, 0, model=quality))
    headline, alpha, kappa = finding.summary[:3]
    assert alpha.startswith("Krippendorff's alpha (nominal scale), on 200 items")
    assert kappa.startswith("Cohen's kappa (nominal scale), on 200 items")
    assert word in headline.lower()
    assert "difference" not in kappa, "the model's pairs and people's have other marginals"
    rows = finding.facts["coefficients"]["Krippendorff's alpha"]
    assert rows["difference"]["value"] == pytest.approx(
        rows["model and people"]["value"] - rows["people among themselves"]["value"]
    )
    low, high = rows["difference"]["ci95"]
    assert low < rows["difference"]["value"] < high
    # The same items are drawn for both: the difference is surer than of two samples.
    widths = [np.diff(row["ci95"])[0] for row in rows.values()]
    assert widths[2] < (widths[0] ** 2 + widths[1] ** 2) ** 0.5
    assert {row["n"] for row in rows.values()} == {200}


def test_a_few_items_give_no_verdict():
    people, model = crowd(12, 0, model=1.0)
    assert found_of(people, model).summary[0].startswith("12 items are too few to tell")


def test_model_and_people_are_compared_with_people_on_the_same_items():
    people, model = crowd(80, 1)
    alone = [{"item": f"alone{n}", "annotator": "p0", "label": "a"} for n in range(40)]
    finding = found_of(people + alone, model + [{"item": f"alone{n}", "label": "b"} for n in range(40)])
    plain = found_of(people, model)
    for name, rows in finding.facts["coefficients"].items():
        assert {what: row["n"] for what, row in rows.items()} == {
            "model and people, all items": 120,
            "model and people": 80,
            "people among themselves": 80,
            **({"difference": 80} if "alpha" in name else {}),
        }
        assert rows["model and people, all items"]["value"] < rows["model and people"]["value"]
        assert {what: rows[what] for what in plain.facts["coefficients"][name]} == plain.facts["coefficients"][name]
    assert [sentence.count("all items") for sentence in finding.summary[:3]] == [0, 0, 0]
    assert "120 of the items have a prediction, 80 of these have labels of two people or more" in finding.summary[-1]


def test_the_finding_says_the_verdict_with_its_numbers(tmp_path):
    finding = found_of(*crowd(60, 2, model=1.0), epsilon=0.15)
    result = finding.facts["alternative_annotator_test"]
    assert (result["omega"], result["passed"], result["epsilon"], result["min_items"]) == (1, True, 0.15, 30)
    assert "at ε = 0.15: passed. The model wins over 4 of 4 annotators: ω = 1.000" in finding.summary[3]
    assert f"ρ = {result['rho']:.4f} [" in finding.summary[4]
    shown = "\n".join(lines(finding))
    assert shown.count("p0") == 2, "in the picture's table and in the test's"
    assert finding.name == "agreement"
    assert finding.parts[2].reference == 0.15
    finding.write(tmp_path / "f.json")
    assert read_finding(tmp_path / "f.json") == finding
    assert "What this does not show" in markdown(finding, [])


def test_a_coefficient_of_which_every_draw_is_undefined_has_no_interval(tmp_path):
    """Of two items in one stratum, a draw has one, on which all labels are equal."""
    people, model = crowd(2, 2, model=1.0)
    people = [row | {"label": "ab"[int(row["item"][1:])]} for row in people]
    model = [row | {"label": "ab"[int(row["item"][1:])]} for row in model]
    finding = found_of(people, model, drawn={row["item"]: ("1", 0.5) for row in model})
    finding.write(tmp_path / "f.json")
    assert finding.facts["coefficients"] == {}


def test_an_annotators_advantage_is_the_share_that_it_wins_by():
    finding = found_of(*crowd(60, 2, model=0.5))
    for one in finding.facts["alternative_annotator_test"]["annotators"]:
        row = finding.parts[2].rows[one["name"]]
        assert row["value"] == pytest.approx(one["rho_person"] - one["rho_model"])
        assert row["n"] == 60


def test_without_an_annotator_of_many_items_alpha_and_kappa_remain():
    finding = found_of(*crowd(20, 3))
    assert (
        "no annotator has 30 items that another person and the model labeled too (the most is 20)" in finding.summary[3]
    )
    assert [part.title for part in finding.parts] == ["Krippendorff's alpha", "Cohen's kappa"]
    assert finding.facts["alternative_annotator_test"]["omega"] is None
    assert finding.facts["alternative_annotator_test"]["left_out"] == dict.fromkeys(["p0", "p1", "p2", "p3"], 20)


def test_those_left_out_are_named():
    people, model = crowd(40, 4)
    few = [{"item": f"i{n}", "annotator": "few", "label": "a"} for n in range(9)]
    finding = found_of(people + few, model)
    assert "Annotators with fewer than 30 items to compare are left out, 1 of 5: few (9)." in finding.summary
    many = [{"item": f"i{n}", "annotator": f"few{n}", "label": "a"} for n in range(12)]
    sentence = found_of(people + many, model).summary[5]
    assert sentence.endswith("12 of 16: few0 (1), few1 (1), few10 (1), few11 (1), few2 (1), few3 (1), few4 (1), few5 (1) "
                             "and 4 more, named in the result's file.")  # fmt: skip


def test_where_nobody_shares_an_item_the_model_is_compared_all_the_same():
    people, model = crowd(50, 5)
    finding = found_of([row for row in people if row["annotator"] == "p0"], model)
    assert finding.summary[0].endswith("with nothing to compare it with.")
    assert "undefined for people among themselves" in finding.summary[1]
    assert list(finding.facts["coefficients"]["Cohen's kappa"]) == ["model and people, all items"]
    assert "(the most is 0)" in finding.summary[3]
    same = [{**row, "label": "a"} for row in people]
    constant = found_of(same, [{**row, "label": "a"} for row in model])
    assert constant.summary[0] == "All labels are equal, so agreement is undefined."
    for sentence in constant.summary[1:3]:
        assert (
            "undefined for model and people, because all labels are equal; undefined for people among them" in sentence
        )
        assert sentence.endswith("themselves, because all their labels are equal.")
    assert (
        "no result, because all labels are equal: any model that always gives this label would tie"
        in constant.summary[3]
    )
    tested = constant.facts["alternative_annotator_test"]
    assert (tested["omega"], tested["passed"], tested["constant"], tested["left_out"]) == (None, None, True, {})
    one_sided = found_of(same, [{**row, "label": "b" if n == 0 else "a"} for n, row in enumerate(model)])
    assert one_sided.summary[0].endswith("with nothing to compare it with: all labels of people are equal.")
    assert one_sided.summary[3].endswith("passed. The model wins over 4 of 4 annotators: ω = 1.000 (0.5 or more passes). "
                                         "People gave a single label, so a model that always gives it would pass too.")  # fmt: skip


def test_spellings_and_missing_votes_change_no_number(call):
    people, model = crowd(40, 13)
    expected, _ = call(people, model)
    spelled = [{**row, "label": f" {row['label'].upper()}" if n % 3 else row["label"]} for n, row in enumerate(people)]
    more = [{"item": f"i{n}", "annotator": "late", "label": "NA"} for n in range(40)]
    finding, printed = call([*spelled, *more], model)
    assert finding.facts == expected.facts
    assert finding.data == expected.data | {"fingerprint": finding.data["fingerprint"]}
    assert "Of 200 rows in people.csv: 40 without a label (NA 40), skipped." in printed
    assert "Spellings of one label in people.csv: " in printed


def test_row_order_does_not_matter():
    people, model = crowd(50, 6)
    expected = found_of(people, model)
    random.Random(0).shuffle(people)
    random.Random(1).shuffle(model)
    assert found_of(people, model) == expected


def test_real_labels_of_any_number_are_taken():
    draw = random.Random(7)
    truths = [draw.random() for _ in range(300)]
    people = [
        {"item": n, "annotator": who, "label": truth + draw.gauss(0, 0.1)}
        for n, truth in enumerate(truths)
        for who in "abc"
    ]
    finding = found_of(people, [{"item": n, "label": truth} for n, truth in enumerate(truths)], scale="real")
    assert [part.title for part in finding.parts[:2]] == ["Krippendorff's alpha", finding.parts[1].title]
    assert finding.summary[1].startswith("Krippendorff's alpha (real scale), on 300 items")
    assert "Cohen's kappa" not in finding.facts["coefficients"]
    assert 0.8 < finding.facts["coefficients"]["Krippendorff's alpha"]["people among themselves"]["value"] < 0.95
    assert finding.facts["alternative_annotator_test"]["passed"]


def test_a_similarity_is_asked_for_as_many_pairs_as_can_be(monkeypatch):
    people, model = crowd(40, 8)
    expected = found_of(people, model).facts["coefficients"]
    found = found_of(people, model, similarity=lambda one, other: one == other)
    values = [row["value"] for row in found.facts["coefficients"]["Cohen's kappa, weighted"].values()]
    assert values == pytest.approx([row["value"] for row in expected["Cohen's kappa"].values()])
    with pytest.raises(UserError, match=r"--similarity: 0.5 for 'a' and itself; expected 1 for equal labels"):
        found_of(people, model, similarity=lambda one, other: 0.5)
    monkeypatch.setattr(agreement, "MAX_SIMILAR", 2)
    without = found_of(people, model, similarity=lambda one, other: one == other)
    assert without.summary[0].startswith("The Alternative Annotator Test is ")
    assert without.summary[1].startswith("Alpha and kappa are left out: the model and people give 3 different labels")
    assert without.facts["alternative_annotator_test"] == found.facts["alternative_annotator_test"]


@pytest.fixture
def nobody_reads(monkeypatch):
    """Close standard output, as `| head` may."""

    def closed(*_: object, file: object = None, **__: object) -> None:
        if file is None:
            raise BrokenPipeError

    monkeypatch.setattr("builtins.print", closed)


def test_the_finding_is_written_before_it_is_printed(call, tmp_path, nobody_reads):
    rows = [{"item": item, "annotator": who, "label": "YN"[item % 2]} for item in range(60) for who in "ab"]
    with pytest.raises(BrokenPipeError):
        call(rows, [{"item": item, "label": "Y"} for item in range(60)])
    assert read_finding(tmp_path / "out.json")


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Runs the command on rows, and returns the finding that it wrote and what it printed."""

    def run(people: list[dict], model: list[dict], *more: object, form: str = "csv") -> tuple[Finding, str]:
        write_rows(tmp_path / f"people.{form}", people)
        write_rows(tmp_path / f"model.{form}", model)
        files = {"--annotations": tmp_path / f"people.{form}", "--predictions": tmp_path / f"model.{form}"}
        words = [word for key, path in files.items() if key not in more for word in (key, path)]
        monkeypatch.setattr("sys.argv", ["agreement", *map(str, [*words, "--output", tmp_path / "out.json", *more])])
        main()
        return read_finding(tmp_path / "out.json"), capsys.readouterr().out

    return run


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_the_command_takes_every_kind_of_table(call, form):
    people, model = crowd(40, 9)
    finding, printed = call(people, model, form=form)
    expected = found_of(people, model)
    assert (finding.summary[:-2], finding.parts, finding.facts) == (expected.summary, expected.parts, expected.facts)
    assert (
        printed.splitlines()[0]
        == "label, model: Does the model agree with people as much as they agree with each other?"
    )
    assert finding.command.startswith(f"python -m common.agreement --annotations people.{form}")
    assert not finding.miniature


def test_repeated_blank_and_unmatched_rows_are_counted(call):
    people, model = crowd(40, 10)
    expected = found_of(people, model)
    more = [people[0], people[5], {"item": "i1", "annotator": "p9", "label": " "}]
    finding, _ = call(
        [*people, *more, {"item": "gone", "annotator": "p0", "label": "a"}],
        [*model, model[3], {"item": "i0", "label": ""}, *({"item": f"new{n}", "label": "a"} for n in range(3))],
    )
    assert finding.facts == expected.facts
    *_, counts, _, _, of_people, of_model = finding.summary
    assert "Items with labels and no prediction: 1. Predictions for other items: 3." in counts
    assert of_people == (
        "Of 164 rows in people.csv: 1 without a label, skipped; 2 repeating an earlier row, counted once."
    )
    assert of_model == "Of 45 rows in model.csv: 1 without a label, skipped; 1 repeating an earlier row, counted once."


def test_fewer_draws_change_the_intervals_only(call):
    people, model = crowd(60, 14)
    expected, few = (call(people, model, "--resamples", count)[0].facts for count in (2000, 100))
    assert expected == call(people, model)[0].facts
    assert (expected.pop("resamples"), few.pop("resamples")) == (2000, 100)
    rows = [facts.pop("coefficients")["Krippendorff's alpha"]["difference"] for facts in (expected, few)]
    assert few == expected
    assert rows[0]["value"] == rows[1]["value"]
    assert rows[0]["ci95"] != rows[1]["ci95"]


def test_whole_numbers_are_the_same_in_every_table(call, tmp_path):
    people = [{"item": n, "annotator": who, "label": n % 2} for n in range(40) for who in (7, 8)]
    write_rows(tmp_path / "floats.parquet", [{"item": float(n), "label": float(n % 2)} for n in range(40)])
    finding, _ = call(people, [{"item": 0, "label": 0}], "--predictions", tmp_path / "floats.parquet")
    assert finding.facts["coefficients"]["Cohen's kappa"]["model and people"]["value"] == 1


def test_answers_that_nobody_gives_are_counted(call):
    people, model = crowd(40, 11)
    finding, _ = call(people, [{**row, "label": row["label"].replace("c", "other")} for row in model])
    count = sum(row["label"] == "c" for row in model)
    assert f"Predictions with a label that none of these people gave: {count}." in finding.summary[-3]


def test_scales_and_a_similarity_from_the_command_line(call, tmp_path):
    people, model = crowd(40, 12)
    ordered, _ = call(people, model, "--scale", "ordinal", "--order", "c", "a", "b", "--epsilon", "0.2")
    places = {"c": 0, "a": 1, "b": 2}
    numbers = [[{**row, "label": places[row["label"]]} for row in rows] for rows in (people, model)]
    assert ordered.parts == call(*numbers, "--scale", "ordinal", "--epsilon", "0.2")[0].parts
    (tmp_path / "mine.py").write_text("def near(one, other):\n    return 1.0 if one == other else 0.25\n")
    similar, _ = call(people, model, "--similarity", f"{tmp_path / 'mine.py'}:near")
    assert similar.facts["similarity"] == "near"
    assert [finding.summary[1].partition(", on ")[0] for finding in (ordered, similar)] == [
        "Krippendorff's alpha (ordinal scale)",
        "Krippendorff's alpha (similarity near)",
    ]
    assert ordered.summary[2].startswith("Cohen's kappa, weighted (ordinal scale), on ")
    nominal = found_of(people, model).facts
    for name in ("omega", "rho"):
        assert similar.facts["alternative_annotator_test"][name] == nominal["alternative_annotator_test"][name]
    # Every distance is three quarters of what it was, observed and expected alike.
    alphas = [facts["coefficients"]["Krippendorff's alpha"]["model and people"] for facts in (similar.facts, nominal)]
    assert alphas[0]["value"] == pytest.approx(alphas[1]["value"])


def test_the_miniatures_own_file_and_a_models_answers(miniature, tmp_path, monkeypatch, capsys):
    """The columns that `sbic_llama.annotate` and the people who label its file leave."""
    from common.tables.reading import read_rows

    labels = miniature / "own_file" / "human_labels.csv"
    rows = [row.values for row in read_rows(labels)]
    first = {row["id"]: row["offensiveYN"] for row in reversed(rows)}
    write_rows(tmp_path / "a.csv", [{"id": name, "model_offensiveYN": label} for name, label in first.items()])
    words = [
        "--annotations",
        labels,
        "--predictions",
        tmp_path / "a.csv",
        "--item_column",
        "id",
        "--label_column",
        "offensiveYN",
    ]
    words += ["--prediction_column", "model_offensiveYN", "--model", "first annotator", "--task", "SBIC offensiveYN"]
    monkeypatch.setattr("sys.argv", ["agreement", *map(str, words)])
    main()
    printed = capsys.readouterr().out
    assert printed.startswith(
        "SBIC offensiveYN, first annotator (miniature): Does the model agree with people as much as they agree with each other?\n"
    )
    assert "of 12 annotators: ω = " in printed
    assert "8 without a label, skipped." in printed


PEOPLE, MODEL = crowd(5, 0)
LABELLED = dict(PEOPLE[0])


@pytest.mark.parametrize(
    ("people", "model", "more", "message"),
    [
        (
            [*PEOPLE, {**LABELLED, "label": "z"}],
            MODEL,
            (),
            r"people.csv, line 22, column 'label': item 'i0' by annotator 'p0' is labeled 'z' here and '\w' in an",
        ),
        (PEOPLE, [*MODEL, {"item": "i0", "label": "z"}], (), r"model.csv, line 7, column 'label': item 'i0' is labeled 'z' here"),
        ([*PEOPLE, {**LABELLED, "item": ""}], MODEL, (), r"people.csv, line 22, column 'item': empty"),
        ([*PEOPLE, {**LABELLED, "annotator": " "}], MODEL, (), r"people.csv, line 22, column 'annotator': empty"),
        ([{"item": "1", "annotator": "p"}], MODEL, (), r"people.csv: missing column 'label'"),
        (PEOPLE, [{"id": "1", "label": "a"}], (), r"model.csv: missing column 'item'"),
        (PEOPLE, MODEL, ("--prediction_column", "answer"), r"model.csv: missing column 'answer'"),
        (PEOPLE, [{"item": "x", "label": "a"}], (), r"no item has both .* \(items are named 'i0' and 'x'\)\. Check the item"),
        (PEOPLE, [{"item": "i0", "label": "A b"}], (), r"the model never gives a label that people give .*the model 'A b'\)"),
        (PEOPLE, MODEL, ("--scale", "real"), r"line 2, column 'label': label '\w' is not on this scale; expected a number"),
        (PEOPLE, MODEL, ("--scale", "ordinal"), r"expected a number, or --order with the labels from low to high"),
        (PEOPLE, MODEL, ("--scale", "ordinal", "--order", "x", "y"), r"line 2, column 'label': .* expected one of x, y"),
        (PEOPLE, MODEL, ("--order", "a", "b"), r"--order: only an ordinal scale has an order"),
        (PEOPLE, MODEL, ("--epsilon", "2"), r"--epsilon: '2' is not valid; expected a number at least 0 and at most 1"),
        (PEOPLE, MODEL, ("--similarity", "nowhere.py:f"), r"nowhere.py, --similarity: no such file"),
        (PEOPLE, MODEL, ("--similarity", "nowhere"), r"--similarity: 'nowhere' does not fit; expected path/to/file.py:function"),
        (PEOPLE, MODEL, ("--similarity", "{broken}:f"), r"broken.py, --similarity: fails: SyntaxError"),
        (PEOPLE, MODEL, ("--similarity", "{whole}:g"), r"whole.py, --similarity: no function 'g'"),
        (PEOPLE, MODEL, ("--annotations", "nowhere.csv"), r"nowhere.csv: no such file"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_its_place(call, tmp_path, people, model, more, message):
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "whole.py").write_text("def f(one, other):\n    return 1\n")
    files = {name: str(tmp_path / f"{name}.py") for name in ("broken", "whole")}
    with pytest.raises(UserError, match=message) as refused:
        call(people, model, *(word.format(**files) for word in more))
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out.json").exists()


def test_a_nested_label_is_no_label(call):
    with pytest.raises(UserError, match=r"people.jsonl, line 1, column 'label': {'a': 1} is not a single value"):
        call([{**LABELLED, "label": {"a": 1}}], MODEL, form="jsonl")


def test_exit_status(tmp_path):
    def run(*words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "common.agreement", *words]
        return subprocess.run(
            command, cwd=Path(__file__).parents[3], env={**os.environ}, capture_output=True, text=True, timeout=60
        )

    write_rows(tmp_path / "people.csv", PEOPLE)
    write_rows(tmp_path / "model.csv", MODEL)
    files = ["--annotations", str(tmp_path / "people.csv"), "--predictions", str(tmp_path / "model.csv")]
    good = run(*files, "--output", str(tmp_path / "out.json"))
    assert good.returncode == 0, good.stderr
    assert json.loads((tmp_path / "out.json").read_text())["name"] == "agreement"
    bad = run(*files, "--label_column", "none")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.startswith("error: ")
    assert len(bad.stderr.splitlines()) == 1
