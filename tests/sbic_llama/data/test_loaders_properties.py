"""Test the loaders of all corpora and of human labels: a damaged file is loaded, or refused in one line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.cli.errors import UserError
from common.stats.scale import Scale
from common.stats.votes import read_votes
from common.tables.reading import Row
from common.tables.report import DataReport, fingerprint
from sbic_llama.data import corpus, hatecheck, label_files, md_agreement
from sbic_llama.data.features import FEATURES, OFFENSIVE_POLICIES, STUDY_WORDING
from sbic_llama.data.label_files import read_annotated, shared_feature
from tests.rubbish import check, check_refusal, dumped, json_values, mutated, replaced, texts

pytestmark = pytest.mark.properties
DECLARED = [*FEATURES.values(), *OFFENSIVE_POLICIES.values(), STUDY_WORDING]


def records(miniature: Path, name: str, count: int = 3) -> list[list[str]]:
    with open(miniature / name, encoding="utf-8", newline="") as file:
        return [record for record, _ in zip(csv.reader(file), range(count), strict=False)]


def as_csv(rows: list[list[str]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows(rows)
    return buffer.getvalue().encode()


def used_posts(splits: dict[str, corpus.Split]) -> None:
    for split in splits.values():
        split.fingerprint()
        split.report.lines()
        for post in split.posts:
            assert post.text == corpus.clean(post.text)
            for feature in FEATURES.values():
                label = feature.label_of(post)
                assert label is None or feature.parse(feature.target(post)) == label


def read_splits(view: str) -> Callable[[Path], Any]:
    """Return a reader of the splits in a file's folder, where the other files are valid."""
    return lambda path: corpus.load_splits(data_dir=path.parent, view=view)


ANNOTATIONS = {
    "item_annotator": lambda path: read_votes(path, item="id", annotator="annotator", label="offensiveYN").notes(),
    "real": lambda path: read_votes(path, item="id", annotator="annotator", label="id", read=Scale("real").read),
    "predictions": lambda path: read_votes(path, item="id", label="offensiveYN"),
    **{
        f"people's {name}": lambda path, one=one: label_files.labels_of(label_files.read_human_votes(path, "id", one), one)
        for name, one in FEATURES.items()
    },
}  # fmt: skip
CSV_READERS: dict[str, tuple[str, Callable[[Path], Any], Callable[[Any], Any]]] = {
    "annotators": ("SBIC.v2/SBIC.v2.dev.csv", read_splits("annotators"), used_posts),
    "aggregated": ("SBIC.v2/SBIC.v2.agg.dev.csv", read_splits("aggregated"), used_posts),
    "hatecheck": ("hatecheck/test_suite_cases.csv", hatecheck.read_cases, hatecheck.case_fingerprint),
    **{name: ("own_file/human_labels.csv", read, repr) for name, read in ANNOTATIONS.items()},
}


@pytest.fixture(scope="module")
def folder(miniature, tmp_path_factory) -> Path:
    """A folder with short versions of the other files that a loader reads."""
    result = tmp_path_factory.mktemp("corpus")
    for kind in ("", "agg."):
        for name in ("trn", "tst"):
            file = f"SBIC.v2.{kind}{name}.csv"
            (result / file).write_bytes(as_csv(records(miniature, f"SBIC.v2/{file}")))
    return result


@pytest.mark.parametrize("reader", CSV_READERS)
@given(data=st.data())
def test_tables_with_another_cell_or_other_bytes(miniature, folder, reader, data):
    name, read, used = CSV_READERS[reader]
    rows = records(miniature, name)
    if data.draw(st.booleans()):
        for _ in range(data.draw(st.integers(1, 3))):
            row = data.draw(st.sampled_from(rows))
            row[data.draw(st.integers(0, len(row) - 1))] = data.draw(texts).replace("\0", "")
        check(folder / Path(name).name, as_csv(rows), read, used)
    else:
        check(folder / Path(name).name, data.draw(mutated(as_csv(rows))), read, used)


@pytest.mark.parametrize("reader", ANNOTATIONS)
@given(row=st.dictionaries(st.sampled_from(("id", "annotator", *FEATURES)), json_values, min_size=3))
def test_labels_of_any_kind(tmp_path, reader, row):
    check(tmp_path / "labels.jsonl", dumped(row), ANNOTATIONS[reader], repr)


