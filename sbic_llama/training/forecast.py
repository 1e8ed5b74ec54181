"""Forecast memory and time of this project's recipes; see :mod:`common.models.step_memory`."""

from __future__ import annotations

import math
from pathlib import Path

from transformers import Gemma3Config, LlamaConfig, MistralConfig, PretrainedConfig, Qwen3Config, SmolLM3Config

from common.cli.arguments import parse
from common.models.loading import width_in
from common.models.step_memory import LORA, MINIATURE, RECOMPUTE, Forecast, by_depth, config_of, sizes_of
from common.results.record import count_parameters
from common.runtime import hardware
from sbic_llama.training.arguments import FeatureArguments, TrainArguments
from sbic_llama.training.memory import Step, estimate_memory, fake_model

# From the models' config.json on the Hub; what changes no size is left out, such as scaled positions.
_LLAMA_3 = {"vocab_size": 128_256, "num_key_value_heads": 8}
_QWEN_3 = {"vocab_size": 151_936, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8}
_7B = {"hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32}
GPU_CONFIGS = {  # of the bases that gpu.yaml is for
    "meta-llama/Llama-3.2-1B-Instruct": LlamaConfig(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
        tie_word_embeddings=True, **_LLAMA_3,
    ),
    "HuggingFaceTB/SmolLM3-3B": SmolLM3Config(
        vocab_size=128_256, hidden_size=2048, intermediate_size=11_008, num_hidden_layers=36, num_attention_heads=16,
        num_key_value_heads=4, tie_word_embeddings=True,
    ),
    "meta-llama/Llama-3.2-3B-Instruct": LlamaConfig(
        hidden_size=3072, intermediate_size=8192, num_hidden_layers=28, num_attention_heads=24,
        tie_word_embeddings=True, **_LLAMA_3,
    ),
    "Qwen/Qwen3-4B-Instruct-2507": Qwen3Config(
        hidden_size=2560, intermediate_size=9728, head_dim=128, tie_word_embeddings=True, **_QWEN_3
    ),
    "google/gemma-3-4b-it": Gemma3Config(
        text_config={
            "vocab_size": 262_208, "hidden_size": 2560, "intermediate_size": 10_240, "num_hidden_layers": 34,
            "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 1024,
        },
        vision_config={
            "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
            "image_size": 896, "patch_size": 14, "vision_use_head": False,
        },
    ),
    "mistralai/Mistral-7B-Instruct-v0.3": MistralConfig(
        vocab_size=32_768, num_key_value_heads=8, sliding_window=None, **_7B
    ),
    "meta-llama/Llama-3.1-8B-Instruct": LlamaConfig(**_7B, **_LLAMA_3),
    "Qwen/Qwen3-8B": Qwen3Config(hidden_size=4096, intermediate_size=12_288, head_dim=128, **_QWEN_3),
}  # fmt: skip
CONFIGS = GPU_CONFIGS | {
    "meta-llama/Llama-2-7b-hf": LlamaConfig(max_position_embeddings=4096),
    "TinyLlama/TinyLlama_v1.1": LlamaConfig(
        hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4
    ),
    "HuggingFaceTB/SmolLM2-135M-Instruct": LlamaConfig(
        vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True,
    ),
}  # fmt: skip
# Llama 2 tokens of 719 real posts with tail and answer: mean, and a post's share of the largest shuffled batch of 16.
MEAN_TOKENS, LARGE_TOKENS, INSTRUCTION_TOKENS, ANSWER_TOKENS = 41, 60, 47, 4
POSTS, MINIATURE_POSTS = 35_500, 1_700  # approximate sizes of the train splits
RECIPES = Path(__file__).parents[1] / "recipes"
SIZES = RECIPES / "sizes.json"


def forecasts(*words: str) -> list[Forecast]:
    """Forecast every recipe with these words on the command line, gpu.yaml with each of its bases."""
    bases = {"gpu": [("--model_name_or_path", base, "--output_dir", output_of(base)) for base in GPU_CONFIGS]}
    paths = sorted(RECIPES.glob("*.yaml"))
    return [forecast(path, (*base, *words)) for path in paths for base in bases.get(path.stem, [()])]


def output_of(base: str) -> str:
    """Return the folder that docs/train.md names for the adapters of a base."""
    return f"output/{base.rpartition('/')[2]}"


def forecast(path: Path, words: tuple[str, ...] = ()) -> Forecast:
    """Forecast a recipe, with these words after it on the command line."""
    kind = FeatureArguments if "feature:" in path.read_text(encoding="utf-8") else TrainArguments
    options: TrainArguments = parse(kind, ["--config", str(path), *words])
    posts = MINIATURE_POSTS if options.on_miniature else POSTS
    passes = options.per_device_train_batch_size * options.gradient_accumulation_steps
    steps = options.max_steps if options.max_steps > 0 else math.ceil(posts / passes * options.num_train_epochs)
    recipe, corpus = path.relative_to(RECIPES.parents[1]), MINIATURE if options.on_miniature else "SBIC"
    config = config_of(options.model_name_or_path, options.model_revision, CONFIGS)
    if config is None:
        return Forecast(recipe, options.model_name_or_path, None, None, steps, corpus, words)
    precision = hardware.choose_precision(options.precision, width=width_in(config)).value
    rows, packed = options.per_device_train_batch_size, options.shares_instruction
    # As on a GPU. On a CPU attention is computed post by post, which takes up to a fifth more.
    step = (
        Step(1, INSTRUCTION_TOKENS + rows * LARGE_TOKENS, rows * ANSWER_TOKENS, packed=True)
        if packed
        else Step(rows, INSTRUCTION_TOKENS + options.max_post_tokens, rows * ANSWER_TOKENS, packed=False)
    )

    def measure(config: PretrainedConfig) -> tuple[int, int]:
        model = fake_model(config, options, precision=precision)
        again, optim = options.activation_checkpointing, options.optim
        memory = estimate_memory(model, step, precision=precision, checkpointing=again, optim=optim)
        return memory.total, count_parameters(model)["total"] - model.get_input_embeddings().weight.numel()

    passed = f"{step.rows} × {step.tokens} tokens, {step.answers} of answers"
    bits, lora = 8 * hardware.dtype(precision).itemsize, f"r={options.r} dropout={options.lora_dropout}"
    settings = (*options.target_modules, f"checkpointing={options.activation_checkpointing}", options.optim)
    key = (options.model_name_or_path, options.model_revision or "main", f"{bits} bits", passed, lora, *settings)
    memory, weights = sizes_of(" ".join(key), SIZES, lambda: by_depth(config, measure))
    tokens = steps * passes * (MEAN_TOKENS + (0 if packed else INSTRUCTION_TOKENS))
    operations = (LORA + RECOMPUTE * options.activation_checkpointing) * weights * tokens
    return Forecast(recipe, options.model_name_or_path, memory, operations, steps, corpus, words)
