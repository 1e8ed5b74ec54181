"""A model asked about posts: the likeliest label text, or the groups that it generates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from common.cli.console import bar, log
from common.models.merged_lora import merged_lora
from sbic_llama.data.encoding import Encoded, answer_ids, encode
from sbic_llama.data.features import Answers, Feature
from sbic_llama.model.scoring import PrefixCache, context_of, label_probabilities, score_labels


def answer(
    model: Any,
    tokenizer: Any,
    declared: Feature,
    posts: Sequence[str],
    *,
    max_post_tokens: int,
    batch_size: int,
    progress: bool = False,
    prefix: PrefixCache | None = None,
    temperature: float = 1.0,
) -> Answers:
    """Answers to cleaned posts, in their order.

    Args:
        model: The base with the feature's adapter active.
        tokenizer: The base's.
        declared: The feature.
        posts: Texts as :func:`sbic_llama.data.corpus.clean` gives them.
        max_post_tokens: Tokens to which a post is cut.
        batch_size: Posts a forward pass at most.
        progress: Whether to show a bar.
        prefix: The instruction's keys and values, where they were computed before.
        temperature: What calibrates the labels' probabilities; 1 leaves them as the model has them.

    Raises:
        UserError: A post that does not fit what the model reads.
    """
    encoded = encode(tokenizer, declared, posts, max_post_tokens=max_post_tokens)
    longest = max(map(len, answer_ids(tokenizer, declared.labels))) if declared.classifies else MAX_NEW_TOKENS
    encoded.require_context(longest, context_of(model))
    shape: dict[str, Any] = {"batch_size": batch_size, "progress": progress, "prefix": prefix}
    if declared.classifies:
        with merged_lora(model):
            scores = score_labels(model, tokenizer, declared, encoded, **shape)
        probabilities = label_probabilities(scores, temperature)
        names = [f"probability_{label}" for label in declared.labels]
        details = [dict(zip(names, map(float, row), strict=True)) for row in probabilities]
        return Answers([int(row.argmax()) for row in probabilities], details, encoded.cut)
    with merged_lora(model):
        answers = generate(model, tokenizer, encoded, **shape)
    if endless := sum(not one.ended for one in answers):
        log(f"{endless:,} answers had no end and were cut")
    return Answers(
        [declared.parse(one.text) for one in answers],
        [{"mean_log_probability": one.mean_log_probability, "margin": one.margin} for one in answers],
        encoded.cut,
    )


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
