"""Test annotating files: all formats, rows in = rows out, and killed runs."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from common.cli.errors import UserError
from common.tables.reading import read_rows
from common.tables.writing import write_rows
from sbic_llama import annotate
from sbic_llama.annotation.input import WINDOW
from sbic_llama.annotation.parts import AnnotationJob
from sbic_llama.annotation.run import parts_of
from sbic_llama.data.corpus import load_splits
from tests import forked
from tests.rubbish import NASTY, SURROGATES, dumped

ROOT = Path(__file__).parents[3]
NEW = [
    "model_offensiveYN",
    "model_offensiveYN_probability_Offensive",
    "model_offensiveYN_probability_Maybe offensive",
    "model_offensiveYN_probability_Not offensive",
    "model_problem",
]


@pytest.fixture(scope="module")
def adapter(trained_adapters) -> Path:
    return trained_adapters / "offensiveYN"


@pytest.fixture(scope="module")
def posts(miniature) -> list[str]:
    return [post.text for post in load_splits(data_dir=miniature / "SBIC.v2")["test"].posts]


@pytest.fixture
def call(adapter, monkeypatch):
    def run(source: Path | str, output: Path | str, *more: object) -> None:
        adapters = [] if "--adapter" in more else ["--adapter", adapter]
        words = [source, *adapters, "--output", output, *more]
        monkeypatch.setattr("sys.argv", ["annotate", *map(str, words)])
        annotate.main()

    return run


ROWS = [
    {"id": 7, "post": 'the florbs sing, "loudly"\nby the river', "score": 0.5, "tags": ["a", "b"], "seen": True},
    {"id": 8, "post": "a quiet day", "score": 2.0, "tags": None, "seen": False},
    {"id": 9, "post": "a quiet day", "score": None, "tags": [], "seen": None},
]


@pytest.mark.parametrize("source", ["csv", "tsv.gz", "jsonl", "parquet"])
@pytest.mark.parametrize("target", ["csv.gz", "tsv", "jsonl.gz", "parquet"])
def test_all_columns_rows_and_their_order_are_kept(call, tmp_path, source, target):
    before, after = tmp_path / f"in.{source}", tmp_path / f"out.{target}"
    write_rows(before, ROWS)
    call(before, after)
    given = [row.values for row in read_rows(before)]
    result = [row.values for row in read_rows(after)]
    assert [list(row) for row in result] == [[*ROWS[0], *NEW]] * 3
    assert result[1][NEW[0]] in ("Offensive", "Maybe offensive", "Not offensive")
    assert result[1][NEW[0]] == result[2][NEW[0]]
    assert [row[NEW[4]] for row in result] == ([None] * 3 if target in ("jsonl.gz", "parquet") else [""] * 3)
    if source == target.removesuffix(".gz") or source.removesuffix(".gz") == target:
        assert [{name: row[name] for name in ROWS[0]} for row in result] == given
    if target == "parquet":
        schema = pyarrow.parquet.read_schema(after)
        assert schema.field(NEW[1]).type == pyarrow.float64()
        if source == "parquet":
            original = pyarrow.parquet.read_schema(before)
            assert [schema.field(name).type for name in ROWS[0]] == [original.field(name).type for name in ROWS[0]]
        if source == "jsonl":
            assert (schema.field("id").type, schema.field("seen").type) == (pyarrow.int64(), pyarrow.bool_())
    assert not (tmp_path / f"out.{target}.parts").exists()


def test_rows_that_cannot_be_annotated_are_kept_with_the_reason(call, tmp_path, capsys):
    lines = [
        b"id,post",
        b"1,a quiet day",
        b"2,",
        b"3,bad \xff byte",
        b"4",
        b'5,"two\nlines"',
        b"6,nul \x00 inside",
        b"7,a,b",
    ]
    (tmp_path / "in.csv").write_bytes(b"\n".join(lines) + b"\n")
    call(tmp_path / "in.csv", tmp_path / "out.csv")
    result = [row.values for row in read_rows(tmp_path / "out.csv")]
    assert [row["id"] for row in result] == ["1", "2", "3", "4", "5", "6", "7"]
    assert [row["model_problem"] for row in result] == [
        "", "no text", "byte 0xff is not UTF-8", "1 field, where the header has 2", "", "a NUL character",
        "3 fields, where the header has 2",
    ]  # fmt: skip
    assert [bool(row["model_offensiveYN"]) for row in result] == [True, False, False, False, True, False, False]
    kept = ["", "", r"3,bad \xff byte", "4", "", r"6,nul \x00 inside", "7,a,b"]
    assert [row["model_raw_record"] for row in result] == kept
    assert list(result[0])[-1] == "model_raw_record"
    output = capsys.readouterr().err
    assert "in.csv, line 4, column 'post': row 3: byte 0xff is not UTF-8: kept without an annotation" in output
    assert "5 rows in all" not in output
    assert "offensiveYN: trained on the miniature's invented posts; answers about real posts mean nothing" in output
    assert "2 of 7 posts annotated; reasons for the other 5 are in model_problem" in output


def test_posts_of_any_text_get_an_answer_or_a_reason(call, tmp_path):
    """With the real model: text that tokenizers or parsers reject, and text that looks like part of the prompt."""
    rows = [{"post": text, "n": number} for number, text in enumerate((*NASTY, *SURROGATES))]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(map(dumped, rows)))
    call(tmp_path / "in.jsonl", tmp_path / "out.csv")
    result = [row.values for row in read_rows(tmp_path / "out.csv")]
    assert [row["n"] for row in result] == [str(row["n"]) for row in rows]
    assert all(bool(row["model_offensiveYN"]) != bool(row["model_problem"]) for row in result)
    reasons = {row["model_problem"] for row in result if row["model_problem"]}
    assert reasons == {"no text", "half of a surrogate pair"}


@pytest.mark.parametrize("post", ["", "\u200b", "\ufeff \u2060", "&#8203;", "\u2800\ufe0f"])
def test_windows_without_any_post(call, tmp_path, post):
    """As the empty rows that a spreadsheet leaves at the end; a post that a reader can't see is none."""
    write_rows(tmp_path / "in.csv", [*({"post": "a quiet day"},) * WINDOW, *({"post": post},) * 3])
    call(tmp_path / "in.csv", tmp_path / "out.csv")
    rows = [row.values for row in read_rows(tmp_path / "out.csv")]
    assert [row["model_problem"] for row in rows] == [""] * WINDOW + ["no text"] * 3
    assert [row["post"] for row in rows[WINDOW:]] == [post] * 3


