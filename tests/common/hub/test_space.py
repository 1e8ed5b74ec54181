"""A Space: what goes into it, when it is updated, what is refused, and its page in a browser."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import runpy
import shutil
import sys
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi, snapshot_download

from common.cli.errors import UserError
from common.hub import __main__ as command
from common.hub import space
from common.miniature.loopback_hub import TOKEN
from common.runtime.project import SOURCE
from tests.browser import missing, needs_browser, opened, picture, served

ROOT = Path(__file__).parents[3]
SPACE = "miniature/page"
GRADIO = re.search(r"^gradio==(.*)$", (ROOT / "requirements-app.txt").read_text(), re.MULTILINE)[1]


@pytest.fixture(autouse=True)
def anywhere(monkeypatch):
    """Let the default tests run where gradio is not installed."""
    version = metadata.version
    if importlib.util.find_spec("gradio") is None:
        monkeypatch.setattr(space, "require", lambda *_: None)
        monkeypatch.setattr(space.metadata, "version", lambda name: GRADIO if name == "gradio" else version(name))


def call(monkeypatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["hub", *map(str, words)])
    command.main()


IDS = {"sbic_labels": "miniature/offensive", "sbic_groups": "miniature/groups", "snli_adapter": "miniature/nli"}


@pytest.fixture(scope="module")
def kept() -> dict:
    """Return the published models' repositories, once a test has published them."""
    return {}


@pytest.fixture
def models(runs, bases, kept, tmp_path, monkeypatch) -> dict[str, str]:
    """Return kind → id of models of both projects on the Hub, published without verification."""
    if not kept:
        for kind, name in IDS.items():
            folder = shutil.copytree(runs[kind], tmp_path / kind)
            call(monkeypatch, "publish", folder, "--repo_id", name, "--tag", "v1", "--verify", "false")
        kept |= {"repositories": {("models", name): bases.repositories["models", name] for name in IDS.values()}}
        kept |= copy.deepcopy(kept | {"lfs": bases.lfs})
    bases.repositories |= copy.deepcopy(kept["repositories"])
    bases.lfs |= kept["lfs"]
    return IDS


@pytest.fixture
def make(models, monkeypatch):
    """``make("--adapter", id, …)`` runs the command."""

    def run(*words: object) -> None:
        call(monkeypatch, "space", SPACE, *words)

    return run


def files(hub) -> dict[str, str]:
    return {name: blob.data.decode() for name, blob in hub.repositories["spaces", SPACE].files().items()}


def test_a_space_has_pinned_models_and_packages_and_no_token(make, models, bases, capsys):
    sha = HfApi().model_info(models["sbic_labels"]).sha
    make("--adapter", models["sbic_labels"], f"{models['sbic_groups']}@v1", "--private")
    written = files(bases)
    assert set(written) == {".gitattributes", "README.md", "app.py", "requirements.txt"}
    head = yaml.safe_load(written["README.md"].split("---\n")[1])
    assert head.pop("python_version").startswith("3.")
    assert head == {
        "title": "page",
        "sdk": "gradio",
        "sdk_version": metadata.version("gradio"),
        "app_file": "app.py",
        "license": "apache-2.0",
        "models": [models["sbic_labels"], models["sbic_groups"]],
    }
    line = f"python -m common.hub space {SPACE} --adapter {models['sbic_labels']} {models['sbic_groups']}@v1\n"
    assert line in written["README.md"], "so that the same command updates it"
    assert f'    "{models["sbic_labels"]}@{sha}",\n' in written["app.py"]
    package, *pins = written["requirements.txt"].splitlines()
    assert re.fullmatch(rf"finetuning-projects\[app,tables\] @ git\+{SOURCE}@[0-9a-f]{{40}}", package)
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    exact = dict(pin.lower().split("==") for pin in pins)
    pinned = (ROOT / "requirements.txt").read_text().lower()
    assert {"torch", "transformers", "peft", "bitsandbytes"} <= set(exact)
    assert all(f"{name}=={version}\n" in pinned for name, version in exact.items() if name in ("torch", "transformers"))
    repository = bases.repositories["spaces", SPACE]
    assert repository.private
    sent = [blob.data for commit in repository.commits.values() for blob in commit.files.values()]
    assert not any(secret.encode() in data for data in sent for secret in (TOKEN, str(Path.home()), str(ROOT)))
    shown = capsys.readouterr().err
    assert f"/spaces/{SPACE}, which the Hub now builds" in shown
    assert "private or gated" not in shown


