"""One training function for all features: QLoRA with TRL's SFTTrainer on ready token ids and labels."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedTokenizerBase
from trl import SFTConfig

from common.cli.console import log, stage
from common.cli.errors import UserError
from common.hub import package
from common.models import quantization
from common.models.loading import base_path, commit_of
from common.results.record import count_parameters
from common.runtime import hardware
from common.runtime.run_folder import locked
from common.stats.calibration import fit_temperature, tempered
from common.tables.report import fingerprint
from common.training import run as training
from common.training.callbacks import TrainsInFp32
from common.training.time_estimate import estimate as estimate_run
from sbic_llama.data.corpus import Post, Split, labeled
from sbic_llama.data.features import Feature, confidence, get_feature
from sbic_llama.model import adapter
from sbic_llama.model import description as annotator_file
from sbic_llama.model.answering import answer
from sbic_llama.model.description import MAX_POSTS, ReviewCurve, curve
from sbic_llama.model.scoring import context_of
from sbic_llama.training.arguments import TrainArguments
from sbic_llama.training.memory import Memory, base_config, estimate, largest_step, pretended
from sbic_llama.training.trainer import (
    FeatureTrainer,
    SharedInstruction,
    TrainingRows,
    dump_dataset,
    training_rows,
    validation_set,
)

PROBE = 32  # validation posts on which a saved adapter must answer exactly as the trained one


def train(arguments: TrainArguments, feature_name: str) -> None:
    """Trains an adapter, keeps the checkpoint that validates best, saves it and proves that it loads; publishes it if asked to.

    Raises:
        UserError: Bad data, an unknown model, or an ``output_dir`` that holds another run.
        Interrupted: A signal stopped the run; the same command continues it.
    """
    declared = get_feature(feature_name, arguments.label_policy, arguments.wording)
    if arguments.dump_dataset:
        dump_dataset(declared, arguments.load()["train"], arguments.dump_dataset)
        return
    if arguments.estimate_only:
        with tempfile.TemporaryDirectory() as folder:
            _train(replace(arguments, output_dir=Path(folder)), declared, Path(folder))
        return
    output_dir = arguments.output_dir / feature_name
    with locked(output_dir):
        _train(arguments, declared, output_dir)
    evaluate = [
        "sbic_llama.evaluate",
        "--adapter",
        str(output_dir),
        "--output_dir",
        str(arguments.output_dir / "records"),
    ]
    evaluate += ["--view", arguments.view, "--repeats", arguments.repeats]
    package.publish_if_asked(arguments, output_dir, evaluate, arguments.words())


def _train(arguments: TrainArguments, declared: Feature, output_dir: Path) -> None:
    hardware.choose_device()
    setup = training.prepare(arguments, arguments.model_name_or_path)
    if arguments.optim != "adamw_torch" and hardware.device_type() != "cuda":
        raise UserError(f"{arguments.optim} needs an NVIDIA GPU", key="optim", expected="adamw_torch")
    splits = arguments.load()
    posts, dev_posts = (labeled(splits[name], declared.label_of) for name in ("train", "dev"))
    # The base's main branch may move on before a stopped run is continued, so the run is that of the commit.
    revision = commit_of(base_path(arguments.model_name_or_path), arguments.model_revision)
    package.check_publishing(arguments, arguments.model_name_or_path, revision)
    identity = training.identity(
        arguments,
        fingerprint([declared.prompt_hash(), post.text, declared.target(post)] for post in [*posts, *dev_posts]),
    ) | {"base_commit": revision}
    if not arguments.estimate_only and training.already_finished(output_dir, identity, setup.precision):
        return

    tokenizer, trainer, rows = build_trainer(arguments, setup, declared, revision, posts, dev_posts)
    parameters = count_parameters(trainer.model)
    if arguments.estimate_only:
        found = estimate_run(trainer, arguments, train_items=len(posts), validation_items=len(dev_posts))
        log(str(found), always=True)
        return
    course = training.run(trainer, output_dir)
    plain = training.trained_model(trainer, lambda: model_to_train(arguments, setup, revision))
    if plain is not None:
        facts = {
            "project": "sbic_llama",
            "kind": "adapter",
            "base": training.base_facts(arguments.model_name_or_path, revision),
            "feature": declared.name,
            "settings": identity,
            "data": data_facts(splits["train"], posts, declared)
            | {"fingerprint": identity["data"], "cut_to_max_post_tokens": rows.encoded.cut},
            "parameters": parameters,
            **training.result_facts(trainer, setup, course),
        }
        temperature, review = learn_confidence(plain, tokenizer, declared, dev_posts, arguments)
        save = partial(
            adapter.save,
            plain,
            tokenizer,
            annotator_file.describe(arguments, declared, revision, temperature, review),
            feature=declared,
            probe=[post.text for post in dev_posts[:PROBE]],
        )
        training.save_run(save, facts, output_dir)
    trainer.accelerator.wait_for_everyone()


def build_trainer(
    arguments: TrainArguments,
    setup: training.RunContext,
    declared: Feature,
    revision: str | None,
    posts: Sequence[Post],
    dev_posts: Sequence[Post],
) -> tuple[PreTrainedTokenizerBase, FeatureTrainer, TrainingRows]:
    """The base with a new adapter in fp32, and the trainer over the posts in pieces.

    Raises:
        UserError: A base that can't be loaded, or posts beyond what it reads.
    """
    name = base_path(arguments.model_name_or_path)
    tokenizer = quantization.load_tokenizer(name, revision)
    rows = training_rows(tokenizer, declared, posts, max_post_tokens=arguments.max_post_tokens)
    validation = validation_set(tokenizer, declared, dev_posts, max_post_tokens=arguments.max_post_tokens)
    announce(arguments, setup.precision, rows, len(dev_posts), revision)
    base = quantization.load_base(name, revision, precision=setup.precision)
    for encoded, answers in ((rows.encoded, rows.answers), (validation.encoded, validation.answers)):
        encoded.require_context(max(map(len, answers)), context_of(base))
    trainer = FeatureTrainer(
        model=base,
        peft_config=lora_of(arguments, revision),
        args=trainer_arguments(arguments, setup.precision, declared),
        train_dataset=Dataset.from_dict({"input_ids": rows.input_ids, "labels": rows.labels}),
        validation=validation,
        processing_class=tokenizer,
        data_collator=SharedInstruction(rows.encoded.prefix_ids, tokenizer.pad_token_id, share=shares(arguments)),
        callbacks=[*training.callbacks(arguments), TrainsInFp32()],
    )
    quantization.adapters_to_fp32(trainer.model)
    return tokenizer, trainer, rows


def lora_of(arguments: TrainArguments, revision: str | None) -> LoraConfig:
    """The run's adapter."""
    return adapter.lora_config(
        rank=arguments.r, alpha=arguments.lora_alpha, dropout=arguments.lora_dropout, revision=revision
    )


