from __future__ import annotations

import csv
import json
import re
from dataclasses import asdict, replace

import pytest

from common.cli.arguments import parse
from common.cli.errors import UserError
from common.models.prompt import STUDY, Template
from sbic_llama.data.corpus import Post
from sbic_llama.data.features import FEATURES, OFFENSIVE_POLICIES, STUDY_WORDING, get_feature
from sbic_llama.data.groups import evaluate_groups, normalized_groups, set_f1, split_groups
from sbic_llama.model import description as annotator_file
from sbic_llama.training.arguments import TrainArguments
from sbic_llama.training.run import dump_dataset

DECLARED = [*FEATURES.values(), *OFFENSIVE_POLICIES.values(), STUDY_WORDING]


def post(**changes) -> Post:
    return Post(**{"text": "t", "source": "s", "biased": True, "offensive": 1.0, "groups": (), **changes})


@pytest.mark.parametrize("declared", DECLARED, ids=lambda one: f"{one.name} {one.labels}")
def test_every_answer_is_read_back_as_its_label(declared):
    labels = range(len(declared.labels)) if declared.classifies else [(), ("florbs",), ("drevins", "florb folk")]
    for label in labels:
        assert declared.parse(declared.answer(label)) == label
        assert declared.parse(f" {declared.answer(label)}\n") == label
    if declared.classifies:
        assert declared.parse("Something else") is None


@pytest.mark.parametrize(
    ("mean", "levels", "at_least_half", "above_half"),
    [
        (0.0, "Not offensive", "Not offensive", "Not offensive"),
        (0.25, "Maybe offensive", "Not offensive", "Not offensive"),
        (0.5, "Maybe offensive", "Offensive", "Not offensive"),
        (0.51, "Maybe offensive", "Offensive", "Offensive"),
        (1.0, "Offensive", "Offensive", "Offensive"),
        (None, None, None, None),
    ],
)
def test_the_label_policies(mean, levels, at_least_half, above_half):
    result = [
        OFFENSIVE_POLICIES[name].target(post(offensive=mean)) for name in ("levels", "at_least_half", "above_half")
    ]
    assert result == [levels, at_least_half, above_half]


def test_the_policies_move_posts_of_the_real_corpus(real_data):
    """6 % of posts have a mean of exactly one half."""
    from sbic_llama.data.corpus import load_splits

    posts = [p for split in load_splits(data_dir=real_data / "SBIC.v2").values() for p in split.posts]
    targets = [[OFFENSIVE_POLICIES[name].target(p) for p in posts] for name in ("at_least_half", "above_half")]
    moved = sum(one != other for one, other in zip(*targets, strict=True)) / len(posts)
    assert 0.04 < moved < 0.08


def test_a_policy_or_wording_that_a_feature_lacks_is_refused():
    with pytest.raises(UserError, match="targetMinority has a single label policy"):
        get_feature("targetMinority", "above_half")
    with pytest.raises(UserError, match="the study has no wording for offensiveYN"):
        get_feature("offensiveYN", wording="study")


def test_the_hash_changes_with_all_that_the_model_reads():
    feature = FEATURES["offensiveYN"]
    hashes = {
        feature.prompt_hash(),
        replace(feature, instruction="Decide.").prompt_hash(),
        replace(feature, labels=feature.labels[::-1]).prompt_hash(),
        OFFENSIVE_POLICIES["above_half"].prompt_hash(),
    }
    assert len(hashes) == 4
    assert replace(feature, policy="in other words").prompt_hash() == feature.prompt_hash()


def test_every_declared_variant_has_a_name_of_its_own():
    variants = {one.title: one for one in DECLARED}
    assert len(variants) == len({one.slug for one in variants.values()}) == len({*map(id, DECLARED)}) == 7
    assert all(re.fullmatch("[A-Za-z-]+", one.slug) for one in variants.values())


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("none", ()),
        ("None.", ()),
        ("", ()),
        ("Florbs", ("florbs",)),
        ("the  Zanthi , florbs;florbs\nnone", ("florbs", "the zanthi")),
        ("florbs &amp; drevins", ("florbs & drevins",)),
        ("</s>, ### Response:", ("### response", "</s>")),
    ],
)
def test_groups_are_read_from_text(text, groups):
    assert split_groups(text) == groups


