"""Test codebooks: what a file may say, what is refused in one line, and what the model is asked."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.cli.errors import UserError
from sbic_llama.data.codebook import LARGEST, Codebook, missing_words, read_codebook
from sbic_llama.data.features import FEATURES, feature_of
from sbic_llama.model import description
from sbic_llama.training.arguments import TrainArguments
from tests.rubbish import check, mutated

START = "name: stance\nquestion: What?\ninstruction: Decide.\n"
VALID = f"{START}labels:\n  Against: dislikes it\n  In favor: likes it\n"


@pytest.fixture
def read(tmp_path):
    def read(text: str | bytes) -> Codebook:
        path = tmp_path / "codebook.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_codebook(path)

    return read


def refusal(read, text: str | bytes) -> str:
    with pytest.raises(UserError) as caught:
        read(text)
    line = str(caught.value)
    assert line.isprintable() and len(line) < 1000
    assert "codebook.yaml" in line
    return line.partition("codebook.yaml")[2].removeprefix(", ")


def test_labels_are_text_with_or_without_definitions(read):
    assert read(VALID).labels == {"Against": "dislikes it", "In favor": "likes it"}
    assert list(read(f"{START}labels: [Yes, No, 1, 1.0, null, ~, 2026-01-01]").labels) == [
        *("Yes", "No", "1", "1.0", "null", "~", "2026-01-01")
    ]
    assert read(f"{START}labels: {{Yes: 1, No: null}}").labels == {"Yes": "1", "No": "null"}
    assert list(read(f"{START}labels: ['a, b', '\"c\"', None]").labels) == ["a, b", '"c"', "None"]


def test_a_byte_order_mark_and_windows_line_ends_are_read(read):
    assert read(b"\xef\xbb\xbf" + VALID.replace("\n", "\r\n").encode()) == read(VALID)


def test_all_keys(read):
    more = (
        "ordered: yes\nseveral: mean\nexamples:\n- {text: t, label: in  FAVOR}\n"
        "columns: {text: a, label: b, annotator: c, item: d, group: e, split: f}\n"
    )
    codebook = read(VALID + more)
    assert codebook.ordered and codebook.several == "mean" and codebook.examples[0].text == "t"
    assert feature_of(codebook).order == ("Against", "In favor")
    assert list(asdict(codebook.columns).values()) == list("abcdef")
    assert not feature_of(read(f"{START}text: true")).classifies


REFUSED = {
    f"{VALID}labelz: 1": r"line 7, key 'labelz': unknown key. Did you mean 'labels'",
    f"{VALID}columns: {{txt: a}}": r"line 7, key 'columns.txt': unknown key. Did you mean 'text'",
    f"{VALID}examples: [{{text: a, labels: b}}]": r"line 7, key 'examples.0.label': missing",
    f"{VALID}columns: a": r"line 7, key 'columns': 'a' is not valid; expected `key: value` lines",
    f"{VALID}columns: {{group: }}": r"line 7, key 'columns.group': the value is empty",
    f"{VALID}columns: {{group: text}}": r"line 7, key 'columns': 'text' is named for two things",
    f"{VALID}several: most": r"line 7, key 'several': 'most' is not valid; expected 'majority', 'any', 'mean' or 'soft'",
    f"{VALID}several: mean": r"line 7, key 'several': a mean needs an order",
    f"{VALID}ordered: perhaps": r"line 7, key 'ordered': 'perhaps' is not valid; expected a valid boolean",
    f"{VALID}name: b": r"line 7, key 'name': given twice",
    f"{VALID}  Against: b": r"line 7, key 'labels.Against': given twice",
    f"{VALID}  against: b": r"line 7, key 'labels.against': it differs from 'Against' in case or spaces only",
    f"{VALID}  ' a': b": r"line 7, key 'labels. a': ' a' has needless spaces",
    f'{VALID}  "a\\nb": b': r"line 7, key 'labels.a.{1,2}nb': 'a.nb' has needless spaces, or characters that cannot be seen",
    f'{VALID}  "a\\u202e": b': r"line 7, key 'labels.a.u202e': 'a.u202e' has needless spaces, or characters",
    f'{VALID}  "": b': r"line 4, key 'labels': a label is empty",
    f"{VALID}  {'a' * 201}: b": r"line 7, key 'labels.a+': a label of 201 characters",
    f"{VALID}  a: {'b' * 4001}": r"line 7, key 'labels.a': 4,002 characters",
    f"{VALID}  a: [b]": r"line 7, key 'labels.a': \['b'\] is not valid; expected a valid string",
    f"{VALID}text: true": r"line 4, key 'labels': the answers are free text",
    f"{VALID}examples: [{{text: a, label: b}}]": r"line 7, key 'examples.0.label': unknown label 'b'; expected Against",
    f"{VALID}examples: [{{text: ' ', label: against}}]": r"line 7, key 'examples.0': the text is empty",
    f"{START}text: true\nseveral: any": r"line 5, key 'several': the answers are free text",
    f"{START}text: true\nordered: true": r"line 5, key 'ordered': the answers are free text",
    f"{START}labels: [a]": r"line 4, key 'labels': 1 label; expected 2 to 100 labels, or text: true",
    START: r"labels",
    f"{START}labels:\n- a\n- a": r"line 6, key 'labels': 'a' is given twice",
    f"{START}labels:\n- a\n- b: c": r"line 6, key 'labels': not a label; expected a word. Write `label: definition`",
    f"{START}labels: {list(range(101))}": r"line 4, key 'labels': 101 labels",
    VALID.replace("name: stance\n", ""): r"line 1, key 'name': missing. Add a line `name: …`",
    VALID.replace("Decide.", "' '"): r"line 3, key 'instruction': the value is empty",
    f"{VALID}  a:\tb\n\tc: d": r"line 7: a tab; expected spaces",
    f"{VALID}? [a]\n: b": r"line 7: the key is not a word",
    "": r"line 1: not a codebook; expected `key: value` lines",
    "- a": r"line 1: not a codebook",
    "a: 'b": r"line 1: found unexpected end of stream",
    f"{VALID}---\na: b": r"line 7: but found another document",
    b"a: b\nname: \xff": r"line 2: not UTF-8. Save the file as UTF-8",
    b"a: b\nname: \x07": r"line 2: the character '\\x07'; expected text",
    f'{VALID}  "\\ud83d": b': r"line 7",
}  # fmt: skip


@pytest.mark.parametrize("text", REFUSED, ids=range(len(REFUSED)))
def test_what_is_refused_has_its_line_and_key(read, text):
    line = refusal(read, text)
    assert re.search(REFUSED[text], line), line


@pytest.mark.parametrize("name", ["../up", "a/b", "a b", "", "1a", "a.b", "ä", "a\n", "a" * 65, "C:\\a"])
def test_a_name_that_could_be_a_path_is_refused(read, name):
    assert "key 'name'" in refusal(read, VALID.replace("name: stance", f"name: {json.dumps(name)}"))


@pytest.mark.parametrize("name", ["problem", "needs_review", "a_probability_b", "a_mean_log_probability"])
def test_a_name_that_annotated_files_use_otherwise_is_refused(read, name):
    line = refusal(read, VALID.replace("name: stance", f"name: {name}"))
    assert f"line 1, key 'name': '{name}' is the name of another column" in line


def test_a_small_file_cannot_become_a_huge_one(read):
    levels = "".join(f"l{n + 1}: &l{n + 1} [{', '.join([f'*l{n}'] * 10)}]\n" for n in range(12))
    start = time.process_time()
    assert "line 2: the alias *l0; expected YAML without aliases" in refusal(read, f"l0: &l0 [a]\n{levels}")
    assert "the alias *a" in refusal(read, f"{VALID}examples: &a [*a]")
    assert "line 7: too many levels; expected at most 20" in refusal(read, f"{VALID}examples: {'[' * 20_000}")
    assert f"expected a codebook of at most {LARGEST:,}" in refusal(read, b"#" * (LARGEST + 1))
    assert time.process_time() - start < 20


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(UserError, match=r"none.yaml: no such file. Check the path given to --codebook"):
        read_codebook(tmp_path / "none.yaml")
    with pytest.raises(UserError, match=r"can't be read: Is a directory$"):
        read_codebook(tmp_path)


@pytest.mark.properties
@given(mutated(f"{VALID}ordered: true\nexamples:\n- {{text: a, label: against}}\ncolumns: {{text: b}}\n".encode()))
def test_a_damaged_codebook_is_read_or_refused_in_one_line(tmp_path, data):
    check(tmp_path / "codebook.yaml", data, read_codebook, lambda codebook: feature_of(codebook).prompt("a"))


def test_the_words_for_a_missing_label_are_labels_where_the_codebook_has_them():
    book = Codebook("a", "A?", "A.", {"Yes": "", "No": ""})
    assert {"none", "na"} <= missing_words(book)
    assert "none" not in missing_words(replace(book, labels={"None": "", "Some": ""}))
    for lists in ({"labels": {}, "text": True}, {"multi_label": True}):  # none is an empty list
        assert "none" not in missing_words(replace(book, **lists))
        assert "na" in missing_words(replace(book, **lists))


def test_several_labels_become_one():
    codebook = Codebook("a", "b", "c", {"x": "", "y": "", "z": ""}, ordered=True)
    assert [codebook.combine(votes) for votes in ([2, 2, 1], [2, 1], [1])] == [2, 1, 1]  # a tie: the first
    assert replace(codebook, several="any").combine([2, 1, 2]) == 1
    mean = replace(codebook, several="mean")
    assert [mean.combine(votes) for votes in ([0, 2], [0, 1], [2, 2, 0])] == [1, 0, 1]
    assert Codebook("a", "b", "c", text=True).combine([("b",), (), ("a", "b")]) == ("a", "b")


@pytest.mark.parametrize("shipped", FEATURES.values(), ids=FEATURES)
def test_the_features_of_sbic_can_be_declared(shipped):
    """The prompts differ by the list of labels only, which a codebook adds to its instruction."""
    ordered = bool(shipped.order)
    labels = {} if not shipped.labels else dict.fromkeys(shipped.order or shipped.labels, "")
    several = "mean" if ordered else "majority"
    codebook = Codebook(
        *(shipped.name, shipped.question, shipped.instruction, labels),
        ordered=ordered, text=not labels, several=several,
    )  # fmt: skip
    assert codebook.problem() is None
    own = feature_of(codebook)
    listed = "\n".join(["", "Answer with one of these labels:", *(f"- {label}" for label in labels)]) if labels else ""
    assert own.prompt("A post.") == shipped.prompt("A post.").replace(shipped.instruction, shipped.instruction + listed)
    assert set(own.labels) == set(shipped.labels) and own.order == shipped.order
    assert own.parse(own.answer(0 if labels else ("a", "b"))) == (0 if labels else ("a", "b"))


def test_a_task_on_pairs_of_sentences_can_be_declared():
    labels = {"Entailment": "it must be true", "Neutral": "it may be true", "Contradiction": "it can't be true"}
    codebook = Codebook("nli", "Does the hypothesis follow?", "Decide whether the hypothesis follows.", labels)
    assert codebook.problem() is None
    prompt = feature_of(codebook).prompt("Premise: A dog runs. Hypothesis: An animal moves.")
    assert "- Contradiction: it can't be true" in prompt and "Hypothesis: An animal moves." in prompt


@pytest.fixture
def described(tmp_path):
    """Return a writer of an adapter's description whose codebook has other values, and its path."""
    codebook = Codebook("stance", "What?", "Decide.", {"Against": "dislikes", "In favor": ""})
    described = description.describe(
        TrainArguments(output_dir=tmp_path, learning_rate=1e-4), feature_of(codebook), None
    )

    def write(**changes):
        described.write(tmp_path)
        path = tmp_path / description.ANNOTATOR_FILE
        values = json.loads(path.read_text())
        values["codebook"] |= changes
        if "name" in changes:
            values["feature"] = changes["name"]
        path.write_text(json.dumps(values))
        return path

    return write


