"""Generated answers against numbers computed by hand, from a model that gives the next token known probabilities."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from sbic_llama.data.encoding import Encoded
from sbic_llama.model.answering import generate, generate_plainly

EOS, SIZE = 2, 8
# Of each token of two answers: the chosen one, its probability, and the runner-up's.
STEPS = {0: [(5, 0.7, 0.2), (EOS, 0.6, 0.35)], 1: [(6, 0.55, 0.45), (4, 0.9, 0.05), (EOS, 0.8, 0.1)]}


def logits(answer: int, step: int) -> torch.Tensor:
    chosen, first, second = STEPS[answer][step]
    probabilities = torch.full((SIZE,), (1 - first - second) / (SIZE - 2))
    probabilities[chosen], probabilities[1] = first, second
    return probabilities.clamp(min=1e-12).log() + 3.0  # a constant changes no probability


class Scripted:
    """Stands for the instruction's cache: each row goes on as :data:`STEPS` say, and leaves where it has ended."""

    length = 0

    def rows(self, count: int) -> Scripted:
        self.step, self.active = -1, list(range(count))
        return self

    def batch_select_indices(self, kept: torch.Tensor) -> None:
        self.active = [self.active[place] for place in kept]

    def logits(self, *_: object, **__: object) -> torch.Tensor:
        self.step += 1
        return torch.stack([logits(answer, self.step) for answer in self.active])


def generated(max_new_tokens: int) -> list:
    tokenizer = SimpleNamespace(decode=lambda ids, **_: " ".join(map(str, ids)))
    settings = {"batch_size": 2, "max_new_tokens": max_new_tokens, "prefix": Scripted(), "plain": False}
    return generate(torch.nn.Identity(), tokenizer, Encoded([], [[3], [3, 3]], 1, 0, EOS), **settings)


def test_the_margin_is_the_smallest_lead_of_a_token_over_the_runner_up():
    first, second = generated(8)
    assert (first.ids, second.ids) == ([5, EOS], [6, 4, EOS])
    assert (first.margin, second.margin) == pytest.approx((0.25, 0.1), abs=1e-6)
    assert first.mean_log_probability == pytest.approx((math.log(0.7) + math.log(0.6)) / 2, abs=1e-6)
    assert second.mean_log_probability == pytest.approx((math.log(0.55) + math.log(0.9) + math.log(0.8)) / 3, abs=1e-6)


def test_an_end_at_the_last_allowed_token_is_an_end():
    assert [answer.ended for answer in generated(3)] == [True, True]
    cut = generated(2)
    assert [answer.ended for answer in cut] == [True, False]
    assert cut[1].ids == [6, 4], "the answer so far"


def test_a_base_without_the_cache_has_the_same_numbers():
    sequences = torch.tensor([[3, 6, 4, EOS]])
    answer = SimpleNamespace(sequences=sequences, logits=[logits(1, step)[None] for step in range(3)])
    weight, head = SimpleNamespace(weight=torch.zeros(1)), torch.nn.Linear(1, SIZE, dtype=torch.bfloat16)

    def generate(**_: object) -> SimpleNamespace:
        assert head(torch.zeros(1, 1, dtype=torch.bfloat16)).dtype == torch.float32
        return answer

    layers = {"get_input_embeddings": lambda: weight, "get_output_embeddings": lambda: head}
    model = SimpleNamespace(generate=generate, **layers)
    ids, log_probability, margin = generate_plainly(model, [3], EOS, 8)
    assert ids == [6, 4, EOS]
    assert log_probability == pytest.approx(math.log(0.55 * 0.9 * 0.8), abs=1e-6)
    assert margin == pytest.approx(0.1, abs=1e-6)
