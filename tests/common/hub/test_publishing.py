"""Publishing to a Hub over HTTP with the real client: what goes up, what never does, and what is refused before anything does."""

from __future__ import annotations

import csv
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from common.cli.errors import UserError
from common.hub import __main__ as command
from common.hub import upload, verify
from common.hub.package import prepare
from common.miniature.loopback_hub import READ_TOKEN, TOKEN

ROOT = Path(__file__).parents[3]
KINDS = ("sbic_labels", "sbic_groups", "snli_full", "snli_adapter")
ID = "miniature/model"
RECORDS = {"evaluation/record.json", "evaluation/scores.csv", "training.json"}
CARD = {"README.md", "pictures/confusion.png", "pictures/learning_curve.png", "pictures/scores.png"}
TOKENIZER = {"tokenizer.json", "tokenizer_config.json"}
OWN = {
    "sbic_labels": {
        "adapter_model.safetensors",
        "adapter_config.json",
        "annotator.json",
        ".eval_results/offensiveYN.yaml",
    },
    "sbic_groups": {
        "adapter_model.safetensors",
        "adapter_config.json",
        "annotator.json",
        ".eval_results/targetMinority.yaml",
    },
    "snli_full": {"model.safetensors", "config.json", ".eval_results/snli.yaml"},
    "snli_adapter": {"adapter_model.safetensors", "adapter_config.json", "config.json", ".eval_results/snli.yaml"},
}


def call(monkeypatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["hub", *map(str, words)])
    command.main()


@pytest.fixture
def publish(monkeypatch, few):
    """``publish(folder, …)`` as the command, without the verification, which has tests of its own."""

    def run(folder: Path, *more: object, repo_id: str = ID) -> None:
        call(monkeypatch, "publish", folder, "--repo_id", repo_id, "--verify", "false", *more)

    return run


@pytest.fixture
def copy(runs, tmp_path):
    def of(kind: str) -> Path:
        return shutil.copytree(runs[kind], tmp_path / kind)

    return of


def posted(hub, what: str) -> list[str]:
    return [line for line in hub.log if re.search(what, line)]


@pytest.mark.parametrize("kind", KINDS)
def test_one_commit_holds_what_is_allowed_and_nothing_else(kind, copy, bases, publish, tmp_path, few, miniature):
    folder = copy(kind)
    # What trainings, editors and people leave in such a folder.
    (folder / "training_args.bin").write_bytes(f"pickled {TOKEN}".encode())
    (folder / "logs").mkdir()
    for name in (".env", "logs/events.out", "notes.txt", "predictions.csv", "posts.jsonl", "evaluation/posts.csv"):
        (folder / name).write_text(f"{TOKEN} {Path.home()}")
    assert list(folder.glob("checkpoint-*/optimizer.pt"))
    publish(folder, "--tag", "v1")
    repository = bases.repositories["models", ID]
    files = repository.files("v1")
    baselines = {name for name in files if name.startswith("evaluation/baselines/")}
    assert len(baselines) == {"sbic_labels": 2, "sbic_groups": 2, "snli_full": 4, "snli_adapter": 4}[kind]
    found = {name for name in files if fnmatch.fnmatch(name, "evaluation/findings/*.json")}
    expected = {
        "sbic_labels": {"comparison", "calibration", "label-policy", "risk-coverage", "agreement"},
        "sbic_groups": {"risk-coverage"},
    }
    assert {Path(name).stem for name in found} == expected.get(kind, set())
    pictures = {name for name in files if re.fullmatch(r"pictures/[a-z-]+-\d\.png", name)}
    drawn = expected.get(kind, set()) - {"comparison"}  # with one baseline, a single bar
    assert {re.sub(r"-\d$", "", Path(name).stem) for name in pictures} >= drawn
    assert set(files) == {".gitattributes"} | RECORDS | CARD | TOKENIZER | OWN[kind] | baselines | found | pictures
    first, second = (commit.title for commit in repository.commits.values())
    assert first == "initial commit"
    assert second.startswith("Publish ")
    # Everything that was ever sent, in whatever form: no token, no path of this machine, no text of the corpus.
    sent = [blob.data for commit in repository.commits.values() for blob in commit.files.values()] + [
        *bases.lfs.values()
    ]
    secrets = [TOKEN, str(tmp_path), str(few), str(ROOT), str(Path.home()) + "/", os.environ["HF_HOME"], "/tmp/"]
    rows = [line for name in ("SBIC.v2.tst.csv", "snli_1.0_test.jsonl") for line in open(few / name, encoding="utf-8")]
    texts = [json.loads(line)["sentence1"] for line in rows if line.startswith("{")]
    with open(few / "SBIC.v2.tst.csv", encoding="utf-8", newline="") as file:
        texts += [row["post"] for row in csv.DictReader(file) if len(row["post"]) > 20]
    assert len(texts) > 200
    own = (folder / "README.md").read_text() + (folder / "tokenizer.json").read_text()
    for secret in [*secrets, *(text for text in texts if text not in own)]:
        assert not any(secret.encode() in data for data in sent), secret
    assert (folder / "README.md").read_bytes() == files["README.md"].data


