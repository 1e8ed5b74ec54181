"""The page that shows classifiers side by side: its answers, and the page in a browser."""

from __future__ import annotations

import pytest

from common.cli.arguments import parse
from common.cli.errors import UserError
from snli_roberta import app
from snli_roberta.adversarial.suite import EDITS, edited
from snli_roberta.data.corpus import LABELS
from tests.browser import PHONE, beyond_the_edge, missing, needs_browser, opened, picture, served

PAIR = ("A boy who is wet is indoors and quiet.", "A child is dry.")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> list[str]:
    from snli_roberta.training.arguments import TrainArguments
    from snli_roberta.training.run import train

    folder = tmp_path_factory.mktemp("models")
    for method in ("full", "lora"):
        train(
            TrainArguments(method=method, output_dir=folder / method, learning_rate=1e-3, max_steps=20, evaluations=1)
        )
    return [str(folder / "full"), str(folder / "lora")]


@pytest.fixture(scope="module")
def models(trained):
    from snli_roberta.model import classifier

    return {app.title_of(one, name): one for name in trained for one in [classifier.load(name)]}


def test_both_models_answer_to_a_pair_and_to_its_variants(models):
    assert list(models) == ["full fine-tuning: full", "LoRA: lora"]
    answers = app.answers(models, PAIR)
    assert [list(one) for one in answers] == [list(LABELS)] * 2
    assert [sum(one.values()) for one in answers] == pytest.approx([1, 1])
    first, *rest = app.variants(models, PAIR)
    for number, one in enumerate(answers):
        label = max(one, key=one.__getitem__)
        assert first[1 + number] == f"{label} {one[label]:.0%}"
    assert [row[0] for row in rest] == [
        f"{rule.name} → {rule.expected}" for rule in EDITS if edited(rule, PAIR) != PAIR
    ]
    assert len(rest) >= 4
    assert tuple(first[3:]) == PAIR
    for row in rest:
        assert tuple(row[3:]) != PAIR
        for number in (1, 2):
            *mark, answer, _ = row[number].split()
            before = first[number].split()[0]
            right = row[0].split(" → ")[1]
            right = {"the answer stays": before, "reported only": None}.get(right, right)
            assert mark == ([] if right is None else ["✓"] if answer == right else ["✗"])


def test_typed_text_is_not_markup():
    table = app.as_table(["<b>model</b>"], [["as it is", "neutral 50%", "<script>alert(1)</script>", ""]])
    assert "<script" not in table
    assert "<b>" not in table


@pytest.mark.parametrize(
    ("premise", "hypothesis", "message"),
    [
        ("", "b", "no premise"),
        ("a", " ", "no hypothesis"),
        (None, "b", "no premise"),
        ("a", "b" * 2001, "2,001 characters"),
    ],
)
def test_a_missing_or_endless_sentence_is_refused(premise, hypothesis, message):
    with pytest.raises(UserError, match=message):
        app.checked(premise, hypothesis)


def test_what_the_command_refuses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"--model: 0 models; expected 1 to 4. Name some, or run make demo first"):
        parse(app.AppArguments, [])
    with pytest.raises(UserError, match="5 models"):
        parse(app.AppArguments, ["--model", *"abcde"])
    (tmp_path / app.DEMO[1]).mkdir(parents=True)
    assert parse(app.AppArguments, []).model == (str(app.DEMO[1]),)


@pytest.fixture(scope="module")
def page(trained):
    if missing():
        pytest.skip(str(missing()))
    with served("snli_roberta.app", "--model", *trained) as (address, _):
        yield address


@needs_browser
@pytest.mark.slow
def test_a_pair_is_typed_and_both_models_answer(page):
    with opened(page) as seen:
        seen.get_by_label("Premise").fill(PAIR[0])
        seen.get_by_label("Hypothesis").fill(PAIR[1])
        seen.get_by_role("button", name="Ask").click()
        for number in (0, 1):
            seen.wait_for_function(f"document.querySelector('#model-{number}')?.innerText.includes('%')")
            assert all(label in seen.inner_text(f"#model-{number}") for label in LABELS)
        picture(seen, "snli_app")


@needs_browser
@pytest.mark.slow
def test_one_model_alone_answers_too(trained):
    with served("snli_roberta.app", "--model", trained[1]) as (address, _), opened(address) as seen:
        seen.get_by_label("Premise").fill(PAIR[0])
        seen.get_by_label("Hypothesis").fill(PAIR[1])
        seen.keyboard.press("Enter")
        seen.wait_for_function("document.querySelector('#model-0')?.innerText.includes('%')")


@needs_browser
@pytest.mark.slow
def test_variants_at_a_click_and_errors_on_a_phone(page):
    with opened(page, PHONE, "dark") as seen:
        change = seen.get_by_role("button", name="Change the sentences slightly")
        seen.get_by_label("Premise").fill(PAIR[0])
        change.click()
        seen.get_by_text("no hypothesis; expected a sentence").wait_for()
        seen.get_by_label("Hypothesis").fill(PAIR[1])
        seen.keyboard.press("Tab")
        seen.keyboard.press("Tab")
        seen.keyboard.press("Enter")
        seen.get_by_text("as it is").first.wait_for()
        assert seen.locator(".variants td:visible").count() == 3 * seen.locator(".variants tr:has(td)").count() >= 3 * 5
        picture(seen, "snli_app_phone")
        assert beyond_the_edge(seen) == []
