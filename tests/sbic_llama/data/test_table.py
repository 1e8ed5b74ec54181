"""Test tables of one's own: how labels are read, what is refused in one line, and how texts are divided."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.cli.arguments import parse
from common.cli.errors import UserError
from common.hub.table_download import table_name
from common.tables.report import DataReport
from sbic_llama.data.codebook import Codebook, Columns
from sbic_llama.data.features import feature_of, training_fingerprint
from sbic_llama.data.label_files import annotated_features, read_annotated, shared_feature
from sbic_llama.data.more_labels import with_more_labels
from sbic_llama.data.near_duplicates import clusters
from sbic_llama.data.table import SHARES, Item, divide, load_table, read_items
from sbic_llama.evaluation.scores import require_training_table
from sbic_llama.training.arguments import FeatureArguments, TrainArguments

CODEBOOK = Codebook("stance", "What?", "Decide.", {"Against": "", "In favor": ""})
WORDS = random.Random(1).sample([a + b + c for a in "bdfgk" for b in "aeiou" for c in ("lt", "rm", "nd", "sk")], 100)


def text(number: int) -> str:
    """Return a text that is no near duplicate of another number's."""
    return " ".join(random.Random(number).sample(WORDS, 8))


def rows_of(count: int = 40, **more) -> list[dict[str, str]]:
    labels = ("Against", "In favor")
    return [{"text": text(n), "label": labels[n % 2]} | {k: v(n) for k, v in more.items()} for n in range(count)]


@pytest.fixture
def table(tmp_path):
    """Return a writer of a table in the format of its name."""

    def write(rows: list[dict], name: str = "table.csv") -> Path:
        path = tmp_path / name
        if name.endswith(".jsonl"):
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        elif name.endswith(".parquet"):
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        else:
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        return path

    return write


def with_columns(**names: str) -> Codebook:
    return replace(CODEBOOK, columns=Columns(**names))


def refusal(path: Path, codebook: Codebook = CODEBOOK) -> str:
    with pytest.raises(UserError) as caught:
        load_table(path, codebook)
    line = str(caught.value)
    assert line.isprintable() and len(line) < 1000 and path.name in line
    return line


def labels_of(path: Path, codebook: Codebook = CODEBOOK) -> list:
    return [item.label for item in read_items(path, codebook)[0]]


@pytest.mark.parametrize("name", ["table.csv", "table.tsv.gz", "table.jsonl", "table.parquet"])
def test_every_format_with_a_row_per_item(table, name):
    if name == "table.tsv.gz":
        import gzip

        path = table(rows_of())
        tabs = path.read_text().replace(",", "\t")
        path = path.with_name(name)
        path.write_bytes(gzip.compress(tabs.encode()))
    else:
        path = table(rows_of(), name)
    report, splits = load_table(path, CODEBOOK)
    assert {name: len(split.posts) for name, split in splits.items()} == {"train": 28, "dev": 6, "test": 6}
    assert report.kept == 40
    assert report.notes["texts with labels of several people: agreement between people can't be measured"] == 0
    assert splits["test"].report.notes == {"Against": 3, "In favor": 3}


def test_a_row_per_label_and_the_rule_for_several(table):
    rows = [r | {"who": who, "id": str(n)} for n, r in enumerate(rows_of()) for who in "abc"]
    rows[0]["label"] = rows[1]["label"] = "In favor"  # two of three people
    path = table(rows)
    codebook = with_columns(annotator="who", item="id")
    items, report = read_items(path, codebook)
    assert items[0].label == 1 and [vote.worker for vote in items[0].annotations] == ["a", "b", "c"]
    assert report.notes["annotators"] == 3 and report.notes["texts with labels of several people"] == 40
    assert labels_of(path, replace(codebook, several="any"))[0] == 0
    assert labels_of(path, replace(codebook, several="mean", ordered=True))[0] == 1
    assert labels_of(path, with_columns()) == [item.label for item in items]  # equal texts are one item
    rows[1]["label"] = "Against"
    rows.remove(rows[2])
    assert labels_of(table(rows), codebook)[0] == 0  # a tie: the first of the codebook


