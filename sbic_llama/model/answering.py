"""A model asked about posts: the likeliest label text, or the groups that it generates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.cli.console import log
from common.models.merged_lora import folded
from sbic_llama.data.encoding import answer_ids, encode
from sbic_llama.data.features import Answers, Feature
from sbic_llama.model.generation import MAX_NEW_TOKENS, generate
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
        with folded(model):
            scores = score_labels(model, tokenizer, declared, encoded, **shape)
        probabilities = label_probabilities(scores, temperature)
        names = [f"probability_{label}" for label in declared.labels]
        details = [dict(zip(names, map(float, row), strict=True)) for row in probabilities]
        return Answers([int(row.argmax()) for row in probabilities], details, encoded.cut)
    with folded(model):
        answers = generate(model, tokenizer, encoded, **shape)
    if endless := sum(not one.ended for one in answers):
        log(f"{endless:,} answers had no end and were cut")
    return Answers(
        [declared.parse(one.text) for one in answers],
        [{"mean_log_probability": one.mean_log_probability, "margin": one.margin} for one in answers],
        encoded.cut,
    )
