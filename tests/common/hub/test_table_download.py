"""Hub datasets as tables, through the real clients and the loopback Hub."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from huggingface_hub import HfApi

from common.cli.arguments import ENCODING
from common.cli.errors import UserError
from common.hub.table_download import download_table, parse_name
from common.models.retry import HubFailed
from common.tables.reading import read_rows

ID, URL = "miniature/posts", "hf://datasets/miniature/posts"


def upload(id: str = ID, private: bool = False, **files: bytes | list[dict]) -> str:
    """Commit files to a dataset, rows as Parquet, and return the commit; ``__`` in a name stands for a slash."""
    api = HfApi()
    api.create_repo(id, repo_type="dataset", exist_ok=True, private=private)
    for name, content in files.items():
        suffix = ""
        if isinstance(content, list):
            buffer = io.BytesIO()
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(content), buffer)
            content, suffix = buffer.getvalue(), ".parquet"
        path = name.replace("__", "/").replace("_dot_", ".") + suffix
        commit = api.upload_file(path_or_fileobj=content, path_in_repo=path, repo_id=id, repo_type="dataset").oid
    return commit


def rows_of(name: str) -> list[dict]:
    return [row.values for row in read_rows(download_table(name).path)]


def test_a_name_has_a_revision_a_subset_and_a_split():
    parsed = parse_name(Path(f"{URL}@refs/convert/parquet:german/train"))
    assert (parsed.id, parsed.revision, parsed.subset, parsed.split) == (
        *("miniature/posts", "refs/convert/parquet"),
        *("german", "train"),
    )
    assert str(parsed) == f"{URL}@refs/convert/parquet:german/train"
    for name in (
        "hf://models/user/name",
        "hf://datasets/name",
        f"{URL}/data/train.parquet",
        f"{URL}@",
        f"{URL}:",
        f"{URL}:../x",
    ):
        with pytest.raises(UserError, match="not the name of a Hub dataset"):
            parse_name(name)


def test_a_single_file_is_read_as_it_is_at_its_commit_and_again_without_a_network(hub):
    first = upload(data__train=[{"text": "a", "n": 1}], data__test=[{"text": "b", "n": 1}])
    table = download_table(f"{URL}:train")
    assert table.name == f"{URL}@{first}:train"
    assert table.path.name == "posts-train.parquet" and table.path.is_symlink()
    second = upload(data__train=[{"text": "a2", "n": 2}])
    assert rows_of(f"{URL}@{first}:train") == [{"text": "a", "n": 1}]
    assert rows_of(f"{URL}:train") == [{"text": "a2", "n": 2}] and second != first
    hub.log.clear()
    assert rows_of(table.name) == [{"text": "a", "n": 1}]
    assert hub.log == []
    with pytest.raises(UserError, match=f"{table.name}: missing column 'post'; expected it among \\['text', 'n'\\]"):
        list(read_rows(table.path, ["post"]))


def test_several_files_become_one_table_with_the_names_of_labels(hub):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"]), "tags": [Value("string")]})
    rows = [{"text": f"post {i}", "label": i % 2, "tags": ["x"] * i} for i in range(5)] + [
        {"text": "unlabeled", "label": -1, "tags": []}
    ]
    DatasetDict({"train": Dataset.from_list(rows, features=features)}).push_to_hub(ID, num_shards={"train": 2})
    expected = [row | {"label": ["no", "yes"][row["label"]] if row["label"] >= 0 else None} for row in rows]
    assert rows_of(URL) == expected  # the only split need not be named
    schema = pyarrow.parquet.read_schema(download_table(URL).path)
    assert schema.field("label").type == pyarrow.string() and schema.field("tags").type == pyarrow.list_(
        pyarrow.string()
    )
    HfApi().delete_file("README.md", ID, repo_type="dataset")  # the files' own metadata have the names too
    assert rows_of(URL) == expected


def test_lists_of_labels_are_listed_by_name(hub):
    """As a cell of a table lists several labels."""
    features = Features({"text": Value("string"), "topics": [ClassLabel(names=["price", "staff"])]})
    rows = [{"text": "a", "topics": [0, 1]}, {"text": "b", "topics": [1]}, {"text": "c", "topics": []}]
    Dataset.from_list(rows, features=features).push_to_hub(ID)
    assert [row["topics"] for row in rows_of(URL)] == ["price, staff", "staff", "none"]


def test_a_prepared_table_is_that_of_its_encoding(hub, monkeypatch):
    upload(**{f"train__{n}_dot_csv": f"text\nпривет {n}\nмир {n}\n".encode("cp1251") for n in (1, 2)})
    assert rows_of(f"{URL}:train")[0]["text"] != "привет 1", "taken for Windows-1252, as is said"
    monkeypatch.setenv(ENCODING, "cp1251")
    assert rows_of(f"{URL}:train")[0]["text"] == "привет 1"


def test_a_folder_of_the_datasets_name_is_not_read_instead(hub, tmp_path, monkeypatch):
    upload(data__train=[{"text": "a"}])
    (tmp_path / ID).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="the folder miniature/posts here has the name of the dataset"):
        download_table(f"{URL}:train")


def test_text_files_are_read_by_the_products_readers(hub):
    upload(train_dot_json=b'[{"text": "a"}, {"text": "b", "n": 1}]')
    assert rows_of(f"{URL}:train") == [{"text": "a"}, {"text": "b", "n": 1}]
    upload("miniature/table", test_dot_csv=b"text,label\n\xc3\xa9,0\n")
    assert rows_of("hf://datasets/miniature/table:test") == [{"text": "é", "label": "0"}]
    upload("miniature/lines", train__1_dot_jsonl=b'{"text": "a"}\n', train__2_dot_jsonl=b'{"text": "b"}\nbroken\n')
    with pytest.raises(UserError, match=r"^hf://datasets/miniature/lines@\w+/train/2.jsonl, line 2: not JSON"):
        download_table("hf://datasets/miniature/lines:train")
    upload("miniature/lines", train__2_dot_jsonl=b'{"text": "b"}\n')
    assert rows_of("hf://datasets/miniature/lines:train") == [{"text": "a"}, {"text": "b"}]


def test_subsets_of_a_card_and_of_a_converted_branch(hub):
    for name in ("english", "german"):
        Dataset.from_list([{"text": name}]).push_to_hub(ID, config_name=name)
    assert rows_of(f"{URL}:german/train") == [{"text": "german"}]
    with pytest.raises(
        UserError, match=r"several subsets; expected one of \['english', 'german'\]. As in hf.*:english/train"
    ):
        download_table(f"{URL}:train")
    with pytest.raises(UserError, match="no subset 'french'; expected one of"):
        download_table(f"{URL}:french/train")
    upload("miniature/script", script_dot_py=b"raise SystemExit")
    with pytest.raises(UserError, match=r"never run. Try its Parquet files: .*script@refs/convert/parquet:train"):
        download_table("hf://datasets/miniature/script:train")
    for name in ("a", "b"):
        upload("miniature/converted", **{f"{name}__train__0000": [{"text": name}]})
    assert rows_of("hf://datasets/miniature/converted:b/train") == [{"text": "b"}]
    with pytest.raises(UserError, match=r"several subsets; expected one of \['a', 'b'\]"):
        download_table("hf://datasets/miniature/converted:train")


def test_what_cannot_be_read_is_one_line(hub, monkeypatch):
    upload(data__train=[{"text": "a"}], data__test=[{"text": "b"}])
    upload("miniature/images", train__1_dot_png=b"\x89PNG")
    upload("miniature/secret", private=True, data__train=[{"text": "a"}])
    upload("miniature/empty", README_dot_md=b"nothing")
    card = f"---\nconfigs:\n- config_name: default\n  data_files: hf://datasets/{ID}/data/train.parquet\n---\n"
    upload("miniature/thief", README_dot_md=card.encode())
    cases = {
        "hf://datasets/miniature/nowhere:train": "datasets/miniature/nowhere: no such repository",
        f"{URL}@v9:train": "no revision 'v9'",
        f"{URL}:exam": r"no split 'exam'; expected one of \['train', 'test'\]",
        URL: r"it has several splits; expected one of \['train', 'test'\]. As in hf://datasets/miniature/posts:train",
        "hf://datasets/miniature/images:train": "unknown file format; .*Try its Parquet files",
        "hf://datasets/miniature/empty": "no data files",
        "hf://datasets/miniature/thief:train": "Data files don't belong to miniature/thief",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message) as caught:
            download_table(name)
        assert "\n" not in str(caught.value) and caught.value.exit_status == 2, name
    hub.fail("GET /api/datasets/miniature/posts", 503, times=-1)
    with pytest.raises(HubFailed, match="503"):
        download_table(f"{URL}:train")
    hub.faults.clear()
    assert rows_of("hf://datasets/miniature/secret:train") == [{"text": "a"}]
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(UserError, match="or a private one that this login may not read"):
        download_table("hf://datasets/miniature/secret@main:train")


def test_a_failing_hub_is_asked_again(hub):
    upload(data__train=[{"text": "a"}])
    hub.fail("GET /api/datasets/miniature/posts", 503)
    hub.fail("(GET|HEAD) .*/resolve/.*parquet", 500)
    assert rows_of(f"{URL}:train") == [{"text": "a"}]
