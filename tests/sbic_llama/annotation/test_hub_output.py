"""Annotations that end as datasets on the Hub, through the real clients and the loopback Hub."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi

from common.cli.errors import UserError
from common.miniature.loopback_hub import READ_TOKEN, TOKEN
from common.models import retry
from common.models.retry import HubFailed
from common.tables.writing import write_rows
from sbic_llama import annotate
from sbic_llama.annotation import hub_output

INPUT, OUTPUT, ID = "hf://datasets/miniature/posts", "hf://datasets/miniature/out", "miniature/out"
LOCAL = Path("output/datasets/miniature/out/annotated.parquet")
ROWS = [{"id": 1, "post": "the florbs sing"}, {"id": 2, "post": ""}, {"id": 3, "post": "a quiet day"}]


@pytest.fixture
def call(trained_adapters, hub, tmp_path, monkeypatch):
    """Return a function that annotates posts on the Hub, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.01)
    write_rows(tmp_path / "posts.parquet", ROWS)
    HfApi().create_repo("miniature/posts", repo_type="dataset")
    upload = {"path_in_repo": "data/test.parquet", "repo_id": "miniature/posts", "repo_type": "dataset"}
    HfApi().upload_file(path_or_fileobj=tmp_path / "posts.parquet", **upload)

    def run(*more: object, source: str = INPUT, output: str = OUTPUT) -> None:
        words = [source, "--adapter", trained_adapters / "offensiveYN", "--output", output, *more]
        monkeypatch.setattr("sys.argv", ["annotate", *map(str, words)])
        annotate.main()

    return run


def on_hub(hub) -> dict[str, bytes]:
    return {path: blob.data for path, blob in hub.repositories["datasets", ID].files().items()}


def test_a_dataset_is_published_with_its_card(call, hub, capsys):
    import datasets

    call()
    assert hub.repositories["datasets", ID].private
    commit = HfApi().dataset_info("miniature/posts").sha
    table = datasets.load_dataset(ID, split="test")
    assert [row["post"] for row in table] == [row["post"] for row in ROWS]
    assert {row["model_offensiveYN"] for row in table} <= {"Offensive", "Maybe offensive", "Not offensive", None}
    files = on_hub(hub)
    assert set(files) == {".gitattributes", "README.md", "annotation.json", "data/test-00000-of-00001.parquet"}
    head, text = files["README.md"].decode().removeprefix("---\n").split("\n---\n")
    assert yaml.safe_load(head)["annotations_creators"] == ["machine-generated"]
    assert yaml.safe_load(head)["source_datasets"] == ["miniature/posts"]
    for words in (
        "predictions of a model, not labels that people gave",
        f"`{INPUT}@{commit}:test`",
        "| annotated | 2 (66.7 %) |",
        "| offensiveYN | offensiveYN, `",
        "| model_offensiveYN_probability_Offensive | number |",
        "answers about real ones mean nothing",
    ):
        assert words in text, words
    assert "florbs" not in text and str(Path.cwd()) not in text + files["annotation.json"].decode()
    facts = json.loads(files["annotation.json"])
    assert facts["dataset"] == f"{INPUT}@{commit}:test" and len(facts["adapters"][0]["revision"]) == 64
    assert TOKEN not in str(files) + (LOCAL.parent / "run.json").read_text()
    capsys.readouterr()
    hub.log.clear()
    call()
    assert "annotated already" in (said := capsys.readouterr().err) and "nothing was uploaded" in said
    assert not [line for line in hub.log if "/commit/" in line or "PUT" in line]
    HfApi().upload_file(path_or_fileobj=b"our own words", path_in_repo="README.md", repo_id=ID, repo_type="dataset")
    call()
    assert on_hub(hub)["README.md"] == b"our own words", "what its owner has written on the Hub stays"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--review_share", "0.5"], r"A row needs review where the confidence is below 0\.\d{3} \(offensiveYN\)\."),
        (
            ["--label_shares", "Offensive=0.2", "Maybe offensive=0.1", "Not offensive=0.7"],
            r"corrected for these shares of labels among the posts: Offensive 0\.2, Maybe offensive 0\.1, Not offensive 0\.7\.",
        ),
    ],
)
def test_a_card_says_what_changed_the_answers_and_no_path_of_the_machine(call, hub, trained_adapters, words, said):
    call(*words)
    card, facts = (on_hub(hub)[name].decode() for name in ("README.md", "annotation.json"))
    assert re.search(said, card)
    assert str(trained_adapters) not in card + facts


def test_a_path_in_what_would_be_published_is_refused(call, hub, monkeypatch):
    described = hub_output._described
    monkeypatch.setattr(hub_output, "_described", lambda one: described(one) | {"name": str(one.folder)})
    with pytest.raises(UserError, match="contains a path of a machine"):
        call()
    assert ("datasets", ID) not in hub.repositories


def test_an_interrupted_upload_is_continued(call, hub, capsys):
    hub.fail("PUT /_lfs/", 503, times=-1)
    with pytest.raises((HubFailed, UserError)):
        call()
    hub.faults.clear()
    assert LOCAL.is_file() and set(on_hub(hub)) == {".gitattributes"}
    hub.fail("POST .*/commit/", 500)  # is tried again
    call()
    hub.repositories.pop(("datasets", ID))
    hub.fail("POST .*/commit/", 0, apply=True, drop=True)  # the response to the commit is lost
    call()
    assert len(hub.repositories["datasets", ID].commits) == 2
    assert capsys.readouterr().err.count("2 of 3 posts annotated") == 1


def test_what_would_be_refused_is_refused_before_any_work(call, hub, monkeypatch):
    def refused(message: str, *more: object, **names: str) -> None:
        with pytest.raises(UserError, match=message) as caught:
            call(*more, **names)
        assert "\n" not in str(caught.value) and not LOCAL.parent.exists()

    refused("--output: a new dataset has no revision", output=f"{OUTPUT}:train")
    refused("not the name of a Hub dataset", output="hf://datasets/out")
    refused("--public: only a dataset on the Hub", "--public", output="out.csv")
    refused("--output: this login may not write to 'other'", output="hf://datasets/other/out")
    HfApi().create_repo(ID, repo_type="dataset", private=False)
    refused("is public already. .*add --public")
    HfApi().upload_file(path_or_fileobj=b"x", path_in_repo="a.txt", repo_id=ID, repo_type="dataset")
    refused("holds files of others; expected a new or empty one", "--public")
    HfApi().upload_file(path_or_fileobj=b"{}", path_in_repo="annotation.json", repo_id=ID, repo_type="dataset")
    refused("holds another annotation", "--public")
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    refused("the Hub token is read-only")
    monkeypatch.setenv("HF_TOKEN", "")
    refused("no Hub token", source="posts.parquet")


def test_a_public_dataset_and_another_run(call, hub, trained_adapters):
    call("--public")
    assert not hub.repositories["datasets", ID].private
    with pytest.raises(UserError, match="holds another run: prefix was 'model_' and is 'm_'"):
        call("--public", "--prefix", "m_")
    with pytest.raises(UserError, match="the posts are a folder"):
        call(source=str(trained_adapters))