def test_publishing_again_uploads_nothing(copy, bases, publish, capsys):
    folder = copy("snli_adapter")
    publish(folder, "--tag", "v1")
    first = dict(bases.repositories["models", ID].refs)
    bases.log.clear()
    publish(folder, "--tag", "v1")
    assert bases.repositories["models", ID].refs == first
    assert posted(bases, r"^PUT|/commit/|/tag/") == []
    assert "already published, nothing was uploaded" in capsys.readouterr().err


def test_another_version_replaces_files_in_one_commit_and_needs_another_tag(copy, bases, publish):
    folder = copy("snli_adapter")
    publish(folder, "--tag", "v1")
    (folder / "evaluation" / "baselines" / "4.json").unlink()
    bases.log.clear()
    with pytest.raises(
        UserError, match=r"the tag 'v1' already marks another version; expected a new tag. Nothing was changed"
    ):
        publish(folder, "--tag", "v1")
    assert posted(bases, r"^PUT|/commit/") == []
    publish(folder, "--tag", "v2")
    repository = bases.repositories["models", ID]
    assert "evaluation/baselines/4.json" in repository.files("v1")
    assert "evaluation/baselines/4.json" not in repository.files("v2")
    assert len(posted(bases, "/commit/")) == 1
    assert len(posted(bases, "^PUT")) == 1, "one picture changed; the weights are there already"
    assert repository.files("main") == repository.files("v2")


def test_a_dry_run_shows_all_and_asks_nobody(copy, bases, publish, capsys):
    folder = copy("sbic_labels")
    before = sorted(folder.rglob("*"))
    bases.log.clear()
    publish(folder, "--dry-run")
    shown = capsys.readouterr()
    assert all(f"  {name}\n" in shown.err for name in OWN["sbic_labels"] | RECORDS | CARD)
    assert "# tiny_llama for offensiveYN (SBIC)" in shown.out
    assert bases.log == []
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "evaluation/findings/other.json"])
def test_a_link_that_leaves_the_folder_is_refused(name, copy, tmp_path, bases, publish):
    """A vocabulary's words may look like paths, so nothing else would notice whose file it is."""
    folder, outside = copy("snli_full"), tmp_path / "outside"
    outside.write_text("a diary")
    (folder / name).unlink(missing_ok=True)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(outside)
    with pytest.raises(
        UserError, match=rf"{name}: a link to '.*outside', outside of the model's folder; expected a file"
    ):
        publish(folder)
    assert posted(bases, "create|commit|_lfs") == []


def test_links_within_the_folder_and_of_the_hubs_cache_are_published(copy, tmp_path):
    folder = copy("snli_full")
    (folder / "tokenizer.json").rename(folder / "mine.json")
    (folder / "tokenizer.json").symlink_to("mine.json")
    assert "tokenizer.json" in prepare(folder, ID).files
    cached, blobs = tmp_path / "cache" / "snapshots" / ("0" * 40), tmp_path / "cache" / "blobs"
    shutil.copytree(folder, cached, ignore=shutil.ignore_patterns("checkpoint-*"))
    blobs.mkdir()
    (cached / "tokenizer.json").rename(blobs / "1")
    (cached / "tokenizer.json").symlink_to(blobs / "1")
    assert "tokenizer.json" in prepare(cached, ID).files