def test_a_space_is_updated_in_one_commit_and_only_where_it_is_ours(make, models, bases, capsys):
    make("--model", models["snli_adapter"])
    repository = bases.repositories["spaces", SPACE]
    assert len(repository.commits) == 2, "the Hub's own and ours"
    make("--model", models["snli_adapter"])
    assert len(repository.commits) == 2
    assert "already published, nothing was uploaded" in capsys.readouterr().err
    HfApi().upload_file(repo_id=models["snli_adapter"], path_in_repo="notes.md", path_or_fileobj=b"a newer commit")
    make("--model", models["snli_adapter"])
    assert len(repository.commits) == 3
    assert HfApi().model_info(models["snli_adapter"]).sha in files(bases)["app.py"]
    for name in ("README.md", "notes.md"):
        HfApi().upload_file(repo_id=SPACE, repo_type="space", path_in_repo=name, path_or_fileobj=_readme("theirs"))
    HfApi().upload_file(repo_id=models["snli_adapter"], path_in_repo="notes.md", path_or_fileobj=b"newer still")
    with pytest.raises(UserError, match=rf"{SPACE}: README.md was changed on the Hub since .*--overwrite$"):
        make("--model", models["snli_adapter"])
    assert "theirs" in files(bases)["README.md"]
    make("--model", models["snli_adapter"], "--overwrite")
    assert "theirs" not in files(bases)["README.md"]
    assert "theirs" in files(bases)["notes.md"]


def _readme(text: str) -> bytes:
    head = {"title": text, "sdk": "gradio", "sdk_version": GRADIO, "python_version": "3.11", "app_file": "app.py"}
    return f"---\n{yaml.safe_dump(head | {'license': 'mit'})}---\n{text}\n".encode()


def test_somebody_elses_space_is_not_written_over(make, models, bases):
    HfApi().create_repo(SPACE, repo_type="space", space_sdk="gradio")
    HfApi().upload_file(repo_id=SPACE, repo_type="space", path_in_repo="app.py", path_or_fileobj=b"a thesis")
    before = files(bases)
    with pytest.raises(UserError, match=f"{SPACE}: not a Space of this project; expected a new Space"):
        make("--model", models["snli_adapter"])
    assert files(bases) == before


def test_the_hub_starts_it_for_everybody_and_a_user_where_the_arguments_say(make, models, bases, tmp_path, monkeypatch):
    make("--model", models["snli_adapter"])
    (tmp_path / "app.py").write_text(files(bases)["app.py"])
    called = []
    monkeypatch.setattr("common.cli.errors.run", lambda main: main())
    monkeypatch.setattr("snli_roberta.app.main", lambda: called.append(sys.argv[1:]))
    place = f"{models['snli_adapter']}@{HfApi().model_info(models['snli_adapter']).sha}"
    for given, where in (((), ["--host", "0.0.0.0"]), (("--port", "8000"), ["--port", "8000"])):
        monkeypatch.setattr("sys.argv", ["app.py", *given])
        runpy.run_path(str(tmp_path / "app.py"), run_name="__main__")
        assert called.pop() == ["--model", place, *where]


def test_a_dry_run_prints_the_files_and_changes_nothing(make, models, bases, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "")
    make("--model", models["snli_adapter"], "--dry-run")
    shown = capsys.readouterr().out
    assert all(f"==> {name} <==\n" in shown for name in space.Space.owned)
    assert "from snli_roberta.app import main\n" in shown
    assert ("spaces", SPACE) not in bases.repositories


