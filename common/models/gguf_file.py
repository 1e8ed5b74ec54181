"""Write a merged model as a GGUF file, which llama.cpp, Ollama and LM Studio read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import torch
from transformers import PreTrainedModel

from common.cli.errors import UserError
from common.models.gguf_tokenizer import Vocabulary

Storage = Literal["fp32", "fp16", "bf16", "q8_0", "q4_1"]
TYPES = {
    "fp32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "fp16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_1": (gguf.GGMLQuantizationType.Q4_1, gguf.LlamaFileType.MOSTLY_Q4_1),
}
ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}


def architecture_of(config: Any, name: str) -> gguf.MODEL_ARCH:
    """Return llama.cpp's architecture of a base; ``name`` is what the user called it."""
    known = ARCHITECTURES.get(config.model_type)
    windows = getattr(config, "use_sliding_window", False)
    rope = getattr(config, "rope_parameters", None) or {"rope_type": None}
    if (
        known is None
        or windows
        or rope["rope_type"] not in ("default", "linear", "llama3")
        or rope.get("partial_rotary_factor", 1) != 1
    ):
        raise UserError(
            "a base that this command cannot write as GGUF",
            file=name,
            expected=f"one of {', '.join(ARCHITECTURES)}, without sliding windows, YaRN or partial RoPE",
            fix="use --to merged, and convert that folder with llama.cpp's convert_hf_to_gguf.py (docs/export.md)",
        )
    return known


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    words: Vocabulary,
    *,
    storage: Storage,
    title: str,
    chat_template: str,
    end: int,
    bos: int | None,
) -> None:
    """Write a Llama or Qwen model with its tokenizer.

    Args:
        path: File to write.
        model: Dense model on the CPU.
        words: Its tokenizer.
        storage: Type of the matrices; vectors are fp32, as llama.cpp wants them.
        title: Name of the model.
        chat_template: Jinja template that puts a user's message into the prompt.
        end: Token that ends an answer.
        bos: Token that llama.cpp puts in front of each text; None for none.
    """
    config = model.config
    architecture = architecture_of(config, title)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    kind, file_type = TYPES[storage]
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(title)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_shape(writer, config)
    _add_tokenizer(writer, words, chat_template, end, bos)
    tensors = list(_tensors(model, architecture, title, kind))
    for name, values, stored in tensors:
        block, size = gguf.GGML_QUANT_SIZES[stored]
        writer.add_tensor_info(name, values.shape, np.dtype(np.float32), values.numel() // block * size, stored)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, values, stored in tensors:
            writer.write_tensor_data(gguf.quants.quantize(_as_llama_cpp(name, values, config, architecture), stored))
    finally:
        writer.close()


def _tensors(
    model: PreTrainedModel, architecture: gguf.MODEL_ARCH, title: str, kind: gguf.GGMLQuantizationType
) -> Iterator[tuple[str, torch.Tensor, gguf.GGMLQuantizationType]]:
    """Yield each tensor with its name in llama.cpp and the type that it is stored in."""
    names = gguf.get_tensor_name_map(architecture, model.config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        place = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if place is None:
            expected = "a plain Llama or Qwen"
            raise UserError(f"llama.cpp has no place for the tensor {name}", file=title, expected=expected)
        yield place, tensor, kind if _in_blocks(tensor, kind) else gguf.GGMLQuantizationType.F32
    if model.config.rope_parameters["rope_type"] == "llama3":
        name = f"{gguf.TENSOR_NAMES[gguf.MODEL_TENSOR.ROPE_FREQS]}.weight"
        yield name, _rope_factors(model), gguf.GGMLQuantizationType.F32


@torch.no_grad()
def round_as_stored(model: PreTrainedModel, storage: Storage) -> None:
    """Give a model's matrices, in place, the values that a file of this type has."""
    kind, _ = TYPES[storage]
    for tensor in model.parameters():
        if _in_blocks(tensor, kind):
            values = gguf.dequantize(gguf.quants.quantize(tensor.float().numpy(), kind), kind)
            tensor.copy_(torch.from_numpy(values).reshape(tensor.shape))


def _in_blocks(tensor: torch.Tensor, kind: gguf.GGMLQuantizationType) -> bool:
    return tensor.ndim > 1 and tensor.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0


def _add_shape(writer: gguf.GGUFWriter, config: Any) -> None:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if config.rope_parameters["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_parameters["factor"])


def _add_tokenizer(writer: gguf.GGUFWriter, words: Vocabulary, chat_template: str, end: int, bos: int | None) -> None:
    writer.add_tokenizer_model(words.model)
    writer.add_tokenizer_pre(words.words)
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.types)
    if words.scores is not None:
        writer.add_token_scores(words.scores)
    if words.merges is not None:
        writer.add_token_merges(words.merges)
    writer.add_add_space_prefix(words.space_prefix)
    writer.add_eos_token_id(end)
    writer.add_pad_token_id(end)
    if bos is not None:
        writer.add_bos_token_id(bos)
    writer.add_add_bos_token(bos is not None)
    writer.add_add_eos_token(False)
    writer.add_chat_template(chat_template)


def _as_llama_cpp(name: str, tensor: torch.Tensor, config: Any, architecture: gguf.MODEL_ARCH) -> np.ndarray:
    """Return a tensor in fp32 as llama.cpp has it: its Llama rotates neighboring numbers of a head, transformers' the halves."""
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    count = heads.get(name.split(".")[-2])
    if count and architecture == gguf.MODEL_ARCH.LLAMA:
        halves = tensor.reshape(count, 2, tensor.shape[0] // count // 2, *tensor.shape[1:])
        tensor = halves.swapaxes(1, 2).reshape(tensor.shape)
    return tensor.float().numpy()


def _rope_factors(model: PreTrainedModel) -> torch.Tensor:
    """Return by how much Llama 3 slows each of RoPE's frequencies, shape (head size / 2,)."""
    scaled = model.model.rotary_emb.inv_freq.float().cpu()
    places = torch.arange(len(scaled), dtype=torch.float32) / len(scaled)
    return model.config.rope_parameters["rope_theta"] ** -places / scaled