def test_numbers_as_ids_and_labels_are_the_same_in_every_format(table):
    codebook = replace(with_columns(item="id"), labels={"0": "", "1": ""})
    rows = [{"text": text(n), "label": float(n % 2), "id": n} for n in range(40)]
    expected = [n % 2 for n in range(40)]
    assert labels_of(table(rows, "table.parquet"), codebook) == expected
    assert labels_of(table([*rows, rows[0] | {"id": 0.0}], "table.jsonl"), codebook) == expected
    # In a CSV file, 1 and 1.0 are two ids, but their texts are never in two splits.
    rows = [row | {"label": str(int(row["label"]))} for row in rows]
    items, report = read_items(table(rows + [row | {"id": f"{row['id']}.0"} for row in rows]), codebook)
    parts = divide(items, codebook, Path("table.csv"), report)
    assert len(items) == 80
    assert not {item.text for item in parts["train"]} & {item.text for item in parts["test"] + parts["dev"]}


def test_case_and_spaces_are_forgiven_and_counted(table):
    rows = rows_of()
    for row, spelling in zip(rows[1::2], ("in favor", "IN  FAVOR", "In\u00a0favor", "\u200bIn favor"), strict=False):
        row["label"] = spelling
    items, report = read_items(table(rows), CODEBOOK)
    assert [item.label for item in items] == [0, 1] * 20
    assert report.notes["labels written with other case or spaces"] == 4


def test_labels_that_the_codebook_lacks_are_listed_with_the_nearest(table):
    rows = rows_of()
    for number, label in enumerate(["in favour", "in favour", "xyz", "\x1b[2J", "a1", "b2", "c3"]):
        rows[number + 1]["label"] = label
    line = refusal(table(rows))
    assert (
        "line 3, column 'label': the codebook lacks 6 labels of the table ('in favour' 2, nearest is 'In favor'" in line
    )
    assert "; 1 more)" in line and "expected Against, In favor" in line


def test_missing_labels_and_texts_are_dropped_and_words_for_them_may_be_labels(table):
    rows = rows_of(46)
    for row, label in zip(rows, ("", "NA", "none", " ", "\u200b", "#N/A"), strict=False):
        row["label"] = label
    rows += [{"text": "\u200b &nbsp;", "label": "Against"}]
    items, report = read_items(table(rows), CODEBOOK)
    assert len(items) == 40 and report.dropped == {"no label": 6, "no text": 1}
    rows = [row | {"label": "NONE" if n % 2 else "Some"} for n, row in enumerate(rows_of())]
    assert labels_of(table(rows), replace(CODEBOOK, labels={"Some": "", "None": ""})) == [0, 1] * 20


def test_lists_of_names_are_united(table):
    codebook = replace(with_columns(annotator="who"), labels={}, text=True)
    rows = [{"text": text(n), "label": "B; a", "who": "x"} for n in range(40)]
    rows += [{"text": text(0), "label": "c", "who": "x"}, {"text": text(0), "label": "none", "who": "y"}]
    rows += [{"text": text(1), "label": "NA", "who": "y"}]
    rows[2]["label"] = "none"
    items, report = read_items(table(rows), codebook)
    assert [item.label for item in items[:3]] == [("a", "b", "c"), ("a", "b"), ()]
    assert report.notes["rows that repeat a person's label, counted once"] == 1
    splits = load_table(table(rows), codebook)[1]
    assert sum(len(split.posts) for split in splits.values()) == 40
    assert "29 items; expected at least 30 with labels" in refusal(table(rows[:29]), codebook)


def test_few_items_and_empty_classes(table):
    rows = [row for row in rows_of(24) if row["label"] == "Against"]
    more = replace(CODEBOOK, labels={"Against": "", "In favor": "", "Neither": ""})
    line = refusal(table(rows + [r for r in rows_of(6) if r["label"] != "Against"]), more)
    assert (
        "column 'label': too few items with labels: 3 of 'In favor', 0 of 'Neither'; expected at least 10 of each"
        in line
    )
    assert "expected texts with labels" in refusal(table([{"text": "a", "label": ""}]))


def test_ten_items_of_each_label_are_enough_for_every_split(table):
    splits = load_table(table(rows_of(20)), CODEBOOK)[1]
    counts = {name: Counter(item.label for item in split.posts) for name, split in splits.items()}
    assert all(each[label] >= 1 for each in counts.values() for label in (0, 1))
    assert counts["train"].total() >= 12


