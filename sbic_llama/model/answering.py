"""Answer a feature's question about posts: the most probable label, or a generated list of groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from common.cli.console import bar, warn
from common.cli.errors import counted
from common.models.exactness import check_finite
from common.models.merged_lora import merged_lora
from common.models.prompt import answer_ids
from sbic_llama.data.encoding import Encoded, encode
from sbic_llama.data.features import OF_CHOICES, Answers, Feature, Label
from sbic_llama.model.scoring import (
    PrefixCache,
    base_of,
    choice_probabilities,
    context_of,
    device_of,
    fp32_head,
    label_probabilities,
    needs_plain_passes,
    score_labels,
)

MAX_NEW_TOKENS = 64  # the longest list of groups of 4,673 real posts has 54 tokens of Llama 2


def answer(
    model: Any,
    tokenizer: Any,
    feature: Feature,
    posts: Sequence[str],
    *,
    max_post_tokens: int,
    batch_size: int,  # at most so many posts per forward pass
    progress: bool = False,
    prefix: PrefixCache | None = None,  # of the instruction, if computed before
    temperature: float = 1.0,  # calibrates the labels' probabilities
) -> Answers:
    """Return a model's answers to cleaned posts, in their order; the feature's adapter must be active."""
    if not posts:
        return Answers([], [], 0)
    encoded = encode(tokenizer, feature, posts, max_post_tokens=max_post_tokens)
    longest = MAX_NEW_TOKENS
    if feature.branches:
        longest = max(map(len, answer_ids(tokenizer, feature.branches, feature.template)))
    encoded.require_context(longest, context_of(model))
    settings: dict[str, Any] = {"batch_size": batch_size, "progress": progress, "prefix": prefix}
    if feature.branches:
        with merged_lora(model):
            scores = score_labels(model, tokenizer, feature, encoded, **settings)
        check_finite(scores.ravel(), model, feature.title, str(model.dtype).removeprefix("torch."))
        if feature.choices:
            probabilities = choice_probabilities(scores, temperature)
            names = [f"{OF_CHOICES}{choice}" for choice in feature.choices]
            details = [dict(zip(names, map(float, row), strict=True)) for row in probabilities]
            return Answers([feature.chosen(row) for row in probabilities.tolist()], details, encoded.cut)
        probabilities = label_probabilities(scores, temperature)
        names = [f"probability_{label}" for label in feature.labels]
        details = [dict(zip(names, map(float, row), strict=True)) for row in probabilities]
        return Answers([int(row.argmax()) for row in probabilities], details, encoded.cut)
    with merged_lora(model):
        generated = generate(model, tokenizer, encoded, **settings)
    numbers = [each.mean_log_probability for each in generated]
    check_finite(numbers, model, feature.title, str(model.dtype).removeprefix("torch."))
    if endless := sum(not each.ended for each in generated):
        warn(f"cut off at {MAX_NEW_TOKENS} tokens: {counted(endless, 'answer')}")
    return Answers(
        [feature.parse(each.text) for each in generated],
        [{"mean_log_probability": each.mean_log_probability, "margin": each.margin} for each in generated],
        encoded.cut,
    )


def reweighted(answers: Answers, ratios: Sequence[float]) -> Answers:
    """Return the answers where labels are more or less frequent than in training.

    Args:
        answers: Labels with their probabilities.
        ratios: For each label, its share among the posts divided by its share in training. By Bayes' rule, the probabilities
            are multiplied by these and normalized (Saerens et al. 2002).
    """
    details = []
    for row in answers.details:
        weighted = [value * ratio for value, ratio in zip(row.values(), ratios, strict=True)]
        details.append({name: value / sum(weighted) for name, value in zip(row, weighted, strict=True)})
    labels: list[Label] = [max(range(len(ratios)), key=list(row.values()).__getitem__) for row in details]
    return Answers(labels, details, answers.cut)


@dataclass(frozen=True)
class Generated:
    """A generated answer."""

    ids: list[int]  # its tokens; the end of answers last, unless it was cut off
    text: str  # without special tokens
    mean_log_probability: float  # over its tokens, with the end
    margin: float  # smallest lead, in probability, of a chosen token over the runner-up: how close to a tie it was
    ended: bool  # whether the end came before `max_new_tokens`


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
    plain: bool | None = None,
) -> list[Generated]:
    """Decode greedily for each post until an answer ends, in batches behind the cached instruction.

    ``plain`` is whether to do without the instruction's cache (default: where a base needs it).
    """
    model.eval()
    plain = needs_plain_passes(model) if plain is None else plain
    if not plain:
        prefix = prefix or PrefixCache(model, encoded.prefix_ids)
    answers: list[Generated | None] = [None] * len(encoded.prompts)
    with bar(len(answers), "post", show=progress) as done:
        for chosen in encoded.batches(batch_size):
            prompts = [encoded.prompts[i] for i in chosen]
            if plain:
                generated = [generate_plainly(model, ids, encoded.end, max_new_tokens) for ids in prompts]
            else:
                shared = prefix if encoded.shares(chosen[0]) else prefix.empty()
                rest = [ids[shared.length :] for ids in prompts]
                generated = _generate_batch(shared, rest, encoded.end, max_new_tokens)
            for index, (ids, log_probability, margin) in zip(chosen, generated, strict=True):
                ended = ids[-1] == encoded.end
                text = tokenizer.decode(ids, skip_special_tokens=True)
                answers[index] = Generated(ids, text, log_probability / len(ids), margin, ended)
            done.update(len(chosen))
    return answers


def generate_plainly(model: Any, prompt: list[int], end: int, max_new_tokens: int) -> tuple[list[int], float, float]:
    """Generate for one prompt with the library's own cache; see :func:`_generate_batch` for what is returned."""
    ids = torch.tensor([prompt], device=device_of(model))
    base = base_of(model)
    with fp32_head(base):
        answer = base.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=end,
            pad_token_id=end,
            output_logits=True,
            return_dict_in_generate=True,
        )
    new = answer.sequences[0, len(prompt) :]
    values = torch.cat(answer.logits).float().log_softmax(-1).topk(2).values
    margin = (values[:, 0].exp() - values[:, 1].exp()).min()
    return new.tolist(), float(values[:, 0].sum()), float(margin)


