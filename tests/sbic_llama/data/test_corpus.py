from __future__ import annotations

import csv

import pyarrow
import pyarrow.parquet
import pytest

from common.cli.errors import UserError
from common.hub import table_download
from common.results.record import read_record
from common.tables.writing import write_rows
from sbic_llama import baselines
from sbic_llama.data import corpus
from sbic_llama.data.corpus import AGGREGATED_COLUMNS, ANNOTATOR_COLUMNS, clean, is_blank, load_splits, nearest_level
from sbic_llama.data.features import HAS_BIASED_IMPLICATION, OFFENSIVE_YN
from sbic_llama.miniature import sbic

ANNOTATION = {
    "post": "the florbs live here", "offensiveYN": "0.0", "targetMinority": "", "targetStereotype": "",
    "dataSource": "m/market", "WorkerId": "1", "HITId": "A",
}  # fmt: skip
AGGREGATE = {
    "post": "the florbs live here", "offensiveYN": "0.0", "targetMinority": "[]", "targetStereotype": "[]",
    "dataSource": "m/market", "hasBiasedImplication": "1",
}  # fmt: skip


def write(folder, rows, kind=""):
    """Write ``rows`` as the dev split, and a different row as each of the other splits."""
    base, columns = (AGGREGATE, AGGREGATED_COLUMNS) if kind else (ANNOTATION, ANNOTATOR_COLUMNS)
    for name, content in {"trn": [{**base, "post": "one"}], "tst": [{**base, "post": "two"}], "dev": rows}.items():
        with open(folder / f"SBIC.v2.{kind}{name}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(content)


def test_annotations_and_aggregates_of_the_miniature_agree(miniature):
    """The official aggregates count repeats, so they equal the annotations with the repeats kept."""
    by_annotator = load_splits(data_dir=miniature / "SBIC.v2", repeats="keep")
    aggregated = load_splits(data_dir=miniature / "SBIC.v2", view="aggregated")
    for split in ("train", "dev", "test"):
        pairs = zip(by_annotator[split].posts, aggregated[split].posts, strict=True)
        for one, other in pairs:
            assert (one.text, one.biased, one.groups) == (other.text, other.biased, other.groups)
            assert one.offensive == pytest.approx(other.offensive) or one.offensive == other.offensive


def test_annotations_and_aggregates_of_the_real_corpus_agree(real_data):
    by_annotator = load_splits(data_dir=real_data / "SBIC.v2", repeats="keep")["dev"].posts
    aggregated = {
        post.text: post for post in load_splits(data_dir=real_data / "SBIC.v2", view="aggregated")["dev"].posts
    }
    compared = [(post, aggregated[post.text]) for post in by_annotator if post.text in aggregated]
    assert len(compared) == len(aggregated) == 719
    for one, other in compared:
        assert (one.biased, one.offensive) == (other.biased, pytest.approx(other.offensive))


def test_the_real_corpus_has_the_known_repeats_and_blanks(real_data):
    notes = [split.report.notes for split in load_splits(data_dir=real_data / "SBIC.v2").values()]
    assert sum(note["(HIT, worker) repeats, counted once"] for note in notes) == 4172
    assert sum(note["annotations with a blank offensiveYN"] for note in notes) == 241


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("repeats", ["drop", "keep"])
def test_a_workers_rows_together_are_one_annotation(tmp_path, order, repeats):
    """Workers have a row for each group, and a row may lack what another has; so it is in 143 annotations of the real corpus."""
    rows = [
        {**ANNOTATION, "targetMinority": "florbs", "targetStereotype": "florbs are lazy", "offensiveYN": "1.0"},
        {**ANNOTATION, "targetMinority": "drevins", "targetStereotype": "", "offensiveYN": ""},
    ]
    write(tmp_path, [*rows[::order], {**ANNOTATION, "WorkerId": "2"}])
    split = load_splits(data_dir=tmp_path, repeats=repeats)["dev"]
    (post,) = split.posts
    assert [(each.worker, each.biased, each.offensive) for each in post.annotations] == [
        ("1", True, 1),
        ("2", False, 0),
    ]
    assert (post.biased, post.offensive, post.groups) == (True, 0.5, ("drevins", "florbs"))
    assert split.report.notes["annotations with a blank offensiveYN"] == (repeats == "keep")


def test_the_polarity_is_ours(miniature):
    posts = load_splits(data_dir=miniature / "SBIC.v2", view="aggregated")["test"].posts
    assert all(post.biased == bool(post.groups) for post in posts)
    assert {HAS_BIASED_IMPLICATION.labels[HAS_BIASED_IMPLICATION.label_of(post)] for post in posts if post.groups} == {
        "Biased"
    }


@pytest.mark.parametrize(("flag", "stereotypes"), [("0", "[]"), ("1", '["florbs are lazy"]'), ("", "[]")])
def test_a_file_of_the_other_polarity_is_refused(tmp_path, flag, stereotypes):
    write(
        tmp_path,
        [AGGREGATE, {**AGGREGATE, "post": "x", "hasBiasedImplication": flag, "targetStereotype": stereotypes}],
        "agg.",
    )
    with pytest.raises(
        UserError, match=r"SBIC.v2.agg.dev.csv, line 3, column 'hasBiasedImplication': .* or invert the column"
    ):
        load_splits(data_dir=tmp_path, view="aggregated")


def test_repeats_count_once_or_as_often_as_they_stand(tmp_path):
    twice = [
        {**ANNOTATION, "WorkerId": "1", "offensiveYN": "1.0", "targetStereotype": "x", "targetMinority": g}
        for g in "ab"
    ]
    write(tmp_path, [*twice, {**ANNOTATION, "WorkerId": "2", "offensiveYN": "0.0"}])
    (once,), (all_,) = (load_splits(data_dir=tmp_path, repeats=r)["dev"].posts for r in ("drop", "keep"))
    assert (once.offensive, all_.offensive) == (0.5, pytest.approx(2 / 3))
    assert once.groups == all_.groups == ("a", "b")
    assert [(a.worker, a.offensive, a.biased) for a in once.annotations] == [("1", 1.0, True), ("2", 0.0, False)]


def test_blank_levels_are_left_out_and_a_post_of_blanks_has_no_label(tmp_path):
    write(tmp_path, [{**ANNOTATION, "offensiveYN": ""}, {**ANNOTATION, "post": "b", "offensiveYN": ""},
                     {**ANNOTATION, "post": "b", "WorkerId": "2", "offensiveYN": "1.0"}])  # fmt: skip
    blank, half = load_splits(data_dir=tmp_path)["dev"].posts
    assert (blank.offensive, OFFENSIVE_YN.label_of(blank)) == (None, None)
    assert (half.offensive, OFFENSIVE_YN.labels[OFFENSIVE_YN.label_of(half)]) == (1.0, "Offensive")


@pytest.mark.parametrize(
    ("mean", "level"), [(0, 0), (0.2, 0), (0.25, 0.5), (0.5, 0.5), (0.75, 0.5), (0.76, 1), (1 / 3, 0.5), (1, 1)]
)
def test_the_three_levels(mean, level):
    assert nearest_level(mean) == level


def test_duplicates_across_splits_are_dropped_from_the_earlier_one(miniature):
    splits = load_splits(data_dir=miniature / "SBIC.v2")
    reason = "the post is in this or another split already"
    assert {name: split.report.dropped.get(reason, 0) for name, split in splits.items()} == {
        "train": 2 * sbic.DUPLICATES, "dev": sbic.DUPLICATES, "test": 0,
    }  # fmt: skip
    texts = [post.text.casefold() for split in splits.values() for post in split.posts]
    assert len(texts) == len(set(texts))


@pytest.mark.parametrize(
    "post", ["", " ", "\u200b", "&#8203;&nbsp;", "\x01\u2800", " " * 200 + "\ufeff", "\u202e\u3164"]
)
def test_a_post_that_nobody_sees_is_blank(post):
    assert is_blank(post)
    assert not is_blank(f"{post}a")
    assert not is_blank(f"{post}\U0001fae8")


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("one\ntwo\r\n\r\nthree\u2028four", "one two three four"),
        ("salt &amp; pepper &lt;3 &#128514;", "salt & pepper <3 😂"),
        ("twice &amp;amp; escaped", "twice & escaped"),
        (
            'RT @user12: "so", they said... https://example.org/1 #tag',
            'RT @user12: "so", they said... https://example.org/1 #tag',
        ),
        ("a\x00b\x07c", "a b c"),
        ("👩‍👧 stays one", "👩‍👧 stays one"),
        ("</s> ### Response:", "</s> ### Response:"),
        ("  \n ", ""),
    ],
)
def test_cleaning_keeps_words_apart_and_meaning_intact(raw, cleaned):
    assert clean(raw) == cleaned


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offensiveYN": "yes"}, "line 3, column 'offensiveYN': invalid value 'yes'; expected 0, 0.5, 1, or nothing"),
        ({"offensiveYN": "0.7"}, "line 3, column 'offensiveYN': invalid value '0.7'"),
        ({"offensiveYN": "nan"}, "line 3, column 'offensiveYN': invalid value 'nan'"),
    ],
)
def test_nasty_annotations_are_refused_by_file_and_line(tmp_path, change, message):
    write(tmp_path, [ANNOTATION, {**ANNOTATION, **change}])
    with pytest.raises(UserError) as error:
        load_splits(data_dir=tmp_path)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{tmp_path}/SBIC.v2.dev.csv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"targetMinority": "florbs"},
            "column 'targetMinority': 'florbs' is not a list; expected a JSON list of strings",
        ),
        ({"targetStereotype": "[1]"}, "column 'targetStereotype': '[1]' is not a list"),
        ({"offensiveYN": "1.5"}, "column 'offensiveYN': invalid value '1.5'; expected a number from 0 to 1"),
    ],
)
def test_nasty_aggregates_are_refused_by_file_and_line(tmp_path, change, message):
    write(tmp_path, [{**AGGREGATE, **change}], "agg.")
    with pytest.raises(UserError) as error:
        load_splits(data_dir=tmp_path, view="aggregated")
    assert f"SBIC.v2.agg.dev.csv, line 2, {message}" in str(error.value)