def test_what_goes_up_is_listed_with_sizes_before(copy, bases, publish, capsys, monkeypatch):
    folder = copy("snli_full")
    monkeypatch.setattr("common.hub.package.check_access", lambda *_: pytest.fail("asked the Hub first", pytrace=False))
    with pytest.raises(pytest.fail.Exception, match="asked"):
        publish(folder)
    listed = capsys.readouterr().err
    assert f"{(folder / 'model.safetensors').stat().st_size:,}  model.safetensors\n" in listed
    assert all(f"  {name}\n" in listed for name in OWN["snli_full"] | RECORDS | CARD)


def test_nobody_elses_repository_is_written_over(copy, bases, publish):
    """Nearly every model has files of these names."""
    HfApi().create_repo(ID)
    for name in ("README.md", "model.safetensors", "vocab.txt", "pictures/holiday.png"):
        HfApi().upload_file(repo_id=ID, path_in_repo=name, path_or_fileobj=b"a thesis")
    before = bases.repositories["models", ID].files()
    with pytest.raises(UserError, match="the repository has files that this project did not publish"):
        publish(copy("snli_full"))
    assert bases.repositories["models", ID].files() == before
    assert posted(bases, "^PUT.*/_lfs") == posted(bases, "^PUT.*/_lfs")[:1], "nothing of the model was sent"


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"project": "thesis", "kind": "full", "base": {"name": "x"}}', b"\xff"]
)
def test_a_training_record_of_others_is_not_taken_for_ours(bases, content):
    HfApi().create_repo(ID)
    HfApi().upload_file(repo_id=ID, path_in_repo="training.json", path_or_fileobj=content)
    facts = {"project": "snli_roberta", "kind": "full", "base": {"name": "x"}}
    with pytest.raises(UserError, match="the repository has files that this project did not publish"):
        upload.check_target(ID, facts)


def test_another_model_in_the_repository_is_replaced_only_on_request(copy, runs, few, bases, publish, monkeypatch):
    publish(copy("snli_full"))
    facts = json.loads((runs["snli_full"] / "training.json").read_text())
    upload.check_target(ID, facts)
    for other, message in (
        ({"project": "sbic_llama"}, "its project is 'snli_roberta'; expected 'sbic_llama'"),
        ({"kind": "adapter"}, "its kind is 'full'; expected 'adapter'"),
        ({"feature": "offensiveYN"}, "its feature is None; expected 'offensiveYN'"),
        ({"base": {"name": "user/base"}}, "its base model is 'miniature/tiny_roberta'; expected 'user/base'"),
    ):
        with pytest.raises(UserError, match=f"{ID}: the repository holds another model: {message}.*--overwrite"):
            upload.check_target(ID, facts | other)
    before = dict(bases.repositories["models", ID].refs)
    folder = copy("snli_adapter")
    bases.log.clear()
    monkeypatch.setattr(verify, "verify_package", None)  # the repository is looked at before
    with pytest.raises(UserError, match="the repository holds another model"):
        call(monkeypatch, "publish", folder, "--repo_id", ID, "--data_dir", few)
    assert bases.repositories["models", ID].refs == before
    assert posted(bases, "^PUT|^POST") == []
    publish(folder, "--overwrite")
    files = bases.repositories["models", ID].files()
    assert files["training.json"].data == (folder / "training.json").read_bytes()
    assert "model.safetensors" not in files, "nothing of the other model is left"


def test_what_was_changed_on_the_hub_is_replaced_only_on_request(copy, bases, publish):
    folder = copy("snli_adapter")
    publish(folder, "--tag", "v1")
    last = HfApi().model_info(ID).sha
    for name in ("thesis.pdf", "README.md"):
        HfApi().upload_file(repo_id=ID, path_in_repo=name, path_or_fileobj=b"theirs")
    message = rf"README.md was changed on the Hub since the last publication \(commit {last[:12]}\)\. Keep a copy"
    with pytest.raises(UserError, match=message):
        publish(folder)
    publish(folder, "--tag", "v1")  # is published already, and replaces nothing
    assert bases.repositories["models", ID].files()["README.md"].data == b"theirs"
    publish(folder, "--overwrite")
    files = bases.repositories["models", ID].files()
    assert files["README.md"].data == (folder / "README.md").read_bytes()
    assert files["thesis.pdf"].data == b"theirs", "files of other names stay"
    upload.check_target(ID, json.loads((folder / "training.json").read_text()))