def test_a_single_annotator_is_noted(table):
    _, report = read_items(table(rows_of(who=lambda n: "a")), with_columns(annotator="who"))
    assert report.notes["annotators (a single one: agreement between people can't be measured)"] == 1


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("text", "other", r"column 'text': another value than in an earlier row of this item \(line 2\)"),
        ("author", "other", r"column 'author': another value than in an earlier row of this item \(line 2\)"),
        ("part", "dev", r"column 'part': another value than in an earlier row of this item \(line 2\)"),
        ("who", "a", r"column 'label': 'a' labeled the same item as 'Against' before; expected one label of a person"),
        ("id", "", r"column 'id': empty; expected the id of the text"),
    ],
)
def test_rows_of_an_item_that_contradict_each_other(table, column, value, problem):
    columns = {"author": lambda n: "u", "part": lambda n: "train", "id": str, "who": lambda n: "a"}
    rows = rows_of(**columns)
    rows.append(rows[0] | {"who": "b", "label": "In favor", column: value})
    codebook = with_columns(annotator="who", item="id", group="author", split="part")
    with pytest.raises(UserError, match=f"line 42, {problem}"):
        read_items(table(rows), codebook)


def test_without_ids_two_authors_may_write_the_same(table):
    rows = rows_of(author=str)
    rows += [
        rows[0] | {"author": "other", "text": rows[0]["text"].upper()},
        rows[1] | {"text": rows[1]["text"].upper()},
    ]
    items, report = read_items(table(rows), with_columns(group="author"))
    assert len(items) == 41 and len(items[1].annotations) == 2
    parts = divide(items, with_columns(group="author"), Path("t"), report)
    assert len({name for name, part in parts.items() for item in part if item.text.lower() == text(0)}) == 1


def test_named_splits_with_synonyms_lose_what_leaks(table):
    names = ["Training", "train", "validation", "VAL", "Test"]
    rows = rows_of(100, part=lambda n: names[n // 2 % 5], author=lambda n: "" if n > 1 else "u")
    rows[8]["author"] = "u"  # of test
    rows.append({"text": f"{rows[9]['text']}!", "label": "Against", "part": "train", "author": ""})
    rows.append(rows[4] | {"part": "test"})  # an equal text: that of dev goes
    codebook = with_columns(split="part", group="author")
    report, splits = load_table(table(rows), codebook)
    assert report.dropped == {
        "dev: its group or a near duplicate is in a later split": 1,
        "train: its group or a near duplicate is in a later split": 3,
    }
    assert report.notes["texts"] == 98 and [len(split.posts) for split in splits.values()] == [38, 39, 21]
    assert "unknown split 'tset'" in refusal(table([*rows, rows[0] | {"part": "tset", "text": "x"}]), codebook)
    line = refusal(table([row for row in rows if row["part"] != "Test"]), codebook)
    assert "the split test has no item of 'In favor'" in line or "no texts of the split test" in line
    line = refusal(table(rows_of(part=lambda n: "test" if n % 4 else "train")), codebook=with_columns(split="part"))
    assert "no texts of the split dev; expected train, dev and test" in line


def test_texts_that_all_belong_together_are_refused(table):
    rows = rows_of(author=lambda n: "u" if n < 25 else str(n))
    assert "25 of 40 texts belong together" in refusal(table(rows), with_columns(group="author"))


def test_the_draw_depends_on_the_texts_only(table):
    rows = rows_of(200, author=lambda n: str(n // 3))
    codebook = with_columns(group="author")
    first = load_table(table(rows), codebook)[1]
    again = load_table(table(random.Random(0).sample(rows, len(rows)), "other.jsonl"), codebook)[1]
    assert all({i.text for i in first[name].posts} == {i.text for i in again[name].posts} for name in first)
    # A later version must find the same test texts.
    assert min(item.text for item in first["test"].posts) == "balt find folt bund dirm gusk bind kind"


@pytest.mark.properties
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), min_size=30, max_size=120), st.booleans())
def test_groups_are_never_parted_and_shares_are_kept(given, singles):
    items = [Item(text(n), label, group=str(n if singles else group)) for n, (group, label) in enumerate(given)]
    codebook = replace(CODEBOOK, labels={"a": "", "b": "", "c": ""}, columns=Columns(group="group"))
    largest = Counter(item.group for item in items).most_common(1)[0][1]
    if largest > len(items) / 2:
        with pytest.raises(UserError, match="belong together"):
            divide(items, codebook, Path("table.csv"), DataReport("table"))
        return
    parts = divide(items, codebook, Path("table.csv"), DataReport("table"))
    assert sum(map(len, parts.values())) == len(items)
    homes = {(item.group, name) for name, part in parts.items() for item in part}
    assert len(homes) == len({item.group for item in items})
    if singles:
        for name, part in parts.items():
            for label, total in Counter(item.label for item in items).items():
                assert abs(sum(item.label == label for item in part) - SHARES[name] * total) <= 2


def brute_force(texts: list[str], groups: list[str]) -> list[int]:
    from scipy.sparse.csgraph import connected_components
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), use_idf=False).fit_transform(texts)
    equal = np.array([[a == b != "" for b in groups] for a in groups])
    return connected_components(((vectors @ vectors.T).toarray() >= 0.9) | equal)[1].tolist()


