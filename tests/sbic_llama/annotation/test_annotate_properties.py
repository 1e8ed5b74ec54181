"""Test annotating arbitrary files: refused in one line, or each row gets an answer or a reason.

The model is a stand-in that is as strict about posts as the real one, which test_annotate.py has.
"""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.cli.errors import UserError
from common.tables.reading import read_rows
from common.tables.writing import _finite
from sbic_llama.annotation import input
from sbic_llama.annotation import parts as annotation
from sbic_llama.annotation.input import RowFormat, survey
from sbic_llama.annotation.parts import claimed
from sbic_llama.data.corpus import clean
from sbic_llama.data.features import FEATURES
from sbic_llama.data.texts import LONGEST_POST, TextColumns, shortened
from sbic_llama.model.annotator import Adapter
from tests.rubbish import check_refusal, dumped, json_values, mutated, names, parquet_tables, texts

pytestmark = pytest.mark.properties
OFFENSIVE = FEATURES["offensiveYN"]
POST = TextColumns(("post",))
ENDINGS = ("csv", "tsv.gz", "jsonl", "parquet")


class StandIn:
    """Answers like an annotator with one adapter, and fails on text that a tokenizer would reject."""

    adapters = (Adapter("offensiveYN", Path(), None, OFFENSIVE),)  # type: ignore[arg-type]
    cut = 0

    def annotate_window(self, posts: list[str]) -> list[dict[str, Any]]:
        details = {f"probability_{label}": 1 / 3 for label in OFFENSIVE.labels}
        assert all(clean(post).encode() for post in posts)
        return [self.adapters[0].row(len(post) % 3, details) for post in posts]


ADAPTERS = StandIn.adapters
NEW = list(annotation.new_columns(ADAPTERS, [], "model_", review=False))


def annotated(source: Path, output: Path) -> list[dict[str, Any]]:
    """Return the rows of an annotated file, as written.

    Raises:
        UserError: The file is refused.
    """
    parts = output.with_name("parts")
    shutil.rmtree(parts, ignore_errors=True)
    result = survey(source, POST, strict=False)
    run, rule, model = (
        annotation.AnnotationJob([result], parts, output, False),
        RowFormat(POST, "model_", {}),
        StandIn(),
    )
    with claimed(parts, {"posts": result.digest}):
        made = (input.annotated(window, model, rule) for window in input.windows([result], run.missing(), POST))
        run.keep(made, total=result.rows, done=0, show=False)
        run.assemble(annotation.new_columns(ADAPTERS, [result], "model_", review=False), "model_")
    return [row.values for row in read_rows(output)]


def check(source: Path, ending: str) -> list[dict[str, Any]] | None:
    output = source.with_name(f"out.{ending}")
    output.unlink(missing_ok=True)
    try:
        rows = annotated(source, output)
    except UserError as error:
        check_refusal(error, source)
        return None
    given = list(read_rows(source, lenient=True))
    columns = list(dict.fromkeys(name for row in given for name in row.values))
    if ending != "jsonl" and "\0" in "".join(columns):
        return None  # a name that CSV can't hold
    raw = ["model_raw_record"] if any(row.raw is not None for row in given) else []
    assert len(rows) == len(given), "rows in = rows out"
    for row, before in zip(rows, given, strict=True):
        assert list(row) == [*columns, *NEW, *raw] or ending == "jsonl"
        kept = (before.raw or "").replace("\0", "\ufffd")
        assert (row.get("model_raw_record") or "") == kept
        answer, reason = row[NEW[0]], row["model_problem"]
        assert bool(answer) != bool(reason), "an answer or a reason"
        if answer:
            assert answer == OFFENSIVE.labels[len(shortened(before.values["post"])) % 3], "of its own row"
    return rows


TABLE = 'id,post\n1,a quiet day\n2,\n3,"two\nlines"\n4\n5,a,b\n6,\xa0\n7,=1+1\n'.encode()


@pytest.mark.parametrize("ending", ENDINGS)
@given(data=mutated(TABLE))
@example(data=TABLE)
def test_tables_of_text(tmp_path, ending, data):
    (tmp_path / "in.csv").write_bytes(data)
    check(tmp_path / "in.csv", ending)


@pytest.mark.parametrize("ending", ENDINGS)
@given(rows=st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=4))
@example(rows=[("a\rb", "\ufeff", "x")])
def test_cells_of_any_text_come_back(tmp_path, ending, rows):
    rows = [[cell.replace("\0", "") for cell in row] for row in rows]
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([["id", "post", "note"], *rows])
    (tmp_path / "in.csv").write_bytes(buffer.getvalue().encode())
    result = check(tmp_path / "in.csv", ending)
    assert result is not None
    assert [[row["id"], row["post"], row["note"]] for row in result] == rows


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_column_named_like_that_of_malformed_records_is_kept(tmp_path, ending):
    (tmp_path / "in.csv").write_text("post,model_raw_record\na quiet day,mine\n")
    (row,) = annotated(tmp_path / "in.csv", tmp_path / f"out.{ending}")
    assert row["model_raw_record"] == "mine"