def test_groups_of_several_annotators_are_one_set():
    assert normalized_groups(("Florbs", "florbs ", "drevins, tessels", "none")) == ("drevins", "florbs", "tessels")


def test_set_f1_by_hand():
    assert set_f1((), ()) == 1
    assert set_f1(("a",), ()) == set_f1((), ("a",)) == 0
    assert set_f1(("a", "b"), ("b", "c", "d")) == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    result = evaluate_groups([("a", "b"), (), (), ("a",)], [("b", "c", "d"), (), ("a",), ("a",)])
    assert result["set_f1"]["value"] == pytest.approx((0.4 + 1 + 0 + 1) / 4)
    assert (result["set_f1/targeted"]["value"], result["set_f1/targeted"]["n"]) == (pytest.approx(0.7), 2)
    assert result["exact"]["value"] == 0.5
    assert result["recall/none"]["value"] == 0.5
    assert result["precision/groups"]["value"] == pytest.approx(2 / 3)
    assert all(metric["ci95"][0] <= metric["value"] <= metric["ci95"][1] for metric in result.values())


def test_the_interval_of_a_mean_agrees_with_scipys_bootstrap():
    import numpy as np
    from scipy.stats import bootstrap

    rng = np.random.default_rng(1)
    labels = [("a",) if rng.random() < 0.5 else () for _ in range(300)]
    predictions = [("a",) if rng.random() < 0.5 else ("b", "a") for _ in labels]
    result = evaluate_groups(labels, predictions)["set_f1"]
    values = np.array([set_f1(*pair) for pair in zip(labels, predictions, strict=True)])
    low, high = bootstrap((values,), np.mean, method="percentile", rng=1).confidence_interval
    assert result["ci95"] == pytest.approx([low, high], abs=0.01)


@pytest.mark.parametrize("name", list(FEATURES))
def test_the_instruction_dataset_is_what_the_model_reads(tmp_path, name, miniature):
    dump = str(tmp_path / "d.jsonl")
    command = ["--output_dir", str(tmp_path / "run"), "--learning_rate", "1", "--dump_dataset", dump]
    dump_dataset(parse(TrainArguments, command), name)
    rows = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text(encoding="utf-8").splitlines()]
    feature = FEATURES[name]
    assert len(rows) == 1500
    for row in rows[:50]:
        assert list(row) == ["prompt", "completion", "label"]
        assert row["prompt"].startswith(feature.opening)
        assert row["prompt"].endswith("\n\n### Response:\n")
        label = tuple(row["label"]) if name == "targetMinority" else feature.labels.index(row["label"])
        assert feature.parse(row["completion"]) == label
    assert not (tmp_path / "run").exists(), "nothing is trained"


def dumping(path, **changes) -> TrainArguments:
    return TrainArguments(output_dir=path.parent / "run", learning_rate=1.0, dump_dataset=path, **changes)


def test_a_dump_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="can't be written"):
        dump_dataset(dumping(tmp_path / "file" / "d.jsonl"), "offensiveYN")


# ---- annotator.json


def described(**changes) -> annotator_file.AnnotatorFile:
    run = TrainArguments(output_dir="x", learning_rate=1.0)
    return replace(annotator_file.describe(run, FEATURES["offensiveYN"], "abc"), **changes)


def test_a_description_comes_back_as_it_was_written(tmp_path):
    described().write(tmp_path)
    result = annotator_file.read(tmp_path / "annotator.json")
    assert result == described()
    assert result.resolve_feature() == FEATURES["offensiveYN"]
    assert result.base_revision == "abc"


def test_an_adapter_of_another_prompt_is_refused():
    with pytest.raises(UserError, match="trained with another prompt or other labels"):
        described(prompt_hash="0" * 16).resolve_feature()


def test_an_adapter_of_an_earlier_version_is_prompted_through_the_studys_template(tmp_path):
    earlier = asdict(described())
    del earlier["prompt"]
    (tmp_path / "annotator.json").write_text(json.dumps(earlier))
    description = annotator_file.read(tmp_path / "annotator.json")
    assert description.resolve_feature() == FEATURES["offensiveYN"]


