"""Test that several processes take the steps of one: the same posts in the same order, each of them once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from safetensors.numpy import load_file
from torch.utils.data import BatchSampler

from sbic_llama.data.corpus import labeled, load_splits
from sbic_llama.model.adapter import load_adapter
from sbic_llama.model.answering import answer
from sbic_llama.model.packing import IGNORED, SharedInstruction, answer_losses
from sbic_llama.model.scoring import label_probabilities
from sbic_llama.training.calibration import calibrate_labels
from sbic_llama.training.trainer import SCORES_FILE, EvenOrder, training_rows

POSTS, SEED = 43, 33


def steps(processes: int, size: int, passes: int = 1, epoch: int = 1) -> list[list[int]]:
    """Return the posts of each step of an epoch, without blank ones."""
    shards = []
    for rank in range(processes):
        order = EvenOrder(POSTS, SEED, processes * size if processes > 1 else 1)
        order.set_epoch(epoch)
        batches = BatchSampler(order, size, drop_last=False)
        shards.append(list(BatchSamplerShard(batches, processes, rank) if processes > 1 else batches))
    assert len({len(shard) for shard in shards}) == 1, "processes wait for each other: all need as many batches"
    together = [[post for batch in batches for post in batch] for batches in zip(*shards, strict=True)]
    taken = (itertools.chain.from_iterable(together[i : i + passes]) for i in range(0, len(together), passes))
    return [sorted(post for post in step if post < POSTS) for step in taken]


@pytest.mark.parametrize("division", [(2, 8), (4, 4), (2, 4, 2), (1, 4, 4), (1, 8, 2)])
def test_each_step_has_the_posts_of_one_process_to_the_end_of_the_epoch(division):
    alone = steps(1, 16)
    assert sorted(itertools.chain.from_iterable(alone)) == list(range(POSTS))
    assert steps(*division) == alone


def test_one_process_keeps_the_order_of_accelerates_own_sampler():
    """Runs that earlier versions started continue with it."""
    generator = torch.Generator().manual_seed(SEED + 1)
    expected = torch.randperm(POSTS, generator=generator).tolist()
    assert steps(1, 16)[0] == sorted(expected[:16])


def test_a_blank_row_changes_no_weight(fresh_model, tokenizer):
    from sbic_llama.data.corpus import Post
    from sbic_llama.data.features import FEATURES

    rows = training_rows(tokenizer, FEATURES["offensiveYN"], [Post("florbs", "s", True, 1.0, ())], max_post_tokens=32)
    blank = {"input_ids": rows.input_ids[0], "labels": [IGNORED] * len(rows.input_ids[0])}
    for share in (True, False):
        batch = SharedInstruction(rows.encoded.prefix_ids, pad_token_id=0, share=share)([blank, blank])
        fresh_model.zero_grad()
        answer_losses(fresh_model.train(), batch).sum().backward()
        gradients = [p.grad for p in fresh_model.parameters() if p.requires_grad]
        assert gradients
        assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_training_calibrates_with_its_own_validation_as_the_saved_adapter_would(trained_adapters, miniature):
    """So no post is scored twice."""
    folder = trained_adapters / "offensiveYN"
    kept = [load_file(path)["scores"] for path in folder.glob(f"checkpoint-*/{SCORES_FILE}")]
    assert kept
    model, tokenizer, described = load_adapter(folder, precision="fp32")
    feature = described.resolve_feature()
    posts = labeled(load_splits(data_dir=miniature / "SBIC.v2")["dev"], feature.label_of)
    answers = answer(model, tokenizer, feature, [post.text for post in posts], max_post_tokens=384, batch_size=32)
    again = np.array([list(row.values()) for row in answers.details])
    assert min(np.abs(label_probabilities(scores) - again).max() for scores in kept) < 1e-5, "one of them was the best"
    labels = [feature.label_of(post) for post in posts]
    temperature, _, curve = calibrate_labels(feature, again, labels)
    assert described.temperature == pytest.approx(temperature, abs=2e-4)
    assert described.review is not None
    assert described.review.accuracy == pytest.approx(curve.accuracy, abs=0.01)