def test_what_cannot_be_on_a_page_is_refused(make, models, bases, runs, monkeypatch):
    offensive, nli = models["sbic_labels"], models["snli_adapter"]
    for words, message in (
        ((), "--adapter, --model: no model was given; expected one of the two"),
        (("--adapter", offensive, "--model", nli), "--adapter, --model: both of them were given"),
        (("--adapter", nli), f"{nli}, --adapter: trained by snli_roberta. Give its models with --model"),
        (("--adapter", offensive, f"{offensive}@v1"), "a second adapter for offensiveYN"),
        (("--model", *[nli] * 5), "--model: 5 models; expected at most 4"),
        (("--model", runs["snli_adapter"]), "a folder on this machine, which a Space cannot read"),
        (("--model", "./nowhere"), "nowhere: no such folder"),
        (("--model", "miniature/nothing"), "miniature/nothing: no such repository"),
        (("--model", f"{nli}@v2"), "no revision 'v2'"),
        (("--model", "miniature/tiny_roberta"), "miniature/tiny_roberta: missing"),
    ):
        with pytest.raises(UserError, match=message):
            make(*words)
    for name in ("page", "somebody/page", "miniature/a/b"):
        with pytest.raises(UserError, match=r"not a repository name|this login may not write to 'somebody'"):
            call(monkeypatch, "space", name, "--model", nli)
    bases.fail(r"POST /api/repos/create", 402, times=-1)
    with pytest.raises(UserError, match=r"the Hub answered 402 .*\. This needs a paid plan of the Hub"):
        make("--model", nli)
    assert not [place for place in bases.repositories if place[0] == "spaces"]


def test_private_and_gated_models_need_a_secret_in_the_settings(make, models, bases, capsys):
    bases.repositories["models", models["snli_adapter"]].private = True
    make("--model", models["snli_adapter"])
    shown = capsys.readouterr().err
    assert f"warning: {models['snli_adapter']}: private or gated; add a secret HF_TOKEN" in shown


def test_the_commit_is_that_of_the_checkout_or_of_the_git_address(monkeypatch, capsys):
    commit = "0123456789" * 4
    monkeypatch.setattr(space, "git_commit", lambda: f"{commit}+changes")
    assert space.installed_commit() == commit
    assert "changes that are not committed" in capsys.readouterr().err
    origin = {"url": SOURCE, "vcs_info": {"vcs": "git", "commit_id": commit[::-1]}}
    monkeypatch.setattr(space, "git_commit", lambda: "unknown")
    monkeypatch.setattr(metadata.Distribution, "read_text", lambda self, name: json.dumps(origin), raising=False)
    monkeypatch.setattr(metadata.PathDistribution, "read_text", lambda self, name: json.dumps(origin))
    assert space.installed_commit() == commit[::-1]
    monkeypatch.setattr(metadata.PathDistribution, "read_text", lambda self, name: None)
    with pytest.raises(UserError, match=r"the commit of the code is unknown.*pip install git\+https"):
        space.installed_commit()


@pytest.fixture
def folder(make, tmp_path):
    """``folder("--adapter", id)`` makes a Space and returns its files in a folder of their own, as the Hub starts it."""
    if missing():
        pytest.skip(str(missing()))

    def of(*words: object) -> Path:
        make(*words)
        return Path(snapshot_download(SPACE, repo_type="space", local_dir=tmp_path / "space"))

    return of


@needs_browser
@pytest.mark.slow
def test_the_page_of_adapters_answers_in_the_browser(folder, models):
    app = folder("--adapter", models["sbic_labels"], models["sbic_groups"]) / "app.py"
    with served(app, SPACE_ID=SPACE) as (address, _), opened(address) as seen:
        seen.get_by_text("This page is a Hugging Face Space").wait_for()
        seen.get_by_label("Post", exact=True).fill("the florbs by the river sing well")
        seen.get_by_role("button", name="Annotate", exact=True).click()
        seen.wait_for_function("document.querySelector('#offensiveYN')?.innerText.includes('%')")
        assert seen.input_value("#targetMinority textarea").endswith("sure)")
        picture(seen, "sbic_space")


@needs_browser
@pytest.mark.slow
def test_the_page_of_classifiers_answers_in_the_browser(folder, models):
    app = folder("--model", models["snli_adapter"]) / "app.py"
    with served(app, SPACE_ID=SPACE) as (address, _), opened(address) as seen:
        seen.get_by_label("Premise").fill("A boy who is wet is indoors and quiet.")
        seen.get_by_label("Hypothesis").fill("A child is dry.")
        seen.get_by_role("button", name="Ask", exact=True).click()
        seen.wait_for_function("document.querySelector('#model-0')?.innerText.includes('%')")
        picture(seen, "snli_space")
