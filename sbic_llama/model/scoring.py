"""The log-probability of whole answers: every answer is a branch behind its prompt, all of a batch in one forward pass."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import DynamicCache

from common.cli.console import bar
from sbic_llama.data.encoding import Encoded, answer_ids
from sbic_llama.data.features import Feature

if TYPE_CHECKING:
    from transformers import PreTrainedModel

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


SOFTMAX_ROWS = 16


def decoder_of(model: Any) -> PreTrainedModel:
    """The layers under the output layer, adapters included."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    return base.get_decoder()


def context_of(model: Any) -> int:
    """How many positions a model knows; without a limit in its configuration, any number."""
    return getattr(model.config, "max_position_embeddings", None) or sys.maxsize


class PrefixCache:
    """Keys and values of ``prefix_ids`` under the model's active adapter. They are void once its weights change."""

    def __init__(self, model: Any, prefix_ids: list[int]):
        self.model = model
        self.length = len(prefix_ids)
        self.device = model.get_output_embeddings().weight.device
        ids = torch.tensor([prefix_ids], device=self.device)
        cache = decoder_of(model)(input_ids=ids, use_cache=True).past_key_values
        self._layers = [(layer.keys, layer.values) for layer in cache.layers]

    def rows(self, count: int) -> DynamicCache:
        """A cache for a batch of ``count`` rows, each behind its own copy of the prefix."""
        cache = DynamicCache()
        for index, (keys, values) in enumerate(self._layers):
            cache.update(keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1), index)
        return cache

    def hidden_states(
        self, ids: torch.Tensor, positions: torch.Tensor, visible: torch.Tensor, cache: DynamicCache
    ) -> torch.Tensor:
        """Last hidden states of tokens that follow what ``cache`` holds; the cache grows by them.

        Args:
            ids: Shape (rows, tokens).
            positions: Shape (rows, tokens): each token's place in its text. They must be explicit: with gaps or branches in a
                row, counting on from the cache's length would be wrong.
            visible: Shape (rows, tokens, cached + tokens): what each token may see.
            cache: As :meth:`rows` gives it.

        Returns:
            Shape (rows, tokens, width).
        """
        decoder = decoder_of(self.model)
        return decoder(
            input_ids=ids.to(self.device),
            position_ids=positions.to(self.device),
            attention_mask=visible[:, None].to(self.device),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state

    def log_probabilities(self, hidden: torch.Tensor) -> torch.Tensor:
        """Log-probabilities of the next token, fp32: (…, width) → (…, vocabulary)."""
        return self.model.get_output_embeddings()(hidden).float().log_softmax(-1)

    def log_probability_of(self, tokens: torch.Tensor, hidden: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """Log-probabilities, fp32, of some tokens behind some hidden states.

        Args:
            tokens: Shape (n,).
            hidden: Shape (places, width).
            place: Shape (n,): the hidden state behind which each token stands.

        Returns:
            Shape (n,), on the CPU.
        """
        logits = self.model.get_output_embeddings()(hidden)
        # Some rows at a time: what stays in the processor's cache is several times as fast as a softmax of all.
        totals = torch.cat([rows.float().logsumexp(-1) for rows in logits.split(SOFTMAX_ROWS)])
        place, tokens = place.to(self.device), tokens.to(self.device)
        return (logits[place, tokens].float() - totals[place]).cpu()