def test_a_codebook_of_an_adapter_is_read_as_it_was_written(described):
    read = description.read(described())
    assert read.resolve_feature().labels == ("Against", "In favor")
    assert read.codebook.labels == {"Against": "dislikes", "In favor": ""}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"name": "../../up"}, r"key 'name': codebook: '../../up' is not a name"),
        ({"labels": {"a": ""}}, r"key 'labels': codebook: 1 label"),
        ({"labels": {"a": "", "b\x1b[2J": ""}}, r"codebook: 'b\\x1b\[2J' has needless spaces, or characters"),
        ({"several": "mean"}, r"key 'several': codebook: a mean needs an order"),
        ({"instruction": ""}, r"key 'instruction': codebook: the value is empty"),
        ({"more": 1}, r"codebook.more: Unexpected keyword argument"),
        ({"labels": ["a", "b"]}, r"codebook.labels: Input should be an object"),
        ({"ordered": "yes"}, r"codebook.ordered: Input should be a valid boolean"),
        ({"columns": {"text": "a", "label": "a"}}, r"key 'columns': codebook: 'a' is named for two things"),
    ],
)
def test_a_codebook_from_the_hub_is_checked_like_a_file(described, changes, problem):
    with pytest.raises(UserError, match=problem) as caught:
        description.read(described(**changes))
    assert str(caught.value).isprintable()


def test_a_codebook_that_was_changed_after_training_is_refused(described):
    with pytest.raises(UserError, match="trained with another prompt or other labels"):
        description.read(described(labels={"Against": "", "In favor": ""})).resolve_feature()


@pytest.mark.properties
@given(st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=5), max_size=4))
def test_labels_that_pass_are_told_apart_in_a_table(labels):
    from common.stats.votes import folded

    if Codebook("a", "b", "c", labels).problem() is None:
        assert len({folded(label) for label in labels}) == len(labels)
        assert all(label and label.isprintable() for label in labels)
