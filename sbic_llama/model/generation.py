"""Answers in free text: greedy decoding in batches behind the cached instruction, each row until its EOS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from common.cli.console import bar
from sbic_llama.data.encoding import Encoded
from sbic_llama.model.scoring import PrefixCache

MAX_NEW_TOKENS = 64  # of 4,673 real posts the longest list of groups has 54 tokens of Llama 2


@dataclass(frozen=True)
class Answer:
    """A generated answer.

    Attributes:
        text: Without special tokens.
        mean_log_probability: Mean over its tokens, EOS included.
        margin: How near to a tie it was: the least lead, in probability, of a token over the next likely one.
        ended: Whether EOS came before ``max_new_tokens``.
    """

    text: str
    mean_log_probability: float
    margin: float
    ended: bool


@torch.inference_mode()
def generate(
    model: Any,
    tokenizer: Any,
    encoded: Encoded,
    *,
    batch_size: int,
    max_new_tokens: int = MAX_NEW_TOKENS,
    progress: bool = False,
    prefix: PrefixCache | None = None,
) -> list[Answer]:
    """The most probable next token again and again, for each post, in the posts' order.

    ``prefix`` is the instruction's keys and values, where they were computed before.
    """
    model.eval()
    prefix = prefix or PrefixCache(model, encoded.prefix_ids)
    answers: list[Answer | None] = [None] * len(encoded.post_ids)
    with bar(len(answers), "post", show=progress) as done:
        for chosen in encoded.batches(batch_size):
            prompts = [encoded.post_ids[i] + encoded.tail_ids for i in chosen]
            generated = _generate_batch(prefix, prompts, tokenizer.eos_token_id, max_new_tokens)
            for index, (ids, log_probability, margin) in zip(chosen, generated, strict=True):
                ended = ids[-1] == tokenizer.eos_token_id
                text = tokenizer.decode(ids, skip_special_tokens=True)
                answers[index] = Answer(text, log_probability / len(ids), margin, ended)
            done.update(len(chosen))
    return answers


def _generate_batch(
    prefix: PrefixCache, prompts: list[list[int]], eos_token_id: int, max_new_tokens: int
) -> list[tuple[list[int], float, float]]:
    """Each row's new token ids (EOS last, unless cut off), the sum of their log-probabilities, and the least lead of one."""
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    count, width = len(prompts), int(lengths.max())
    ids = torch.zeros(count, width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
    real = torch.arange(width)[None, :] < lengths[:, None]
    own = real[:, None, :] & torch.ones(width, width, dtype=torch.bool).tril()
    before = torch.ones(count, width, prefix.length, dtype=torch.bool)
    cache = prefix.rows(count)
    positions = (prefix.length + torch.arange(width)).expand(count, -1)
    hidden = prefix.hidden_states(ids, positions, torch.cat([before, own], dim=2), cache)
    last = hidden[torch.arange(count), (lengths - 1).to(hidden.device)]
    # The rows are padded on the right: new tokens stand behind the padding in the cache, and their positions say where in the
    # text they are.
    cached = torch.cat([before[:, 0], real], dim=1)
    positions = prefix.length + lengths
    new: list[list[int]] = [[] for _ in prompts]
    sums, margins = [0.0] * count, [1.0] * count
    active = list(range(count))
    for step in range(max_new_tokens):
        values, tokens = prefix.log_probabilities(last).topk(2)
        leads = (values[:, 0].exp() - values[:, 1].exp()).tolist()
        for row, value, token, lead in zip(active, values[:, 0].tolist(), tokens[:, 0].tolist(), leads, strict=True):
            new[row].append(token)
            sums[row] += value
            margins[row] = min(margins[row], lead)
        going = [i for i, row in enumerate(active) if new[row][-1] != eos_token_id]
        if not going or step == max_new_tokens - 1:
            break
        if len(going) < len(active):  # finished rows leave the batch
            cache.batch_select_indices(torch.tensor(going, device=last.device))
            cached, positions = cached[going], positions[going]
            active = [active[i] for i in going]
        cached = torch.cat([cached, torch.ones(len(active), 1, dtype=torch.bool)], dim=1)
        next_ids = torch.tensor([[new[row][-1]] for row in active])
        last = prefix.hidden_states(next_ids, positions[:, None], cached[:, None], cache)[:, 0]
        positions = positions + 1
    return list(zip(new, sums, margins, strict=True))
