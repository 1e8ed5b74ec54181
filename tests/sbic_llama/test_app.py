"""Test the page: its work on a post and a file, and the page itself in a browser."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest

from common import web
from common.cli.arguments import parse
from common.cli.errors import UserError
from sbic_llama import annotate, app
from sbic_llama.data.codebook import Codebook, Columns, Example
from sbic_llama.data.features import FEATURES, feature_of
from snli_roberta import app as snli_app
from tests.browser import DESKTOP, PHONE, beyond_the_edge, missing, needs_browser, opened, picture, served

POSTS = ("the florbs by the river sing well", "<b>the florbs</b> are *rude* & loud", "", "what a quiet day")


@pytest.fixture(scope="module")
def folders(trained_adapters) -> list[str]:
    return [str(trained_adapters / name) for name in ("offensiveYN", "targetMinority")]


@pytest.fixture(scope="module")
def annotator(folders):
    from sbic_llama.model.annotator import Annotator

    return Annotator(*folders)


@pytest.fixture
def posts(tmp_path) -> Path:
    path = tmp_path / "posts.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "post"], *([i, POSTS[i % 4]] for i in range(40))])
    return path


def test_a_post_gets_every_features_answer_and_what_goes_to_a_person(annotator):
    result = app.annotate_post(annotator, [POSTS[0]], 0.5)
    assert list(result.labels) == ["offensiveYN"]
    assert sum(result.labels["offensiveYN"].values()) == pytest.approx(1, abs=1e-5)
    groups, sure = result.lists["targetMinority"]
    assert groups
    assert 0 < sure <= 1
    for name, (sure, least) in result.review.items():
        assert sure < least, name
    strict = app.annotate_post(annotator, [POSTS[0]], 0.05).review
    assert strict.keys() <= result.review.keys()


@pytest.mark.parametrize(
    ("post", "message"), [("", "no post"), (" \n", "no post"), ("a" * 10_001, "10,001 characters")]
)
def test_a_post_without_text_or_with_too_much_is_refused(annotator, post, message):
    with pytest.raises(UserError, match=message):
        app.annotate_post(annotator, [post], 0.1)


def test_a_file_is_annotated_as_the_command_does_it(annotator, folders, posts, tmp_path, monkeypatch):
    calls = []
    result = app.annotate_file(annotator, posts, ["post"], 0.1, tmp_path, lambda done, of: calls.append((done, of)))
    assert (result.rows, result.unanswered, calls) == (40, 10, [(40, 40)])
    assert result.counts["offensiveYN"].total() == 30
    assert result.review >= 10, "who has no answer goes to a person"
    names, head = result.head
    assert names == ["post", "model_offensiveYN", "model_targetMinority", "model_needs_review"]
    assert len(head) == app.PREVIEW
    adapters = [word for folder in folders for word in ("--adapter", folder)]
    words = [posts, *adapters, "--review_share", 0.1, "--output", tmp_path / "by_command.csv"]
    monkeypatch.setattr("sys.argv", ["annotate", *map(str, words)])
    annotate.main()
    assert result.output.read_bytes() == (tmp_path / "by_command.csv").read_bytes()
    with pytest.raises(UserError, match=r"the file already has a column 'model_offensiveYN'"):
        app.annotate_file(annotator, result.output, ["post"], 0.1, tmp_path / "other", lambda *_: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["annotated_posts.csv", "by_command.csv", "posts.csv"]


def test_a_wrong_value_sent_to_the_api_is_refused_in_words(tmp_path, monkeypatch):
    """Of both projects' pages, as gradio would answer `{"error": null}`."""
    gradio = pytest.importorskip("gradio")
    from starlette.testclient import TestClient

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    described = SimpleNamespace(base_model="b", corpus="c", of_miniature=True)
    adapter = SimpleNamespace(name="offensiveYN", feature=FEATURES["offensiveYN"], columns=[], description=described)
    pages = (
        web.laid_out("a page", lambda: app.layout(SimpleNamespace(adapters=[adapter], text_names=()))),
        web.laid_out("a page", lambda: snli_app.layout({"a model": SimpleNamespace(facts=None)})),
    )
    clients = [TestClient(gradio.routes.App.create_app(page)) for page in pages]
    not_read = "a value of the wrong type or not enough values; expected what /gradio_api/info describes"
    broken = "this failed unexpectedly; the terminal that serves the page shows why"
    for number, name, data, message in (
        (0, "answer", ["a post", "x"], not_read),
        (0, "answer", ["a post", [0.1]], not_read),
        (0, "answer", ["a post"], not_read),
        (0, "answer", ["a post", 5], "Value 5 is greater than maximum value 0.5."),
        (0, "answer", [{"a": 1}, 0.1], broken),
        (0, "with_bar", [{"path": "/etc/hostname"}, None, 0.1], not_read),
        (0, "with_bar", ["posts.csv", "post", 0.1], not_read),
        (0, "with_bar", [None, "<b>x", 0.1], "Value: &lt;b&gt;x is not in the list of choices: []"),
        (1, "asked", ["A dog."], not_read),
        (1, "asked", ["A dog.", ""], "no hypothesis; expected a sentence"),
        (1, "asked", ["A dog.", "A pet."], broken),
    ):
        response = clients[number].post(f"/gradio_api/run/{name}", json={"data": data})
        assert (response.status_code, response.json()["error"]) == (500, message), (name, data)


