"""Test texts that consist of several columns: no text can pass for another, and each place reads them alike."""

from __future__ import annotations

import csv
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.cli.arguments import parse
from common.cli.errors import UserError
from common.runtime.project import MINIATURE_MODELS
from sbic_llama import annotate, trust
from sbic_llama.data.codebook import Codebook, Columns, Example
from sbic_llama.data.corpus import clean
from sbic_llama.data.table import read_items
from sbic_llama.data.texts import POST, TextColumns, joined, text_columns

NAMES = ("premise", "hypothesis")
LABELS = {"Entailment": "", "Neutral": ""}
BOOK = Codebook("nli", "Does it follow?", "Decide whether it follows.", LABELS, columns=Columns(NAMES, "gold"))
YAML = (
    "name: nli\nquestion: Does it follow?\ninstruction: Decide.\nlabels: [Entailment, Neutral]\n"
    "examples:\n- {text: [It rains., It is wet.], label: Entailment}\n"
    "columns: {text: [premise, hypothesis], label: gold}\n"
)
PIECES = (
    "[hypothesis]",
    "[Premise]",
    "&#91;hypothesis&#93;",
    "&amp;#91;premise]",
    "[hypo",
    "thesis]",
    "[",
    "]",
    " ",
    "a",
    "é",
)


@given(st.lists(st.sampled_from(PIECES), max_size=8), st.lists(st.sampled_from(PIECES), max_size=8))
def test_no_text_can_pass_for_another(first, second):
    text = joined(NAMES, ["".join(first), "".join(second)])
    assert re.findall(r"\[(premise|hypothesis)\]", text, re.IGNORECASE) == list(NAMES)
    assert clean(text) == text


def test_texts_are_read_behind_their_names():
    assert joined(NAMES, [" It\nrains. ", "It is &lt; wet."]) == "[premise] It rains. [hypothesis] It is < wet."
    assert BOOK.columns.texts.read({"premise": "a", "hypothesis": "b", "id": 1}) == "[premise] a [hypothesis] b"
    assert Columns("body").texts.read({"body": "a"}) == "a"


def test_a_codebook_has_as_many_texts_in_an_example_as_columns():
    assert BOOK.problem() is None
    example = replace(BOOK, examples=(Example(("It rains.", "It is wet."), "neutral"),))
    assert example.problem() is None
    assert example.example_texts() == ["[premise] It rains. [hypothesis] It is wet."]
    for text in ("It rains.", ("It rains.",), ("a", "b", "c")):
        assert replace(BOOK, examples=(Example(text, "Neutral"),)).problem()[0] == "examples.0.text"
    plain = replace(BOOK, columns=Columns(), examples=(Example(("a", "b"), "Neutral"),))
    assert plain.problem()[0] == "examples.0.text"
    for columns in (("premise",), (), ("premise", ""), ("premise", "gold"), ("a]", "b")):
        assert replace(BOOK, columns=Columns(columns, "gold")).problem()[0].startswith("columns")


def test_questions_about_different_columns_are_not_asked_at_once():
    pairs, other = BOOK.columns.texts, TextColumns(("body",))
    assert text_columns([pairs, pairs]) == TextColumns(NAMES, NAMES)
    assert text_columns([POST]) == TextColumns(("post",))
    assert text_columns([POST, other], "text") == TextColumns(("text",))
    for questions, column in (
        ([pairs, POST], None),
        ([pairs, other], "text"),
        ([POST, other], None),
        ([pairs], "text"),
    ):
        with pytest.raises(UserError, match=r"--text_column|one after the other"):
            text_columns(questions, column)


def test_a_table_with_pairs_is_read_and_a_pair_without_one_of_its_texts_is_dropped(tmp_path):
    path = tmp_path / "pairs.csv"
    rows = [(f"premise {i} {i * i}", f"hypothesis {i}", list(LABELS)[i % 2]) for i in range(40)]
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("premise", "hypothesis", "gold"), *rows, ("alone", "", "Neutral")])
    items, report = read_items(path, BOOK)
    assert items[1].text == "[premise] premise 1 1 [hypothesis] hypothesis 1"
    assert len(items) == 40 and report.dropped == {"no text": 1}
    with pytest.raises(UserError, match="premise"):
        read_items(path, replace(BOOK, columns=Columns(("premise", "question"), "gold")))


def test_pairs_of_a_file_are_annotated_and_python_gives_the_same(tmp_path):
    book, pairs, output = tmp_path / "codebook.yaml", tmp_path / "pairs.csv", tmp_path / "out.csv"
    book.write_text(YAML, encoding="utf-8")
    rows = [("It rains.", "The street is wet."), ("A dog runs.", ""), ("A dog [hypothesis] runs.", "It sleeps.")]
    with open(pairs, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([NAMES, *rows])
    base = str(MINIATURE_MODELS / "tiny_llama")
    words = [str(pairs), "--codebook", str(book), "--model", base, "--output", str(output)]
    with pytest.raises(UserError, match="--text_column"):
        _annotate([*words, "--text_column", "premise"])
    arguments = _annotate(words)
    with open(output, encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert written[1]["model_problem"] == "no text in 'hypothesis'"

    from sbic_llama import Annotator

    annotator = Annotator(*arguments.annotators())
    answers = list(annotator.annotate([rows[0], rows[2], joined(NAMES, rows[0])]))
    assert answers[0] == answers[2]
    for row, answer in zip((written[0], written[2]), answers[:2], strict=True):
        assert row["model_nli"] == answer["nli"]
        assert float(row["model_nli_probability_Neutral"]) == pytest.approx(answer["nli_probability_Neutral"], abs=1e-4)
    with pytest.raises(TypeError, match="2 strings"):
        next(annotator.annotate([("It rains.",)]))


def _annotate(words):
    arguments = parse(annotate.AnnotateArguments, words)
    annotate.annotate(arguments, *map(annotate.Path, (arguments.posts[0], arguments.output)))
    return arguments


def test_trust_needs_a_key_for_pairs(tmp_path):
    book, pairs = tmp_path / "codebook.yaml", tmp_path / "pairs.csv"
    book.write_text(YAML, encoding="utf-8")
    pairs.write_text("premise,hypothesis\na,b\n", encoding="utf-8")
    words = [pairs, "--human_labels", pairs, "--codebook", book, "--model", MINIATURE_MODELS / "tiny_llama"]
    arguments = parse(trust.TrustArguments, list(map(str, words)))
    with pytest.raises(UserError, match="--key"):
        _ = arguments.key_column