def same_partition(one: list[int], other: list[int]) -> bool:
    return len(set(zip(one, other, strict=True))) == len(set(one)) == len(set(other))


@pytest.mark.properties
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 20)), min_size=1, max_size=30))
def test_near_duplicates_are_those_of_a_full_search(given):
    edits = ["", "!", " ", "?!", "."]
    texts = [f"{text(n)} {text(n + 50)}{edits[edit % 5]}{' again' * (edit // 5)}" for n, edit, _ in given]
    groups = [str(group) if group < 5 else "" for *_, group in given]
    assert same_partition(clusters(texts, groups), brute_force(texts, groups))


def test_texts_without_letters_are_compared_too():
    texts = ["!", "?", "!", "\U0001f600", "\U0001f600", "a", "A", "x" * 10_000, "x" * 10_001]
    assert same_partition(clusters(texts, [""] * len(texts)), [0, 1, 0, 2, 2, 3, 3, 4, 4])


def test_many_texts_of_one_template_take_little_memory():
    """Every pair is nearly alike: a search that keeps the pairs would take gigabytes."""
    import tracemalloc

    texts = [f"{text(0)} {text(1)} {number}" for number in range(1500)]
    tracemalloc.start()
    assert len(set(clusters(texts, [""] * len(texts)))) == 1
    assert tracemalloc.get_traced_memory()[1] < 60e6
    tracemalloc.stop()


def test_features_of_annotated_files(tmp_path, table):
    rows = [
        {"id": n, "stance": "Against", "topics": "a, b", "won": "x"}
        | {"stance_probability_Against": 0.9, "stance_probability_In favor": 0.1, "topics_mean_log_probability": -0.1}
        for n in range(3)
    ]
    columns = list(rows[0])
    assert annotated_features(columns, "") == ["stance", "topics"]
    assert annotated_features([f"model_{name}" for name in columns], "model_") == ["stance", "topics"]
    assert annotated_features(["model_../up", "model_../up_probability_a"], "model_") == []
    people = table([{"id": 0, "stance": "against", "topics": "b"}], "people.csv")
    path = table(rows, "annotated.csv")
    with pytest.raises(UserError, match="both files have stance, topics"):
        shared_feature(path, people, prefix="")
    stance = shared_feature(path, people, "stance", prefix="")
    assert stance.labels == ("Against", "In favor")
    read = read_annotated(path, stance, key="id", columns=["topics", "won"], prefix="")
    assert read.answers == [0, 0, 0] and read.columns == {"topics": [("a", "b")] * 3, "won": [("x",)] * 3}
    topics = shared_feature(path, people, "topics", prefix="")
    assert read_annotated(path, topics, key="id", prefix="").answers == [("a", "b")] * 3
    with pytest.raises(UserError, match="no answers to 'won' with their numbers; expected stance or topics"):
        shared_feature(path, people, "won", prefix="")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], r"key '?(--)?feature'?: neither a feature nor a codebook"),
        (
            ["--feature", "intentYN", "--codebook", "c", "--data", "T"],
            r"--feature: given with --codebook; .*Remove one",
        ),
        (["--feature", "intentYN", "--data", "T"], r"--feature: given with --data"),
        (["--codebook", "c"], r"--codebook: it needs --data"),
        (["--data", "T"], r"--data: it needs --codebook"),
        (["--codebook", "c", "--data", "none.csv"], r"none.csv: no such file"),
        (["--codebook", "c", "--data", "T", "--dataset_name", "a/b"], r"--data: two corpora were given"),
        (["--codebook", "c", "--data", "T", "--label_policy", "above_half"], r"--label_policy: a codebook has no such"),
        (["--codebook", "c", "--data", "T", "--wording", "study"], r"--wording: a codebook has no such choice"),
        (["--codebook", "c", "--data", "T", "--view", "aggregated"], r"--view: it is about SBIC, and has no effect"),
        (["--codebook", "c", "--data", "T", "--repeats", "keep"], r"--repeats: it is about SBIC, and has no effect"),
    ],
)
def test_arguments_that_exclude_each_other(table, tmp_path, words, problem):
    path = str(table(rows_of(3)))
    words = [path if word == "T" else word for word in words]
    more = ["--output_dir", str(tmp_path / "out"), "--learning_rate", "1e-4"]
    with pytest.raises(UserError, match=problem) as caught:
        parse(FeatureArguments, [*words, *more])
    assert str(caught.value).isprintable()


