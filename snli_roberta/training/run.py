"""One training function for both methods: they share data, seed, schedule and evaluation, and differ in the adapter."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import DataCollatorWithPadding, EvalPrediction, PreTrainedTokenizerBase, Trainer, TrainingArguments

from common.cli.console import log
from common.cli.errors import UserError
from common.hub.upload import check_publishing, publish_if_asked
from common.models.loading import base_path, commit_of
from common.results.record import count_parameters
from common.results.scoring import class_counts
from common.runtime import hardware
from common.runtime.run_folder import locked
from common.training import time_estimate
from common.training.run import (
    RunContext,
    TrainResult,
    already_finished,
    base_facts,
    callbacks,
    identity,
    prepare,
    result_facts,
    run,
    save_run,
    trained_model,
    trainer_settings,
    with_lasting_base,
)
from snli_roberta.data.corpus import LABELS, SAMPLING, Pair, Split, pairs_fingerprint, training_sample
from snli_roberta.model import encoder
from snli_roberta.model.encoding import check_length, check_tokens, encode
from snli_roberta.training.arguments import TITLES, TrainArguments

PROBE = 64  # validation pairs for which a saved model must give exactly the logits of the trained one


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on."""

    loaded: Split  # all labeled pairs of the train split
    pairs: list[Pair]  # the sample that is trained on
    dev: Split
    revision: str | None  # commit of the base model
    identity: dict[str, Any]  # see common.training.run.identity


def train(arguments: TrainArguments) -> None:
    """Train, keep the checkpoint with the best validation accuracy, prove that it loads, and publish it if requested.

    Raises:
        UserError: Bad data, an unknown model, or an ``output_dir`` that holds another run.
        Interrupted: A signal stopped the run; the same command continues it.
    """
    output_dir = arguments.output_dir
    arguments = with_lasting_base(arguments, output_dir)
    with locked(output_dir):
        context = prepare(arguments, arguments.model_name_or_path)
        data = load_data(arguments)
        if not already_finished(output_dir, data.identity, context, fixed_by="batches grouped by length"):
            trainer, truncated = build_trainer(arguments, context, data)
            result = run(trainer, output_dir)
            save(arguments, context, data, trainer, truncated, result)
    evaluate = ["snli_roberta.evaluate", "--model", str(output_dir), "--title", TITLES[arguments.method]]
    evaluate += ["--output_dir", str(output_dir / "records")]
    publish_if_asked(arguments, output_dir, evaluate, arguments.words())


def estimate(arguments: TrainArguments) -> time_estimate.TimeEstimate:
    """Estimate how long the run would take here from a few of its steps; nothing is kept."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = replace(arguments, output_dir=Path(folder))
        context = prepare(arguments, arguments.model_name_or_path)
        data = load_data(arguments)
        trainer, _ = build_trainer(arguments, context, data)
        items = {"train_items": len(data.pairs), "validation_items": len(data.dev.pairs)}
        return time_estimate.estimate(trainer, arguments, **items)


def load_data(arguments: TrainArguments) -> TrainingData:
    """Load train and validation pairs, and check everything that can be refused before training."""
    if hardware.shards():
        raise UserError("FSDP is for models too large for one GPU; an encoder fits", fix="use accelerate_config.yaml")
    loaded, dev = arguments.load("train", "dev")
    for line in (*loaded.report.lines(), *dev.report.lines()):
        log(line)
    pairs = training_sample(loaded.pairs, **{key: getattr(arguments, key) for key in SAMPLING})
    # The base's main branch may move before a stopped run continues, so the commit is part of the run's identity.
    revision = commit_of(base_path(arguments.model_name_or_path), arguments.model_revision)
    check_publishing(arguments, what_it_is(arguments, revision))
    return TrainingData(
        loaded, pairs, dev, revision, identity(arguments, pairs_fingerprint(pairs)) | {"base_commit": revision}
    )


def what_it_is(arguments: TrainArguments, revision: str | None) -> dict[str, Any]:
    """Return the part of a record's facts that says which model this is."""
    kind = "full" if arguments.method == "full" else "adapter"
    return {"project": "snli_roberta", "kind": kind, "base": {"name": arguments.model_name_or_path, "commit": revision}}