def test_json_lines_that_are_wrong(call, tmp_path):
    lines = [
        '{"post": "a quiet day"}',
        "{",
        "[1]",
        '{"other": 1}',
        '{"post": 5}',
        '{"post": null}',
        '{"post": "\\ud800 half"}',
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    call(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    rows = [row.values for row in read_rows(tmp_path / "out.jsonl")]
    assert [row["model_raw_record"] for row in rows] == [None, "{", "[1]", None, None, None, lines[-1]]
    reasons = [row["model_problem"] for row in rows]
    assert reasons[0] is None
    assert reasons[1].startswith("not JSON")
    assert reasons[2:] == ["a JSON list", "no text", "int instead of text", "no text", "half of a surrogate pair"]


def test_strict_stops_at_the_first_of_them_before_the_model(call, tmp_path, monkeypatch):
    monkeypatch.setattr("sbic_llama.model.annotator.Annotator", None)
    (tmp_path / "in.csv").write_text("id,post\n1,fine\n2,\n")
    with pytest.raises(UserError, match=r"in\.csv, line 3, column 'post': row 2: no text"):
        call(tmp_path / "in.csv", tmp_path / "out.csv", "--strict")
    assert not (tmp_path / "out.csv.parts").exists()


@pytest.mark.parametrize(
    ("name", "content", "more", "message"),
    [
        ("in.csv", "text\nhello\n", [], r"in\.csv: missing column 'post'; expected it among \['text'\]"),
        ("in.jsonl", '{"text": "hello"}\n', [], "missing column 'post'"),
        ("in.csv", "post\n", [], "no rows; expected at least one post"),
        ("in.csv", "", [], "empty file"),
        ("in.csv", 'post\n"never closed\n', [], r"line 2: not CSV"),
        ("in.csv", "post,post\na,b\n", [], "duplicate column 'post'"),
        ("in.parquet", "no parquet", [], "not Parquet"),
        ("in.csv.gz", "no gzip", [], "can't be read"),
        ("in.csv", "post,model_problem\na,b\n", [], "already has a column 'model_problem'. Rename that column"),
        ("in.txt", "post\n", [], "unknown file format"),
        ("in.csv", "post\na\n", ["--text_column", "text"], "missing column 'text'"),
    ],
)  # fmt: skip
def test_a_bad_file_stops_before_the_model(call, tmp_path, monkeypatch, name, content, more, message):
    monkeypatch.setattr("sbic_llama.model.annotator.Annotator", None)
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        call(tmp_path / name, tmp_path / "out.csv", *more)
    assert not (tmp_path / "out.csv").exists()


def test_a_folder_of_files_becomes_a_folder_of_files(call, tmp_path, monkeypatch, capsys):
    """Each file is annotated as if alone, in its own format, and the model is loaded once."""
    from sbic_llama.model.annotator import Annotator

    folder = tmp_path / "posts"
    for name in ("a.csv", "b.jsonl.gz", "c.parquet"):
        write_rows(folder / name, ROWS)
        call(folder / name, tmp_path / f"alone_{name}")
    (folder / ".hidden").write_text("of the system's")
    load, loads = Annotator.__init__, []
    monkeypatch.setattr(Annotator, "__init__", lambda *given, **how: loads.append(1) or load(*given, **how))
    window, windows = Annotator.annotate_window, []

    def stopping(self, posts):
        if len(windows) == 2:
            raise KeyboardInterrupt
        windows.append(posts)
        return window(self, posts)

    monkeypatch.setattr(Annotator, "annotate_window", stopping)
    with pytest.raises(KeyboardInterrupt):
        call(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "9 rows in 3 files" in capsys.readouterr().err
    monkeypatch.setattr(Annotator, "annotate_window", window)
    call(folder, tmp_path / "out")
    assert loads == [1, 1]
    assert "continuing: 2 of 3 parts" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.csv", "b.jsonl.gz", "c.parquet"]
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / f"alone_{path.name}").read_bytes()
    assert not parts_of(tmp_path / "out").exists()
    with pytest.raises(UserError, match="out: the output already exists"):
        call(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("entry", "output", "message"),
    [
        ("in.txt", "out", r"in\.txt: unknown file format"),
        ("more/in.csv", "out", "more: a folder inside a folder of posts"),
        (".hidden", "out", "posts: no files; expected files ending in"),
        ("in.csv", "out.csv", r"out\.csv: the posts are a folder; expected a new folder"),
        ("in.csv", "posts/out", "posts/out: the output is inside the folder of posts"),
    ],
)
def test_a_folder_that_cannot_be_annotated_is_refused(call, tmp_path, entry, output, message):
    path = tmp_path / "posts" / entry
    path.parent.mkdir(parents=True)
    path.write_text("post\na\n")
    with pytest.raises(UserError, match=message):
        call(tmp_path / "posts", tmp_path / output)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["posts"]


def test_a_file_of_whole_records_in_a_folder_needs_no_column_for_others(call, tmp_path):
    (tmp_path / "posts").mkdir()
    (tmp_path / "posts" / "a.csv").write_text("post\na quiet day\n")
    (tmp_path / "posts" / "b.csv").write_text("post\na quiet day,x\n")
    call(tmp_path / "posts", tmp_path / "out")
    columns = {path.name: path.read_text().splitlines()[0].split(",") for path in (tmp_path / "out").iterdir()}
    assert columns == {"a.csv": ["post", *NEW], "b.csv": ["post", *NEW, "model_raw_record"]}


def test_metadata_of_a_parquet_file_and_its_columns_are_kept(call, tmp_path):
    field = pyarrow.field("post", pyarrow.large_string(), nullable=False, metadata={"about": "posts"})
    table = pyarrow.table([["a quiet day"]], pyarrow.schema([field], {"pandas": "{}", "license": "none"}))
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    call(tmp_path / "in.parquet", tmp_path / "out.parquet")
    schema = pyarrow.parquet.read_schema(tmp_path / "out.parquet")
    assert schema.metadata == table.schema.metadata
    assert schema.field("post").equals(field, check_metadata=True)


def test_two_commands_do_not_write_at_once(call, tmp_path, monkeypatch):
    from sbic_llama.model.annotator import Annotator

    (tmp_path / "in.csv").write_text("post\na\n")
    window, refused = Annotator.annotate_window, []

    def at_work(self, posts):
        if not refused:
            refused.append(1)
            with pytest.raises(UserError, match=r"out\.csv\.parts: another command is annotating into this folder"):
                call(tmp_path / "in.csv", tmp_path / "out.csv")
        return window(self, posts)

    monkeypatch.setattr(Annotator, "annotate_window", at_work)
    call(tmp_path / "in.csv", tmp_path / "out.csv")
    assert refused
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--actors", 2], "--actors: only Ray uses it. Add --engine ray"),
        (["--engine", "ray", "--ray_address", "ray://there:1"], "--ray_address: 'ray://there:1' is not an address|Ray cannot be"),
        (["--engine", "ray", "--ray_address", "127.0.0.1:1"], "--ray_address: no answer from 127.0.0.1:1|Ray cannot be"),
    ],
)  # fmt: skip
def test_what_ray_needs_is_said_in_one_line(call, tmp_path, more, message):
    (tmp_path / "in.csv").write_text("post\na\n")
    with pytest.raises(UserError, match=message):
        call(tmp_path / "in.csv", tmp_path / "out.csv", *more)
    assert not (tmp_path / "out.csv.parts").exists()


