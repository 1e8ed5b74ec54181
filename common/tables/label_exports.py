"""Read people's labels as labeling tools export them, a row per person and item like a table with labels.

Formats, by what a record has: Label Studio's JSON (``annotations``, a list) and JSON-MIN (``annotation_id``), Prodigy's JSON Lines
(``answer``: accept, reject or ignore) and doccano's (``label``, a list). Other records are rows as they are. An item that a person
skipped, or that nobody has labeled yet, is a row without a label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.cli.errors import UserError, file_name, shown
from common.tables.reading import FORMATS, JSON, READ_ONLY, Row, read_rows, suffix_of
from common.tables.spreadsheet import warn_once

ANNOTATOR = "annotator"  # column of people
NONE = "none"  # a list of labels without any


def read_label_rows(path: Path, question: str, columns: Sequence[str] = ()) -> Iterator[Row]:
    """Yield the rows of a file of people's labels, or of all files of a folder.

    Args:
        path: A table, an export of a labeling tool (.json or .jsonl), or a folder with one file per person. There, a row that does
            not say who labeled it is by the person after whom the file is named.
        question: Column of the labels, and name of the question in the tool.
        columns: Further columns that must exist.

    Raises:
        UserError: No file, no such column, or a record of a tool that can't be read.
    """
    path = Path(path)
    is_folder = path.is_dir()
    for file in _files(path):
        suffix = _suffix(file)
        exports = suffix == ".jsonl"
        for row in read_rows(file, () if exports else (*columns, question), suffix=suffix if exports else None):
            if exports and "annotation_id" in row.values and "id" in columns:
                problem = "Label Studio's JSON-MIN has its own number in place of this column"
                raise row.error(problem, "id", expected="the id of the text", fix="export as JSON or CSV instead")
            for each in _unpacked(row, question) if exports else (row,):
                if exports:
                    _check(each, (*columns, question))
                if is_folder and not each.values.get(ANNOTATOR):
                    each = replace(each, values=each.values | {ANNOTATOR: Path(file.name.removesuffix(".gz")).stem})
                yield each


def is_export(path: Path) -> bool:
    """Return whether a file, or the first one of a folder, is an export of a labeling tool."""
    file = _files(Path(path))[0]
    if _suffix(file) != ".jsonl":
        return False
    row = next(iter(read_rows(file, suffix=".jsonl", lenient=True)), None)
    values = row.values if row else {}
    answered = values.get("answer") in ("accept", "reject", "ignore")
    return (
        "annotation_id" in values
        or answered
        or any(isinstance(values.get(name), list) for name in ("annotations", "label"))
    )


def label_columns(path: Path) -> list[str]:
    """Return the columns of a file of people's labels; of an export of Label Studio also the names of questions."""
    columns: dict[str, None] = {}
    for file in _files(Path(path)):
        suffix = _suffix(file)
        for row in read_rows(file, suffix=suffix if suffix == ".jsonl" else None):
            annotations = row.values.get("annotations")
            for annotation in annotations if isinstance(annotations, list) else ():
                results = annotation.get("result") if isinstance(annotation, Mapping) else None
                columns |= dict.fromkeys(
                    str(each.get("from_name")) for each in results or () if isinstance(each, Mapping)
                )
            columns |= dict.fromkeys(row.values)
            if suffix != ".jsonl":  # records may differ, rows of a table do not
                break
    if not columns:
        raise UserError("no rows", file=path, expected="at least one")
    return list(columns)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
    readable = [each for each in files if _suffix(each) in (*FORMATS, *READ_ONLY)]
    if not readable:
        raise UserError("no files", file=path, expected="one file per person")
    if left := [each.name for each in files if each not in readable]:
        names = ", ".join(left[:3]) + (", …" if len(left) > 3 else "")
        warn_once(f"{file_name(path)}: left out, because their endings name no format that is read: {names}")
    return readable


def _suffix(file: Path) -> str:
    suffix = suffix_of(file)
    return ".jsonl" if suffix in JSON else suffix


def _check(row: Row, columns: Sequence[str]) -> None:
    for column in columns:
        if column not in row.values:
            expected = f"it among {shown(list(row.values), 200)}"
            raise row.error("missing", column, expected, fix="check the names of the question and of the key column")


def _unpacked(row: Row, question: str) -> Iterator[Row]:
    """Yield a record's rows: one for each person who labeled it."""
    values = row.values
    if isinstance(values.get("annotations"), list) and isinstance(values.get("data"), Mapping):
        yield from _label_studio(row, question)
    elif "annotation_id" in values:
        yield replace(row, values=values | {question: _text(values.get(question))})
    elif isinstance(values.get("answer"), str) and values["answer"] in ("accept", "reject", "ignore"):
        yield replace(row, values=_prodigy(values, question))
    elif isinstance(values.get("label"), list):
        further = {name: value for name, value in values.items() if name != "label"}
        if isinstance(further.get("meta"), Mapping):
            further |= further.pop("meta")
        yield replace(row, values={**further, question: _text(values["label"])})
    else:
        yield row


def _label_studio(row: Row, question: str) -> Iterator[Row]:
    """Yield a task's rows; of several annotations by a person, the last one counts."""
    data = dict(row.values["data"])
    people: dict[Any, dict[str, Any]] = {}
    for number, annotation in enumerate(row.values["annotations"]):
        if not isinstance(annotation, Mapping) or not isinstance(annotation.get("result", []), list):
            raise row.error("an annotation without a result", "annotations", expected="an export of Label Studio")
        who = annotation.get("completed_by")
        if isinstance(who, Mapping):
            who = who.get("email") or who.get("id")
        who = f"annotation {number + 1}" if who is None else str(who)
        label = None if annotation.get("was_cancelled") else _result(row, annotation.get("result", []), question)
        people.pop(who, None)
        people[who] = {question: label, ANNOTATOR: who}
    for given in people.values() or [{question: None}]:
        yield replace(row, values=data | given)


def _result(row: Row, results: Sequence[Any], question: str) -> str | None:
    """Return the answer to a question; an empty list of choices is "none" where several may be chosen, which readers decide."""
    chosen: list[str] = []
    for result in results:
        if not isinstance(result, Mapping) or result.get("from_name") != question:
            continue
        value = result.get("value")
        if not isinstance(value, Mapping):
            raise row.error("a result without a value", question, expected="an export of Label Studio")
        for key in ("choices", "text", "rating"):
            given = value.get(key, [])
            chosen += list(map(str, given)) if isinstance(given, list) else [str(given)]
    return ", ".join(chosen) if chosen else NONE


def _prodigy(values: Mapping[str, Any], question: str) -> dict[str, Any]:
    """Return a task with its metadata as columns. An accepted task without options is labeled with its label."""
    further = {name: value for name, value in values.items() if not isinstance(value, (list, dict))}
    further |= values["meta"] if isinstance(values.get("meta"), Mapping) else {}
    who = values.get("_annotator_id") or values.get("_session_id")
    label: Any = None
    if values["answer"] == "accept":
        label = values["accept"] if isinstance(values.get("accept"), list) else values.get("label")
    return {**further, question: _text(label), **({ANNOTATOR: str(who)} if who else {})}


def _text(value: Any) -> str | None:
    """Return a tool's answer as a cell: a list of labels separated by commas."""
    if isinstance(value, Mapping):
        value = value.get("choices", value.get("text"))
    if isinstance(value, list):
        return ", ".join(map(str, value)) or NONE
    return None if value is None else str(value)
