"""Forecast memory and time of this project's recipes; see :mod:`common.models.step_memory`."""

from __future__ import annotations

import math
from pathlib import Path

from transformers import LlamaConfig, PretrainedConfig

from common.cli.arguments import parse
from common.models.step_memory import LORA, MINIATURE, RECOMPUTE, Forecast, by_depth, config_of
from common.results.record import count_parameters
from common.runtime import hardware
from sbic_llama.training.arguments import FeatureArguments, TrainArguments
from sbic_llama.training.memory import Step, estimate_memory, fake_model

# From the models' config.json on the Hub.
CONFIGS = {
    "meta-llama/Llama-2-7b-hf": LlamaConfig(max_position_embeddings=4096),
    "TinyLlama/TinyLlama_v1.1": LlamaConfig(
        hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4
    ),
}
# Llama 2 tokens of 719 real posts with tail and answer: mean, and a post's share of the largest shuffled batch of 16.
MEAN_TOKENS, LARGE_TOKENS, INSTRUCTION_TOKENS, ANSWER_TOKENS = 41, 60, 47, 4
POSTS, MINIATURE_POSTS = 35_500, 1_700  # approximate sizes of the train splits
RECIPES = Path(__file__).parents[1] / "recipes"


def forecasts() -> list[Forecast]:
    return [forecast(path) for path in sorted(RECIPES.glob("*.yaml"))]


def forecast(path: Path) -> Forecast:
    kind = FeatureArguments if "feature:" in path.read_text(encoding="utf-8") else TrainArguments
    options: TrainArguments = parse(kind, ["--config", str(path)])
    posts = MINIATURE_POSTS if options.on_miniature else POSTS
    passes = options.per_device_train_batch_size * options.gradient_accumulation_steps
    steps = options.max_steps if options.max_steps > 0 else math.ceil(posts / passes * options.num_train_epochs)
    recipe, corpus = path.relative_to(RECIPES.parents[1]), MINIATURE if options.on_miniature else "SBIC"
    config = config_of(options.model_name_or_path, options.model_revision, CONFIGS)
    if config is None:
        return Forecast(recipe, options.model_name_or_path, None, None, steps, corpus)
    precision = hardware.choose_precision(options.precision, width=config.hidden_size).value
    rows, packed = options.per_device_train_batch_size, options.shares_instruction
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

    memory, weights = by_depth(config, measure)
    tokens = steps * passes * (MEAN_TOKENS + (0 if packed else INSTRUCTION_TOKENS))
    operations = (LORA + RECOMPUTE * options.activation_checkpointing) * weights * tokens
    return Forecast(recipe, options.model_name_or_path, memory, operations, steps, corpus)
