"""One training function for both methods: they share data, seed, schedule and evaluation, and differ in the adapter."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)

from common import hardware
from common.checkpoints import MarkComplete, claim, last_complete
from common.data_report import fingerprint
from common.files import written_aside
from common.interruption import SafeStop
from common.records import count_parameters, git_commit, peak_memory, versions
from common.scored import class_counts
from common.stages import quiet_libraries, say, stage
from snli_roberta import model as classifier
from snli_roberta.arguments import TrainArguments, base_name
from snli_roberta.corpus import LABELS, Pair, Split
from snli_roberta.sampling import SAMPLING, training_sample

TRAINING_FILE = "training.json"
PROBE = 64  # validation pairs on which a saved model must answer exactly as the trained one


def train(arguments: TrainArguments) -> None:
    """Trains, keeps the checkpoint with the best validation accuracy, saves it and proves that it loads.

    Raises:
        UserError: Bad data, an unknown model, or an ``output_dir`` that holds another run.
        Interrupted: A signal stopped the run; the same command continues it.
    """
    quiet_libraries()
    output_dir = arguments.output_dir
    processes = hardware.check_processes()
    precision = hardware.training_precision(arguments.precision)
    if not os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(hardware.cpu_threads())
    say(f"{processes.count} process(es), {hardware.device_type()}, {precision.value} ({precision.reason})")

    set_seed(arguments.seed)
    train_split, dev = arguments.load("train", "dev")
    for line in (*train_split.report.lines(), *dev.report.lines()):
        say(line)
    pairs = training_sample(train_split.pairs, **{key: getattr(arguments, key) for key in SAMPLING})
    identity = {**dataclasses.asdict(arguments), "data": fingerprint([p.premise, p.hypothesis, p.label] for p in pairs)}
    identity.pop("output_dir")
    if int(os.environ.get("RANK", "0")) == 0:
        claim(output_dir, identity, finished=TRAINING_FILE)
    if (output_dir / TRAINING_FILE).is_file():
        say(f"finished already: {output_dir} (remove the folder to train again)")
        return

    model, tokenizer = build_model(arguments)
    parameters = count_parameters(model)
    share = parameters["trainable"] / parameters["total"]
    say(f"{arguments.method}: {parameters['trainable']:,} of {parameters['total']:,} parameters trained ({share:.2%})")
    (train_rows, cut), (dev_rows, _) = (_rows(tokenizer, each, arguments.max_length) for each in (pairs, dev.pairs))
    long = f"{cut:,} cut to {arguments.max_length} tokens"
    say(f"{len(pairs):,} training pairs ({long}), {len(dev.pairs):,} for validation")
    trainer = Trainer(
        model=model,
        args=trainer_arguments(arguments, precision.value),
        train_dataset=train_rows,
        eval_dataset=dev_rows,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=accuracy,
        callbacks=[EarlyStoppingCallback(arguments.early_stopping_patience), MarkComplete()],
    )
    checkpoint = last_complete(output_dir)
    if checkpoint:
        say(f"continuing from {checkpoint.name}")
    start = time.monotonic()
    with SafeStop() as stop:
        trainer.add_callback(stop)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    stop.raise_if_stopped()
    seconds = time.monotonic() - start

    if trainer.is_world_process_zero():
        facts = {
            "method": arguments.method,
            "settings": {key: str(value) if isinstance(value, Path) else value for key, value in identity.items()},
            "data": data_facts(train_split, pairs) | {"fingerprint": identity["data"], "cut_to_max_length": cut},
            "parameters": parameters,
            "seconds": round(seconds, 2),
            "continued": checkpoint is not None,
            "precision": precision.value,
            "processes": processes.count,
            **outcome_facts(trainer),
        }
        # Without the wrapper that computes in half precision: what is saved has none either.
        plain = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
        finish(plain, tokenizer, dev.pairs[:PROBE], facts, output_dir)
    trainer.accelerator.wait_for_everyone()


def build_model(arguments: TrainArguments) -> tuple[Any, PreTrainedTokenizerBase]:
    """The base model with its new head, behind an adapter where the method is LoRA, and its tokenizer."""
    name, revision = base_name(arguments.model_name_or_path), arguments.model_revision
    tokenizer = classifier.load_tokenizer(name, revision)
    model, new_modules = classifier.load_base(name, revision)
    if arguments.method == "lora":
        lora = {"rank": arguments.lora_rank, "alpha": arguments.lora_alpha, "dropout": arguments.lora_dropout}
        model = classifier.add_lora(model, new_modules, revision=revision, **lora)
    return model, tokenizer


def data_facts(loaded: Split, used: Sequence[Pair]) -> dict[str, Any]:
    """What a run's record says of its training pairs."""
    return {
        "loaded": class_counts(loaded.labels, LABELS),
        "used": class_counts([pair.label for pair in used], LABELS),
        "report": loaded.report.as_dict(),
    }