def test_ray_that_is_not_installed_is_named_with_its_requirements(call, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "in.csv").write_text("post\na\n")
    with pytest.raises(UserError, match=r"--engine: Ray cannot be imported: .*pip install -r requirements-scale\.txt"):
        call(tmp_path / "in.csv", tmp_path / "out.csv", "--engine", "ray")


def test_an_output_that_is_there_is_not_written_over(call, tmp_path):
    (tmp_path / "in.csv").write_text("post\na\n")
    (tmp_path / "out.csv").write_text("precious")
    with pytest.raises(UserError, match=r"out\.csv: the output already exists"):
        call(tmp_path / "in.csv", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "precious"


def test_an_output_of_another_program_does_not_end_a_run(call, tmp_path, monkeypatch):
    """The parts are kept, and the run continues once the file is gone."""
    (tmp_path / "in.csv").write_text("post\na\n")
    with monkeypatch.context() as patched:
        patched.setattr(AnnotationJob, "assemble", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            call(tmp_path / "in.csv", tmp_path / "out.csv")
    (tmp_path / "out.csv").write_text("precious")
    with pytest.raises(UserError, match=r"out\.csv: the output already exists"):
        call(tmp_path / "in.csv", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "precious"
    (tmp_path / "out.csv").unlink()
    monkeypatch.setattr("sbic_llama.model.annotator.Annotator.annotate_window", None)
    call(tmp_path / "in.csv", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().startswith("post,model_offensiveYN")


@pytest.mark.parametrize(
    ("name", "content", "characters"),
    [
        ("in.csv", f"post\n{'a' * 40_000}\n", "40,000"),
        ("in.csv", f"post,n\na{',b' * 20_000}\n", "40,001"),
        ("in.jsonl", json.dumps({"post": "a", "n": ["b" * 40_000]}), "40,004"),
    ],
    ids=["text", "malformed record", "list"],
)
def test_what_a_spreadsheet_cannot_hold_stops_before_the_model(call, tmp_path, monkeypatch, name, content, characters):
    monkeypatch.setattr("sbic_llama.model.annotator.Annotator", None)
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=rf"out\.xlsx: a text of {characters} characters; .*Write \.csv or \.parquet"):
        call(tmp_path / name, tmp_path / "out.xlsx")
    (tmp_path / "short.csv").write_text("post\na\nb\n")
    monkeypatch.setattr("common.tables.spreadsheet.MOST_ROWS", 2)
    with pytest.raises(UserError, match=r"out\.xlsx: more than 1 row\. Write"):
        call(tmp_path / "short.csv", tmp_path / "out.xlsx")
    assert not parts_of(tmp_path / "out.xlsx").exists()


@pytest.mark.parametrize("key", ["input_format", "output_format"])
def test_the_format_of_a_stream_is_refused_for_a_file(call, tmp_path, key):
    (tmp_path / "in.csv").write_text("post\na\n")
    with pytest.raises(UserError, match=f"^--{key}: only a stream \\(-\\) needs it"):
        call(tmp_path / "in.csv", tmp_path / "out.csv", f"--{key}", "jsonl")


def test_the_least_certain_rows_are_marked_for_a_person(call, adapter, tmp_path, posts, capsys):
    """Thresholds come from validation posts, so on similar posts they mark about the requested share."""
    from sbic_llama.model.description import read

    write_rows(tmp_path / "in.csv", [{"post": post} for post in [*posts, ""]])
    marked = {}
    for name, more in {"tenth": ["--review_share", 0.1], "half": ["--review_share", 0.5]}.items():
        call(tmp_path / "in.csv", tmp_path / f"{name}.jsonl", *more)
        rows = [row.values for row in read_rows(tmp_path / f"{name}.jsonl")]
        assert rows.pop()["model_needs_review"] is True, "what has no annotation needs a person"
        sure = [max(value for column, value in row.items() if "probability" in column) for row in rows]
        marked[name] = [row["model_needs_review"] for row in rows]
        assert f"{sum(marked[name]) + 1} of {len(posts) + 1} rows need review" in capsys.readouterr().err
        apart = max(s for s, m in zip(sure, marked[name], strict=True) if m)
        assert all(s > apart for s, m in zip(sure, marked[name], strict=True) if not m)
    assert 0.03 < sum(marked["tenth"]) / len(posts) < 0.2
    assert 0.35 < sum(marked["half"]) / len(posts) < 0.65
    labels = [row.values["model_offensiveYN"] for row in read_rows(tmp_path / "half.jsonl")]
    review = read(adapter / "annotator.json").review
    assert review.accuracy[0] < review.accuracy[60]
    call(tmp_path / "in.csv", tmp_path / "target.jsonl", "--target_accuracy", review.accuracy[60])
    result = [row.values["model_needs_review"] for row in read_rows(tmp_path / "target.jsonl")]
    assert 0 < sum(result) < len(labels)
    spoilt = json.loads((adapter / "annotator.json").read_text())
    spoilt["review"]["accuracy"] = [0.5] * 101
    other = tmp_path / "spoilt"
    other.mkdir()
    for path in adapter.glob("adapter_*"):
        (other / path.name).write_bytes(path.read_bytes())
    (other / "annotator.json").write_text(json.dumps(spoilt))
    with pytest.raises(
        UserError, match=r"--target_accuracy: offensiveYN reaches at most 0\.500 on validation posts; expected at most"
    ):
        call(tmp_path / "in.csv", tmp_path / "x.csv", "--target_accuracy", 0.9, "--adapter", other)


def test_shares_of_labels_are_given_as_words_and_belong_to_the_run(call, tmp_path, posts, capsys):
    table(tmp_path / "in.csv", posts, 40)
    shares = ["--label_shares", "Offensive=0.05", "Maybe offensive=0.05", "Not offensive=0.9"]
    counts = []
    for name, more in (("plain", []), ("shares", shares)):
        call(tmp_path / "in.csv", tmp_path / f"{name}.csv", *more)
        counts.append([row.values[NEW[0]] for row in read_rows(tmp_path / f"{name}.csv")].count("Not offensive"))
    assert counts[0] < counts[1]
    assert "corrected for the given shares of labels; those in training: Offensive 0." in capsys.readouterr().err
    for words, message in (
        (
            ["--label_shares", "Offensive", "0.5"],
            "'Offensive' is no share of a label; expected label=share, as Yes=0.1",
        ),
        ([*shares, "--review_share", "0.1"], "hold for the shares of labels in training. Remove it, or --label_shares"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            call(tmp_path / "in.csv", tmp_path / "out.csv", *words)


def test_a_review_curve_against_a_case_worked_by_hand():
    from sbic_llama.model.description import curve

    result = curve([0.5, 0.6, 0.7, 0.8, 0.9], [False, True, False, True, True])
    assert (result.confidence[0], result.confidence[50], result.confidence[100]) == (0.5, 0.7, 0.9)
    assert (result.accuracy[0], result.accuracy[50], result.accuracy[100]) == (0.6, pytest.approx(2 / 3, abs=1e-6), 1.0)
    assert result.for_share(0.5) == 0.7
    assert result.for_accuracy(1.0, "x") == 0.8
    assert result.for_accuracy(0.6, "x") == 0.5
    assert result.posts == 5


def command(adapter: Path, source: object, output: object, *more: str) -> list[str]:
    words = ["-m", "sbic_llama.annotate", str(source), "--adapter", str(adapter), "--output", str(output), *more]
    return [sys.executable, *words]


def test_standard_input_and_output(adapter, call, tmp_path, posts):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([["post"], *([post] for post in posts[:30])])
    (tmp_path / "in.csv").write_text(text.getvalue())
    call(tmp_path / "in.csv", tmp_path / "out.jsonl")
    python, *words = command(adapter, "-", "-", "--output_format", "jsonl")
    with_imports = [python, "-X", "importtime", *words]
    result = subprocess.run(with_imports, cwd=ROOT, input=text.getvalue(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout == (tmp_path / "out.jsonl").read_text()
    assert "bitsandbytes.backends" in result.stderr
    assert "torch._inductor.compile_fx" not in result.stderr, "torch's compiler takes a second to import"


def test_standard_input_is_called_that(call, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"text\nhello\n")))
    with pytest.raises(UserError, match=r"^standard input: missing column 'post'"):
        call("-", tmp_path / "out.csv")


def table(path: Path, posts: list[str], count: int) -> None:
    """Write rows of many, mostly distinct posts."""
    words = random.Random(0)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "post"])
        for number in range(count):
            writer.writerow([number, "" if number % 97 == 5 else f"{words.choice(posts)} {number % 331}"])


def test_a_stopped_run_goes_on_and_does_nothing_twice(call, tmp_path, posts, monkeypatch, capsys):
    from sbic_llama.model.annotator import Annotator

    table(tmp_path / "in.csv", posts, 1000)
    call(tmp_path / "in.csv", tmp_path / "whole.csv")
    window, windows = Annotator.annotate_window, []

    def stopping(self, texts):
        if len(windows) == 2:
            raise KeyboardInterrupt
        windows.append(len(texts))
        return window(self, texts)

    monkeypatch.setattr(Annotator, "annotate_window", stopping)
    with pytest.raises(KeyboardInterrupt):
        call(tmp_path / "in.csv", tmp_path / "out.csv")
    assert "stopped: the same command continues" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()
    assert len(list((tmp_path / "out.csv.parts").glob("*.jsonl"))) == 2
    with pytest.raises(
        UserError, match=r"out\.csv\.parts: the folder holds another run: prefix was 'model_' and is 'm_'"
    ):
        call(tmp_path / "in.csv", tmp_path / "out.csv", "--prefix", "m_")
    windows.clear()
    windows += [0, 0, 0]
    call(tmp_path / "in.csv", tmp_path / "out.csv")
    assert len(windows) == 5, "the two parts that were there are not made again"
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not (tmp_path / "out.csv.parts").exists()


def test_a_file_that_is_replaced_while_it_is_annotated_stops_the_run(call, tmp_path, monkeypatch):
    from sbic_llama.model.annotator import Annotator

    source, original = tmp_path / "in.csv", Annotator.annotate_window
    before, after = ("post\n" + f"{first}\n" * WINDOW + f"{second}\n" for first, second in ("ab", "ba"))
    source.write_text(before)

    def replacing(self, posts):
        source.write_text(after)
        return original(self, posts)

    monkeypatch.setattr(Annotator, "annotate_window", replacing)
    with pytest.raises(UserError, match=r"in\.csv: the posts changed while they were being annotated"):
        call(source, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()
    with pytest.raises(UserError, match=r"out\.csv\.parts: the folder holds another run: posts changed"):
        call(source, tmp_path / "out.csv")
    monkeypatch.setattr(Annotator, "annotate_window", original)
    source.write_text(before)
    call(source, tmp_path / "out.csv")
    assert [row.values["post"] for row in read_rows(tmp_path / "out.csv")] == before.splitlines()[1:]


def test_parts_of_a_version_that_did_not_check_the_posts_are_refused(call, tmp_path, monkeypatch):
    (tmp_path / "in.csv").write_text("post\na quiet day\n")
    monkeypatch.setattr(AnnotationJob, "assemble", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call(tmp_path / "in.csv", tmp_path / "out.csv")
    path = parts_of(tmp_path / "out.csv") / "run.json"
    identity = json.loads(path.read_text())
    del identity["rows as read"]
    path.write_text(json.dumps(identity))
    with pytest.raises(UserError, match="another run: rows as read: not recorded by the version that began it"):
        call(tmp_path / "in.csv", tmp_path / "out.csv")


def test_parts_depend_on_the_temperature_and_the_quantization(call, adapter, tmp_path, monkeypatch):
    own, source = tmp_path / "adapter", tmp_path / "in.csv"
    shutil.copytree(adapter, own)
    source.write_text("post\na quiet day\n")
    monkeypatch.setattr(AnnotationJob, "assemble", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call(source, tmp_path / "out.csv", "--adapter", own)
    with pytest.raises(UserError, match="another run: quantisation was 'nf4' and is 'none'"):
        call(source, tmp_path / "out.csv", "--adapter", own, "--quantization", "none")
    description = json.loads((own / "annotator.json").read_text())
    description["temperature"] += 0.5
    (own / "annotator.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match=r"another run: adapters \(offensiveYN\) changed"):
        call(source, tmp_path / "out.csv", "--adapter", own)


@pytest.mark.parametrize("removed", [0, 1, 2])
def test_a_run_killed_while_it_cleared_up_has_ended(call, tmp_path, posts, monkeypatch, capsys, removed):
    table(tmp_path / "in.csv", posts, 300)
    folder, unlink, left = tmp_path / "out.csv.parts", Path.unlink, [removed]

    def killed(path: Path, *args: object, **how: object) -> None:
        if path.parent == folder and path.suffix in (".jsonl", ".json"):
            if not left[0]:
                raise SystemError("killed")
            left[0] -= 1
        unlink(path, *args, **how)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(SystemError):
        call(tmp_path / "in.csv", tmp_path / "out.csv")
    monkeypatch.setattr(Path, "unlink", unlink)
    assert len([*folder.glob("*.jsonl"), *folder.glob("run.json")]) == 3 - removed
    before = (tmp_path / "out.csv").read_bytes()
    monkeypatch.setattr("sbic_llama.model.annotator.Annotator", None)
    call(tmp_path / "in.csv", tmp_path / "out.csv")
    assert "finished already" in capsys.readouterr().err
    assert (tmp_path / "out.csv").read_bytes() == before
    assert not folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_kills_at_random_points_change_nothing(adapter, call, tmp_path, posts, ending):
    table(tmp_path / "in.csv", posts, 5000)
    call(tmp_path / "in.csv", tmp_path / f"whole.{ending}")
    output, moments, kills = tmp_path / f"out.{ending}", random.Random(1), 0
    words = command(adapter, tmp_path / "in.csv", output)[1:]
    while kills < (5 if ending == "csv" else 3):
        process = forked.Forked(words)
        time.sleep(moments.uniform(0.5, 5))
        process.kill()
        said = process.communicate()[0]
        if process.returncode == -signal.SIGKILL:
            kills += 1
            if not output.exists() or parts_of(output).exists():
                continue  # else it was killed when all was done, on its way out
        else:
            assert process.returncode == 0, said[-2000:]
        check(output, tmp_path / f"whole.{ending}")
        output.unlink()
    result = forked.run(words)
    assert result.returncode == 0, result.stderr[-2000:]
    check(output, tmp_path / f"whole.{ending}")


def check(output: Path, whole: Path) -> None:
    if output.suffix == ".parquet":
        assert pyarrow.parquet.read_table(output).equals(pyarrow.parquet.read_table(whole))
    else:
        assert output.read_bytes() == whole.read_bytes()
    assert not list(output.parent.glob(".*.part"))


def test_equal_inputs_give_equal_gzip_files(call, tmp_path):
    write_rows(tmp_path / "in.csv", ROWS)
    for name in ("a.csv.gz", "b.csv.gz"):
        call(tmp_path / "in.csv", tmp_path / name)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.csv.gz", "b.csv.gz"))
    assert first == second
    assert gzip.decompress(first).decode().splitlines()[0] == ",".join([*ROWS[0], *NEW])


def test_posts_come_from_a_split_on_the_hub(call, hub, posts, tmp_path, monkeypatch, capsys):
    """A run is tied to the dataset's commit: it continues on that one, and on no other."""
    from huggingface_hub import HfApi

    def upload(texts: list[str]) -> str:
        write_rows(tmp_path / "train.parquet", [{"id": i, "post": text} for i, text in enumerate(texts)])
        where = {"path_in_repo": "data/train.parquet", "repo_id": "miniature/posts", "repo_type": "dataset"}
        return HfApi().upload_file(path_or_fileobj=tmp_path / "train.parquet", **where).oid

    HfApi().create_repo("miniature/posts", repo_type="dataset")
    name, output, texts = "hf://datasets/miniature/posts", tmp_path / "out.parquet", (posts * 3)[: WINDOW + 5]
    first = upload(texts)
    with monkeypatch.context() as patched:
        patched.setattr(AnnotationJob, "keep", lambda *_, **__: sys.exit("killed"))
        with pytest.raises(SystemExit):
            call(f"{name}:train", output)
    assert json.loads((parts_of(output) / "run.json").read_text())["dataset"] == f"{name}@{first}:train"
    second = upload(texts[:10])
    with pytest.raises(UserError) as caught:
        call(f"{name}:train", output)
    moved = f"dataset was '{name}@{first}:train' and is '{name}@{second}:train'"
    assert moved in str(caught.value) and "\n" not in str(caught.value)
    call(f"{name}@{first}:train", output)
    written = [row.values for row in read_rows(output)]
    assert [(row["id"], row["post"]) for row in written] == list(enumerate(texts))
    assert all(row[NEW[0]] for row in written)
    with pytest.raises(
        UserError, match=f"{name}@{second}:train: missing column 'text'; expected it among .*'id', 'post'"
    ):
        call(f"{name}:train", tmp_path / "other.csv", "--text_column", "text")
    with pytest.raises(UserError, match="not the name of a Hub dataset"):
        call("hf://datasets/posts", tmp_path / "other.csv")
