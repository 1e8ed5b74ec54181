"""Models of published shapes with random weights: what they answer means nothing, what they cost does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, LlamaConfig, PretrainedConfig, RobertaConfig

from benchmarks.gpu import Measured
from common.cli.console import stage
from common.cli.errors import UserError
from common.models import quantization
from common.runtime import hardware
from common.runtime.project import MINIATURE_MODELS as MODELS
from sbic_llama.data.features import FEATURES
from sbic_llama.model import adapter as adapters
from sbic_llama.model import description as annotator_file
from sbic_llama.training.arguments import TrainArguments
from sbic_llama.training.run import lora_of

SHARD = 2**30  # bytes of a file of weights, about


@dataclass(frozen=True)
class Shapes:
    """Configurations of the models; tests have small ones."""

    llama: PretrainedConfig = field(default_factory=lambda: LlamaConfig(max_position_embeddings=4096))  # Llama 2's 7B
    base: PretrainedConfig = field(default_factory=lambda: roberta(768, 12))
    large: PretrainedConfig = field(default_factory=lambda: roberta(1024, 24))
    matmul: int = 8192  # rows and columns of the matrices that tell how fast the device multiplies


def roberta(width: int, layers: int, **changes: Any) -> RobertaConfig:
    """RoBERTa's shape, with heads of 64."""
    shape = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    shape |= {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": width // 64}
    return RobertaConfig(**{**shape, "intermediate_size": 4 * width, **changes})


def llama_base(arguments: Measured, shapes: Shapes) -> Path:
    """A base of Llama's shape in half precision, in files of about 1 GB as the Hub has them, made one after the other."""
    folder = arguments.models_dir / "llama"
    tokenizer = quantization.load_tokenizer(str(arguments.llama_tokenizer or MODELS / "tiny_llama"))
    if len(tokenizer) > shapes.llama.vocab_size:
        raise UserError(f"a tokenizer of {len(tokenizer):,} tokens", key="--llama_tokenizer", expected="Llama 2's")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    if (folder / "config.json").is_file():
        return folder
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shapes.llama, dtype=torch.float16)
    with stage(f"writing random weights: {folder}"):
        shards = list(_shards(model.state_dict()))
        index: dict[str, str] = {}
        for number, names in enumerate(shards, 1):
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
            save_file({n: _random(n, t) for n, t in names.items()}, folder / file, metadata={"format": "pt"})
            index |= dict.fromkeys(names, file)
        size = sum(tensor.nbytes for names in shards for tensor in names.values())
        text = json.dumps({"metadata": {"total_size": size}, "weight_map": index})
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    model.config.save_pretrained(folder)  # last: the folder is whole
    return folder


def _shards(state: dict[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    shard: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        shard[name] = tensor
        if sum(one.nbytes for one in shard.values()) >= SHARD:
            yield shard
            shard = {}
    if shard:
        yield shard


def _random(name: str, like: torch.Tensor) -> torch.Tensor:
    """Normal with .02, as Llama's initialisation; norms are ones."""
    if like.ndim == 1:
        return torch.ones(like.shape, dtype=like.dtype)
    return (0.02 * torch.randn(like.shape, device=hardware.device_type())).to(like.dtype).cpu()


def roberta_base(arguments: Measured, size: str, shapes: Shapes) -> Path:
    """An encoder of RoBERTa's shape."""
    folder = arguments.models_dir / f"roberta-{size}"
    if not (folder / "tokenizer.json").is_file():
        with stage(f"writing random weights: {folder}"):
            AutoModelForMaskedLM.from_config(getattr(shapes, size)).save_pretrained(folder)
            quantization.load_tokenizer(str(MODELS / "tiny_roberta")).save_pretrained(folder)
    return folder


def random_adapter(folder: Path, options: TrainArguments, feature: str, shapes: Shapes) -> None:
    """An adapter as a training with ``options`` would save it."""
    with torch.device("meta"):
        adapted = get_peft_model(AutoModelForCausalLM.from_config(shapes.llama), lora_of(options, None))
    adapted.peft_config["default"].base_model_name_or_path = options.model_name_or_path
    adapted.peft_config["default"].save_pretrained(str(folder))
    state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    tensors = {name: 0.01 * torch.randn(tensor.shape) for name, tensor in state.items()}
    save_file(tensors, folder / adapters.WEIGHTS_FILE, metadata={"format": "pt"})
    annotator_file.describe(options, FEATURES[feature], None).write(folder)
