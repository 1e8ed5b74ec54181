"""Forecast memory and time of this project's recipes; see :mod:`common.models.step_memory`."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, BertConfig, RobertaConfig

from common.cli.arguments import parse
from common.cli.options import Method
from common.models import step_memory
from common.models.encoder import add_lora, attention, head_facts
from common.models.step_memory import ADAM_BYTES, FULL, LORA, MINIATURE, Forecast, by_depth, config_of, sizes_of
from common.results.record import count_parameters
from common.runtime import hardware
from snli_roberta.data.corpus import LABELS
from snli_roberta.study.runs import LORA_ONLY, StudyArguments
from snli_roberta.training.arguments import SharedSettings, TrainArguments

_ROBERTA: dict[str, Any] = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
# From the models' config.json on the Hub.
CONFIGS = {
    "FacebookAI/roberta-base": RobertaConfig(**_ROBERTA),
    "FacebookAI/roberta-large": RobertaConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, **_ROBERTA
    ),
    "sentence-transformers/all-MiniLM-L6-v2": BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    ),
}
# RoBERTa tokens of 5,016 real pairs: mean, and the longest pair in 95 % of shuffled batches of 32.
MEAN_TOKENS, LONG_TOKENS = 29, 68
PAIRS, MINIATURE_PAIRS = 549_367, 6_000  # labeled pairs of the train splits
RECIPES = Path(__file__).parents[1] / "recipes"
SIZES = RECIPES / "sizes.json"


def forecasts(*words: str) -> list[Forecast]:
    return [forecast(path, words) for path in sorted(RECIPES.glob("*.yaml"))]


def forecast(path: Path, words: tuple[str, ...] = ()) -> Forecast:
    """Forecast one recipe, with these words on the command line: its largest training's memory, all trainings' operations."""
    study = "study" in path.stem
    options: Any = parse(StudyArguments if study else TrainArguments, ["--config", str(path), *words])
    trainings: dict[Method, int] = {options.method: 1} if not study else {}
    if study:  # a trial for each rate, then the best rate's other seeds
        for method in ("full", "lora"):
            trainings[method] = len(options.rates(method)) + len(options.seeds) - 1
    pairs = (MINIATURE_PAIRS if options.on_miniature else PAIRS) * options.train_fraction
    passes = options.per_device_train_batch_size * options.gradient_accumulation_steps
    steps = options.max_steps if options.max_steps > 0 else math.ceil(pairs / passes * options.num_train_epochs)
    recipe, base = path.relative_to(RECIPES.parents[1]), options.model_name_or_path
    corpus = MINIATURE if options.on_miniature else "SNLI"
    config = config_of(base, options.model_revision, CONFIGS)
    if config is None:
        return Forecast(recipe, base, None, None, steps * sum(trainings.values()), corpus)
    precision = hardware.choose_precision(options.precision, width=config.hidden_size).value
    needed, operations = 0, 0.0
    for method, count in trainings.items():

        def measure(config: Any, method: Method = method) -> tuple[int, int]:
            model = _fake_model(config, options, method)
            weights = count_parameters(model)["total"] - model.get_input_embeddings().weight.numel()
            return _memory(model, options.per_device_train_batch_size, precision), weights

        lora = (
            [f"{name}={getattr(options, name)}" for name in sorted(LORA_ONLY - {"lora_alpha"})]
            if method == "lora"
            else []
        )
        bits, size = 8 * hardware.dtype(precision).itemsize, options.per_device_train_batch_size
        key = " ".join((base, options.model_revision or "main", method, f"{bits} bits, batch {size}", *lora))
        # With fewer layers, the gradient of a large embedding would be the peak of full fine-tuning.
        few = 2 if method == "lora" else max(config.num_hidden_layers // 4, 2)
        memory, weights = sizes_of(key, SIZES, functools.partial(by_depth, config, measure, few=few))
        needed = max(needed, memory)
        per_token = (FULL if method == "full" else LORA) * weights
        operations += count * per_token * steps * passes * MEAN_TOKENS
    return Forecast(recipe, base, needed, operations, steps * sum(trainings.values()), corpus)


def _fake_model(config: Any, settings: SharedSettings, method: Method) -> Any:
    """Build the model of a training with fake tensors."""
    for name, value in head_facts(LABELS).items():
        setattr(config, name, value)
    with torch.device("meta"):
        model: Any = AutoModelForSequenceClassification.from_config(
            config, attn_implementation=attention(config, config.model_type), trust_remote_code=False
        )
        if method == "lora":
            model = add_lora(model, ["classifier"], settings)
    step_memory.make_fake(model)
    return model


def _memory(model: Any, pairs: int, precision: hardware.Precision) -> int:
    """Return the bytes of weights, gradients and moments in fp32, and of a forward and backward pass over a batch."""

    def loss() -> torch.Tensor:
        ids = torch.ones(pairs, LONG_TOKENS, dtype=torch.long)
        with torch.autocast("cpu", dtype=hardware.dtype(precision), enabled=precision != "fp32"):
            return model(input_ids=ids, attention_mask=ids, labels=torch.zeros(pairs, dtype=torch.long)).loss

    with step_memory.fake_mode(model):
        trained = count_parameters(model)["trainable"]
    return step_memory.model_bytes(model) + trained * (4 + ADAM_BYTES) + step_memory.peak_bytes(model, loss)
