"""Findings about an adapter besides its scores: label policies, single opinions, text overlap, another corpus."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from common.cli.errors import UserError
from common.tables.report import DataReport
from sbic_llama.data.codebook import Codebook
from sbic_llama.data.corpus import Annotation, Post, Split
from sbic_llama.data.features import FEATURES, OFFENSIVE_POLICIES, feature_of
from sbic_llama.data.groups import evaluate_groups, overlaps, token_f1
from sbic_llama.data.md_agreement import read_items
from sbic_llama.data.table import Item, Vote
from sbic_llama.evaluation.other_corpora import md_agreement_finding, md_agreement_findings
from sbic_llama.evaluation.with_people import (
    agreement_with_people,
    annotators_opinions,
    certainty_findings,
    label_policy_finding,
    views,
)

ABOUT = {"task": "t", "model": "m", "data": {"name": "d", "split": "test", "fingerprint": "0"}}


def post(*levels: float | None, biased: tuple[bool, ...] = ()) -> Post:
    given = [level for level in levels if level is not None]
    bias = biased or (False,) * len(levels)
    people = tuple(Annotation(f"w{i}", level, b) for i, (level, b) in enumerate(zip(levels, bias, strict=True)))
    return Post("text", "m/x", any(bias), sum(given) / len(given) if given else None, (), people)


# Means 1, .5, .5, 0: at least half calls three of them offensive, above half one.
POSTS = [post(1, 1), post(0, 1), post(0.5, 0.5), post(0, 0, None)]


def rows(finding, part: int = 0) -> dict[str, tuple[float, int]]:
    return {name: (round(row["value"], 4), row["n"]) for name, row in finding.parts[part].rows.items()}


def test_the_same_answers_under_each_label_policy():
    feature = FEATURES["offensiveYN"]
    finding = label_policy_finding(feature, POSTS, [0, 0, 1, 2], seed=0, **ABOUT)  # offensive, offensive, maybe, not
    assert rows(finding) == {
        feature.policy: (0.75, 4),
        OFFENSIVE_POLICIES["at_least_half"].policy: (1.0, 4),
        OFFENSIVE_POLICIES["above_half"].policy: (0.75, 4),
        "posts on which all annotators agree": (1.0, 3),
        "posts on which they differ": (0.0, 1),
    }
    assert finding.summary[0].startswith("Accuracy is 0.7500 [")
    assert "give 50.0% of the posts different labels" in finding.summary[2]


def test_a_codebook_with_the_name_of_a_feature_of_sbic_has_its_own_labels():
    for name in ("offensiveYN", "hasBiasedImplication"):
        feature = feature_of(Codebook(name, "Rude?", "Decide.", {"Yes": "", "No": ""}))
        assert {view.names for view in views(feature)} == {("Yes", "No")}


def test_a_codebook_is_scored_where_its_annotators_agree_and_where_they_differ():
    feature = feature_of(Codebook("rude", "Rude?", "Decide.", {"Yes": "", "No": ""}))
    votes = [[0, 0], [0, 1], [1]]
    posts = [Item("a", each[0], tuple(Vote(str(who), label) for who, label in enumerate(each))) for each in votes]
    finding = label_policy_finding(feature, posts, [0, 1, 1], seed=0, **ABOUT)
    assert rows(finding) == {
        feature.policy: (0.6667, 3),
        "posts on which all annotators agree": (1.0, 1),
        "posts on which they differ": (0.0, 1),
    }


def test_most_annotators_are_more_than_half():
    """Of an even split the majority's label is not biased; the feature's own label is, as any annotator suffices."""
    posts = [post(None, None, biased=(True, False)), post(None, None, None, biased=(True, True, False))]
    finding = label_policy_finding(FEATURES["hasBiasedImplication"], posts, [0, 0], seed=0, **ABOUT)
    assert rows(finding)[FEATURES["hasBiasedImplication"].policy] == (1.0, 2)
    assert rows(finding)["biased where most annotators gave a stereotype"] == (0.5, 2)
    even = post(0, 1)
    assert [OFFENSIVE_POLICIES[name].label_of(even) for name in ("at_least_half", "above_half", "levels")] == [0, 1, 1]


def test_a_single_opinion_is_not_unanimity():
    finding = label_policy_finding(FEATURES["offensiveYN"], [*POSTS, post(1)], [0, 0, 1, 2, 0], seed=0, **ABOUT)
    assert rows(finding)["posts on which all annotators agree"] == (1.0, 3)


def test_a_binary_answer_is_read_as_it_is():
    finding = label_policy_finding(OFFENSIVE_POLICIES["at_least_half"], POSTS, [0, 0, 0, 1], seed=0, **ABOUT)
    assert list(rows(finding).values())[:2] == [(1.0, 4), (0.5, 4)]
    assert len(rows(finding)) == 4


def test_policies_of_the_bias_label():
    posts = [post(1, 1, 0, biased=(True, False, False)), post(1, 1, biased=(True, True)), post(0, 0)]
    finding = label_policy_finding(FEATURES["hasBiasedImplication"], posts, [0, 0, 1], seed=0, **ABOUT)
    assert list(rows(finding).values()) == [(1.0, 3), (0.6667, 3), (1.0, 2), (1.0, 1)]
    aggregate = [Post("a", "m/x", True, 1.0, ()), Post("b", "m/x", False, 0.0, ())]
    finding = label_policy_finding(FEATURES["hasBiasedImplication"], aggregate, [0, 1], seed=0, **ABOUT)
    assert len(rows(finding)) == 1, "aggregates do not contain single opinions"


def test_single_annotators_opinions_under_a_policy():
    feature = FEATURES["offensiveYN"]
    one, two = "annotator 1", "annotator 2"
    assert annotators_opinions(feature, [POSTS[1], POSTS[3]]) == {"0": {one: 2, two: 0}, "1": {one: 2, two: 2}}
    assert annotators_opinions(OFFENSIVE_POLICIES["at_least_half"], [POSTS[2]]) == {"0": {one: 0, two: 0}}
    assert annotators_opinions(OFFENSIVE_POLICIES["above_half"], [POSTS[2]]) == {"0": {one: 1, two: 1}}
    twice = Post("a", "s", False, 0.5, (), (Annotation("w", 1.0, False), Annotation("w", 0.0, False)))
    assert annotators_opinions(feature, [twice]) == {"0": {one: 0}}
    busy = Post("b", "s", False, 1.0, (), (Annotation("z", 1.0, False),))
    assert annotators_opinions(feature, [POSTS[0], busy, busy])["1"] == {one: 0}, (
        "the annotator with the most posts is the first"
    )
    assert annotators_opinions(FEATURES["hasBiasedImplication"], POSTS) == {}, "bias labels hardly vary within a post"
    assert annotators_opinions(feature, [Post("a", "s", False, 1.0, ())]) == {}


def test_single_annotators_lists_of_a_question_of_ones_own():
    feature = feature_of(Codebook("places", "Which places?", "Name the places.", text=True))
    item = Item("a", ("rome", "ulm"), (Vote("x", ("rome",)), Vote("y", ("rome", "ulm")), Vote("x", ())))
    opinions = annotators_opinions(feature, [item])
    assert sorted(opinions["0"].values()) == [("rome",), ("rome", "ulm")]
    assert agreement_with_people(feature, opinions, {"0": ("rome",)}, seed=0, **ABOUT)


def test_agreement_compares_levels_by_their_order_and_lists_by_set_f1():
    opinions = {str(n): {"a": n % 3, "b": n % 3, "c": (n + n // 3) % 3} for n in range(45)}

    def found(answers, name="offensiveYN", said=opinions):
        return agreement_with_people(FEATURES[name], said, answers, seed=0, **ABOUT)

    near = found({str(n): 1 for n in range(45)})  # always "maybe": one level away at most
    far = found({str(n): (n % 3 + 1) % 3 if n % 3 != 1 else 1 for n in range(45)})
    assert near.facts["scale"] == "ordinal"
    assert near.name == "agreement"
    assert far is not None
    same = found({str(n): n % 3 for n in range(45)})
    assert same.facts["alternative_annotator_test"]["omega"] == 1.0
    assert found({}) is None
    assert found({"0": 1}, said={"0": {"a": 1}}) is None, "one person has nobody to agree with"
    lists = {str(n): {"a": ("x", "y"), "b": ("x", "y"), "c": ("x",) if n % 2 else ()} for n in range(45)}
    half = found({str(n): ("x",) for n in range(45)}, "targetMinority", lists)
    none = found({str(n): ("z",) for n in range(45)}, "targetMinority", lists)
    assert half.facts["alternative_annotator_test"]["rho"] > none.facts["alternative_annotator_test"]["rho"]


def test_certainty_of_labels_and_of_lists():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    found = certainty_findings(
        FEATURES["hasBiasedImplication"], [0, 1, 1], [0, 0, 1], [0.9, 0.6, 0.8], seed=0, probabilities=probabilities,
        temperature=1.5, **ABOUT,
    )  # fmt: skip
    assert [one.name for one in found] == ["calibration", "risk-coverage"]
    assert found[0].facts["temperature"] == 1.5
    assert found[1].facts["mean_loss"] == pytest.approx(1 / 3)
    lists = certainty_findings(FEATURES["targetMinority"], [("a", "b"), ()], [("a",), ()], [0.4, 0.9], seed=0, **ABOUT)
    assert [one.name for one in lists] == ["risk-coverage"], "a list has no probability of being right"
    assert lists[0].facts["mean_loss"] == pytest.approx((1 - 2 / 3) / 2)


# ---- text overlap


def test_text_overlap_by_hand():
    assert token_f1("black folks", "black women") == 0.5
    assert token_f1("a, a", "a") == pytest.approx(2 / 3)
    assert token_f1("x", "y") == 0
    assert overlaps(("florbs",), ("florbs",)) == pytest.approx((1, 1, 1))
    assert overlaps((), ()) == pytest.approx((1, 1, 1)), "none against none"
    assert overlaps((), ("florbs",)) == (0, 0, 0)
    # One of two named groups is a whole reference; both together are one too.
    assert overlaps(("drevins", "florbs"), ("florbs",)) == pytest.approx((1, 1, 1))
    assert overlaps(("drevins", "florbs"), ("drevins", "florbs")) == pytest.approx((1, 1, 1))
    # "old florbs" against "florbs": half of its words are right and all of the reference's. Its one bigram is not there: half of
    # its least precision (the first of sacrebleu's smoothing), so BLEU-2 is the root of 1/2 times 1/2.
    f1, bleu, rouge = overlaps(("florbs",), ("old florbs",))
    assert f1 == rouge == pytest.approx(2 / 3)
    assert bleu == pytest.approx(0.5)


def test_text_overlap_is_measured_apart_from_none():
    found = evaluate_groups([("old florbs",), (), ()], [("florbs",), (), ("x",)])
    targeted = found["token_f1/targeted"]
    assert (targeted["value"], targeted["n"]) == (pytest.approx(2 / 3), 1)
    assert targeted["ci95"] == pytest.approx([0.09, 0.97], abs=0.01), "one text proves little"
    assert found["token_f1"]["value"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert {"bleu2/targeted", "rouge_l/targeted"} < set(found)


# ---- MD-Agreement


def item(**changes: object) -> dict:
    return {
        "text": "a &amp; b",
        "annotations": "1,1,0",
        "annotators": "Ann1,Ann2,Ann3",
        "other_info": {"domain": "x"},
    } | changes


def test_md_agreement_is_read(tmp_path):
    path = tmp_path / "MD-Agreement_dev.json"
    path.write_text(json.dumps({"1": item(), "2": item(annotations="0,1", annotators="Ann1,Ann2")}))
    first, second = read_items(path)
    assert (first.text, first.domain, first.annotations) == ("a & b", "x", {"Ann1": 0, "Ann2": 0, "Ann3": 1})
    assert (first.majority, first.agreeing) == (0, 2)
    assert second.majority == 0, "of equals, offensive"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "not MD-Agreement"),
        ("{", "not JSON"),
        (
            json.dumps({"7": item(annotations="1,2,0")}),
            r"item '7'.* annotations '1,2,0'; expected 0 \(not offensive\) or 1",
        ),
        (json.dumps({"7": item(annotators="Ann1")}), "3 annotations by 1 annotators"),
        (json.dumps({"7": {"annotations": "1"}}), r"7\.text: Field required"),
        (json.dumps({"7": item(text=" ")}), "no text"),
        (json.dumps({"7": item(annotations=None)}), r"7\.annotations: Input should be a valid string"),
        (json.dumps({"7": item(annotators="Ann1,Ann1,Ann2")}), "an annotator is listed twice"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_file_that_is_not_md_agreement(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        read_items(path)
    assert re.search(message, str(error.value)), str(error.value)
    with pytest.raises(UserError, match="can't be read"):
        read_items(tmp_path / "gone.json")


def test_md_agreement_as_published(real_data):
    items = read_items(real_data / "md_agreement" / "MD-Agreement_dev.json")
    values = json.loads((real_data / "md_agreement" / "MD-Agreement_dev.json").read_text())
    assert len(items) == 1104
    assert all(len(one.annotations) == 5 for one in items)
    assert [1 - one.majority for one in items] == [int(value["hard_label"]) for value in values.values()]


def test_another_corpus_is_scored_beside_tfidf_trained_on_sbic(tmp_path):
    path = tmp_path / "MD-Agreement_dev.json"
    tweets = {
        str(n): item(text=f"{'bad' if n % 2 else 'good'} day {n}", annotations="1,1,1" if n % 2 else "0,0,1")
        for n in range(60)
    }
    path.write_text(json.dumps(tweets))
    posts = [Post(f"{'bad' if n % 2 else 'good'} {n}", "s", False, float(n % 2), ()) for n in range(40)]
    train = Split("train", posts, DataReport("x"))
    items = read_items(path)
    answers = [(0 if n % 4 == 1 else 1) if n % 2 else 2 for n in range(60)]  # half of the offensive ones are "maybe"
    finding = md_agreement_finding(items, answers, FEATURES["offensiveYN"], train, seed=0, **ABOUT)
    found = rows(finding)
    assert found["m, maybe counts as offensive"] == (1.0, 60)
    assert found["m, maybe counts as not offensive"] == (0.75, 60)
    assert found["TF-IDF trained on SBIC"] == (1.0, 60)
    assert found["always offensive"] == (0.5, 60)
    assert rows(finding, 2) == {"3 of 3": (1.0, 30), "2 of 3": (1.0, 30)}
    binary = [1 - n % 2 for n in range(60)]
    scores, people = md_agreement_findings(
        items, binary, OFFENSIVE_POLICIES["above_half"], train, path, seed=0, **ABOUT
    )
    assert rows(scores)["m, offensive"] == (1.0, 60)
    assert (people.name, people.data["split"]) == ("md-agreement-people", "MD-Agreement_dev")
    assert people.facts["alternative_annotator_test"]["omega"] == 1.0, "it gives the majority's label"