def test_an_empty_post_is_dropped_and_counted(tmp_path):
    write(tmp_path, [ANNOTATION, {**ANNOTATION, "post": " \n"}])
    report = load_splits(data_dir=tmp_path)["dev"].report
    assert (report.kept, report.dropped, report.first_dropped["empty post"]) == (
        1,
        {"empty post": 1},
        "SBIC.v2.dev.csv, line 3",
    )


def test_the_hubs_parquet_files_give_the_same_splits(hub, miniature, tmp_path):
    """Through the real client, with numbers and nulls as in a Parquet conversion."""
    from huggingface_hub import HfApi

    for name, hub_name in (("trn", "train"), ("dev", "validation"), ("tst", "test")):
        with open(miniature / "SBIC.v2" / f"SBIC.v2.{name}.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            row["offensiveYN"] = float(row["offensiveYN"]) if row["offensiveYN"] else None
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / f"{hub_name}-00000-of-00001.parquet")
    HfApi().create_repo("miniature/sbic", repo_type="dataset")
    HfApi().upload_folder(repo_id="miniature/sbic", repo_type="dataset", folder_path=tmp_path, path_in_repo="data")
    from_hub, from_files = load_splits(dataset_name="miniature/sbic"), load_splits(data_dir=miniature / "SBIC.v2")
    for split in from_files:
        assert from_hub[split].fingerprint() == from_files[split].fingerprint()


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({"dataset_name": corpus.HUB_DATASET}, "refs/convert/parquet"),
        ({"dataset_name": corpus.HUB_DATASET, "revision": "v2"}, "v2"),
        ({"dataset_name": "somebody/sbic"}, None),
    ],
)
def test_of_the_original_dataset_the_parquet_conversion_is_read(given, asked, monkeypatch, tmp_path):
    """Its main branch is a loading script, which is no longer supported."""
    names = []

    def download(name):
        names.append(name)
        write_rows(tmp_path / "rows.csv", [{**ANNOTATION, "post": name}])
        return table_download.HubTable(table_download.parse_name(name), tmp_path / "rows.csv")

    monkeypatch.setattr(table_download, "download_table", download)
    assert [len(split.posts) for split in load_splits(**given).values()] == [1, 1, 1]
    at = f"@{asked}" if asked else ""
    assert names == [f"hf://datasets/{given['dataset_name']}{at}:{split}" for split in ("test", "validation", "train")]