def outcome_facts(trainer: Trainer) -> dict[str, Any]:
    """What a run's record says of how it went, and of what it ran on."""
    return {
        "best": {"validation_accuracy": trainer.state.best_metric, "step": trainer.state.best_global_step},
        "log": trainer.state.log_history,
        "peak_memory_bytes": peak_memory(),
        "hardware": hardware.describe(),
        "versions": versions(),
        "commit": git_commit(),
    }


def accuracy(scored: EvalPrediction) -> dict[str, float]:
    """What chooses the best checkpoint."""
    return {"accuracy": float((scored.predictions.argmax(-1) == scored.label_ids).mean())}


def trainer_arguments(arguments: TrainArguments, precision: str) -> TrainingArguments:
    """Trainer's own arguments for a run."""
    # As a share of all steps: validations and checkpoints coincide, which early stopping and the best checkpoint need.
    interval = 1 / arguments.evaluations if arguments.evaluations > 1 else 0.999999
    return TrainingArguments(
        output_dir=str(arguments.output_dir),
        learning_rate=arguments.learning_rate,
        num_train_epochs=arguments.num_train_epochs,
        max_steps=arguments.max_steps,
        per_device_train_batch_size=arguments.per_device_train_batch_size,
        per_device_eval_batch_size=2 * arguments.per_device_train_batch_size,
        gradient_accumulation_steps=arguments.gradient_accumulation_steps,
        warmup_steps=arguments.warmup_ratio,  # below 1 Trainer takes it for a share
        weight_decay=arguments.weight_decay,
        train_sampling_strategy="group_by_length",
        eval_strategy="steps",
        eval_steps=interval,
        save_strategy="steps",
        save_steps=interval,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        greater_is_better=True,
        restore_callback_states_from_checkpoint=True,  # or a resume forgets the patience that was spent
        logging_steps=arguments.logging_steps,
        disable_tqdm=False,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=hardware.device_type() == "cpu",
        dataloader_pin_memory=hardware.device_type() == "cuda",
        ddp_find_unused_parameters=False,
        seed=arguments.seed,
        data_seed=arguments.seed,
        report_to="none",
    )


def finish(model: Any, tokenizer: Any, probe: Sequence[Pair], facts: dict[str, Any], output_dir: Path) -> None:
    """Saves the model aside, proves that it loads, moves it in place, and last writes the facts: they mark a finished run."""
    part = output_dir / ".model.part"
    shutil.rmtree(part, ignore_errors=True)
    with stage("saving, loading again and comparing"):
        facts["storage_bytes"] = classifier.save(model, tokenizer, part, probe)
    for path in part.iterdir():
        path.replace(output_dir / path.name)
    part.rmdir()
    with written_aside(output_dir / TRAINING_FILE) as file:
        file.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    best = facts["best"]
    say(f"best validation accuracy {best['validation_accuracy']:.4f} at step {best['step']}; saved in {output_dir}")


def _rows(tokenizer: Any, pairs: Sequence[Pair], max_length: int) -> tuple[Dataset, int]:
    encoded, cut = classifier.encode(tokenizer, pairs, max_length)
    return Dataset.from_dict({"input_ids": encoded, "labels": [pair.label for pair in pairs]}), cut
