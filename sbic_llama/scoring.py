"""The log-probability of whole answers: every answer is a branch behind its prompt, all of a batch in one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from common.progress import bar
from sbic_llama.encoding import Encoded, answer_ids
from sbic_llama.features import Feature
from sbic_llama.prefix_cache import PrefixCache

PROMPT, PADDING = 0, -1  # owners of tokens that belong to no branch


def score_labels(
    model: Any,
    tokenizer: Any,
    feature: Feature,
    encoded: Encoded,
    *,
    batch_size: int,
    progress: bool = False,
    prefix: PrefixCache | None = None,
) -> np.ndarray:
    """Log-probability of each label text and its EOS behind each post, shape (posts, labels)."""
    branches = answer_ids(tokenizer, feature.labels)
    rows = [branches] * len(encoded.post_ids)
    return score_branches(model, encoded, rows, batch_size=batch_size, progress=progress, prefix=prefix)


def label_probabilities(log_probabilities: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities of the labels given that one of them is the answer: rows sum to 1. A temperature calibrates them."""
    shifted = np.exp((log_probabilities - log_probabilities.max(1, keepdims=True)) / temperature)
    return shifted / shifted.sum(1, keepdims=True)


@torch.inference_mode()
def score_branches(
    model: Any,
    encoded: Encoded,
    branches: Sequence[Sequence[Sequence[int]]],
    *,
    batch_size: int,
    progress: bool = False,
    prefix: PrefixCache | None = None,
) -> np.ndarray:
    """Log-probability of each branch of each post, shape (posts, branches), in the posts' order.

    Args:
        model: A causal language model with PyTorch's own attention ("sdpa"), which takes the block mask.
        encoded: Posts in pieces.
        branches: The token ids of each post's answers, EOS included; as many for every post.
        batch_size: Posts a forward pass at most.
        progress: Whether to show a bar.
        prefix: The instruction's keys and values, where they were computed before.
    """
    model.eval()
    prefix = prefix or PrefixCache(model, encoded.prefix_ids)
    scores = np.zeros((len(branches), len(branches[0]) if branches else 0))
    with bar(len(branches), "post", show=progress) as done:
        for chosen in encoded.batches(batch_size):
            prompts = [encoded.post_ids[i] + encoded.tail_ids for i in chosen]
            scores[chosen] = _score_batch(prefix, prompts, [branches[i] for i in chosen])
            done.update(len(chosen))
    return scores


def _score_batch(prefix: PrefixCache, prompts: list[list[int]], branches: list[Sequence[Sequence[int]]]) -> np.ndarray:
    width = max(
        len(prompt) + sum(len(branch) - 1 for branch in row) for prompt, row in zip(prompts, branches, strict=True)
    )
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    positions = torch.zeros_like(ids)
    owner = torch.full_like(ids, PADDING)
    # For each token of a branch: its row, the place of the token before it, itself, and its branch.
    wanted: list[tuple[int, int, int, int]] = []
    for row, (prompt, row_branches) in enumerate(zip(prompts, branches, strict=True)):
        end = len(prompt)
        ids[row, :end] = torch.tensor(prompt)
        positions[row, :end] = torch.arange(end)
        owner[row, :end] = PROMPT
        for number, branch in enumerate(row_branches):
            inner = len(branch) - 1  # the last token is only predicted
            ids[row, end : end + inner] = torch.tensor(branch[:-1])
            positions[row, end : end + inner] = torch.arange(len(prompt), len(prompt) + inner)
            owner[row, end : end + inner] = number + 1
            before = [len(prompt) - 1, *range(end, end + inner)]
            wanted += [(row, place, token, number) for place, token in zip(before, branch, strict=True)]
            end += inner
    own = (owner[:, None, :] == PROMPT) | (owner[:, None, :] == owner[:, :, None])
    own &= torch.ones(width, width, dtype=torch.bool).tril()
    # Every token sees the instruction, padding too: a row of the mask without any would give NaN.
    visible = torch.cat([torch.ones(len(prompts), width, prefix.length, dtype=torch.bool), own], dim=2)
    hidden = prefix.hidden_states(ids, prefix.length + positions, visible, prefix.rows(len(prompts)))
    rows, places, tokens, numbers = (torch.tensor(column) for column in zip(*wanted, strict=True))
    # The token before an answer is the same for all branches of a row: its logits are needed once.
    distinct, which = torch.unique(rows * width + places, return_inverse=True)
    needed = hidden.flatten(0, 1)[distinct.to(hidden.device)]
    found = prefix.log_probability_of(tokens, needed, which)
    sums = torch.zeros(len(prompts), len(branches[0]), dtype=torch.float64)
    sums.index_put_((rows, numbers), found.double(), accumulate=True)
    return sums.numpy()