lines = st.dictionaries(st.one_of(names, st.sampled_from(("post", "id"))), st.one_of(texts, json_values), max_size=4)


@pytest.mark.parametrize("ending", ENDINGS)
@given(rows=st.lists(lines, min_size=1, max_size=4))
@example(rows=[{"post": "a", "n": 2**63}, {"post": "b", "n": 1}])
@example(rows=[{"post": "a", "n": 2**53 + 1}, {"post": "b", "n": 0.5}])
@example(rows=[{"post": "a", "n": 10**400}, {"post": "b", "n": 0.5}])
@example(rows=[{"post": "a", "n": {"b": "\ud83d"}}])
@example(rows=[{"post": "\x01&nbsp;\u2028"}])
@example(rows=[{"post": "a", "": 1, "\n": {}}])
def test_json_lines_of_anything(tmp_path, ending, rows):
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(map(dumped, rows)))
    result = check(tmp_path / "in.jsonl", ending)
    if result is not None and ending == "jsonl":
        for row, before in zip(result, rows, strict=True):
            assert row["model_problem"] or repr({name: row[name] for name in before}) == repr(_finite(before))


@pytest.mark.parametrize("ending", ENDINGS)
@given(table=parquet_tables(), data=st.data())
def test_parquet_of_every_type(tmp_path, ending, table, data):
    posts = [data.draw(st.one_of(st.none(), texts)) for _ in range(table.num_rows)]
    if "post" not in table.column_names:
        table = table.append_column("post", pyarrow.array(posts, pyarrow.string()))
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    result = check(tmp_path / "in.parquet", ending)
    if result is not None and ending == "parquet":
        before, after = (pyarrow.parquet.read_table(tmp_path / f"{name}.parquet") for name in ("in", "out"))
        kept = [
            name
            for name, kind in zip(before.column_names, before.schema.types, strict=True)
            if kind != pyarrow.time64("ns")
        ]
        assert after.select(kept).schema.types == before.select(kept).schema.types
        assert after.select(kept).to_pylist().__repr__() == before.select(kept).to_pylist().__repr__()


CHANGES = {
    "reordered": lambda rows: rows[::-1],
    "shorter": lambda rows: rows[:-1],
    "longer": lambda rows: [*rows, "9\n"],
    "another post": lambda rows: [*rows[:-1], "9\n"],
    "another column": lambda rows: [*rows[:-1], rows[-1][:-1] + ",x\n"],
}


