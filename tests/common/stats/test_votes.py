"""Votes from tables: spellings, missing votes and repeated rows are read by one rule, and said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.cli.errors import UserError
from common.stats.scale import Scale
from common.stats.votes import Votes, folded, read_tables, read_votes
from common.tables.writing import write_rows

COLUMNS = {"item": "item", "annotator": "annotator", "label": "label"}


def rows(*votes: tuple[object, str, object]) -> list[dict[str, object]]:
    return [dict(zip(("item", "annotator", "label"), vote, strict=True)) for vote in votes]


@pytest.fixture
def read(tmp_path):
    """Reads people's votes and a model's labels on a scale; returns both as item → labels, and the notes."""

    def tables(people: list[dict], model: list[object], scale: Scale = Scale()) -> tuple[dict, dict, list[str]]:  # noqa: B008
        write_rows(tmp_path / "people.csv", people)
        write_rows(tmp_path / "model.csv", [{"item": n, "answer": label} for n, label in enumerate(model)])
        files = (tmp_path / "people.csv", tmp_path / "model.csv")
        *votes, notes = read_tables(*files, scale, **COLUMNS, prediction="answer")
        return *({name: [*given.values()] for name, given in each.labels.items()} for each in votes), notes

    return tables


def test_labels_that_differ_in_case_and_spaces_are_one(read):
    """The most frequent spelling of people names the label in both files."""
    votes = [
        (n, who, spelled)
        for n in range(3)
        for who, spelled in (("a", "No"), ("b", " NO"), ("c", "No\u200b"), ("d", "No"))
    ]
    people, model, notes = read(rows(*votes, (3, "a", "Not  offensive"), (3, "b", "not offensive")), ["no", "NO", "no"])
    assert people == {**{str(n): ["No"] * 4 for n in range(3)}, "3": ["Not  offensive"] * 2}
    assert model == {str(n): ["No"] for n in range(3)}
    assert notes[0] == "Labels in people.csv: No 12, Not  offensive 2."
    assert "Spellings of one label in people.csv: No 6, NO 3, No\u200b 3; Not  offensive 1, not offensive 1." in notes
    assert "Spellings of one label in model.csv: no 2, NO 1." in notes
    assert folded("É\tA") == folded("e\u0301 a")


@pytest.mark.parametrize("word", ["NA", "n/a", "NaN", "null", "None", "<NA>", " ", "\u200b"])
def test_a_missing_vote_is_no_label(read, word):
    people, model, notes = read(rows((0, "a", "Y"), (0, "b", word), (1, "a", "N")), ["Y", "N"])
    assert (people, model) == ({"0": ["Y"], "1": ["N"]}, {"0": ["Y"], "1": ["N"]})
    written = f" ({word} 1)" if word.strip() else ""
    assert f"Of 3 rows in people.csv: 1 without a label{written}, skipped." in notes


def test_a_word_for_a_missing_vote_is_a_label_where_both_files_or_the_order_have_it(read):
    votes = rows((0, "a", "none"), (0, "b", "None"), (1, "a", "some"), (1, "b", "NA"))
    people, model, notes = read(votes, ["none", "some"])
    assert (people, model) == ({"0": ["None", "None"], "1": ["some"]}, {"0": ["None"], "1": ["some"]})
    assert "'none' is in both files, so it counts as a label." in notes
    people, model, _ = read(votes, ["some", "some"], Scale("ordinal", ("none", "some")))
    assert (people, model) == ({"0": ["none", "none"], "1": ["some"]}, {"0": ["some"], "1": ["some"]})
    with pytest.raises(UserError, match=r"--order: labels that differ only in case or spaces"):
        read(votes, ["some"], Scale("ordinal", ("none", "None")))


def test_numbers_are_one_label_however_they_are_written(read):
    people, model, notes = read(
        rows((0, "a", "1"), (0, "b", "1.0"), (1, "a", "nan"), (1, "b", "2")), ["1.00", "2"], Scale("ordinal")
    )
    assert (people, model) == ({"0": [1, 1], "1": [2]}, {"0": [1], "1": [2]})
    assert notes[0] == "Labels in people.csv: 1 2, 2 1."


def test_ids_that_do_not_match_are_shown_side_by_side(read):
    *_, notes = read(rows(("0", "a", "Y"), ("1.0", "a", "Y"), ("2.0", "a", "N")), ["Y", "Y", "N"])
    assert "Most items match no prediction: compare '1.0' in people.csv with '1' in model.csv." in notes


def votes_of(path: Path, table: list[dict], **settings: object) -> Votes:
    write_rows(path, table)
    return read_votes(path, item="item", label="label", **{"annotator": "annotator", **settings})


def test_a_repeated_row_counts_once_and_a_contradiction_is_refused(tmp_path):
    table = rows((0, "x", "Yes"), (0, "x", "yes"), (0, "y", "No"), (0, "x", "NA"))
    votes = votes_of(tmp_path / "v.csv", table)
    assert votes.labels == {"0": {"x": "yes", "y": "no"}}
    assert (votes.rows, votes.repeated, votes.missing) == (4, 1, {"NA": 1})
    message = r"v.csv, line 6, column 'label': item '0' by annotator 'x' is labeled 'No' here and 'Yes' in an earlier row \(line 2"
    with pytest.raises(UserError, match=message):
        votes_of(tmp_path / "v.csv", [*table, *rows((0, "x", "No"))])
    with pytest.raises(UserError, match=r"v.parquet, row 5, column .* in an earlier row \(row 1\)"):
        votes_of(tmp_path / "v.parquet", [*table, *rows((0, "x", "No"))])
    anonymous = votes_of(tmp_path / "v.csv", table, annotator=None, anonymous=True)
    assert [*anonymous.labels["0"].values()] == ["yes", "yes", "no"], "without names every row is another person's"
    with pytest.raises(
        UserError, match=r"line 4, column 'label': item '0' is labeled 'No' here and 'Yes' in an earlier"
    ):
        votes_of(tmp_path / "v.csv", table, annotator=None)


def test_a_table_of_a_header_alone_is_named(tmp_path):
    (tmp_path / "v.csv").write_text("item,label\n")
    with pytest.raises(UserError, match=r"v\.csv: no rows; expected at least one below the header"):
        read_votes(tmp_path / "v.csv", item="item", label="label")


def test_an_export_and_a_folder_of_people_are_tables_of_votes(tmp_path):
    """Skipped and untouched tasks are missing votes, and a file's name is the person's."""

    def task(number: int, *given: tuple[int, str | None]) -> dict:
        value = lambda label: {"from_name": "tone", "type": "choices", "value": {"choices": [label]}}  # noqa: E731
        annotations = [
            {"completed_by": who, "result": [value(label)] if label else [], "was_cancelled": not label}
            for who, label in given
        ]
        return {"id": 50 + number, "data": {"item": number, "post": "x"}, "annotations": annotations}

    tasks = [task(1, (7, "Rude"), (8, "Kind")), task(2, (7, None)), task(3), task(4, (8, "Kind"))]
    (tmp_path / "export.json").write_text(json.dumps(tasks), encoding="utf-8")
    write_rows(tmp_path / "model.csv", [{"item": n, "answer": "Kind"} for n in range(1, 5)])
    names = {"item": "item", "annotator": "annotator", "label": "tone", "prediction": "answer"}
    people, _, notes = read_tables(tmp_path / "export.json", tmp_path / "model.csv", Scale(), **names)
    assert people.labels == {"1": {"7": "Rude", "8": "Kind"}, "4": {"8": "Kind"}}
    assert "Of 5 rows in export.json: 2 without a label, skipped." in notes
    for who, label in (("ann", "Rude"), ("bob", "Kind")):
        write_rows(tmp_path / "people" / f"{who}.csv", [{"item": 1, "tone": label}])
    people, *_ = read_tables(tmp_path / "people", tmp_path / "model.csv", Scale(), **names)
    assert people.labels == {"1": {"ann": "Rude", "bob": "Kind"}}


def test_an_export_names_people_in_its_own_column_or_is_refused(tmp_path):
    write_rows(tmp_path / "model.csv", [{"id": 1, "tone": "Kind"}])
    names = {"item": "id", "annotator": "worker", "label": "tone", "prediction": "tone"}
    record = {"id": 1, "text": "a", "label": ["Rude"]}
    (tmp_path / "people").mkdir()
    path = tmp_path / "people" / "ann.jsonl"
    path.write_text(json.dumps(record) + "\n")
    assert read_tables(path.parent, tmp_path / "model.csv", Scale(), **names)[0].labels == {"1": {"ann": "Rude"}}
    with pytest.raises(UserError, match=r"ann.jsonl, line 1, column 'annotator': missing; .* a file for each person"):
        read_tables(path, tmp_path / "model.csv", Scale(), **names)
    path.write_text(json.dumps(record | {"meta": {"worker": "w1"}}) + "\n")
    assert read_tables(path, tmp_path / "model.csv", Scale(), **names)[0].labels == {"1": {"w1": "Rude"}}