@pytest.mark.parametrize("kind", ["annotators", "aggregated"])
@given(values=st.lists(json_values, min_size=7, max_size=7))
def test_hub_rows_of_any_kind(kind, values):
    """A Hub dataset may have the right column names with any types."""
    columns = corpus.ANNOTATOR_COLUMNS if kind == "annotators" else corpus.AGGREGATED_COLUMNS
    values = [value for value in values if "\\ud" not in json.dumps(value)]  # Arrow's texts are UTF-8
    row = Row(dict(zip(columns, [*values, *["x"] * 7], strict=False)), "user/name (train)", None, 1)
    try:
        if kind == "annotators":
            result = corpus._from_annotators([row], DataReport("r"), "drop")
        else:
            result = corpus._from_aggregated([row], DataReport("r"))
    except UserError as error:
        check_refusal(error, "user/name (train)")
        return
    fingerprint([post.text, post.offensive, post.groups] for _, post in result)


@given(data=st.data())
def test_md_agreement_with_another_value(miniature, tmp_path, data):
    whole = json.loads((miniature / "md_agreement" / "MD-Agreement_dev.json").read_text(encoding="utf-8"))
    few = dict(list(whole.items())[:2])
    written = data.draw(st.one_of(replaced(few).map(dumped), mutated(dumped(few))))
    check(
        tmp_path / "md.json",
        written,
        md_agreement.read_items,
        lambda items: fingerprint([i.id, i.text, i.domain, i.majority] for i in items),
    )


ANSWER = {"id": "1", "model_offensiveYN": "Offensive", "model_targetMinority": "florbs, drevins"} | {
    f"model_offensiveYN_probability_{label}": 0.25 for label in FEATURES["offensiveYN"].labels
}


@pytest.mark.parametrize("feature", ["offensiveYN", "targetMinority"])
@given(rows=st.lists(replaced(ANSWER), min_size=1, max_size=2))
def test_annotated_files_with_another_value(tmp_path, feature, rows):
    def read(path: Path) -> Any:
        pyarrow.parquet.write_table(pyarrow.table({feature: ["x"]}), path.with_suffix(".parquet"))
        declared = shared_feature(path, path.with_suffix(".parquet"), feature)
        return read_annotated(path, declared, key="id", columns=["model_targetMinority"])

    def used(result: Any) -> None:
        assert len(result.answers) + result.unanswered == len(rows), "rows in = rows read + rows without an answer"

    check(
        tmp_path / "annotated.jsonl", b"\n".join(map(dumped, [ANSWER | {"id": "2"}, *rows])), read, lambda result: None
    )
    check(tmp_path / "annotated.jsonl", b"\n".join(map(dumped, rows)), read, used)


@pytest.mark.parametrize("cell", ["[" * 5000, '["\\ud83d"]', "[" + "9" * 5000 + "]", '{"a": 1, "a": 2}'])
def test_a_list_of_groups_that_json_can_spell_and_nobody_can_keep(miniature, folder, cell):
    rows = records(miniature, "SBIC.v2/SBIC.v2.agg.dev.csv")
    rows[1][rows[0].index("targetMinority")] = cell
    (folder / "SBIC.v2.agg.dev.csv").write_bytes(as_csv(rows))
    with pytest.raises(UserError, match=r"line 2, column 'targetMinority': .* is not a list") as error:
        corpus.load_splits(data_dir=folder, view="aggregated")
    check_refusal(error.value, "SBIC.v2.agg.dev.csv")


def test_a_tweet_that_no_file_can_hold_is_refused(miniature, tmp_path):
    whole = json.loads((miniature / "md_agreement" / "MD-Agreement_dev.json").read_text(encoding="utf-8"))
    next(iter(whole.values()))["text"] = "\ud83d"
    (tmp_path / "md.json").write_bytes(dumped(whole))
    with pytest.raises(UserError, match=r"md\.json: not MD-Agreement's JSON file: half of a surrogate pair"):
        md_agreement.read_items(tmp_path / "md.json")


def test_a_missing_number_is_no_group_and_a_list_is_no_text(tmp_path):
    (tmp_path / "l.jsonl").write_text('{"id": 1, "targetMinority": NaN}\n{"id": 2, "targetMinority": "florbs"}\n')
    feature = FEATURES["targetMinority"]
    votes = label_files.read_human_votes(tmp_path / "l.jsonl", "id", feature)
    assert label_files.labels_of(votes, feature) == {"2": ("florbs",)}
    (tmp_path / "l.jsonl").write_text('{"id": 1, "targetMinority": ["florbs"]}\n')
    with pytest.raises(UserError, match="is not a single value"):
        label_files.read_human_votes(tmp_path / "l.jsonl", "id", feature)
    given = '{"id": 1, "targetMinority": "florbs", "annotator": "a"}\n{"id": 2, "targetMinority": "florbs"}\n'
    (tmp_path / "l.jsonl").write_text(given)
    with pytest.raises(UserError, match=r"line 2, column 'annotator': missing; expected a name"):
        label_files.read_human_votes(tmp_path / "l.jsonl", "id", feature)