@pytest.mark.parametrize("at", ["start", "part", "end"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("count", [input.WINDOW + 3, 2 * input.WINDOW])
def test_no_row_gets_the_answer_of_another_post(tmp_path, change, at, count):
    """Another program replaces the file when it has been surveyed, when a part is made, or when all are."""
    source, new, rows = tmp_path / "in.csv", tmp_path / "new.csv", [f"{number}\n" for number in range(count)]
    source.write_text("".join(["post\n", *rows]))
    new.write_text("".join(["post\n", *CHANGES[change](rows)]))
    file = survey(source, POST, strict=False)
    job = annotation.AnnotationJob([file], tmp_path / "parts", tmp_path / "out.csv", False)
    events = {"start": None, "part": 1, "end": len(job.parts())}

    def parts() -> Any:
        for number, window in enumerate(input.windows([file], job.missing(), POST), 1):
            yield input.annotated(window, StandIn(), RowFormat(POST, "model_", {}))
            if number == events[at]:
                new.rename(source)

    if at == "start":
        new.rename(source)

    def run() -> None:
        job.keep(parts(), total=count, done=0, show=False)
        job.assemble(annotation.new_columns(ADAPTERS, [file], "model_", review=False), "model_")

    with pytest.raises(UserError, match=r"in\.csv: the posts changed while they were being annotated"):
        run()
    assert not (tmp_path / "out.csv").exists()
    assert len(job.parts()) - len(job.missing()) >= (events[at] or 0), "parts are kept"


class Counting(StandIn):
    """Counts the posts that it answers."""

    def __init__(self) -> None:
        self.posts: list[str] = []

    def annotate_window(self, posts: list[str]) -> list[dict[str, Any]]:
        self.posts += posts
        return super().annotate_window(posts)


@pytest.mark.parametrize("remembered", [0, 7, 40, 1000])
def test_equal_posts_are_answered_once_and_get_the_same_row(tmp_path, monkeypatch, remembered):
    """Whatever is remembered, the output is the same; the parts are the same in any order, as when runs are continued."""
    source, draw = tmp_path / "in.csv", random.Random(0)
    posts = ["a" * draw.randrange(50) for _ in range(4 * input.WINDOW + 9)]  # the empty one is a problem
    source.write_text("".join(f"{post}\n" for post in ["post,n", *(f"{post},{n}" for n, post in enumerate(posts))]))
    monkeypatch.setattr(input, "REMEMBERED", remembered)
    file = survey(source, POST, strict=False)
    format, texts = RowFormat(POST, "model_", {}), []
    for order in ("one run", "alone, last first"):
        job = annotation.AnnotationJob([file], tmp_path / order, tmp_path / f"{order}.csv", False)
        model, wanted = Counting(), [job.parts()] if order == "one run" else [[part] for part in job.parts()[::-1]]
        for some in wanted:
            parts = (input.annotated(window, model, format) for window in input.windows([file], some, POST))
            job.keep(parts, total=file.rows, done=0, show=False)
        assert len(model.posts) == len(set(model.posts)) or remembered < 50
        assert len(model.posts) < sum(map(bool, posts)) or not remembered
        texts.append([job.part(*part).read_text() for part in job.parts()])
        job.assemble(annotation.new_columns(ADAPTERS, [file], "model_", review=False), "model_")
        for row, post in zip(read_rows(job.output), posts, strict=True):
            assert row.values["model_offensiveYN"] == (OFFENSIVE.labels[len(post) % 3] if post else "")
            assert row.values["model_problem"] == ("" if post else "no text")
    assert texts[0] == texts[1]


def test_the_parts_of_each_file_are_looked_up_once(tmp_path):
    """Reading the parts of many files takes as many steps as there are files, and gives each file its own."""
    asked: list[int] = []

    class Counted(input.Survey):
        def __getattribute__(self, name: str) -> Any:
            asked.extend([1] if name == "rows" else [])
            return super().__getattribute__(name)

    counts = [1, input.WINDOW + 1, 2 * input.WINDOW] * 7
    files = [Counted(tmp_path / f"{number:02}.csv", rows=rows) for number, rows in enumerate(counts)]
    job = annotation.AnnotationJob(files, tmp_path / "parts", tmp_path / "out", True)
    for file, number in job.parts():
        job.part(file, number).parent.mkdir(parents=True, exist_ok=True)
        job.part(file, number).write_text(json.dumps({"part": [file, number]}) + "\n")
    asked.clear()
    assert [tuple(row["part"]) for row in job.annotations()] == job.parts()
    assert len(asked) == 2 * len(files), "once for the rows, once for the list"


@pytest.mark.parametrize(("more", "marked"), [(0, False), (1e-6, True)])
def test_a_row_exactly_at_the_threshold_needs_no_review(more, marked):
    (row,) = StandIn().annotate_window(["a quiet day"])
    sure = ADAPTERS[0].confidence({name: round(v, 6) if isinstance(v, float) else v for name, v in row.items()})
    rule = RowFormat(POST, "", {"offensiveYN": sure + more})
    made = input.annotated(input.Window(0, 0, [None], [None], ["a quiet day"]), StandIn(), rule)
    assert json.loads(made.text)["needs_review"] is marked


def test_posts_of_megabytes_are_cut_before_they_are_held_together(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(dumped({"post": text * 10**6}) for text in ("a b ", " ")))
    (window,) = input.windows([survey(tmp_path / "in.jsonl", POST, strict=False)], [(0, 0)], POST)
    assert window.reasons == [None, "no text"]
    assert window.posts == [("a b " * 10**5)[:LONGEST_POST]]


def test_columns_of_json_lines_are_limited(tmp_path):
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(dumped({"post": "a", f"c{n}": n}) for n in range(11_000)))
    with pytest.raises(UserError, match=r"in\.jsonl, line 10000: more than 10,000 different columns"):
        survey(tmp_path / "in.jsonl", POST, strict=False)


def test_a_field_of_megabytes(tmp_path):
    long = "florbs " * 500_000
    (tmp_path / "in.csv").write_text(f'id,post,"{long}"\n1,"{long}",x\n')
    (row,) = check(tmp_path / "in.csv", "csv") or ()
    assert row["post"] == long
    (tmp_path / "in.jsonl").write_text(json.dumps({"post": long, "note": [long]}) + "\n")
    (row,) = check(tmp_path / "in.jsonl", "parquet") or ()
    assert row["post"] == long
