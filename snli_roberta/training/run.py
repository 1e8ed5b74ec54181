"""One training function for both methods: they share data, seed, schedule and evaluation, and differ in the adapter."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import (
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)

from common.cli.console import log
from common.cli.errors import UserError
from common.hub import package
from common.models.loading import base_path, commit_of
from common.results.record import count_parameters
from common.results.scoring import class_counts
from common.runtime import hardware
from common.runtime.run_folder import locked
from common.training import run as training
from common.training.time_estimate import TimeEstimate
from common.training.time_estimate import estimate as estimate_run
from snli_roberta.data.corpus import LABELS, SAMPLING, Pair, Split, pairs_fingerprint, training_sample
from snli_roberta.model import encoder as classifier
from snli_roberta.training.arguments import TrainArguments

PROBE = 64  # validation pairs on which a saved model must answer exactly as the trained one


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to train."""

    trainer: Trainer
    tokenizer: PreTrainedTokenizerBase
    setup: training.RunContext
    pairs: list[Pair]
    dev: Split
    facts: dict[str, Any]  # what its record says before it is trained


def train(arguments: TrainArguments) -> None:
    """Trains, keeps the checkpoint with the best validation accuracy, saves it and proves that it loads; publishes it if asked to.

    Raises:
        UserError: Bad data, an unknown model, or an ``output_dir`` that holds another run.
        Interrupted: A signal stopped the run; the same command continues it.
    """
    if arguments.estimate_only:
        log(str(estimate(arguments)), always=True)
        return
    output_dir = arguments.output_dir
    with locked(output_dir):
        prepared = _prepare(arguments)
        if prepared is not None:
            _run(prepared, arguments)
    title = {"full": "full fine-tuning", "lora": "LoRA"}[arguments.method]
    evaluate = ["snli_roberta.evaluate", "--model", str(output_dir), "--title", title]
    evaluate += ["--output_dir", str(output_dir / "records")]
    package.publish_if_asked(arguments, output_dir, evaluate, arguments.words())


def estimate(arguments: TrainArguments) -> TimeEstimate:
    """How long the run would take here, from a few of its steps; nothing is kept.

    Raises:
        UserError: As of :func:`train`.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = _prepare(replace(arguments, output_dir=Path(folder), estimate_only=True))
        assert prepared is not None
        items = {"train_items": len(prepared.pairs), "validation_items": len(prepared.dev.pairs)}
        return estimate_run(prepared.trainer, arguments, **items)


def _prepare(arguments: TrainArguments) -> Prepared | None:
    """Data, model and trainer of a run; None where it has ended before."""
    setup = training.prepare(arguments, arguments.model_name_or_path)
    if hardware.shards():
        raise UserError("FSDP shards what one GPU can't hold, and an encoder fits", fix="use accelerate_config.yaml")
    train_split, dev = arguments.load("train", "dev")
    for line in (*train_split.report.lines(), *dev.report.lines()):
        log(line)
    pairs = training_sample(train_split.pairs, **{key: getattr(arguments, key) for key in SAMPLING})
    # The base's main branch may move on before a stopped run is continued, so the run is that of the commit.
    revision = commit_of(base_path(arguments.model_name_or_path), arguments.model_revision)
    package.check_publishing(arguments, arguments.model_name_or_path, revision)
    identity = training.identity(arguments, pairs_fingerprint(pairs)) | {"base_commit": revision}
    if not arguments.estimate_only and training.already_finished(arguments.output_dir, identity, setup.precision):
        return None

    model, tokenizer = build_model(arguments, revision)
    parameters = count_parameters(model)
    share = parameters["trainable"] / parameters["total"]
    log(f"{arguments.method}: {parameters['trainable']:,} of {parameters['total']:,} parameters trained ({share:.2%})")
    (train_rows, cut), (dev_rows, _) = (_rows(tokenizer, each, arguments.max_length) for each in (pairs, dev.pairs))
    long = f"{cut:,} cut to {arguments.max_length} tokens"
    log(f"{len(pairs):,} training pairs ({long}), {len(dev.pairs):,} for validation")
    trainer = Trainer(
        model=model,
        args=trainer_arguments(arguments, setup.precision),
        train_dataset=train_rows,
        eval_dataset=dev_rows,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=accuracy,
        callbacks=training.callbacks(arguments),
    )
    facts = {
        "project": "snli_roberta",
        "kind": "full" if arguments.method == "full" else "adapter",
        "base": training.base_facts(arguments.model_name_or_path, revision),
        "settings": identity,
        "data": data_facts(train_split, pairs) | {"fingerprint": identity["data"], "cut_to_max_length": cut},
        "parameters": parameters,
    }
    return Prepared(trainer, tokenizer, setup, pairs, dev, facts)


def _run(prepared: Prepared, arguments: TrainArguments) -> None:
    trainer = prepared.trainer
    course = training.run(trainer, arguments.output_dir)
    plain = training.trained_model(trainer)
    if plain is not None:
        facts = prepared.facts | training.result_facts(trainer, prepared.setup, course)
        save = partial(
            classifier.save,
            plain,
            prepared.tokenizer,
            base=arguments.model_name_or_path,
            probe=prepared.dev.pairs[:PROBE],
        )
        training.save_run(save, facts, arguments.output_dir)
    trainer.accelerator.wait_for_everyone()


def build_model(arguments: TrainArguments, revision: str | None) -> tuple[Any, PreTrainedTokenizerBase]:
    """The base model at a commit with its new head, behind an adapter where the method is LoRA, and its tokenizer."""
    name = base_path(arguments.model_name_or_path)
    tokenizer = classifier.load_tokenizer(name, revision)
    model, new_modules = classifier.load_base(name, revision)
    if arguments.method == "lora":
        model = classifier.add_lora(model, new_modules, arguments, revision)
    return model, tokenizer


def data_facts(loaded: Split, used: Sequence[Pair]) -> dict[str, Any]:
    """What a run's record says of its training pairs."""
    return {
        "loaded": class_counts(loaded.labels, LABELS),
        "used": class_counts([pair.label for pair in used], LABELS),
        "report": loaded.report.as_dict(),
    }


def accuracy(scored: EvalPrediction) -> dict[str, float]:
    """What chooses the best checkpoint."""
    return {"accuracy": float((scored.predictions.argmax(-1) == scored.label_ids).mean())}


def trainer_arguments(arguments: TrainArguments, precision: str) -> TrainingArguments:
    """Trainer's own arguments for a run."""
    return TrainingArguments(
        **training.trainer_settings(
            arguments, precision, metric="accuracy", greater_is_better=True, output_dir=arguments.output_dir
        ),
        train_sampling_strategy="group_by_length",
    )


def _rows(tokenizer: Any, pairs: Sequence[Pair], max_length: int) -> tuple[Dataset, int]:
    encoded, cut = classifier.encode(tokenizer, pairs, max_length)
    return Dataset.from_dict({"input_ids": encoded, "labels": [pair.label for pair in pairs]}), cut
