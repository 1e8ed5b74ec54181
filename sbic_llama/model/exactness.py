"""Load a base, and check on its first use that fast ways of training and answering give the numbers of plain passes.

Packed rows and the instruction's cache rest on attention masks, which not every architecture takes as they are meant. What
does not hold for a base is not used with it, whatever its architecture.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.cli.console import log, stage
from common.cli.errors import UserError
from common.models import quantization as bases
from common.models.exactness import Exactness, check_finite, key_of, recall, remember
from common.models.prompt import answer_ids
from common.models.quantization import Quantization
from common.results.record import versions
from common.runtime import hardware
from sbic_llama.data.encoding import Encoded, encode
from sbic_llama.data.features import OFFENSIVE_YN
from sbic_llama.model.answering import generate
from sbic_llama.model.packing import IGNORED, SharedInstruction, answer_losses
from sbic_llama.model.scoring import context_of, device_of, score_branches, score_plainly

POSTS = ("The bakery on the corner opens at eight.", "7 people said: “more, please”", "\nIt begins on a new line.")
LONG = " ".join(f"{number} bakers, {number} loaves;" for number in range(1000))
SHORT = [0, 1] * 8  # indices of posts in the second row that is checked
PACKED = [*range(len(POSTS) + 1), *SHORT]
BEYOND, MOST = 40, 1024  # tokens by which the long post exceeds a window, and the largest window for which it does
NEW_TOKENS = 6
# Largest difference in log-probability per token. Other kernels and batches alone make up to about a tenth of it.
TOLERANCE = {"fp32": 1e-3, "fp16": 0.05, "bf16": 0.2}
TIMES_ROUNDING, TOO_MUCH = 4, 1.0  # half precision: multiple of what padding changes, as long as that is less than this


def load_base(
    name: str,
    revision: str | None,
    tokenizer: PreTrainedTokenizerBase,
    *,
    precision: hardware.Precision,
    quantization: Quantization = "nf4",
) -> PreTrainedModel:
    """Load a base; its attribute ``exactness`` says which fast ways are right for it. ``tokenizer`` is its own."""
    model = bases.load_base(name, revision, precision=precision, quantization=quantization)
    facts = {
        "config": model.config.to_diff_dict() | {"_name_or_path": None},
        "attention": model.config._attn_implementation,
        "tokenizer": [type(tokenizer).__name__, len(tokenizer)],
        "device": hardware.device_type(),
        "versions": versions(),
        "code": _code(),
        "used": [precision, quantization],
    }
    key = key_of(facts)
    exactness = recall(key)
    if exactness is None:
        with stage(f"checking packed rows and caches of {name} against plain passes (once)"):
            exactness = check(model, tokenizer, name, precision=precision, quantization=quantization)
        remember(key, exactness)
    if not exactness.cached:
        log(f"{name} is answered without the instruction's cache, which would change its numbers: this is slower")
    model.exactness = exactness
    return model


def _code() -> str:
    """Return a digest of the code that is checked: after a change of it, every base is checked again."""
    sources = (path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(b"".join(sources)).hexdigest()


def check(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    name: str,
    *,
    precision: hardware.Precision,
    quantization: Quantization = "nf4",
) -> Exactness:
    """Compare packed and padded losses, and cached scores and generation, with plain passes over a few built-in texts.

    One text is longer than the base's smallest attention window.

    Raises:
        UserError: The base cannot even be run plainly, or its scores are not numbers.
    """
    model.eval()
    answers = answer_ids(tokenizer, OFFENSIVE_YN.labels)
    encoded = encode(tokenizer, OFFENSIVE_YN, [*POSTS, LONG], max_post_tokens=_long(model, tokenizer, answers))
    try:
        with torch.inference_mode():
            plain = [[score_plainly(model, prompt, [answer])[0] for answer in answers] for prompt in encoded.prompts]
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise UserError(
            f"cannot be run: {type(error).__name__}", file=name, expected="a model such as Llama 2"
        ) from error
    check_finite(itertools.chain(*plain), model, name, precision)
    per_token = torch.tensor(plain) / torch.tensor([len(answer) for answer in answers])

    def scores() -> torch.Tensor:
        rows = [answers] * len(encoded.prompts)
        result = torch.tensor(score_branches(model, encoded, rows, batch_size=len(rows), plain=False))
        return result / torch.tensor([len(answer) for answer in answers]) - per_token

    differences = {
        "padded": _largest(lambda: _losses(model, tokenizer, encoded, answers, share=False) + per_token[:, 0]),
        "packed": _largest(lambda: _packed(model, tokenizer, encoded, answers) + per_token[:, 0][PACKED]),
        "scores": _largest(scores),
        "generation": _largest(lambda: _generated(model, tokenizer, encoded)),
    }
    rounds = "fp16" if quantization == "int8" and precision == "fp32" else precision  # 8-bit products are in fp16
    tolerance = TOLERANCE[rounds]
    if rounds != "fp32" and differences["padded"] < TOO_MUCH:
        tolerance = max(tolerance, TIMES_ROUNDING * differences["padded"])
    exact = {way: difference <= tolerance for way, difference in differences.items()}
    return Exactness(
        base=name,
        precision=precision,
        quantization=quantization,
        packed=exact["packed"],
        padded=exact["padded"],
        cached=exact["scores"] and exact["generation"],
        differences={way: each if math.isfinite(each) else None for way, each in differences.items()},
    )


def _long(model: Any, tokenizer: Any, answers: Sequence[Sequence[int]]) -> int:
    """Return the tokens of the long post: more than the smallest window, if the context has room for them."""
    config = model.config.get_text_config(decoder=True)
    names = ("sliding_window", "attention_chunk_size", "window_size")
    windows = [size for name in names if isinstance(size := getattr(config, name, None), int) and 0 < size <= MOST]
    around = encode(tokenizer, OFFENSIVE_YN, [], max_post_tokens=1).around
    room = context_of(model) - around - max(NEW_TOKENS, *map(len, answers))
    return min(min(windows, default=2 * BEYOND) + BEYOND, room)


def _largest(differences: Callable[[], torch.Tensor]) -> float:
    """Return the largest absolute difference; infinite where a way fails, as masks do that an architecture does not take."""
    try:
        with torch.inference_mode():
            largest = float(differences().abs().max())
    except torch.OutOfMemoryError:
        raise
    except Exception:
        return math.inf
    return largest if math.isfinite(largest) else math.inf


def _losses(
    model: Any, tokenizer: Any, encoded: Encoded, answers: Sequence[Sequence[int]], *, share: bool
) -> torch.Tensor:
    """Return the mean loss of the first answer behind each post, for rows of training."""
    answer = list(answers[0])
    examples = [
        {"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer} for prompt in encoded.prompts
    ]
    batch = SharedInstruction(encoded.prefix_ids, tokenizer.pad_token_id, share=share)(examples)
    device = device_of(model)
    losses = answer_losses(model, {name: tensor.to(device) for name, tensor in batch.items()}).cpu()
    return losses.view(len(examples), len(answer)).mean(1)


def _packed(model: Any, tokenizer: Any, encoded: Encoded, answers: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return the losses of two shared rows: :data:`PACKED`, of which the last are many short posts.

    A row with one long post takes the dense mask, one of short posts attention post by post; see :mod:`sbic_llama.model.attention`.
    """
    rows = (PACKED[: -len(SHORT)], SHORT)
    return torch.cat([_losses(model, tokenizer, encoded.select(row), answers, share=True) for row in rows])


def _generated(model: Any, tokenizer: Any, encoded: Encoded) -> torch.Tensor:
    """Return what a plain pass over each generated answer differs by from generation's own log-probabilities."""
    settings = {"batch_size": len(encoded.prompts), "max_new_tokens": NEW_TOKENS, "plain": False}
    answers = generate(model, tokenizer, encoded, **settings)
    plain = [
        score_plainly(model, prompt, [answer.ids])[0] / len(answer.ids)
        for prompt, answer in zip(encoded.prompts, answers, strict=True)
    ]
    return torch.tensor([answer.mean_log_probability for answer in answers]) - torch.tensor(plain)
