"""Traps of 4-bit bases, each triggered on a real NF4 model: these tests fail when a fix is removed."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from common.cli.errors import UserError
from common.miniature.pretrain import MODELS
from common.models import quantization
from common.models.quantization import adapters_to_fp32, load_base, load_tokenizer
from common.results.record import count_parameters
from common.training.callbacks import TrainsInFp32

TINY = str(MODELS / "tiny_llama")


def adapted(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    model = load_base(TINY, None, precision="fp32")
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights="gaussian")
    model = get_peft_model(model, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)  # with B at 0, A has no gradient
    return model


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    model.train()
    model.zero_grad()
    ids = torch.arange(300, 340)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def test_validating_in_between_changes_no_gradient():
    from bitsandbytes.nn.modules import has_avx512bf16

    model = adapted()
    assert not any(module.support_avx512bf16_for_cpu for module in linears(model))
    if not has_avx512bf16():
        pytest.skip("this CPU has no kernel to repack for")
    before = gradients(model)
    model.eval()
    with torch.inference_mode():
        model(input_ids=torch.arange(300, 340)[None])
    after = gradients(model)
    assert any(gradient.abs().max() > 0 for gradient in before.values())
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(getattr(m.weight.quant_state, "packing_format_for_cpu", False) for m in linears(model))


def linears(model: torch.nn.Module) -> list[Linear4bit]:
    found = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert found
    return found


def test_the_base_is_nf4_with_double_quantization():
    model = load_base(TINY, None, precision="fp32")
    assert len(linears(model)) == 4 * 7
    for module in linears(model):
        state = module.weight.quant_state
        assert (state.quant_type, state.nested, module.weight.dtype) == ("nf4", True, torch.uint8)
    assert model.config._attn_implementation == "sdpa"
    assert model.get_output_embeddings().weight.dtype == torch.float32
    assert count_parameters(model)["total"] == 985_216, "packed weights are counted unpacked"


def sft_trainer(folder, *callbacks):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = Dataset.from_dict({"input_ids": [[1, 300, 301, 2]] * 4, "labels": [[-100, -100, 301, 2]] * 4})
    arguments = SFTConfig(
        str(folder), bf16=False, use_cpu=True, max_steps=1, report_to="none", dataset_kwargs={"skip_prepare_dataset": True},
        activation_checkpointing=False, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear")
    model = load_base(TINY, None, precision="fp32")
    return SFTTrainer(
        model, arguments, train_dataset=rows, peft_config=config, processing_class=load_tokenizer(TINY), callbacks=list(callbacks)
    )  # fmt: skip


def trained_dtypes(trainer) -> set[torch.dtype]:
    return {p.dtype for p in trainer.model.parameters() if p.requires_grad}


def test_adapters_train_in_fp32(tmp_path):
    trainer = sft_trainer(tmp_path, TrainsInFp32())
    assert trained_dtypes(trainer) == {torch.bfloat16}, "TRL no longer casts: the fix can go"
    with pytest.raises(RuntimeError, match=r"trained tensors are not fp32, the first .*lora_A.*bfloat16"):
        trainer.train()
    adapters_to_fp32(trainer.model)
    trainer.train()
    assert trained_dtypes(trainer) == {torch.float32}


@pytest.mark.parametrize(("there", "device"), [("mps", "cpu"), ("cpu", "cpu")])
def test_on_a_mac_the_cpu_is_used(there, device, monkeypatch):
    from common.runtime import hardware

    monkeypatch.setenv("ACCELERATE_USE_CPU", "")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: there == "mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert hardware.device_type() == there
    hardware.choose_device()
    assert hardware.device_type() == device
    load_base(TINY, None, precision="fp32")


def test_a_base_that_cannot_be_used_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="neither a folder nor a Hub id"):
        load_base(str(tmp_path / "nothing"), None, precision="fp32")
    with pytest.raises(UserError, match="neither a folder nor a Hub id"):
        load_tokenizer(str(tmp_path / "nothing"))


def test_a_base_without_linear_layers_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(quantization, "Linear4bit", type("Other", (torch.nn.Linear,), {}))
    with pytest.raises(UserError, match="no layer that can be quantized"):
        load_base(TINY, None, precision="fp32")


def drop_norm(tensors: dict, config: dict) -> None:
    del tensors["model.norm.weight"]


def other_prefix(tensors: dict, config: dict) -> None:
    for name in list(tensors):
        tensors[f"module.{name}"] = tensors.pop(name)


def layers(change: int):
    def edit(tensors: dict, config: dict) -> None:
        config["num_hidden_layers"] += change

    return edit


def other_width(tensors: dict, config: dict) -> None:
    config["intermediate_size"] += 64


@pytest.mark.parametrize("quantization", ["nf4", "none"])
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (drop_norm, r"1 tensor missing \(first: 'model\.norm\.weight'\)"),
        (other_prefix, r"\d+ tensors missing"),
        (layers(1), r"\d+ tensors missing \(first: 'model\.layers\.\d+\."),
        (layers(-1), r"\d+ tensors beyond its layers \(first: 'model\.layers\.\d+\."),
        (other_width, r".*tensors of another shape"),
    ],
)
def test_weights_of_another_model_are_refused(edit, message, quantization, tmp_path):
    """transformers draws what is missing at random, with a warning."""
    folder = shutil.copytree(TINY, tmp_path / "base")
    tensors, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    edit(tensors, config)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=f"its weights do not match config.json: {message}"):
        load_base(str(folder), None, precision="fp32", quantization=quantization)


def test_a_base_that_was_saved_in_4_bits_is_loaded(tmp_path):
    model = load_base(TINY, None, precision="fp32")
    model.save_pretrained(tmp_path)
    again = load_base(str(tmp_path), None, precision="fp32")
    ids = torch.arange(300, 340)[None]
    assert torch.equal(model(input_ids=ids).logits, again(input_ids=ids).logits)