def model_to_train(arguments: TrainArguments, setup: training.RunContext, revision: str | None) -> PeftModel:
    """The base with a new adapter, for weights that lie in shards elsewhere."""
    base = quantization.load_base(base_path(arguments.model_name_or_path), revision, precision=setup.precision)
    adapted = get_peft_model(base, lora_of(arguments, revision), autocast_adapter_dtype=False)
    quantization.adapters_to_fp32(adapted)
    return adapted


def trainer_arguments(arguments: TrainArguments, precision: hardware.Precision, declared: Feature) -> SFTConfig:
    """SFTTrainer's own arguments for a run."""
    metric, greater = ("balanced_accuracy", True) if declared.classifies else ("loss", False)
    output_dir = arguments.output_dir / declared.name
    settings = training.trainer_settings(
        arguments, precision, metric=metric, greater_is_better=greater, output_dir=output_dir
    )
    return SFTConfig(
        **settings,
        optim=arguments.optim,
        activation_checkpointing=arguments.activation_checkpointing,
        dataset_kwargs={"skip_prepare_dataset": True},  # rows come as token ids, already cut
        remove_unused_columns=False,
        packing=False,
        max_length=None,
        include_num_input_tokens_seen="all",
    )


def shares(arguments: TrainArguments) -> bool:
    """Whether posts stand behind one copy of the instruction: with dropout that would not be the same."""
    return arguments.lora_dropout == 0


