"""The loopback Hub through the real client: what publishing and loading rely on."""

from __future__ import annotations

import pytest
from huggingface_hub import HfApi, hf_hub_download, set_client_factory, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import _http

from common.miniature.loopback_hub import READ_TOKEN, TOKEN, USER

ID = f"{USER}/adapter"


@pytest.fixture(autouse=True)
def the_librarys_own_client():
    """Not the one of this project, which other tests have put in its place."""
    ours = _http._GLOBAL_CLIENT_FACTORY
    set_client_factory(_http.default_client_factory)
    yield
    set_client_factory(ours)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# A card\n")
    (tmp_path / "sub" / "notes.txt").write_text("notes")
    (tmp_path / "model.safetensors").write_bytes(bytes(range(256)) * 100)
    return tmp_path


def publish(folder, **how):
    HfApi().create_repo(ID, exist_ok=True)
    return HfApi().upload_folder(repo_id=ID, folder_path=folder, **how)


def test_what_was_uploaded_comes_back(hub, folder, tmp_path):
    publish(folder, commit_message="First")
    there = snapshot_download(ID, cache_dir=tmp_path / "cache")
    for name in ("README.md", "sub/notes.txt", "model.safetensors"):
        assert (folder / name).read_bytes() == open(f"{there}/{name}", "rb").read()
    files = hub.repositories["models", ID].files()
    assert files["model.safetensors"].lfs and not files["README.md"].lfs
    assert sorted(HfApi().list_repo_files(ID)) == [".gitattributes", "README.md", "model.safetensors", "sub/notes.txt"]
    assert [commit.title for commit in HfApi().list_repo_commits(ID)] == ["First", "initial commit"]


def test_tags_and_revisions(hub, folder, tmp_path):
    publish(folder)
    HfApi().create_tag(ID, tag="v1")
    (folder / "README.md").write_text("# Changed\n")
    publish(folder)
    old, new = (open(hf_hub_download(ID, "README.md", revision=r, cache_dir=tmp_path)).read() for r in ("v1", "main"))
    assert (old, new) == ("---\nlicense: mit\n---\n# A card\n", "# Changed\n")
    with pytest.raises(HfHubHTTPError, match="409"):
        HfApi().create_tag(ID, tag="v1")
    assert [tag.name for tag in HfApi().list_repo_refs(ID).tags] == ["v1"]


def test_a_second_upload_of_the_same_folder_sends_nothing(hub, folder):
    publish(folder)
    before, commits = len(hub.log), len(hub.repositories["models", ID].commits)
    publish(folder)
    assert [line for line in hub.log[before:] if line.startswith("PUT") or "/commit/" in line] == []
    assert len(hub.repositories["models", ID].commits) == commits


def test_what_is_not_there_has_its_own_error(hub, folder):
    publish(folder)
    with pytest.raises(EntryNotFoundError):
        hf_hub_download(ID, "nothing.txt")
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download(ID, "README.md", revision="v9")
    with pytest.raises(RepositoryNotFoundError):
        hf_hub_download(f"{USER}/nowhere", "README.md")


def test_tokens_decide(hub, folder):
    assert HfApi().whoami()["name"] == USER
    HfApi().create_repo(ID, private=True)
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(token="hf_wrong").whoami()
    with pytest.raises(RepositoryNotFoundError):
        HfApi(token=False).model_info(ID)
    for call in (
        lambda: HfApi(token=READ_TOKEN).upload_folder(repo_id=ID, folder_path=folder),
        lambda: HfApi(token=TOKEN).create_repo("somebody/else"),
    ):
        with pytest.raises(HfHubHTTPError, match="403"):
            call()
    assert list(hub.repositories) == [("models", ID)]


def test_a_fault_fails_as_asked_and_then_is_over(hub, folder):
    HfApi().create_repo(ID)
    hub.fail(r"^POST .*/commit/", status=500)
    with pytest.raises(HfHubHTTPError, match="500"):
        HfApi().upload_folder(repo_id=ID, folder_path=folder)
    assert list(hub.repositories["models", ID].files()) == [".gitattributes"]
    HfApi().upload_folder(repo_id=ID, folder_path=folder)
    assert "README.md" in hub.repositories["models", ID].files()


def test_a_lost_answer_leaves_the_work_done(hub, folder):
    HfApi().create_repo(ID)
    hub.fail(r"^POST .*/commit/", status=502, apply=True)
    with pytest.raises(HfHubHTTPError, match="502"):
        HfApi().upload_folder(repo_id=ID, folder_path=folder)
    assert "README.md" in hub.repositories["models", ID].files()


def test_a_dropped_connection_is_retried_by_the_client_where_it_can(hub, folder):
    hub.fail(r"^PUT /_lfs/", status=500)
    publish(folder)
    assert sum(line.startswith("PUT /_lfs/") for line in hub.log) == 2
    hub.fail(r"^GET /api/whoami", status=0, drop=True)
    with pytest.raises(Exception, match=r"(?i)disconnect|closed|reset"):
        HfApi().whoami()


def test_a_stale_parent_commit_is_refused(hub, folder):
    publish(folder)
    parent = HfApi().model_info(ID).sha
    (folder / "new.txt").write_text("1")
    publish(folder)
    (folder / "new.txt").write_text("2")
    with pytest.raises(HfHubHTTPError, match="412"):
        publish(folder, parent_commit=parent)
