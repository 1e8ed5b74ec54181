"""The operations computed from a shape equal those that PyTorch counts in the linear layers of such a model."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, RobertaConfig, RobertaForSequenceClassification

from benchmarks import flops

PRODUCTS = {"aten.mm", "aten.addmm", "aten.bmm"}


def counted(work) -> int:
    """Count operations of matrix products outside attention's own kernel."""
    with FlopCounterMode(display=False) as counter:
        work()
    return sum(n for name, n in counter.get_flop_counts()["Global"].items() if str(name) in PRODUCTS)


def test_a_llama_forward_and_in_training():
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, attn_implementation="sdpa",
    )  # fmt: skip
    model, ids = LlamaForCausalLM(config), torch.arange(21).view(3, 7)
    rotations = 2 * 3 * 7 * 2  # the rotary embedding's outer product, not a linear layer
    need = flops.llama(config.to_dict(), tokens=21, logits=3 * 2)
    with torch.no_grad():
        forward = counted(lambda: model(ids, logits_to_keep=2))
    assert forward - need in (0, rotations // 3, rotations)
    loss = lambda: model(ids, logits_to_keep=2).logits.sum().backward()  # noqa: E731
    assert abs(counted(loss) - flops.TRAINING * need) <= rotations


def test_an_encoder_forward():
    config = RobertaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_labels=3
    )
    model = RobertaForSequenceClassification(config).eval()
    with torch.no_grad():
        forward = counted(lambda: model(torch.full((3, 7), 5)))
    assert forward == flops.encoder(config.to_dict(), tokens=21, pairs=3)


def test_frozen_weights_get_no_gradient():
    layer = torch.nn.Linear(8, 8, bias=False).requires_grad_(False)
    inputs = torch.randn(5, 8, requires_grad=True)
    assert counted(lambda: layer(inputs).sum().backward()) == flops.LORA_TRAINING * 2 * 64 * 5
