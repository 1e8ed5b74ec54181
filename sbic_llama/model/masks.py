"""Attention masks for rows in which posts share an instruction, for each kind of attention that a base has.

Models take a 4-D mask as it is, whatever their windows: a mask for sliding-window layers must contain the window.
"""

from __future__ import annotations

from typing import Any

import torch

KINDS = ("full_attention", "sliding_attention", "chunked_attention")  # in the layer_types of a configuration


class NoMaskError(Exception):
    """A base has layers that a mask does not keep from seeing other posts, such as those of linear attention."""


def takes_masks(config: Any) -> bool:
    """Return whether all layers of a model are of kinds that masks are known for."""
    return _kinds(config.get_text_config(decoder=True)) <= set(KINDS)


def _kinds(config: Any) -> set[str]:
    return set(getattr(config, "layer_types", None) or ())


def attention_masks(
    config: Any, visible: torch.Tensor, positions: torch.Tensor, key_positions: torch.Tensor, *, dtype: torch.dtype
) -> torch.Tensor | dict[str, torch.Tensor]:
    """Return what a model takes as ``attention_mask``: one mask, or one for each kind of its layers.

    Args:
        config: The model's configuration.
        visible: Which tokens each may see in a layer of full attention, shape (rows, tokens, keys).
        positions: Place of each token in its text, shape (rows, tokens).
        key_positions: The same for keys, which may include cached ones, shape (rows, keys).
        dtype: The model's, for attention that adds the mask ("eager").

    Raises:
        NoMaskError: Not :func:`takes_masks`.
    """
    if not takes_masks(config):
        raise NoMaskError
    config = config.get_text_config(decoder=True)

    def mask(kind: str) -> torch.Tensor:
        seen, at, keys_at = visible, positions[:, :, None], key_positions[:, None, :]
        if kind == "sliding_attention":
            seen = seen & (at - keys_at < config.sliding_window)
        if kind == "chunked_attention":
            seen = seen & (at // config.attention_chunk_size == keys_at // config.attention_chunk_size)
        if config._attn_implementation == "sdpa":
            return seen[:, None]
        zero = torch.zeros((), dtype=dtype, device=seen.device)  # eager attention adds its mask
        return torch.where(seen[:, None], zero, torch.finfo(dtype).min)

    if kinds := _kinds(config):
        return {kind: mask(kind) for kind in kinds}
    return mask("sliding_attention" if getattr(config, "sliding_window", None) else "full_attention")