def test_baselines_on_the_miniature(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["x", "--output_dir", str(tmp_path)])
    baselines.main()
    records = [read_record(path) for path in sorted(tmp_path.glob("*.json"))]
    assert [(record.task, record.title) for record in records] == [
        (f"SBIC {feature}", title)
        for feature in ("hasBiasedImplication", "intentYN", "offensiveYN", "targetMinority")
        for title in (("always none" if feature == "targetMinority" else "majority label"), "TF-IDF")
    ]
    assert all(record.miniature and "counted" not in record.policy for record in records)
    assert "drop" in records[0].policy["aggregation"]
    assert "SBIC dev: " in capsys.readouterr().err


def test_baselines_skip_a_feature_that_a_corpus_has_no_labels_of(tmp_path, miniature, monkeypatch, capsys):
    (tmp_path / "corpus").mkdir()
    for name in ("trn", "dev", "tst"):
        text = (miniature / "SBIC.v2" / f"SBIC.v2.{name}.csv").read_text(encoding="utf-8")
        (tmp_path / "corpus" / f"SBIC.v2.{name}.csv").write_text(text.replace("intentYN", "other", 1), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["x", "--data_dir", str(tmp_path / "corpus"), "--output_dir", str(tmp_path)])
    baselines.main()
    assert "intentYN: skipped, because a split has no post with a label" in capsys.readouterr().err
    assert len(list(tmp_path.glob("sbic-*.json"))) == 6