def test_a_command_for_a_feature_of_sbic_takes_no_codebook(table, tmp_path):
    arguments = TrainArguments(output_dir=tmp_path, learning_rate=1e-4, codebook=Path("c"), data=table(rows_of(3)))
    with pytest.raises(UserError, match=r"this command trains offensiveYN\. Use python -m sbic_llama\.train"):
        arguments.declared("offensiveYN")


def test_a_column_that_the_table_lacks_is_a_matter_of_the_codebook(table):
    line = refusal(table(rows_of()), with_columns(annotator="coder"))
    assert "missing column 'coder'" in line
    assert line.endswith("Write the names of the table's columns under `columns` in the codebook")


@pytest.mark.parametrize("several", ["majority", "soft"])
def test_a_table_that_changed_since_the_training_is_refused(table, several):
    """A longer table divides otherwise, so its test part may hold texts that were trained on."""
    codebook = replace(with_columns(annotator="who"), several=several)
    rows = [row | {"who": who} for row in rows_of(60) for who in ("ann", "bo", "cy")]
    corpus, feature = SimpleNamespace(data=table(rows)), feature_of(codebook)

    def require(facts: dict | None) -> None:
        require_training_table(corpus, feature, load_table(corpus.data, codebook)[1], facts)

    splits = load_table(corpus.data, codebook)[1]
    trained = training_fingerprint(feature, splits["train"].posts, splits["dev"].posts)
    facts = {"data": {"fingerprint": trained}}
    require(facts)
    require(None)  # an adapter without a training record, as one from elsewhere
    table([*rows, {"text": text(99), "label": "Against", "who": "ann"}])
    with pytest.raises(UserError, match=r"table.csv: its texts or labels have changed since the adapter was trained"):
        require(facts)
    # One of three people thinks otherwise: the majority stays, what is learned from shares does not.
    place = next(i for i, row in enumerate(rows) if row["text"] == splits["train"].posts[0].text)
    other = {"Against": "In favor", "In favor": "Against"}[rows[place]["label"]]
    table([row | {"label": other} if i == place else row for i, row in enumerate(rows)])
    if several == "majority":
        require(facts)
    else:
        with pytest.raises(UserError, match="have changed"):
            require(facts)


def test_an_export_of_a_labeling_tool_or_a_folder_of_files_is_a_table_too(tmp_path, table):
    """The labels are the answers to the codebook's question, whatever the column of labels is called elsewhere."""
    rows = rows_of(40)
    expected, _ = read_items(
        table([row | {"who": who} for row in rows for who in ("1", "2")]), with_columns(annotator="who")
    )
    result = {"from_name": CODEBOOK.name, "type": "choices"}
    tasks = [
        {
            "data": {"text": row["text"]},
            "annotations": [
                {"completed_by": who, "result": [result | {"value": {"choices": [row["label"]]}}]} for who in (1, 2)
            ],
        }
        for row in rows
    ]
    skipped = {"data": {"text": text(99)}, "annotations": [{"completed_by": 1, "was_cancelled": True, "result": []}]}
    (tmp_path / "export.json").write_text(json.dumps([*tasks, skipped]))
    items, report = read_items(tmp_path / "export.json", CODEBOOK)
    assert items == expected
    assert report.dropped == {"no label": 1}
    folder = tmp_path / "people"
    folder.mkdir()
    for who in ("1", "2"):
        table([{"text": row["text"], CODEBOOK.name: row["label"]} for row in rows], f"people/{who}.csv")
    assert read_items(folder, CODEBOOK)[0] == expected


