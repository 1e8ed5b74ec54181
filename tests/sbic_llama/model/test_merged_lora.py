"""Test merged LoRA: dense weights give the same answers, and the model is restored afterwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer

from common.miniature.pretrain import MODELS
from common.models import merged_lora as folding
from common.models.merged_lora import merged_lora
from common.models.merging import merged_weight
from common.models.quantization import load_base
from common.runtime import hardware
from sbic_llama.data.corpus import load_splits
from sbic_llama.data.encoding import encode
from sbic_llama.data.features import FEATURES
from sbic_llama.model.answering import answer, generate
from sbic_llama.model.scoring import label_probabilities, score_labels
from tests.sbic_llama.conftest import adapted_model


@pytest.fixture(scope="module")
def posts(miniature) -> list[str]:
    return [post.text for post in load_splits(data_dir=miniature / "SBIC.v2")["test"].posts[:40]]


def layers(model) -> list[torch.nn.Module]:
    return [module for module in model.modules() if isinstance(module, (Linear4bit, LoraLayer, folding.Dense))]


def scores(model, tokenizer, posts) -> np.ndarray:
    encoded = encode(tokenizer, FEATURES["offensiveYN"], posts, max_post_tokens=64)
    return score_labels(model, tokenizer, FEATURES["offensiveYN"], encoded, batch_size=16)


def test_scores_are_those_of_the_4_bit_model_with_its_adapter(model, tokenizer, posts):
    plain, before = scores(model, tokenizer, posts), layers(model)
    with merged_lora(model):
        assert not any(isinstance(module, Linear4bit) for module in layers(model))
        np.testing.assert_allclose(scores(model, tokenizer, posts), plain, rtol=2e-6, atol=2e-5)
    assert [id(module) for module in layers(model)] == [id(module) for module in before]
    np.testing.assert_array_equal(scores(model, tokenizer, posts), plain)


def test_without_its_adapter_the_base_answers(model, tokenizer, posts):
    with_it = scores(model, tokenizer, posts)
    with model.disable_adapter():
        plain = scores(model, tokenizer, posts)
        with merged_lora(model):
            np.testing.assert_allclose(scores(model, tokenizer, posts), plain, rtol=2e-6, atol=2e-5)
    assert np.abs(with_it - plain).max() > 0.1


def test_generated_groups_are_the_same(model, tokenizer, posts):
    encoded = encode(tokenizer, FEATURES["targetMinority"], posts, max_post_tokens=64)
    plain = generate(model, tokenizer, encoded, batch_size=8, max_new_tokens=12)
    with merged_lora(model):
        result = generate(model, tokenizer, encoded, batch_size=8, max_new_tokens=12)
    sure = [one for one in zip(plain, result, strict=True) if one[0].margin > 1e-4]
    assert len(sure) > len(posts) / 2
    for before, after in sure:
        assert after.text == before.text
        assert after.mean_log_probability == pytest.approx(before.mean_log_probability, abs=2e-5)


def test_weights_that_were_trained_in_between_are_used(tokenizer, posts):
    model = adapted_model().eval()
    before = answer(model, tokenizer, FEATURES["offensiveYN"], posts, max_post_tokens=64, batch_size=16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(0.05)
    after = answer(model, tokenizer, FEATURES["offensiveYN"], posts, max_post_tokens=64, batch_size=16)
    expected = label_probabilities(scores(model, tokenizer, posts))
    np.testing.assert_allclose([list(row.values()) for row in after.details], expected, atol=1e-5)
    assert np.abs(expected - [list(row.values()) for row in before.details]).max() > 0.01


def test_with_little_memory_the_layers_stay_as_they_are(model, monkeypatch):
    monkeypatch.setattr(hardware, "memory_bytes", lambda: 10**6)
    with merged_lora(model):
        assert any(isinstance(module, Linear4bit) for module in layers(model))


def test_adapters_of_other_kinds_are_not_folded(tokenizer, posts):
    base = load_base(str(MODELS / "tiny_llama"), None, precision="fp32")
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", use_dora=True)
    model = get_peft_model(base, config).eval()
    plain = scores(model, tokenizer, posts)
    with merged_lora(model):
        np.testing.assert_array_equal(scores(model, tokenizer, posts), plain)


def test_an_error_inside_leaves_the_model_as_it_was(model):
    before = [id(module) for module in layers(model)]
    with pytest.raises(KeyboardInterrupt), merged_lora(model):
        raise KeyboardInterrupt
    assert [id(module) for module in layers(model)] == before


def test_in_bf16_answers_are_nearly_those_of_fp32(tokenizer, posts, trained_adapters):
    from sbic_llama.model.adapter import load_adapter

    result = {}
    for precision in ("fp32", "bf16"):
        model, _, _ = load_adapter(trained_adapters / "offensiveYN", precision=precision)
        with merged_lora(model):
            result[precision] = label_probabilities(scores(model, tokenizer, posts))
    assert np.abs(result["bf16"] - result["fp32"]).max() < 0.05
    sure = np.ptp(np.sort(result["fp32"], axis=1)[:, -2:], axis=1) > 0.1
    assert sure.sum() > len(posts) / 2
    assert (result["bf16"].argmax(1) == result["fp32"].argmax(1))[sure].all()


def test_changes_below_the_resolution_of_bf16_are_not_rounded_away():
    """After a few steps an adapter's changes are smaller than the distance of two bf16 numbers; together they still count."""
    torch.manual_seed(0)
    base = load_base(str(MODELS / "tiny_llama"), None, precision="bf16")
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["up_proj"]))
    layer = next(module for module in model.modules() if isinstance(module, LoraLayer))
    torch.nn.init.normal_(layer.lora_B["default"].weight, std=1e-4)
    model.disable_adapter_layers()
    before = merged_weight(layer)
    model.enable_adapter_layers()
    change = merged_weight(layer) - before
    assert 0 < change.abs().median() < before.abs().median() / 1000  # bf16 has 8 bits
    with merged_lora(model):
        dense = next(module for module in model.modules() if isinstance(module, folding.Dense))
        assert dense.weight.dtype == torch.bfloat16
        arrived = ((dense.weight.float() - before) * change).sum() / change.square().sum()
    assert arrived == pytest.approx(1, abs=0.3)


def test_in_bf16_folded_and_unfolded_models_answer_alike(tokenizer, posts, trained_adapters):
    from sbic_llama.model.adapter import load_adapter

    model, _, _ = load_adapter(trained_adapters / "offensiveYN", precision="bf16")
    plain = label_probabilities(scores(model, tokenizer, posts))
    with merged_lora(model):
        result = label_probabilities(scores(model, tokenizer, posts))
    assert 0 < np.abs(result - plain).max() < 0.05