def build_trainer(arguments: TrainArguments, context: RunContext, data: TrainingData) -> tuple[Trainer, int]:
    """Build Trainer with the model and the tokenized pairs; also return how many pairs were truncated."""
    model, tokenizer = build_model(arguments, data.revision)
    counts = count_parameters(model)
    share = counts["trainable"] / counts["total"]
    log(f"{arguments.method}: {counts['trainable']:,} of {counts['total']:,} parameters trained ({share:.2%})")
    rows, truncated = _rows(model, tokenizer, data.pairs, arguments.max_length)
    dev_rows, _ = _rows(model, tokenizer, data.dev.pairs, arguments.max_length)
    long = f"{truncated:,} truncated to {arguments.max_length} tokens"
    log(f"{len(data.pairs):,} training pairs ({long}), {len(data.dev.pairs):,} for validation")
    trainer = Trainer(
        model=model,
        args=trainer_arguments(arguments, context.precision),
        train_dataset=rows,
        eval_dataset=dev_rows,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        preprocess_logits_for_metrics=logits_only,
        compute_metrics=accuracy,
        callbacks=callbacks(arguments),
    )
    return trainer, truncated


def build_model(arguments: TrainArguments, revision: str | None) -> tuple[Any, PreTrainedTokenizerBase]:
    name = base_path(arguments.model_name_or_path)
    tokenizer = encoder.load_tokenizer(name, revision)
    model, new_modules = encoder.load_base(name, revision)
    encoder.fit(model, tokenizer, arguments.model_name_or_path)
    check_length(model, arguments.max_length)
    if arguments.method == "lora":
        model = encoder.add_lora(model, new_modules, arguments, revision)
    return model, tokenizer


def trainer_arguments(arguments: TrainArguments, precision: hardware.Precision) -> TrainingArguments:
    settings = trainer_settings(
        arguments, precision, metric="accuracy", greater_is_better=True, output_dir=arguments.output_dir
    )
    return TrainingArguments(**settings, train_sampling_strategy="group_by_length")


def accuracy(scored: EvalPrediction) -> dict[str, float]:
    """Compute the metric that selects the best checkpoint."""
    return {"accuracy": float((scored.predictions.argmax(-1) == scored.label_ids).mean())}


def logits_only(outputs: Any, _: Any) -> Any:
    """Return the logits of what a model gives at validation; BART's gives hidden states too."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


def save(
    arguments: TrainArguments,
    context: RunContext,
    data: TrainingData,
    trainer: Trainer,
    truncated: int,
    result: TrainResult,
) -> None:
    """Save the model on the first process, prove that it loads to the same answers, and write ``training.json``."""
    parameters = count_parameters(trainer.model)
    model = trained_model(trainer)
    if model is not None:
        tokenizer: Any = trainer.processing_class
        facts = {
            **what_it_is(arguments, data.revision),
            "base": base_facts(arguments.model_name_or_path, data.revision),
            "settings": data.identity,
            "data": {
                "loaded": class_counts(data.loaded.labels, LABELS),
                "used": class_counts([pair.label for pair in data.pairs], LABELS),
                "report": data.loaded.report.as_dict(),
                "fingerprint": data.identity["data"],
                "cut_to_max_length": truncated,
            },
            "parameters": parameters,
            **result_facts(trainer, context, result),
        }
        probe = data.dev.pairs[:PROBE]
        saved = partial(encoder.save, model, tokenizer, base=arguments.model_name_or_path, probe=probe)
        save_run(saved, facts, arguments.output_dir)
    trainer.accelerator.wait_for_everyone()


def _rows(model: Any, tokenizer: Any, pairs: Sequence[Pair], max_length: int) -> tuple[Dataset, int]:
    encoded, cut = encode(tokenizer, pairs, max_length)
    check_tokens(model, encoded)
    columns = {name: [row[name] for row in encoded] for name in encoded[0]}
    return Dataset.from_dict({**columns, "labels": [pair.label for pair in pairs]}), cut