def _generate_batch(
    prefix: PrefixCache, prompts: list[list[int]], end: int, max_new_tokens: int
) -> list[tuple[list[int], float, float]]:
    """Return each row's new token ids (``end`` last, unless cut off), their summed log-probability, and the margin."""
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    count, width = len(prompts), int(lengths.max())
    ids = torch.zeros(count, width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
    places = torch.arange(width).expand(count, -1)
    real = places < lengths[:, None]
    own = real[:, None, :] & torch.ones(width, width, dtype=torch.bool).tril()
    cache = prefix.rows(count)
    logits = prefix.logits(ids, places, own, cache, keep=places == lengths[:, None] - 1)
    # Rows are padded on the right: in the cache new tokens follow the padding, and explicit positions tell their
    # place in the text.
    cached, positions = real, lengths
    new: list[list[int]] = [[] for _ in prompts]
    sums, margins = [0.0] * count, [1.0] * count
    active = list(range(count))
    for step in range(max_new_tokens):
        values, tokens = logits.float().log_softmax(-1).topk(2)
        leads = (values[:, 0].exp() - values[:, 1].exp()).tolist()
        for row, value, token, lead in zip(active, values[:, 0].tolist(), tokens[:, 0].tolist(), leads, strict=True):
            new[row].append(token)
            sums[row] += value
            margins[row] = min(margins[row], lead)
        going = [i for i, row in enumerate(active) if new[row][-1] != end]
        if not going or step == max_new_tokens - 1:
            break
        if len(going) < len(active):  # finished rows leave the batch
            cache.batch_select_indices(torch.tensor(going, device=logits.device))
            cached, places, positions = cached[going], places[going], positions[going]
            active = [active[i] for i in going]
        one = torch.ones(len(active), 1, dtype=torch.bool)
        cached = torch.cat([cached, one], dim=1)
        next_ids = torch.tensor([[new[row][-1]] for row in active])
        logits = prefix.logits(next_ids, positions[:, None], cached[:, None], cache, one, cached_positions=places)
        places, positions = torch.cat([places, positions[:, None]], dim=1), positions + 1
    return list(zip(new, sums, margins, strict=True))