def test_a_history_without_a_publication_says_nothing_of_changes(copy, bases, publish):
    folder = copy("snli_adapter")
    publish(folder)
    repository = bases.repositories["models", ID]
    files = repository.files()
    repository.commits, repository.refs = {}, {}
    repository.add("refs/heads/main", "Super-squash branch", files)
    publish(folder)  # the same files: nothing is replaced
    with pytest.raises(UserError, match="no commit of the repository is a publication"):
        upload.check_target(ID, json.loads((folder / "training.json").read_text()))


def test_a_card_for_another_repository_is_not_called_edited(runs, tmp_path):
    package = prepare(runs["snli_adapter"], ID)
    card = tmp_path / "README.md"
    card.write_bytes(package.project.render(package.trained, "miniature/other")["README.md"])
    assert card.read_bytes() != package.read("README.md")
    assert command.rendered(package, card)
    card.write_text(card.read_text() + "Mine.\n")
    assert not command.rendered(package, card)


def test_publishing_offline_says_so(copy, bases, publish, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=f"^{ID}: publishing needs the Hub, and HF_HUB_OFFLINE is set. Unset"):
        publish(copy("snli_adapter"))


def test_what_somebody_commits_in_between_stays(copy, bases, publish, monkeypatch):
    folder = copy("snli_adapter")
    publish(folder)
    (folder / "config.json").write_text("{}")  # something new to publish
    check = upload.check_repository

    def slowly(api, repo_id, *more):
        check(api, repo_id, *more)
        HfApi(token=TOKEN).upload_file(path_or_fileobj=b"theirs", path_in_repo="README.md", repo_id=repo_id)

    monkeypatch.setattr(upload, "check_target", lambda *_: None)  # it looks before the model is verified
    monkeypatch.setattr(upload, "check_repository", slowly)
    with pytest.raises(UserError, match="somebody else has committed in the meantime"):
        publish(folder)
    assert bases.repositories["models", ID].files("main")["README.md"].data == b"theirs"


def test_nothing_private_goes_into_a_public_repository(copy, bases, publish):
    HfApi().create_repo(ID)
    with pytest.raises(UserError, match=f"{ID}: the repository is public already. Make it private on the Hub"):
        publish(copy("snli_adapter"), "--private")
    assert list(bases.repositories["models", ID].files()) == [".gitattributes"]


@pytest.mark.parametrize("tag", ["v 1", "../x", "main", "refs/heads/main", "", "v1..2", "-v1"])
def test_what_git_takes_for_no_tag_is_refused_first(copy, bases, publish, tag):
    with pytest.raises(
        UserError,
        match=r"is not a tag name; expected|expected one argument|expected at least one|--tag: the value is empty",
    ):
        publish(copy("snli_adapter"), f"--tag={tag}")
    assert ("models", ID) not in bases.repositories


def test_a_tag_that_fails_says_what_was_done(copy, bases, publish):
    folder = copy("snli_adapter")
    bases.fail(r"^POST .*/tag/", status=403)
    with pytest.raises(UserError, match=r"commit [0-9a-f]{12} is published, but not its tag 'v1'.*Repeat the command"):
        publish(folder, "--tag", "v1")
    publish(folder, "--tag", "v1")
    repository = bases.repositories["models", ID]
    assert repository.refs["refs/tags/v1"] == repository.refs["refs/heads/main"]
    assert len(repository.commits) == 2


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_tag_stands_for_the_same_bytes(copy, bases, publish, name):
    folder = copy("snli_adapter")
    publish(folder, "--tag", "v1")
    content = bytearray((folder / name).read_bytes())
    content[-2:] = bytes([content[-2] ^ 1, content[-1]]) if name.endswith("safetensors") else b" }"
    (folder / name).write_bytes(bytes(content))
    with pytest.raises(UserError, match="the tag 'v1' already marks another version"):
        publish(folder, "--tag", "v1")