def announce(
    arguments: TrainArguments, precision: hardware.Precision, rows: TrainingRows, validation: int, revision: str | None
) -> None:
    """Says before the base is loaded what will be trained, on how much, and the memory that it will take."""
    lengths, prefix = [len(ids) for ids in rows.input_ids], len(rows.encoded.prefix_ids)
    size = arguments.per_device_train_batch_size
    log(
        f"{len(lengths):,} training posts ({rows.encoded.cut:,} cut to {arguments.max_post_tokens} tokens), "
        f"{validation:,} for validation"
    )
    apart = sum(lengths) + prefix * len(lengths)
    if shares(arguments):
        read = sum(lengths) + prefix * math.ceil(len(lengths) / size)
        log(f"{read:,} tokens a pass, {size} posts behind one copy of the instruction ({apart:,} with a copy for each)")
    else:
        log(f"{apart:,} tokens a pass: with LoRA dropout every post has its own copy of the instruction")
    found = estimated_memory(arguments, precision, rows, revision)
    if found is None:
        return
    parameters, needed = found
    part = parameters["trainable"] / parameters["total"]
    log(f"{parameters['trainable']:,} of {parameters['total']:,} parameters trained ({part:.2%})")
    log(needed.line())


def estimated_memory(
    arguments: TrainArguments, precision: hardware.Precision, rows: TrainingRows, revision: str | None
) -> tuple[dict[str, int], Memory] | None:
    """Parameters as :func:`count_parameters` gives them, and the memory of the run; None for a base that can't be estimated.

    Raises:
        UserError: No such base, or no access to it.
    """
    name = base_path(arguments.model_name_or_path)
    config = base_config(name, revision)
    step = largest_step(
        [len(ids) for ids in rows.input_ids],
        [len(ids) for ids in rows.answers],
        prefix=len(rows.encoded.prefix_ids),
        size=arguments.per_device_train_batch_size,
        packed=shares(arguments),
        seed=arguments.seed,
    )
    try:
        adapted = pretended(config, lora_of(arguments, revision), precision=precision)
        needed = estimate(
            adapted,
            step,
            precision=precision,
            checkpointing=arguments.activation_checkpointing,
            optim=arguments.optim,
        )
    except UserError:
        raise
    except (
        Exception
    ) as error:  # whatever a base does that fake tensors can't: loading says what is wrong with it, if anything is
        log(f"the memory that it takes can't be estimated ({type(error).__name__})")
        return None
    return count_parameters(adapted), needed


def learn_confidence(
    trained: Any, tokenizer: Any, declared: Feature, posts: Sequence[Post], arguments: TrainArguments
) -> tuple[float, ReviewCurve]:
    """What validation posts say of how sure the model is: the temperature that calibrates it, and how often answers are right
    by how sure they are then, for choosing what a person should look at."""
    chosen = posts[:: math.ceil(len(posts) / MAX_POSTS)]
    with stage(f"learning on {len(chosen):,} validation posts which answers are unsure"):
        found = answer(
            trained,
            tokenizer,
            declared,
            [post.text for post in chosen],
            max_post_tokens=arguments.max_post_tokens,
            batch_size=2 * arguments.per_device_train_batch_size,
        )
    labels = [declared.label_of(post) for post in chosen]
    right = [answer == label for answer, label in zip(found.labels, labels, strict=True)]
    if not declared.classifies:  # how sure a list of groups is, is no probability of being right
        return 1.0, curve([confidence(declared, details) for details in found.details], right)
    probabilities = np.array([list(details.values()) for details in found.details])
    temperature = round(fit_temperature(probabilities, labels), 4)
    log(f"temperature {temperature:.3f}")
    return temperature, curve(tempered(probabilities, temperature).max(1), right)


def data_facts(loaded: Split, used: Sequence[Post], declared: Feature) -> dict[str, Any]:
    """What a run's record says of its training posts."""
    facts: dict[str, Any] = {"loaded": len(loaded.posts), "used": len(used), "report": loaded.report.as_dict()}
    if declared.classifies:
        labels = [declared.label_of(post) for post in used]
        facts["labels"] = {name: labels.count(i) for i, name in enumerate(declared.labels)}
    return facts