def test_labels_in_lists_keep_the_tables_own_column_of_people(table):
    """Such a table looks like an export of doccano, which names nobody."""
    rows = [{"text": text(n), "label": ["Against", "In favor"], "who": who} for n in range(3) for who in "ab"]
    codebook = replace(with_columns(annotator="who"), multi_label=True)
    items, report = read_items(table(rows, "table.jsonl"), codebook, whole=False)
    assert [vote.worker for vote in items[0].annotations] == ["a", "b"]
    assert report.notes["annotators"] == 2
    items, report = read_items(table([row | {"annotator": "c"} for row in rows], "table.jsonl"), codebook, whole=False)
    assert [vote.worker for vote in items[0].annotations] == ["c"]


def test_labels_of_a_further_round_are_for_training_only(tmp_path, table):
    """No text for validation or the test comes back as one for training, and what is held out stays as it was."""
    book = with_columns(annotator="who", item="id", group="author", split=None)
    rows = rows_of(60, who=lambda n: "ann", id=lambda n: str(n), author=lambda n: f"u{n}")
    _, splits = load_table(table(rows), book)
    held_out, known = splits["test"].posts[0], splits["train"].posts[0]
    new = [{"text": text(100 + n), "stance": "Against"} for n in range(3)]
    back = [{"text": held_out.text.upper() + "!", "stance": "In favor"}, {"text": known.text, "stance": "In favor"}]
    path = table([*new, *back, {"text": text(103), "stance": ""}], "round.csv")
    exported = with_columns(annotator="who", item="id", group="author", label="stance")
    splits, (report,) = with_more_labels(splits, [path], exported)
    assert [item.text for item in splits["train"].posts[-3:]] == [row["text"] for row in new]
    assert report.notes["texts added for training"] == 3
    assert report.dropped == {"no label": 1}
    left = {note: count for note, count in report.notes.items() if note.startswith("texts left out")}
    assert list(left.values()) == [1, 1] and "already among the training texts" in list(left)[1]
    assert splits["test"].posts == load_table(table(rows), book)[1]["test"].posts
    of_author = [{"text": text(200), "stance": "Against", "author": held_out.group, "id": "x"}]
    with pytest.raises(UserError, match="'more_labels': none of its labels are of new texts"):
        with_more_labels(splits, [table(of_author, "author.csv")], exported)
    with pytest.raises(UserError, match="no such file"):
        with_more_labels(splits, [tmp_path / "none.csv"], exported)


def test_a_table_may_be_a_split_on_the_hub_at_the_commit_of_today(hub, table, tmp_path):
    """The run is tied to the commit; labels that the dataset has as numbers have their names."""
    from datasets import ClassLabel, Dataset, Features, Value
    from huggingface_hub import HfApi

    from sbic_llama.training.run import load_data

    name, rows = "hf://datasets/miniature/labels:train", rows_of(60)
    (tmp_path / "codebook.yaml").write_text(
        "name: stance\nquestion: What?\ninstruction: Decide.\nlabels: {Against: '', In favor: ''}\n"
        "columns: {text: text, label: label}\n"
    )
    names = Features({"text": Value("string"), "label": ClassLabel(names=["Against", "In favor"])})
    Dataset.from_list(rows, features=names).push_to_hub("miniature/labels")
    commit = HfApi().dataset_info("miniature/labels").sha

    def arguments(data: str | Path) -> FeatureArguments:
        words = ["--codebook", str(tmp_path / "codebook.yaml"), "--data", str(data), "--learning_rate", "1e-4"]
        return parse(FeatureArguments, [*words, "--output_dir", str(tmp_path / "out")])

    here, there = (load_data(each, each.declared("")) for each in map(arguments, (table(rows), name)))
    assert [post.content() for post in there.posts] == [post.content() for post in here.posts]
    pinned = f"hf://datasets/miniature/labels@{commit}:train"
    assert there.identity == {"dataset": pinned} | here.identity
    given = arguments(name)
    assert given.corpus_name == pinned and "--data" in given.words()
    assert arguments(given.words()[1]).dataset == pinned  # as a command passes it on to another
    (more,) = replace(given, more_labels=(Path(name),)).more_labels
    assert table_name(more) == pinned
    Dataset.from_list(rows[:50], features=names).push_to_hub("miniature/labels")
    assert arguments(name).dataset != pinned
    with pytest.raises(UserError, match=r"no split 'exam'; expected one of \['train'\]"):
        arguments("hf://datasets/miniature/labels:exam")