def test_a_private_repository_is_made_and_stays(copy, bases, publish, capsys):
    folder = copy("snli_adapter")
    publish(folder, "--private")
    assert bases.repositories["models", ID].private
    publish(folder)
    assert bases.repositories["models", ID].private
    assert f"{ID} existed and stays private" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("token", "repo_id", "message"),
    [
        (None, ID, "no Hub token. Run `hf auth login` or set HF_TOKEN; it is never an argument"),
        ("hf_wrong", ID, "the Hub rejects this login's token"),
        (READ_TOKEN, ID, "the Hub token is read-only"),
        (TOKEN, "somebody/model", "this login may not write to 'somebody'; expected miniature"),
        (TOKEN, "model", "'model' is not a repository name; expected user/name"),
        (TOKEN, "miniature/a/b", "is not a repository name"),
        (TOKEN, "miniature/-model--", "is not a repository name"),
    ],
)
def test_who_may_not_publish_there_is_told_first(copy, bases, publish, monkeypatch, token, repo_id, message):
    from huggingface_hub import constants

    if token is None:
        monkeypatch.delenv("HF_TOKEN")
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere")
    else:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError, match=re.escape(message)) as error:
        publish(copy("snli_adapter"), repo_id=repo_id)
    assert TOKEN not in str(error.value)
    assert set(bases.repositories) == {("models", "miniature/tiny_llama"), ("models", "miniature/tiny_roberta")}
    assert posted(bases, "^PUT|^POST") == []


def edit(name: str, change):
    """Change a file; ``change`` takes its values."""

    def apply(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        change(values)
        (folder / name).write_text(json.dumps(values))

    return apply


def base(name: str, commit: str):
    """Change the base model in both records."""

    def apply(folder: Path) -> None:
        edit("training.json", lambda values: values["base"].update(name=name, commit=commit))(folder)
        named = {"base_model_name_or_path": name, "revision": commit}
        edit("adapter_config.json", lambda values: values.update(named))(folder)

    return apply


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda folder: shutil.rmtree(folder / "evaluation"),
            r"missing evaluation/record.json. First run python -m snli_roberta",
        ),
        (lambda folder: (folder / "training.json").unlink(), r"missing training.json; expected the output folder"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), r"missing \*.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "missing config.json"),
        (lambda folder: (folder / "evaluation" / "scores.csv").write_text("x\n1\n"), "not a model's answers"),
        (edit("training.json", lambda v: v["base"].update(name="/home/me/roberta")), "is a folder on this machine"),
        (base(name="miniature/gone", commit="0" * 40), "miniature/gone: no such"),
        (base(name="miniature/tiny_roberta", commit="0" * 40), "no revision '0{40}'"),
        (
            edit("adapter_config.json", lambda v: v.update(base_model_name_or_path="miniature/gone")),
            r"adapter_config.json: the base model is 'miniature/gone' at None; expected 'miniature/tiny_roberta' at None",
        ),
        (edit("training.json", lambda v: v["base"].update(license=None)), "the card needs the base model's license"),
        (
            edit("adapter_config.json", lambda v: v.update(note=f"{ROOT}/x")),
            r"adapter_config.json: contains a path of a machine",
        ),
        (edit("adapter_config.json", lambda v: v.update(note=f"{Path.home()}/x")), "contains a path of a machine"),
        (edit("config.json", lambda v: v.update(note=TOKEN)), r"config.json: contains a Hub token"),
        (edit("training.json", lambda v: v.update(note="hf_" + "aB3" * 12)), r"training.json: contains a Hub token"),
    ],
)
def test_what_is_not_fit_to_be_published_is_not(copy, bases, publish, spoil, message):
    folder = copy("snli_adapter")
    spoil(folder)
    with pytest.raises(UserError, match=message) as error:
        publish(folder)
    assert TOKEN not in str(error.value)
    assert ("models", ID) not in bases.repositories


def test_the_command_line_refuses_in_one_line(tmp_path):
    for words, message in {
        ("publish", "x"): "error: --repo_id is missing",
        ("publish", "--repo_id", "a/b"): "error: got 0 names; expected the folder of a trained model",
        ("publish", "x", "--repo_id", "a/b", "--token", "hf_x"): "error: unknown argument --token",
        ("publish", str(tmp_path), "--repo_id", "a/b"): "missing training.json",
        ("publish", "x", "--repo_id", "a/b", "--verify", "false", "--items", "9"): "error: --items: nothing is scored",
        ("unpublish",): "error: unknown command 'unpublish'; expected card, publish, verify or space",
    }.items():
        result = subprocess.run([sys.executable, "-m", "common.hub", *words], cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 2
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1
