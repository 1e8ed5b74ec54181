"""Tiny random language models of many architectures, with a tokenizer that joins punctuation and line breaks.

Weights are larger than usual, and biases and norms are not neutral, so a wrong mask, window or logit scale shows in the numbers.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from sbic_llama.data.features import FEATURES

WINDOW = 96  # tokens: shorter than the prompt of a long post
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.15,
}
HEADS = SIZES | {"head_dim": 16}
MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": WINDOW, "query_pre_attn_scalar": 16}
LINEAR = {
    **{"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16},
    "layer_types": ["linear_attention", "full_attention"],
}
GPT = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 1024, "initializer_range": 0.15}
LLAMA_3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA_3 |= {"original_max_position_embeddings": 128}
BASES: dict[str, tuple[str, dict[str, Any]]] = {  # name → configuration class of transformers, its arguments
    "llama": ("LlamaConfig", SIZES | {"rope_parameters": LLAMA_3}),
    "granite": ("GraniteConfig", SIZES | {"logits_scaling": 8.0, "embedding_multiplier": 2.0}),
    "cohere": ("CohereConfig", SIZES | {"logit_scale": 0.0625}),
    "cohere2": ("Cohere2Config", SIZES | MIXED | {"logit_scale": 0.0625}),
    "gemma2": ("Gemma2Config", HEADS | MIXED),
    "gemma3": ("Gemma3TextConfig", HEADS | MIXED),
    "mistral": ("MistralConfig", HEADS | {"sliding_window": WINDOW}),
    "phi3": ("Phi3Config", SIZES | {"sliding_window": WINDOW}),
    "olmo3": ("Olmo3Config", SIZES | MIXED),
    "qwen2": ("Qwen2Config", SIZES),
    "qwen3": ("Qwen3Config", HEADS),
    "smollm3": ("SmolLM3Config", SIZES | {"no_rope_layer_interval": 2}),
    "llama4": ("Llama4TextConfig", HEADS | {
        "attention_chunk_size": WINDOW, "num_local_experts": 2, "intermediate_size_mlp": 128, "num_hidden_layers": 4,
    }),
    "gptoss": ("GptOssConfig", HEADS | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": WINDOW}),
    "qwen3moe": ("Qwen3MoeConfig", HEADS | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}),
    "mixtral": ("MixtralConfig", SIZES | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "gpt2": ("GPT2Config", GPT),
    "gptj": ("GPTJConfig", GPT | {"rotary_dim": 16}),
    "gptneox": ("GPTNeoXConfig", {name: size for name, size in SIZES.items() if name != "num_key_value_heads"}),
    "qwen3.5": ("Qwen3_5TextConfig", HEADS | LINEAR),
    "bloom": ("BloomConfig", {"hidden_size": 64, "n_layer": 2, "n_head": 4, "initializer_range": 0.15}),
}  # fmt: skip
PLAIN = {
    "qwen3.5",
    "bloom",
}  # what a mask cannot separate: linear attention, and positions that are counted from the mask


CHATML = (  # as Qwen's and SmolLM's
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build(folder: Path, name: str, chat: str | None = None) -> str:
    """Write a base to ``folder`` and return its path as a command takes it; ``chat`` is its chat template."""
    tokenizer = build_tokenizer(bos=name.startswith(("gemma", "llama")))
    if chat:
        tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"])
        tokenizer.chat_template = chat
    kind, arguments = BASES[name]
    special = {each: getattr(tokenizer, each) for each in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = getattr(transformers, kind)(vocab_size=len(tokenizer), **special, **arguments)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def build_tokenizer(*, bos: bool) -> PreTrainedTokenizerFast:
    """Build a byte-level tokenizer; ``bos`` is whether it puts BOS in front of a text."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    learner.decoder = decoders.ByteLevel()
    posts = ("A post, with its end.", "\nA post")
    text = [f"{each.prompt(post)}{label}" for each in FEATURES.values() for post in posts for label in each.labels]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(text * 9, trainer)
    if bos:
        learner.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=learner, bos_token="<bos>", eos_token="<eos>", pad_token="<eos>")


def table() -> None:
    """Print the table of docs/bases.md: largest differences from plain passes, in NF4 (dense where there is none)."""
    from common.cli.errors import UserError
    from common.models.quantization import load_base, load_tokenizer
    from sbic_llama.model.exactness import check

    print("| architecture | packed loss | scores | generation |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in BASES:
            path = build(Path(folder) / name, name)
            try:
                model = load_base(path, None, precision="fp32")
            except UserError:
                model = load_base(path, None, precision="fp32", quantization="none")
            known = check(model, load_tokenizer(path), name, precision="fp32").differences
            cells = [
                "plain" if (each := known[way]) is None else f"{each:.0e}" for way in ("packed", "scores", "generation")
            ]
            print(f"| {BASES[name][0].removesuffix('Config').removesuffix('Text')} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    table()
