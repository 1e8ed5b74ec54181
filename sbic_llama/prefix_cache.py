"""The instruction's keys and values, computed once for all posts that stand behind it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
