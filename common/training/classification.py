"""Fine-tune an encoder as a classifier of texts or pairs, as a whole or with LoRA: data, seed and schedule are the same."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from transformers import DataCollatorWithPadding, EvalPrediction, PreTrainedTokenizerBase, Trainer, TrainingArguments

from common.cli.console import log
from common.models import encoder
from common.models.encoding import EncodedItems, Texts, check_length, check_tokens, encode
from common.models.loading import base_path
from common.results.record import count_parameters
from common.runtime import hardware
from common.stats import metrics
from common.training import time_estimate
from common.training.run import (
    RunContext,
    TrainResult,
    already_finished,
    base_facts,
    callbacks,
    prepare,
    result_facts,
    run,
    save_run,
    trained_model,
    trainer_settings,
)

Metric = Literal["accuracy", "balanced_accuracy"]  # that selects the best checkpoint
PROBE = 64  # validation items for which a saved model must give exactly the logits of the trained one


@dataclass(frozen=True)
class Labeled:
    """Items with their labels."""

    texts: Sequence[Texts]
    labels: Sequence[int]


@dataclass(frozen=True)
class TrainingData:
    """What a classifier is trained on, and what its record tells about that."""

    names: tuple[str, ...]  # the classes
    items: str  # what they are, such as pairs
    train: Labeled
    validation: Labeled
    metric: Metric
    revision: str | None  # commit of the base model
    identity: dict[str, Any]  # see common.training.run.identity
    about: dict[str, Any]  # the part of a record's facts that says which model this is
    facts: dict[str, Any] = field(default_factory=dict)  # a record's facts about the data


def train(options: Any, context: RunContext, data: TrainingData) -> None:
    """Train, keep the checkpoint that validates best, and prove that it loads.

    ``options`` are :class:`~common.cli.options.EncoderOptions` and :class:`~common.cli.options.TrainingOptions`, with
    ``model_name_or_path`` and ``method``. The caller has prepared the process for them and locked ``output_dir``.

    Raises:
        UserError: An unknown model, or an ``output_dir`` that holds another run.
        Interrupted: A signal stopped the run; the same command continues it.
    """
    if not already_finished(options.output_dir, data.identity, context, fixed_by="batches grouped by length"):
        trainer, truncated = build_trainer(options, context, data)
        result = run(trainer, options.output_dir)
        save(options, context, data, trainer, truncated, result)


def estimate(options: Any, load: Callable[[Any], TrainingData]) -> time_estimate.TimeEstimate:
    """Estimate how long the run would take here from a few of its steps; nothing is kept."""
    with tempfile.TemporaryDirectory() as folder:
        options = replace(options, output_dir=Path(folder))
        context = prepare(options, options.model_name_or_path)
        data = load(options)
        trainer, _ = build_trainer(options, context, data)
        items = {"train_items": len(data.train.texts), "validation_items": len(data.validation.texts)}
        return time_estimate.estimate(trainer, options, **items)


def build_trainer(options: Any, context: RunContext, data: TrainingData) -> tuple[Trainer, int]:
    """Build Trainer with the model and the tokenized items; also return how many items were truncated."""
    model, tokenizer = build_model(options, data.names, data.revision)
    counts = count_parameters(model)
    share = counts["trainable"] / counts["total"]
    log(f"{options.method}: {counts['trainable']:,} of {counts['total']:,} parameters trained ({share:.2%})")
    rows, truncated = _rows(model, tokenizer, data.train, options.max_length)
    validation, _ = _rows(model, tokenizer, data.validation, options.max_length)
    long = f"{truncated:,} truncated to {options.max_length} tokens"
    log(f"{len(rows):,} training {data.items} ({long}), {len(validation):,} for validation")
    trainer = Trainer(
        model=model,
        args=trainer_arguments(options, context.precision, data.metric),
        train_dataset=rows,
        eval_dataset=validation,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        preprocess_logits_for_metrics=logits_only,
        compute_metrics=partial(validation_scores, metric=data.metric),
        callbacks=callbacks(options),
    )
    return trainer, truncated


def build_model(options: Any, names: Sequence[str], revision: str | None) -> tuple[Any, PreTrainedTokenizerBase]:
    name = base_path(options.model_name_or_path)
    tokenizer = encoder.load_tokenizer(name, revision)
    model, new_modules = encoder.load_base(name, revision, labels=names)
    encoder.fit(model, tokenizer, options.model_name_or_path)
    check_length(model, options.max_length)
    if options.method == "lora":
        model = encoder.add_lora(model, new_modules, options, revision)
    return model, tokenizer


def trainer_arguments(options: Any, precision: hardware.Precision, metric: Metric) -> TrainingArguments:
    settings = trainer_settings(
        options, precision, metric=metric, greater_is_better=True, output_dir=options.output_dir
    )
    return TrainingArguments(**settings, train_sampling_strategy="group_by_length")


def validation_scores(scored: EvalPrediction, *, metric: Metric) -> dict[str, float]:
    """Compute the metric that selects the best checkpoint."""
    logits = scored.predictions
    confusion = metrics.confusion_matrix(scored.label_ids, logits.argmax(-1), logits.shape[-1])
    return {metric: float(metrics.scores(confusion, range(len(confusion)))[metric])}


def logits_only(outputs: Any, _: Any) -> Any:
    """Return the logits of what a model gives at validation; BART's gives hidden states too."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


def save(
    options: Any, context: RunContext, data: TrainingData, trainer: Trainer, truncated: int, result: TrainResult
) -> None:
    """Save the model on the first process, prove that it loads to the same answers, and write ``training.json``."""
    parameters = count_parameters(trainer.model)
    model = trained_model(trainer)
    if model is not None:
        tokenizer: Any = trainer.processing_class
        facts = {
            **data.about,
            "base": base_facts(options.model_name_or_path, data.revision),
            "settings": data.identity,
            "data": data.facts | {"fingerprint": data.identity["data"], "cut_to_max_length": truncated},
            "parameters": parameters,
            **result_facts(trainer, context, result),
        }
        probe = data.validation.texts[:PROBE]
        saved = partial(encoder.save, model, tokenizer, base=options.model_name_or_path, probe=probe)
        save_run(saved, facts, options.output_dir)
    trainer.accelerator.wait_for_everyone()


class TokenizedItems:
    """What Trainer takes: the inputs of each item with its label."""

    def __init__(self, items: EncodedItems, labels: Sequence[int]):
        self.items, self.labels = items, labels

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.items[index], "labels": self.labels[index]}


def _rows(model: Any, tokenizer: Any, data: Labeled, max_length: int) -> tuple[TokenizedItems, int]:
    encoded, cut = encode(tokenizer, data.texts, max_length, progress=True)
    check_tokens(model, encoded)
    return TokenizedItems(encoded, data.labels), cut
