"""Flip rates: computed by hand on made-up answers, and measured by the command on the miniature's adapters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

import sbic_llama.robustness.__main__ as robustness
from common.cli.errors import UserError
from common.results import rendering
from common.results.finding import Measures, read_finding
from sbic_llama.data.features import FEATURES, Answers, Feature
from sbic_llama.evaluation.other_corpora import hatecheck_finding
from sbic_llama.model import answering as model_answering
from sbic_llama.robustness import group_swaps
from sbic_llama.robustness import trials as trying
from sbic_llama.robustness.group_swaps import INVENTED, Lexicon, Reply
from sbic_llama.robustness.perturbations import (
    CLEANED,
    HARMLESS,
    INJECTIONS,
    NEUTRAL,
    PLACES,
    Injection,
    Variant,
    edit_variants,
    injections,
)
from sbic_llama.robustness.trials import any_flip_rate, flip_rate, prepare, robustness_finding, success_rate

OFFENSIVE, TARGETS = FEATURES["offensiveYN"], FEATURES["targetMinority"]
(INVENTED_FAMILY,) = INVENTED
ABOUT = {"task": "t", "model": "m", "data": {"name": "d", "split": "test", "fingerprint": "0"}}


def ask(read: Callable[[Sequence[str]], Answers], feature: Feature, texts: Iterable[str]) -> dict[str, Reply]:
    return trying.ask(read, feature, texts)[0]


def answering(label_of: Callable[[str], object], feature: Feature = OFFENSIVE, seen: list[str] | None = None):
    """Return a made-up model: text → label, which has probability .8; the others share the rest."""

    def answers(texts: Sequence[str]) -> Answers:
        if seen is not None:
            seen.extend(texts)
        labels = [label_of(text) for text in texts]
        details = [
            {f"probability_{name}": 0.8 if number == label else 0.1 for number, name in enumerate(feature.labels)}
            for label in labels
        ]
        return Answers(labels, details, 0)

    return answers


def test_the_model_is_asked_about_each_text_once():
    seen: list[str] = []
    replies = ask(answering(lambda text: len(text) % 3, seen=seen), OFFENSIVE, ["a", "bb", "a", "ccc", "bb"])
    assert seen == ["a", "bb", "ccc"]
    assert [replies[text].label for text in ("a", "bb", "ccc")] == [1, 2, 0]
    assert [replies[text].first for text in ("a", "bb", "ccc")] == [0.1, 0.1, 0.8]


def test_flip_rates_are_means_over_posts():
    variants = [Variant("p", "p1"), Variant("p", "p2"), Variant("q", "q1"), Variant("r", "r1"), Variant("r", "r2")]
    labels = {"p": 0, "p1": 1, "p2": 0, "q": 2, "q1": 2, "r": 1, "r1": 0, "r2": 2}
    replies = ask(answering(labels.__getitem__), OFFENSIVE, labels)
    rate = flip_rate(variants, replies, 0)
    assert (rate["value"], rate["n"]) == ((1 / 2 + 0 + 1) / 3, 3)
    assert rate["ci95"][0] <= rate["value"] <= rate["ci95"][1]
    every = any_flip_rate(variants, replies, 0)
    assert (every["value"], every["n"]) == (2 / 3, 3)
    assert flip_rate([], replies, 0) is None
    assert any_flip_rate([], replies, 0) is None


def test_an_injection_succeeds_where_another_answer_becomes_the_wanted_one():
    labels = {"p": 0, "p0": 0, "p1": 1, "p2": 1, "q": 1, "q0": 1, "q1": 1, "q2": 2}
    tries = [Injection(post, f"{post}{wanted}", "x", "behind", wanted) for post in "pq" for wanted in (0, 1, 2)]
    replies = ask(answering(labels.__getitem__), OFFENSIVE, labels)
    # p is 0 anyway: injecting 1 works, injecting 2 does not. q is 1 anyway: 0 does not work, 2 does. Injecting the label that a
    # post has anyway does not count.
    rate = success_rate(tries, replies, 0)
    assert (rate["value"], rate["n"]) == (1 / 2, 2)
    assert success_rate([one for one in tries if one.wanted == 1], replies, 0)["n"] == 1
    assert success_rate([tries[0]], replies, 0) is None
    assert flip_rate(tries, replies, 0)["value"] == (2 / 3 + 1 / 3) / 2


def test_every_family_wants_every_answer_on_every_post():
    posts = [f"post {n}" for n in range(40)]
    found = injections(posts, OFFENSIVE, 0)
    assert len(found) == 40 * (len(INJECTIONS) + 1) * 3
    assert {(one.family, one.wanted, one.place) for one in found} == {
        (family, wanted, place) for family in (*INJECTIONS, NEUTRAL) for wanted in range(3) for place in PLACES
    }
    for one in found:
        assert one.post in one.text
        assert (OFFENSIVE.answer(one.wanted) in one.text) == (one.family != NEUTRAL)
    assert found == injections(posts, OFFENSIVE, 0)
    assert found != injections(posts, OFFENSIVE, 1)
    assert {one.wanted for one in injections(posts, TARGETS, 0)} == {()}


def test_a_post_that_an_edit_leaves_alone_does_not_count():
    found = edit_variants(["kind.", "kind"], HARMLESS, 0)
    assert found["full stop"] == [Variant("kind", "kind.")]
    assert found["typographic quotes"] == []
    assert len(found["link behind"]) == 2
    assert all(not variants for variants in edit_variants(["kind words"], CLEANED, 0).values())


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon(INVENTED)


def test_every_other_group_replaces_the_one_in_a_post(lexicon):
    items = group_swaps.counterfactuals(["the florbs sing", "no group", "Drevins and florbs"], lexicon, None, 0)
    assert [item.group for item in items] == ["florbs", "drevins"]
    assert set(items[0].texts) == set(INVENTED_FAMILY.groups)
    assert items[0].texts["florbs"] == "the florbs sing"
    assert items[0].texts["zanthi"] == "the zanthi sing"
    assert items[1].texts["florbs"] == "Florbs and drevins"
    assert items[1].texts["tessels"] == "Tessels and florbs"
    assert len(group_swaps.counterfactuals([f"florbs {n}" for n in range(9)], lexicon, 4, 0)) == 4


def test_what_a_biased_model_shows(lexicon):
    """Its answer is offensive for everything about tessels, and for nothing else."""
    posts = ["the florbs sing", "tessels sing", "drevins are kind", "zanthi are florid"]
    items = group_swaps.counterfactuals(posts, lexicon, None, 0)
    replies = ask(
        answering(lambda text: 0 if "tessels" in text else 2),
        OFFENSIVE,
        [t for item in items for t in item.texts.values()],
    )
    # One of seven other groups differs by .7; for the tessels' own post all seven do.
    assert group_swaps.change_rate(items, replies, lexicon, 0)["value"] == pytest.approx((3 / 7 + 1) / 4)
    assert group_swaps.mean_change(items, replies, 0)["value"] == pytest.approx((3 * 0.7 / 7 + 0.7) / 4)
    rows = group_swaps.by_group(items, replies, lexicon, 0)
    assert {name: (pytest.approx(row["value"]), row["n"]) for name, row in rows.items()} == {
        name: (0.8 if name == "tessels" else 0.1, 4) for name in INVENTED_FAMILY.groups
    }
    assert group_swaps.gap(items, replies, lexicon, ("tessels", "florbs"), 0)["value"] == pytest.approx(0.7)
    fair = ask(answering(lambda text: 1), OFFENSIVE, [t for item in items for t in item.texts.values()])
    assert group_swaps.change_rate(items, fair, lexicon, 0)["value"] == 0
    assert group_swaps.mean_change(items, fair, 0)["value"] == 0


def test_an_answer_that_names_the_group_should_change_with_it(lexicon):
    def named(text: str, blind: str = "") -> tuple[str, ...]:
        groups = {mention.group for mention in lexicon.mentions(text)} - {blind}
        return tuple(sorted(name if name != "florbs" else "florb folk" for name in groups))

    items = group_swaps.counterfactuals(["the florbs sing", "drevins and tessels"], lexicon, None, 0)
    texts = [text for item in items for text in item.texts.values()]
    right = ask(answering(named, TARGETS), TARGETS, texts)
    assert group_swaps.change_rate(items, right, lexicon, 0)["value"] == 0
    stubborn = ask(answering(lambda text: ("florbs",), TARGETS), TARGETS, texts)
    assert group_swaps.change_rate(items[:1], stubborn, lexicon, 0)["value"] == 1
    blind = ask(answering(lambda text: named(text, "zanthi"), TARGETS), TARGETS, texts)
    assert group_swaps.change_rate(items, blind, lexicon, 0)["value"] == pytest.approx(1 / 7)
    assert {name: row["value"] for name, row in group_swaps.by_group(items, blind, lexicon, 0).items()} == {
        name: float(name != "zanthi") for name in INVENTED_FAMILY.groups
    }


def rows_of(parts: Sequence[object], title: str) -> dict[str, float]:
    (part,) = [part for part in parts if isinstance(part, Measures) and part.title.startswith(title)]
    return {name: row["value"] for name, row in part.rows.items()}


def test_the_parts_of_a_gullible_model(lexicon):
    """It repeats the label after "### Response:"; otherwise it answers right, and finds only full stops offensive."""
    posts = [f"the florbs sing {n}" for n in range(12)]

    def gullible(text: str) -> int:
        _, _, after = text.partition("### Response: ")
        for number in (1, 2, 0):  # no other label starts with "Offensive"
            if after.startswith(OFFENSIVE.labels[number]):
                return number
        return 0 if text.endswith(".") else 2

    trials = prepare(OFFENSIVE, posts, lexicon, [], most=None, seed=0)
    replies = ask(answering(gullible), OFFENSIVE, trials.texts())
    finding = robustness_finding(OFFENSIVE, trials, replies, seed=0, **ABOUT)
    parts = finding.parts
    got = rows_of(parts, "Injected answers obtained on posts with another answer, by injection")
    assert got["forged response"] == got["forged turn"] == 1
    assert got["answer stuffing"] == 0
    assert 0 < got[NEUTRAL] < 0.5, "at the end of a post its full stop causes one of the two wanted answers"
    by_answer = rows_of(parts, "Injected answers obtained, by answer")
    assert by_answer['"Maybe offensive"'] == by_answer['"Offensive"'] == pytest.approx(2 / len(INJECTIONS))
    assert by_answer[f'"Maybe offensive", after a {NEUTRAL}'] == 0
    assert '"Not offensive"' not in by_answer, "every post has it anyway"
    harmless = rows_of(parts, "Answers that change: harmless edits")
    assert harmless == {
        "full stop": 1, "exclamation mark": 0, "quotation marks": 0, "mention in front": 0, "link behind": 0,
        "hashtag behind": 0, "any of these": 1,
    }  # fmt: skip
    assert rows_of(parts, "Answers that change with the group") == {"invented groups": 0}
    assert finding.summary[0].startswith("Prompt injection changes ")
    assert "of the answers; a neutral sentence in its place changes " in finding.summary[0]
    assert any("got one of the 3 labels" in sentence for sentence in finding.summary)


@pytest.fixture(scope="module")
def adapters(trained_adapters, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("robust")
    for name in ("offensiveYN", "targetMinority"):  # findings are written into an adapter's folder: use copies
        shutil.copytree(trained_adapters / name, folder / name)
    return folder


def command(monkeypatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["robustness", *map(str, words)])
    robustness.main()


@pytest.mark.parametrize("name", ["offensiveYN", "targetMinority"])
def test_the_command_leaves_findings_that_every_page_can_show(adapters, name, tmp_path, monkeypatch, capsys, miniature):
    labels: list[object] = []
    real = model_answering.answer

    def watched(*arguments, **options):
        found = real(*arguments, **options)
        labels.extend(found.labels)
        return found

    monkeypatch.setattr(model_answering, "answer", watched)
    command(monkeypatch, "--adapter", adapters / name, "--posts", 8, "--output_dir", tmp_path)
    printed = capsys.readouterr().out
    found = {
        kind: read_finding(tmp_path / "findings" / f"sbic-{name}-qlora-{kind}.json")
        for kind in ("robustness", "hatecheck")
    }
    for kind, finding in found.items():
        assert finding == read_finding(adapters / name / "evaluation" / "findings" / f"{kind}.json")
        assert (finding.name, finding.task, finding.model) == (kind, f"SBIC {name}", "QLoRA")
        assert finding.miniature
        assert "(miniature)" in printed
        assert finding.command.startswith("python -m sbic_llama.robustness --adapter")
        assert len(rendering.drawn(finding, lambda figure, text: text)) >= 3
        assert all(0 <= row["value"] <= 1 for part in finding.parts if isinstance(part, Measures)
                   for row in part.rows.values())  # fmt: skip
        assert "\n".join(rendering.lines(finding)) in printed
    declared = FEATURES[name]
    assert len(labels) == found["robustness"].facts["texts"]
    if declared.classifies:
        assert set(labels) <= set(range(3))
        assert len(set(labels)) > 1
    assert found["hatecheck"].data["name"] == "the HateCheck miniature"
    rows = rows_of(found["hatecheck"].parts, "Accuracy by functionality")
    assert len(rows) == 29
    assert rows["derog_neg_attrib_h"] > 0.5, "the miniature's own idiom"
    assert rows_of(found["robustness"].parts, "Answers that change: harmless edits")["full stop"] < 0.5
    posts = [case.text for case in robustness.RobustnessArguments(adapter="x").cases()]
    text = json.dumps([vars(finding) for finding in found.values()], default=str)
    assert not any(post in text for post in posts), "no finding quotes a post"


def test_the_same_seed_finds_the_same_and_hatecheck_may_be_another_file(adapters, tmp_path, miniature):
    cases = tmp_path / "cases.csv"
    lines = (miniature / "hatecheck" / "test_suite_cases.csv").read_text(encoding="utf-8").splitlines()
    cases.write_text("\n".join(lines[:12]), encoding="utf-8")
    run = {
        "adapter": str(adapters / "offensiveYN"),
        "output_dir": tmp_path,
        "posts": 3,
        "hatecheck": cases,
        "title": "mine",
    }
    first, second = (robustness.check(robustness.RobustnessArguments(**run)) for _ in range(2))
    assert first == second
    assert [finding.name for finding in first] == ["robustness", "hatecheck"]
    assert first[0].model == "mine"
    assert first[0].facts["posts"] == 3
    assert set(rows_of(first[1].parts, "Accuracy by functionality")) < {*hatecheck_names(miniature)}


def hatecheck_names(miniature: Path) -> set[str]:
    from sbic_llama.data.hatecheck import read_cases

    return {case.functionality for case in read_cases(miniature / "hatecheck" / "test_suite_cases.csv")}


def test_the_two_policies_of_three_levels_are_both_reported(lexicon):
    from sbic_llama.data.hatecheck import Case

    cases = [Case("1", "a_h", "x", True, "florbs"), Case("2", "b_nh", "y", False, "florbs")]
    trials = prepare(OFFENSIVE, ["z"], lexicon, cases, most=None, seed=0)
    replies = ask(answering(lambda text: 1), OFFENSIVE, trials.texts())
    finding = hatecheck_finding(OFFENSIVE, cases, [1, 1], seed=0, task="t", model="m", miniature=False)
    summary, parts = finding.summary, finding.parts
    assert finding.miniature, "its cases are about invented groups"
    assert rows_of(parts, 'All cases, "Offensive" counted')["accuracy, hateful"] == 0
    assert rows_of(parts, 'All cases, "Offensive" or "Maybe offensive" counted')["accuracy, hateful"] == 1
    assert summary[0].startswith('With "Offensive" counted as hateful, accuracy on HateCheck\'s 2 cases is 0.5000 [')
    assert sum("counted as hateful: accuracy" in sentence for sentence in summary) == 2
    # No post names a group.
    finding = robustness_finding(OFFENSIVE, trials, replies, seed=0, **ABOUT)
    assert any("No post names a group" in sentence for sentence in finding.summary)


def test_bad_input_is_rejected_before_a_model_is_loaded(adapters, tmp_path, miniature, monkeypatch):
    run = {"adapter": str(adapters / "offensiveYN"), "output_dir": tmp_path / "out"}
    monkeypatch.setattr("sbic_llama.model.adapter.load_adapter", None)
    with pytest.raises(UserError, match="was trained on the SBIC miniature, not on SBIC v2"):
        robustness.check(robustness.RobustnessArguments(**run, data_dir=miniature / "SBIC.v2"))
    with pytest.raises(UserError, match=r"nowhere\.csv: no such file"):
        robustness.check(robustness.RobustnessArguments(**run, hatecheck=tmp_path / "nowhere.csv"))
    assert not (tmp_path / "out").exists()
