"""Test the weights of answers in the loss: soft labels, balanced classes, and what they change."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from common.cli.errors import UserError
from sbic_llama.data.codebook import Codebook
from sbic_llama.data.features import FEATURES, feature_of, only_answer
from sbic_llama.data.table import Item, Vote
from sbic_llama.model.packing import SharedInstruction, answer_losses
from sbic_llama.training.arguments import TrainArguments
from sbic_llama.training.calibration import warn_of_one
from sbic_llama.training.run import build_trainer, load_data, prepare_device
from sbic_llama.training.trainer import learned_answers, weighted_rows

BOOK = Codebook("wet", "Is it wet?", "Decide whether it is wet.", {"Wet": "", "Dry": ""})


def item(text: str, *labels: int) -> Item:
    votes = tuple(Vote(f"person {number}", label) for number, label in enumerate(labels))
    return Item(text, BOOK.combine(labels), votes)


ITEMS = [item("a", 0, 0, 1), item("b", 1), item("c", 1, 1), item("d", 1, 0, 0, 0)]


def test_every_answer_of_the_annotators_is_learned_by_its_share():
    soft = feature_of(replace(BOOK, several="soft"))
    learned = [(each.text, answer, weight) for each, answer, weight in learned_answers(soft, ITEMS, balanced=False)]
    assert learned == [
        ("a", "Wet", pytest.approx(2 / 3)), ("a", "Dry", pytest.approx(1 / 3)), ("b", "Dry", 1), ("c", "Dry", 1),
        ("d", "Wet", 0.75), ("d", "Dry", 0.25),
    ]  # fmt: skip
    majority = learned_answers(feature_of(BOOK), ITEMS, balanced=False)
    assert [(answer, weight) for _, answer, weight in majority] == [("Wet", 1), ("Dry", 1), ("Dry", 1), ("Wet", 1)]


@pytest.mark.parametrize("several", ["majority", "soft"])
def test_balanced_labels_have_the_same_weight_in_all_and_a_mean_of_one(several):
    items = [*ITEMS, item("e", 1), item("f", 1, 1, 1), item("g", 0, 1, 1)]
    learned = learned_answers(feature_of(replace(BOOK, several=several)), items, balanced=True)
    totals: Counter[str] = Counter()
    for _, answer, weight in learned:
        totals[answer] += weight
    assert totals["Wet"] == pytest.approx(totals["Dry"]) == pytest.approx(len(items) / 2)


@pytest.mark.parametrize("share", [True, False])
def test_a_weight_multiplies_the_loss_of_its_own_answer(share, tokenizer, fresh_model):
    soft = feature_of(replace(BOOK, several="soft"))
    rows = weighted_rows(tokenizer, soft, learned_answers(soft, ITEMS, balanced=False), max_post_tokens=32)
    columns = zip(rows.input_ids, rows.labels, rows.weights, strict=True)
    examples = [{"input_ids": ids, "labels": labels, "weight": weight} for ids, labels, weight in columns]
    collate = SharedInstruction(rows.encoded.prefix_ids, pad_token_id=0, share=share)
    batch = collate(examples)
    weighted = (answer_losses(fresh_model, batch) * batch["weights"]).sum()
    alone = [answer_losses(fresh_model, collate([example])).sum() * example["weight"] for example in examples]
    torch.testing.assert_close(weighted, torch.stack(alone).sum(), atol=1e-5, rtol=1e-5)
    assert "weights" not in collate([{name: example[name] for name in ("input_ids", "labels")} for example in examples])


def test_a_training_with_balanced_classes_weighs_its_loss(tmp_path):
    arguments = TrainArguments(output_dir=tmp_path, learning_rate=1e-3, max_steps=2, class_weights="balanced")
    context = prepare_device(arguments)
    data = load_data(arguments, FEATURES["offensiveYN"])
    trainer = build_trainer(arguments, context, data)
    *weights, blank = trainer.train_dataset["weight"]
    assert blank == 0, "the row that fills the last step of several processes"
    totals: Counter[str] = Counter()
    for post, weight in zip(data.posts, weights, strict=True):
        totals[str(data.feature.target(post))] += weight
    assert len(totals) == 3
    assert all(total == pytest.approx(len(data.posts) / 3) for total in totals.values())
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    losses = answer_losses(trainer.model, batch)
    expected = (losses * batch["weights"]).sum() / len(losses)
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(expected.item(), rel=1e-5)
    assert expected.item() != pytest.approx(losses.mean().item(), rel=1e-3), "the weights are not all alike"


def test_lists_have_no_classes_to_balance(tmp_path):
    arguments = TrainArguments(output_dir=tmp_path, learning_rate=1e-3, class_weights="balanced")
    with pytest.raises(UserError, match=r"class_weights.*: the answers of targetMinority are lists; expected none"):
        load_data(arguments, FEATURES["targetMinority"])


def test_one_answer_to_everything_is_told():
    feature = FEATURES["offensiveYN"]
    assert only_answer(feature, Counter({2: 30})) == "offensiveYN: the model answers 'Not offensive' to all of 30 posts"
    assert only_answer(feature, Counter({2: 30, 0: 1})) is None
    assert only_answer(feature, Counter({2: 5})) is None, "few posts may well be alike"
    assert only_answer(FEATURES["targetMinority"], Counter({(): 30})) is None


@pytest.mark.parametrize(("labels", "hinted"), [([0] * 20 + [2] * 10, True), ([0] * 16 + [2] * 14, False)])
def test_weights_are_proposed_only_where_labels_are_uneven(labels, hinted, capsys):
    warn_of_one(FEATURES["offensiveYN"], [0] * 30, labels)
    assert ("--class_weights balanced" in capsys.readouterr().err) == hinted
