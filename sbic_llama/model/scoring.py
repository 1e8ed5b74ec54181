"""Score whole answers: each answer is a branch behind its prompt, and a forward pass scores a batch of prompts."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from common.cli.console import bar
from common.models.prompt import answer_ids
from sbic_llama.data.encoding import Encoded
from sbic_llama.data.features import Feature
from sbic_llama.model.masks import attention_masks

PROMPT, PADDING = 0, -1  # owners of tokens outside the branches
SOFTMAX_ROWS = 16
HEAD_ROWS = 8192  # of the output layer's weights, which are fp32 at a time


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
    """Return the log-probability of each of a feature's branches and its end behind each post, shape (posts, branches)."""
    branches = answer_ids(tokenizer, feature.branches, feature.template)
    rows = [branches] * len(encoded.prompts)
    return score_branches(model, encoded, rows, batch_size=batch_size, progress=progress, prefix=prefix)


def label_probabilities(log_probabilities: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return probabilities of the labels given that the answer is one of them; a temperature calibrates them."""
    shifted = np.exp((log_probabilities - log_probabilities.max(1, keepdims=True)) / temperature)
    return shifted / shifted.sum(1, keepdims=True)


def choice_probabilities(log_probabilities: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the probability that each of several labels holds, shape (posts, choices), from those of yes and no."""
    pairs = log_probabilities.reshape(-1, 2)
    return label_probabilities(pairs, temperature)[:, 0].reshape(len(log_probabilities), -1)


@torch.inference_mode()
def score_branches(
    model: Any,
    encoded: Encoded,
    branches: Sequence[Sequence[Sequence[int]]],
    *,
    batch_size: int,
    progress: bool = False,
    prefix: PrefixCache | None = None,
    plain: bool | None = None,
) -> np.ndarray:
    """Return the log-probability of each branch of each post, shape (posts, branches), in the posts' order.

    ``branches`` holds the token ids of each post's answers with their end, equally many for every post; ``prefix`` the
    instruction's cache, if computed before; ``plain`` whether to do without caches and masks (default: where a base needs it).
    """
    model.eval()
    plain = needs_plain_passes(model) if plain is None else plain
    if not plain:
        prefix = prefix or PrefixCache(model, encoded.prefix_ids)
    scores = np.zeros((len(branches), len(branches[0]) if branches else 0))
    with bar(len(branches), "post", show=progress) as done:
        for chosen in encoded.batches(batch_size):
            prompts, answers = [encoded.prompts[i] for i in chosen], [branches[i] for i in chosen]
            if plain:
                scores[chosen] = [score_plainly(model, *row) for row in zip(prompts, answers, strict=True)]
            else:
                shared = prefix if encoded.shares(chosen[0]) else prefix.empty()
                scores[chosen] = _score_batch(shared, [ids[shared.length :] for ids in prompts], answers)
            done.update(len(chosen))
    return scores


def score_plainly(model: Any, prompt: Sequence[int], branches: Sequence[Sequence[int]]) -> list[float]:
    """Score each branch behind a prompt in a pass of its own, without cache, mask or padding."""
    base, scores = base_of(model), []
    for branch in branches:
        ids = torch.tensor([[*prompt, *branch[:-1]]], device=device_of(model))
        with fp32_head(base):
            logits = base(input_ids=ids, use_cache=False, logits_to_keep=len(branch)).logits[0]
        tokens = torch.tensor(branch)
        scores.append(float(_log_probability_of(tokens, logits, torch.arange(len(tokens))).double().sum()))
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
    rows, places, tokens, numbers = (torch.tensor(column) for column in zip(*wanted, strict=True))
    # All branches of a row follow the same token: compute its logits once. The model returns those of `keep` row by row.
    distinct, which = torch.unique(rows * width + places, return_inverse=True)
    keep = torch.zeros(ids.shape, dtype=torch.bool)
    keep.view(-1)[distinct] = True
    logits = prefix.logits(ids, positions, own, prefix.rows(len(prompts)), keep)
    log_probabilities = _log_probability_of(tokens, logits, which)
    sums = torch.zeros(len(prompts), len(branches[0]), dtype=torch.float64)
    sums.index_put_((rows, numbers), log_probabilities.double(), accumulate=True)
    return sums.numpy()


def _log_probability_of(tokens: torch.Tensor, logits: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Return fp32 log-probabilities, on the CPU, of ``tokens[i]`` under ``logits[place[i]]``, shape (places, vocabulary)."""
    # A few rows at a time stay in the processor's cache, several times as fast as one softmax over all.
    totals = torch.cat([rows.float().logsumexp(-1) for rows in logits.split(SOFTMAX_ROWS)])
    place, tokens = place.to(logits.device), tokens.to(logits.device)
    return (logits[place, tokens].float() - totals[place]).cpu()


@contextlib.contextmanager
def fp32_head(model: Any) -> Iterator[None]:
    """Compute logits in fp32, though the model's weights have 16 bits.

    Logits are about 20, where numbers of 16 bits (bf16) are an eighth apart: log-probabilities would be rounded to that.
    """
    head = model.get_output_embeddings()
    # A layer with a forward of its own is adapted, sharded or offloaded.
    if type(head) is not torch.nn.Linear or "forward" in vars(head) or head.weight.dtype == torch.float32:
        yield
        return

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            # A part of the weights at a time, so that no copy of all of them is held.
            parts = [torch.nn.functional.linear(hidden.float(), part.float()) for part in head.weight.split(HEAD_ROWS)]
            logits = torch.cat(parts, dim=-1)
            return logits if head.bias is None else logits + head.bias.float()

    head.forward = forward
    try:
        yield
    finally:
        del head.forward


def base_of(model: Any) -> PreTrainedModel:
    """Return the language model with its adapters, without the wrappers of PEFT and accelerate."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def device_of(model: Any) -> torch.device:
    return model.get_input_embeddings().weight.device


def needs_plain_passes(model: Any) -> bool:
    """Return whether caches and block masks change a base's numbers; see :mod:`sbic_llama.model.exactness`."""
    exactness = getattr(base_of(model), "exactness", None)
    return exactness is not None and not exactness.cached


def context_of(model: Any) -> int:
    """Return the length of a model's context; unlimited if its configuration names none."""
    return getattr(model.config, "max_position_embeddings", None) or sys.maxsize


class PrefixCache:
    """Keys and values of ``prefix_ids`` under the model's active adapter; invalid once weights change."""

    def __init__(self, model: Any, prefix_ids: Sequence[int]):
        self.model = base_of(model)
        self.length = len(prefix_ids)
        self.device = device_of(model)
        self._layers: list[tuple[torch.Tensor, torch.Tensor]] = []
        if prefix_ids:
            # Without the model's configuration the cache keeps all keys, also those beyond a sliding window, which a mask hides.
            cache = DynamicCache()
            ids = torch.tensor([list(prefix_ids)], device=self.device)
            self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            self._layers = [(layer.keys, layer.values) for layer in cache.layers]

    def empty(self) -> PrefixCache:
        """Return the same for prompts that begin differently."""
        return PrefixCache(self.model, [])

    def rows(self, count: int) -> DynamicCache:
        """Return a cache for ``count`` rows, each behind its own copy of the prefix."""
        cache = DynamicCache()
        for index, (keys, values) in enumerate(self._layers):
            cache.update(keys.expand(count, -1, -1, -1), values.expand(count, -1, -1, -1), index)
        return cache

    def logits(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        own: torch.Tensor,
        cache: DynamicCache,
        keep: torch.Tensor,
        cached_positions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return logits of the next token for tokens that follow the prefix, and extend ``cache``.

        Args:
            ids: Token ids, shape (rows, tokens).
            positions: Their places behind the prefix. With gaps or branches in a row, counting on would be wrong.
            own: Which tokens behind the prefix each may see, shape (rows, tokens, tokens behind the prefix).
            cache: What :meth:`rows` returned.
            keep: For which tokens to compute logits, shape (rows, tokens).
            cached_positions: Places of tokens that ``cache`` holds behind the prefix, shape (rows, cached).

        Returns:
            Shape (kept tokens of all rows in order, vocabulary).
        """
        start = torch.arange(self.length).expand(len(ids), -1)
        behind = positions if cached_positions is None else torch.cat([cached_positions, positions], dim=1)
        # Padding sees the instruction too: an empty row of the mask would give NaN.
        visible = torch.cat([torch.ones(*ids.shape, self.length, dtype=torch.bool), own], dim=2)
        masks = attention_masks(
            self.model.config,
            visible.to(self.device),
            (self.length + positions).to(self.device),
            torch.cat([start, self.length + behind], dim=1).to(self.device),
            dtype=self.model.dtype,
        )
        with fp32_head(self.model):
            return self.model(
                input_ids=ids.to(self.device),
                position_ids=(self.length + positions).to(self.device),
                attention_mask=masks,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=keep.to(self.device),
            ).logits