def of_codebook(**changes) -> SimpleNamespace:
    """An adapter of a codebook, as the page sees it."""
    examples = tuple(Example(text, "A") for text in ("one", "two", "three", "four"))
    codebook = Codebook("stance", "Is <b>it</b>?", "Decide.", {"A": "", "B": ""}, examples=examples, **changes)
    described = SimpleNamespace(base_model="b", corpus="table.csv", of_miniature=False)
    return SimpleNamespace(name="stance", feature=feature_of(codebook), columns=[], description=described)


def test_the_page_of_a_codebook_has_its_own_words(monkeypatch):
    gradio = pytest.importorskip("gradio")
    own = SimpleNamespace(adapters=[of_codebook(columns=Columns(text="body"))], text_names=())
    sbic = SimpleNamespace(name="offensiveYN", feature=FEATURES["offensiveYN"], columns=[], description=None)
    both = SimpleNamespace(adapters=[*own.adapters, sbic])
    assert app.examples_of(own) == [["one"], ["two"], ["three"]]
    assert app.examples_of(both) == [*([text] for text in app.EXAMPLES), ["one"], ["two"], ["three"]]
    assert app.examples_of(SimpleNamespace(adapters=[sbic])) == [[text] for text in app.EXAMPLES]
    assert app.likely_columns(own, ["id", "text", "body"]) == ["body"]
    assert app.likely_columns(own, ["id", "text"]) == ["text"]
    assert app.likely_columns(own, ["id", "words"]) == ["id"]
    page = web.laid_out("a page", lambda: app.layout(own))
    shown = [block.value for block in page.blocks.values() if isinstance(block, gradio.Markdown)]
    assert any(app.OWN_WARNING in text for text in shown)
    assert not any("Content warning" in text or "miniature" in text for text in shown)
    assert web.IN_A_SPACE not in shown
    monkeypatch.setenv("SPACE_ID", "user/page")
    page = web.laid_out("a page", lambda: app.layout(own))
    assert web.IN_A_SPACE in [block.value for block in page.blocks.values() if isinstance(block, gradio.Markdown)]


def test_what_the_command_refuses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"--adapter: no adapter was given. Give one, or first run make demo"):
        parse(app.AppArguments, [])
    with pytest.raises(UserError, match="no such folder"):
        parse(app.AppArguments, ["--adapter", "./nowhere"])
    for name in ("b", "a"):
        (tmp_path / app.DEMO / name).mkdir(parents=True)
        (tmp_path / app.DEMO / name / "annotator.json").touch()
    assert parse(app.AppArguments, []).adapter == (f"{app.DEMO}/a", f"{app.DEMO}/b")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("sys.argv", ["app"])
    with pytest.raises(UserError, match=r"pages need gradio. Run pip install gradio"):
        app.main()