def test_an_adapter_keeps_the_template_that_it_was_trained_in(tmp_path):
    template = Template("chat", "<s>[INST  1,  2] It is 5 May.\n", "[/INST]", "</s>")
    feature = replace(FEATURES["offensiveYN"], template=template)
    description = replace(described(), prompt=template, prompt_hash=feature.prompt_hash())
    description.write(tmp_path)
    assert annotator_file.read(tmp_path / "annotator.json").resolve_feature() == feature
    for key in ("head", "tail", "end"):
        changed = replace(description, prompt=replace(template, **{key: "other"}))
        with pytest.raises(UserError, match="another prompt"):
            changed.resolve_feature()


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"schema": 2}', json.dumps({**asdict(described()), "feature": "../../etc", "labels": []}),
     json.dumps({**asdict(described()), "max_post_tokens": "many"}), json.dumps({**asdict(described()), "surplus": 1}),
     json.dumps({**asdict(described()), "max_post_tokens": -3}), json.dumps({**asdict(described()), "base_revision": 7}),
     json.dumps({**asdict(described()), "corpus": ["x"]}), json.dumps({**asdict(described()), "labels": [1]}),
     *(json.dumps({**asdict(described()), "prompt": prompt}) for prompt in
       ("chat", {"name": "chat"}, {**vars(STUDY), "name": "mine"}, {**vars(STUDY), "tail": 1}, {**vars(STUDY), "x": 1}))],
)  # fmt: skip
def test_a_broken_description_is_refused(tmp_path, content):
    (tmp_path / "annotator.json").write_text(content)
    with pytest.raises(UserError, match=r"annotator\.json"):
        annotator_file.read(tmp_path / "annotator.json")


@pytest.mark.parametrize(
    ("mean", "expected"),
    [
        (0.0, "Not intended"),
        (0.494, "Not intended"),
        (0.495, "Intended"),
        (0.5, "Intended"),
        (1.0, "Intended"),
        (None, None),
    ],
)
def test_the_fourth_feature_is_a_declaration(mean, expected):
    assert FEATURES["intentYN"].target(post(intended=mean)) == expected


def test_the_intent_to_offend_is_read_where_it_is_given(tmp_path, miniature):
    from sbic_llama.data.corpus import load_splits

    splits = load_splits(data_dir=miniature / "SBIC.v2")
    means = [one.intended for split in splits.values() for one in split.posts]
    assert {0.0, 1.0} < set(means)
    aggregated = load_splits(data_dir=miniature / "SBIC.v2", view="aggregated", repeats="keep")
    kept = load_splits(data_dir=miniature / "SBIC.v2", repeats="keep")
    for split in kept:
        for one, other in zip(kept[split].posts, aggregated[split].posts, strict=True):
            assert one.intended == pytest.approx(other.intended) or one.intended == other.intended
    for name in ("trn", "dev", "tst"):
        with open(miniature / "SBIC.v2" / f"SBIC.v2.{name}.csv", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        with open(tmp_path / f"SBIC.v2.{name}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [column for column in rows[0] if column != "intentYN"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
    without = load_splits(data_dir=tmp_path)["train"]
    assert {one.intended for one in without.posts} == {None}
    with pytest.raises(UserError, match="the train split has no post with a label"):
        dump_dataset(dumping(tmp_path / "d.jsonl", data_dir=tmp_path), "intentYN")


def test_a_level_of_intent_that_the_corpus_does_not_have_is_refused(tmp_path, miniature):
    from sbic_llama.data.corpus import load_splits

    for name in ("trn", "dev", "tst"):
        text = (miniature / "SBIC.v2" / f"SBIC.v2.{name}.csv").read_text(encoding="utf-8")
        (tmp_path / f"SBIC.v2.{name}.csv").write_text(text.replace(",0.66,", ",0.6,"), encoding="utf-8")
    with pytest.raises(
        UserError, match=r"column 'intentYN': invalid value '0.6'; expected 0, 0.33, 0.66, 1, or nothing"
    ):
        load_splits(data_dir=tmp_path)
