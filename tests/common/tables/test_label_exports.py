"""Test that exports of labeling tools are read like tables of people's labels."""

from __future__ import annotations

import functools
import json

import pytest

from common.cli.errors import UserError
from common.stats.votes import read_votes
from common.tables.label_exports import label_columns, read_label_rows
from common.tables.writing import write_rows


def rows(path, question="tone", columns=("id",)):
    return [
        (str(row.values["id"]), row.values.get("annotator"), row.values[question])
        for row in read_label_rows(path, question, columns)
    ]


def choices(*labels, name="tone"):
    value = {"choices": list(labels)}
    return {"id": "r1", "from_name": name, "to_name": "text", "type": "choices", "origin": "manual", "value": value}


def annotation(who, *results, **more):
    return {"id": 1, "completed_by": who, "was_cancelled": False, "lead_time": 2.1, "result": list(results)} | more


def task(number, *annotations, **more):
    data = {"id": number, "post": f"post {number}", "sampling_probability": 0.25}
    rest = {"predictions": [], "drafts": [], "meta": {}, "total_annotations": len(annotations)}
    return {"id": 100 + number, "data": data, "annotations": list(annotations)} | rest | more


LABEL_STUDIO = [
    task(1, annotation(1, choices("Rude")), annotation({"id": 2, "email": "bo@example.org"}, choices("Kind"))),
    task(2, annotation(1, choices("Rude")), annotation(1, choices("Kind"), id=2)),  # changed: the last one counts
    task(3, annotation(1, was_cancelled=True)),
    task(4),
    task(5, annotation(3, choices("Rude", name="other"), choices("Kind"))),
]


def test_label_studio_json(tmp_path):
    (tmp_path / "export.json").write_text(json.dumps(LABEL_STUDIO), encoding="utf-8")
    assert rows(tmp_path / "export.json") == [
        *[("1", "1", "Rude"), ("1", "bo@example.org", "Kind"), ("2", "1", "Kind"), ("3", "1", None), ("4", None, None)],
        ("5", "3", "Kind"),
    ]


def test_several_choices_are_a_list_and_none_is_a_label_of_its_own(tmp_path):
    tasks = [task(1, annotation(1, choices("A", "B"))), task(2, annotation(1))]
    (tmp_path / "export.json").write_text(json.dumps(tasks), encoding="utf-8")
    assert [label for _, _, label in rows(tmp_path / "export.json")] == ["A, B", "none"]


def test_label_studio_json_min(tmp_path):
    flat = {"post": "a", "annotation_id": 7, "lead_time": 1.5, "created_at": "2026-01-01T00:00:00Z"}
    records = [
        {"id": 1, "annotator": 4, "tone": "Rude"} | flat,
        {"id": 2, "annotator": 4, "tone": {"choices": ["Rude", "Kind"]}} | flat,
        {"id": 3, "annotator": 4, "tone": None} | flat,
    ]
    records = [{"number": record["id"], **record} for record in records]
    (tmp_path / "min.json").write_text(
        json.dumps([{"id": 9, "annotator": None, "annotation_id": None}, *records]), encoding="utf-8"
    )
    assert [(row.values["annotator"], row.values["tone"]) for row in read_label_rows(tmp_path / "min.json", "tone")][
        1:
    ] == [*[(4, "Rude"), (4, "Rude, Kind"), (4, None)]]
    assert {"tone", "annotator"} <= set(label_columns(tmp_path / "min.json"))
    with pytest.raises(UserError, match="its own number in place of this column"):
        rows(tmp_path / "min.json")


def test_prodigy(tmp_path):
    shared = {"text": "a", "_input_hash": 1, "_task_hash": 2, "_view_id": "choice"}
    options = {"options": [{"id": "Rude", "text": "Rude"}, {"id": "Kind", "text": "Kind"}]}
    records = [
        {"meta": {"id": 1}, "accept": ["Rude"], "answer": "accept", "_annotator_id": "tone-ann"} | shared | options,
        {"meta": {"id": 2}, "accept": ["Rude"], "answer": "ignore", "_session_id": "tone-bo"} | shared | options,
        {"meta": {"id": 3}, "accept": [], "answer": "reject"} | shared | options,
        {"meta": {"id": 4}, "label": "Kind", "answer": "accept"} | shared,
        {"meta": "a forum", "id": 5, "label": "Kind", "answer": "accept"} | shared,
    ]
    text = "".join(f"{json.dumps(record)}\n" for record in records)
    (tmp_path / "prodigy.jsonl").write_text(text, encoding="utf-8")
    assert rows(tmp_path / "prodigy.jsonl") == [
        *[
            ("1", "tone-ann", "Rude"),
            ("2", "tone-bo", None),
            ("3", None, None),
            ("4", None, "Kind"),
            ("5", None, "Kind"),
        ],
    ]


def test_doccanos_file_per_person(tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    for who, label in (("ann", ["Rude"]), ("bo", [])):
        record = {"id": 9, "text": "a", "meta": {"id": 1}, "label": label, "Comments": []}
        (folder / f"{who}.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    assert rows(folder) == [("1", "ann", "Rude"), ("1", "bo", "none")]
    record = {"id": 9, "text": "a", "meta": "a forum", "label": ["Rude"]}
    (folder / "bo.jsonl").write_text(json.dumps(record) + "\n", encoding="utf-8")
    assert rows(folder) == [("1", "ann", "Rude"), ("9", "bo", "Rude")]


def test_a_folder_of_tables_names_people_by_their_files(tmp_path, capsys):
    for who, label in (("j.doe", "Rude"), ("j.smith", "Kind")):
        write_rows(tmp_path / f"{who}.csv.gz", [{"id": 1, "tone": label}, {"id": 2, "tone": ""}])
    expected = [("1", "j.doe", "Rude"), ("2", "j.doe", ""), ("1", "j.smith", "Kind"), ("2", "j.smith", "")]
    assert rows(tmp_path) == expected
    assert capsys.readouterr().err == ""
    read = functools.partial(read_label_rows, tmp_path, "tone", ("id",))
    votes = read_votes(tmp_path, item="id", label="tone", annotator="annotator", rows=read)
    assert votes.labels == {"1": {"j.doe": "rude", "j.smith": "kind"}}
    assert votes.missing.total() == 2
    (tmp_path / "bo.txt").write_text("id\ttone\n1\tKind\n", encoding="utf-8")
    for _ in range(2):
        assert rows(tmp_path) == expected
    assert capsys.readouterr().err.count("their endings name no format that is read: bo.txt") == 1


def test_records_that_cannot_be_read_name_their_place(tmp_path):
    path = tmp_path / "export.json"
    for record, problem in (
        (task(1, "x"), "an annotation without a result"),
        (task(1, annotation(1, {"from_name": "tone", "value": 3})), "a result without a value"),
        ({"annotations": [], "data": {"post": "a"}}, "column 'id': missing"),
        ({"id": 1, "post": "a"}, "column 'tone': missing"),
    ):
        path.write_text(json.dumps([record], indent=1), encoding="utf-8")
        with pytest.raises(UserError, match=problem) as caught:
            rows(path)
        assert "line 2" in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no files; expected one file per person"):
        rows(tmp_path / "empty")