@pytest.fixture(scope="module")
def page(folders):
    if missing():
        pytest.skip(str(missing()))
    with served("sbic_llama.app", *[word for folder in folders for word in ("--adapter", folder)]) as (address, _):
        yield address


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("how", ["mouse", "keyboard on a phone"])
def test_a_post_is_typed_and_answered(page, how):
    with opened(page, PHONE if "phone" in how else DESKTOP, "dark" if "phone" in how else "light") as seen:
        seen.get_by_text("Content warning").wait_for()
        post = seen.get_by_label("Post", exact=True)
        post.fill(POSTS[1])
        if how == "mouse":
            seen.get_by_role("button", name="Annotate", exact=True).click()
        else:
            post.focus()
            seen.keyboard.press("Tab")
            seen.keyboard.press("Enter")
        seen.wait_for_function("document.querySelector('#offensiveYN')?.innerText.includes('%')")
        output = seen.inner_text("#offensiveYN")
        assert all(label in output for label in ("Offensive", "Maybe offensive", "Not offensive"))
        assert seen.input_value("#targetMinority textarea").endswith("sure)")
        assert seen.input_value("#review textarea").startswith(("yes. ", "no"))
        picture(seen, f"sbic_app_{how.split()[0]}")
        assert beyond_the_edge(seen) == []


@needs_browser
@pytest.mark.slow
def test_a_file_is_uploaded_annotated_and_downloaded(page, posts, tmp_path):
    with opened(page) as seen:
        seen.get_by_role("tab", name="A file").click()
        seen.set_input_files("input[type=file]", posts)
        seen.wait_for_function("document.querySelector('#column input')?.value === 'post'")
        seen.get_by_role("button", name="Annotate the file").click()
        seen.wait_for_function("document.querySelector('#outcome textarea')?.value.startsWith('40 rows')")
        assert "10 could not be annotated" in seen.input_value("#outcome textarea")
        picture(seen, "sbic_app_file")
        assert seen.locator("table b").count() == 0, "a post is text, whatever it looks like"
        with seen.expect_download() as download:
            seen.get_by_role("button", name="Download the annotated file").click()
        download.value.save_as(tmp_path / "down.csv")
    with open(tmp_path / "down.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    assert rows[1]["post"] == POSTS[1]
    assert rows[1]["model_offensiveYN"]


@needs_browser
@pytest.mark.slow
def test_what_is_wrong_is_said_on_the_page(page, tmp_path):
    path = tmp_path / "posts.csv"
    path.write_text("post,model_offensiveYN\na <img src=x> b,no\n", encoding="utf-8")
    with opened(page) as seen:
        seen.get_by_role("button", name="Annotate", exact=True).click()
        seen.get_by_text("no post; expected some text").wait_for()
        seen.get_by_role("tab", name="A file").click()
        seen.set_input_files("input[type=file]", path)
        seen.wait_for_function("document.querySelector('#column input')?.value === 'post'")
        seen.get_by_role("button", name="Annotate the file").click()
        seen.get_by_text("posts.csv: the file already has a column 'model_offensiveYN'").wait_for()
        picture(seen, "sbic_app_error")


@needs_browser
@pytest.mark.slow
def test_nothing_is_kept_when_it_ends(folders, posts, tmp_path):
    (tmp_path / "scratch").mkdir()
    own = served("sbic_llama.app", "--adapter", folders[0], TMPDIR=str(tmp_path / "scratch"))
    with own as (address, process), opened(address) as seen:
        seen.get_by_role("tab", name="A file").click()
        seen.set_input_files("input[type=file]", posts)
        seen.wait_for_function("document.querySelector('#column input')?.value === 'post'")
        assert list((tmp_path / "scratch").rglob("posts.csv")), "it was uploaded into the temporary folder"
        seen.get_by_role("button", name="Annotate the file").click()
        seen.wait_for_function("document.querySelector('#outcome textarea')?.value.startsWith('40 rows')")
        assert list((tmp_path / "scratch").rglob("annotated_posts.csv"))
    assert process.returncode in (0, 130)
    assert not list((tmp_path / "scratch").rglob("*posts.csv"))


def test_what_was_uploaded_and_made_goes_unless_it_is_worked_on(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    (tmp_path / "upload").mkdir()
    upload = tmp_path / "upload" / "posts.csv"
    upload.write_text("post\na\n")
    with web.working(upload) as source:
        assert source.read_text() == "post\na\n"
        (source.parents[1] / "annotated_posts.csv").touch()
        web.sweep(tmp_path, -1)
        assert not upload.exists()
        assert source.exists()
    assert not source.exists()
    assert [path.name for path in tmp_path.rglob("*.csv")] == ["annotated_posts.csv"]
    web.sweep(tmp_path, 100)
    assert list(tmp_path.rglob("*.csv"))
    web.sweep(tmp_path, -1)
    web.sweep(tmp_path, -1)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=r"posts.csv: the upload has expired. Upload it again"), web.working(upload):
        pass
