"""ChaosNLI: reading, refusals by line, and recognizing pairs by ID or sentences."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from common.cli.errors import UserError
from snli_roberta.data import chaosnli
from snli_roberta.data.corpus import LABELS, Pair, load_split

ROW = {
    "uid": "1.jpg#0r1n",
    "label_counter": {"n": 60, "e": 40},
    "majority_label": "n",
    "label_dist": [0.4, 0.6, 0.0],
    "label_count": [40, 60, 0],
    "entropy": 0.9709505944546686,
    "example": {
        "uid": "1.jpg#0r1n",
        "premise": "A dog.",
        "hypothesis": "A glad dog.",
        "source": "snli_agree_3",
    },
    "old_label": "e",
    "old_labels": ["entailment", "neutral", "entailment", "neutral", "entailment"],
}


def write(folder: Path, *rows: dict) -> Path:
    path = folder / chaosnli.FILE_NAME
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_an_item_is_what_the_line_says(tmp_path):
    (item,) = chaosnli.read_items(write(tmp_path, ROW))
    assert item.pair == Pair("A dog.", "A glad dog.", 0, tuple(ROW["old_labels"]), "1.jpg#0r1n")
    assert item.counts == (40, 60, 0), "in the order of LABELS: entailment, neutral, contradiction"
    assert LABELS[item.majority] == "neutral"
    assert not chaosnli.is_miniature([item])


def test_the_miniatures_items(miniature):
    items = chaosnli.read_items(miniature / "chaosnli" / chaosnli.FILE_NAME)
    assert chaosnli.is_miniature(items)
    test, train = (load_split(name, data_dir=miniature / "snli_1.0") for name in ("test", "train"))
    pairs = [item.pair for item in items]
    assert pairs == [pair for pair in test.pairs if pair in pairs]
    assert not any(chaosnli.contained_in(pairs, train.pairs))


def test_the_real_items_are_the_test_pairs(real_data):
    items = chaosnli.read_items(real_data / "chaosnli" / chaosnli.FILE_NAME)
    assert len(items) == 750
    assert not chaosnli.is_miniature(items)
    pairs = [item.pair for item in items]
    splits = {name: load_split(name, data_dir=real_data / "snli_1.0") for name in ("train", "dev", "test")}
    counts = {name: sum(chaosnli.contained_in(pairs, split.pairs)) for name, split in splits.items()}
    assert counts == {"train": 0, "dev": 0, "test": 750}
    # Some sentences have other quotes or spaces there, and are known all the same.
    nameless = [Pair(pair.premise, pair.hypothesis, pair.label) for pair in pairs]
    assert all(chaosnli.contained_in(nameless, splits["test"].pairs))
    by_id = {pair.id: pair for pair in splits["test"].pairs}
    assert all(sorted(by_id[p.id].annotator_labels) == sorted(p.annotator_labels) for p in pairs)
    assert all(by_id[p.id].label == p.label for p in pairs)
    # The order e, n, c: labels that people agree on now are mostly those that three of five gave then.
    assert np.mean([np.argmax(item.counts) == item.pair.label for item in items]) > 0.7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_count": [60, 40, 0]}, "column 'label_count': [60, 40, 0] contradicts label_counter; expected [40, 60"),
        ({"label_dist": [0.6, 0.4, 0.0]}, "column 'label_dist': [0.6, 0.4, 0.0] contradicts label_counter"),
        ({"label_dist": None}, "column 'label_dist': None contradicts label_counter"),
        ({"entropy": 0.673}, "column 'entropy': 0.673 contradicts label_counter; expected 0.970951 bits"),
        ({"label_counter": {"n": 60, "e": 30}}, "column 'label_counter': {'n': 60, 'e': 30}; expected integers that sum"),
        ({"label_counter": {"1": 9, "2": 91}}, "column 'label_counter': not counts of labels: {'1': 9, '2': 91}"),
        ({"label_counter": {"n": 60.0, "e": 40}}, "column 'label_counter': {'n': 60.0, 'e': 40}; expected integers"),
        ({"majority_label": "e"}, "column 'majority_label': 'e' is not the most common label; expected n"),
        ({"old_label": "n"}, "column 'old_label': 'n' is not the most common of old_labels; expected e"),
        ({"old_labels": ["entailment", "yes"]}, "column 'old_labels': not labels: ['entailment', 'yes']"),
        ({"old_labels": []}, "column 'old_labels': not labels: []"),
        ({"uid": "3"}, "column 'uid': '3', but '2' in example; expected the same ID"),
        ({"example": None}, "column 'example.premise': not text: None"),
        ({"example": {**ROW["example"], "hypothesis": " "}}, "column 'example.hypothesis': not text: ' '"),
        ({"example": {**ROW["example"], "premise": "\ud800"}}, "line 2: half of a surrogate pair"),
        ({"majority_label": []}, "column 'majority_label': [] is not the most common label; expected n"),
        ({"old_label": {}}, "column 'old_label': {} is not the most common of old_labels; expected e"),
        ({"entropy": 10**400}, "column 'entropy': 1000"),
        ({"example": {**ROW["example"], "uid": "2", "source": "mnli_agree_3"}}, "'example.source': not a pair of SNLI: 'mnli"),
    ],
)  # fmt: skip
def test_invalid_or_contradictory_files_are_refused_by_line(tmp_path, change, message):
    second = copy.deepcopy(ROW)
    second["uid"] = second["example"]["uid"] = "2"
    path = write(tmp_path, ROW, second | change)
    with pytest.raises(UserError) as error:
        chaosnli.read_items(path)
    assert str(error.value).startswith(f"{path}, line 2")
    assert message in str(error.value)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"line 2, column 'uid': '1\.jpg#0r1n' occurs twice"):
        chaosnli.read_items(write(tmp_path, ROW, ROW))
    with pytest.raises(UserError, match="line 1, column 'old_labels': missing"):
        chaosnli.read_items(write(tmp_path, {key: ROW[key] for key in list(ROW)[:-1]}))
    with pytest.raises(UserError, match="no items"):
        chaosnli.read_items(write(tmp_path))
    with pytest.raises(UserError, match="no such file"):
        chaosnli.read_items(tmp_path / "nowhere.jsonl")


def test_a_pair_is_known_by_its_id_or_its_sentences():
    asked = [
        Pair('A "big" dog.', "It  is  big.", 0, id="1"),
        Pair("A dog.", "A cat.", 0, id="2"),
        Pair("A dog.", "A cat!", 0),
    ]
    assert chaosnli.contained_in(asked, [Pair("a 'Big' dog.", "It is big.", 1, id="9")]) == [True, False, False]
    assert chaosnli.contained_in(asked, [Pair("Else.", "Else.", 1, id="2")]) == [False, True, False]
    assert chaosnli.contained_in(asked, [Pair("Else.", "Else.", 1)]) == [False, False, False], "no id is no id"
