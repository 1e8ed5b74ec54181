"""Score whole answers: each answer is a branch behind its prompt, and a forward pass scores a batch of prompts."""

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

PROMPT, PADDING = 0, -1  # owners of tokens outside the branches
SOFTMAX_ROWS = 16


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
    """Return the log-probability of each label and its EOS behind each post, shape (posts, labels)."""
    branches = answer_ids(tokenizer, feature.labels)
    rows = [branches] * len(encoded.post_ids)
    return score_branches(model, encoded, rows, batch_size=batch_size, progress=progress, prefix=prefix)


def label_probabilities(log_probabilities: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return probabilities of the labels given that the answer is one of them; a temperature calibrates them."""
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
    """Return the log-probability of each branch of each post, shape (posts, branches), in the posts' order.

    The model must use PyTorch's attention ("sdpa"), which takes the block mask. ``branches`` holds the token ids of each
    post's answers with EOS, equally many for every post; ``prefix`` the instruction's cache, if computed before.
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
    tokens_of = (len(p) + sum(len(branch) - 1 for branch in row) for p, row in zip(prompts, branches, strict=True))
    width = max(tokens_of)
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    positions = torch.zeros_like(ids)
    owner = torch.full_like(ids, PADDING)
    # For each token of a branch: its row, the position of the token before it, the token, and the branch's number.
    wanted: list[tuple[int, int, int, int]] = []
    for row, (prompt, row_branches) in enumerate(zip(prompts, branches, strict=True)):
        end = len(prompt)
        ids[row, :end] = torch.tensor(prompt)
        positions[row, :end] = torch.arange(end)
        owner[row, :end] = PROMPT
        for number, branch in enumerate(row_branches):
            inner = len(branch) - 1  # the last token is predicted, never an input
            ids[row, end : end + inner] = torch.tensor(branch[:-1])
            positions[row, end : end + inner] = torch.arange(len(prompt), len(prompt) + inner)
            owner[row, end : end + inner] = number + 1
            before = [len(prompt) - 1, *range(end, end + inner)]
            wanted += [(row, place, token, number) for place, token in zip(before, branch, strict=True)]
            end += inner
    own = (owner[:, None, :] == PROMPT) | (owner[:, None, :] == owner[:, :, None])
    own &= torch.ones(width, width, dtype=torch.bool).tril()
    # Padding sees the instruction too: an empty row of the mask would give NaN.
    visible = torch.cat([torch.ones(len(prompts), width, prefix.length, dtype=torch.bool), own], dim=2)
    hidden = prefix.hidden_states(ids, prefix.length + positions, visible, prefix.rows(len(prompts)))
    rows, places, tokens, numbers = (torch.tensor(column) for column in zip(*wanted, strict=True))
    # All branches of a row follow the same token: compute its logits once.
    distinct, which = torch.unique(rows * width + places, return_inverse=True)
    needed = hidden.flatten(0, 1)[distinct.to(hidden.device)]
    log_probabilities = prefix.log_probability_of(tokens, needed, which)
    sums = torch.zeros(len(prompts), len(branches[0]), dtype=torch.float64)
    sums.index_put_((rows, numbers), log_probabilities.double(), accumulate=True)
    return sums.numpy()


def decoder_of(model: Any) -> PreTrainedModel:
    """Return the layers below the output layer, with adapters."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    return base.get_decoder()


def context_of(model: Any) -> int:
    """Return the length of a model's context; unlimited if its configuration names none."""
    return getattr(model.config, "max_position_embeddings", None) or sys.maxsize


class PrefixCache:
    """Keys and values of ``prefix_ids`` under the model's active adapter; invalid once weights change."""

    def __init__(self, model: Any, prefix_ids: list[int]):
        self.model = model
        self.length = len(prefix_ids)
        self.device = model.get_output_embeddings().weight.device
        ids = torch.tensor([prefix_ids], device=self.device)
        cache = decoder_of(model)(input_ids=ids, use_cache=True).past_key_values
        self._layers = [(layer.keys, layer.values) for layer in cache.layers]

    def rows(self, count: int) -> DynamicCache:
        """Return a cache for ``count`` rows, each behind its own copy of the prefix."""
        cache = DynamicCache()
        for index, (keys, values) in enumerate(self._layers):
            cache.update(keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1), index)
        return cache

    def hidden_states(
        self, ids: torch.Tensor, positions: torch.Tensor, visible: torch.Tensor, cache: DynamicCache
    ) -> torch.Tensor:
        """Return last hidden states, shape (rows, tokens, width), of tokens that follow what ``cache`` holds, and extend it.

        ``visible``, shape (rows, tokens, cached + tokens), is what each token may attend to. ``positions`` must be explicit:
        with gaps or branches in a row, counting on from the cache's length would be wrong.
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
        """Return fp32 log-probabilities of the next token: (…, width) → (…, vocabulary)."""
        return self.model.get_output_embeddings()(hidden).float().log_softmax(-1)

    def log_probability_of(self, tokens: torch.Tensor, hidden: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        """Return fp32 log-probabilities, on the CPU, of tokens that each follow a hidden state.

        Token ``tokens[i]`` follows ``hidden[place[i]]``; ``hidden`` has shape (places, width).
        """
        logits = self.model.get_output_embeddings()(hidden)
        # A few rows at a time stay in the processor's cache, several times as fast as one softmax over all.
        totals = torch.cat([rows.float().logsumexp(-1) for rows in logits.split(SOFTMAX_ROWS)])
        place, tokens = place.to(self.device), tokens.to(self.device)
        return (logits[place, tokens].float() - totals[place]).cpu()
