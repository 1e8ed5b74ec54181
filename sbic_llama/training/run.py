"""Train the adapter of any feature: QLoRA with TRL's SFTTrainer on tokenized posts."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftModel, get_peft_model
from trl import SFTConfig

from common.cli.console import log
from common.cli.errors import UserError
from common.hub.upload import check_publishing, publish_if_asked
from common.models.loading import base_identity, base_path, commit_of
from common.models.prompt import template_for
from common.models.quantization import adapters_to_fp32, load_tokenizer
from common.runtime import hardware
from common.runtime.files import atomic_write
from common.runtime.run_folder import locked
from common.tables.report import fingerprint
from common.training import time_estimate
from common.training.callbacks import TrainsInFp32
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
from sbic_llama.data import trained_texts
from sbic_llama.data.corpus import Post, Split, SplitName, labeled
from sbic_llama.data.features import Feature, training_fingerprint
from sbic_llama.model import adapter, description
from sbic_llama.model.exactness import load_base
from sbic_llama.model.packing import SharedInstruction
from sbic_llama.model.scoring import context_of
from sbic_llama.training.arguments import TrainArguments
from sbic_llama.training.calibration import calibrate
from sbic_llama.training.memory import estimate_run
from sbic_llama.training.trainer import (
    FeatureTrainer,
    TrainingRows,
    label_shares,
    learned_answers,
    training_rows,
    weighted_rows,
)

PLAIN_BASE = "the study's template: the base has no chat template"
PROBE = 32  # validation posts for which a saved adapter must give exactly the scores of the trained one


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on."""

    feature: Feature
    loaded: Split  # the whole train split
    posts: list[Post]  # its labeled posts
    dev_posts: list[Post]
    revision: str | None  # commit of the base model
    identity: dict[str, Any]  # see common.training.run.identity


def train(arguments: TrainArguments, feature_name: str, splits: dict[SplitName, Split] | None = None) -> None:
    """Train an adapter, keep the checkpoint that validates best, prove that it reloads, and publish it if requested.

    ``splits`` are train and dev, if they were read before.

    Raises:
        UserError: Bad data, an unknown model, or an ``output_dir`` that holds another run.
        Interrupted: A signal stopped the run; the same command continues it.
    """
    feature = arguments.declared(feature_name)
    output_dir = arguments.output_dir / feature.name
    arguments = with_lasting_base(arguments, output_dir)
    with locked(output_dir):
        context = prepare_device(arguments)
        data = load_data(arguments, feature, splits)
        fixed_by = "LoRA dropout" if arguments.lora_dropout else None
        if not already_finished(output_dir, data.identity, context, fixed_by=fixed_by):
            trainer = build_trainer(arguments, context, data)
            result = run(trainer, output_dir)
            save(arguments, context, data, trainer, result)
    evaluate = ["sbic_llama.evaluate", "--adapter", str(output_dir)]
    evaluate += ["--output_dir", str(arguments.output_dir / "records")]
    evaluate += ["--view", arguments.view, "--repeats", arguments.repeats]
    evaluate += ["--more_labels", *map(str, arguments.more_labels)] if arguments.more_labels else []
    publish_if_asked(arguments, output_dir, evaluate, arguments.words())


def estimate(
    arguments: TrainArguments, feature_name: str, splits: dict[SplitName, Split] | None = None
) -> time_estimate.TimeEstimate:
    """Estimate how long the run would take here from a few of its steps; nothing is kept."""
    feature = arguments.declared(feature_name)
    with tempfile.TemporaryDirectory() as folder:
        arguments = replace(arguments, output_dir=Path(folder))
        context = prepare_device(arguments)
        data = load_data(arguments, feature, splits)
        trainer = build_trainer(arguments, context, data)
        items = {"train_items": len(trainer.rows.answers), "validation_items": len(data.dev_posts)}
        return time_estimate.estimate(trainer, arguments, **items)


def dump_dataset(arguments: TrainArguments, feature_name: str) -> None:
    """Write the feature's training posts to ``arguments.dump_dataset`` as JSON Lines: prompt, completion and label."""
    feature = arguments.declared(feature_name)
    feature = with_template(arguments, feature, arguments.model_revision)
    posts = labeled(arguments.load(feature.codebook)["train"], feature.label_of)
    path = Path(str(arguments.dump_dataset))
    with atomic_write(path) as part, part.open("w", encoding="utf-8") as file:
        for post in posts:
            label = feature.label_of(post)
            for text in feature.learned(label):
                row = {
                    "prompt": feature.prompt(post.text),
                    "completion": f"{text}{feature.template.end}",
                    "label": feature.labels[label] if isinstance(label, int) else list(label),
                }
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    log(f"{len(posts):,} training posts of {feature.name}: {path}")


def prepare_device(arguments: TrainArguments) -> RunContext:
    """Choose device, precision and seed, and check that the optimizer runs on the device."""
    hardware.choose_device()
    context = prepare(arguments, arguments.model_name_or_path)
    if arguments.optim != "adamw_torch" and hardware.device_type() != "cuda":
        raise UserError(f"{arguments.optim} requires an NVIDIA GPU", key="optim", expected="adamw_torch")
    return context


def load_data(
    arguments: TrainArguments, feature: Feature, splits: dict[SplitName, Split] | None = None
) -> TrainingData:
    """Load training and validation posts, which identify the run together with its arguments."""
    if arguments.class_weights == "balanced" and not feature.branches:
        raise UserError(f"the answers of {feature.name} are lists", key="class_weights", expected="none")
    splits = splits or arguments.load(feature.codebook)
    posts, dev_posts = (labeled(splits[name], feature.label_of) for name in ("train", "dev"))
    # The base's main branch may move before a stopped run continues, so the commit is part of the run's identity.
    revision = commit_of(base_path(arguments.model_name_or_path), arguments.model_revision)
    feature = with_template(arguments, feature, revision)
    check_publishing(arguments, what_it_is(arguments, feature, revision))
    trained_on = training_fingerprint(feature, posts, dev_posts)
    # The template is what identifies the run, not how it was asked for; earlier versions had the study's only. And what the
    # fingerprint covers, whichever files it came from.
    run_identity = identity(replace(arguments, prompt="auto", more_labels=()), trained_on)
    run_identity |= {"base_commit": revision or base_identity(arguments.model_name_or_path, None)}
    run_identity = {"prompt": None if feature.template.name == "study" else feature.template.name} | run_identity
    if feature.codebook:  # what it says, wherever the file lies; first, because its labels are part of the data, too
        codebook = {"codebook": fingerprint([dataclasses.asdict(feature.codebook)])}
        run_identity = codebook | run_identity | codebook
    if arguments.dataset:
        run_identity = {"dataset": arguments.dataset} | run_identity
    return TrainingData(feature, splits["train"], posts, dev_posts, revision, run_identity)


def with_template(arguments: TrainArguments, feature: Feature, revision: str | None) -> Feature:
    """Return the feature in the template that its base is prompted through."""
    if arguments.prompt == "study":
        return feature
    name = base_path(arguments.model_name_or_path)
    template = template_for(load_tokenizer(name, revision), arguments.prompt, arguments.model_name_or_path)
    log(f"prompts follow {'the chat template of the base' if template.name == 'chat' else PLAIN_BASE}")
    return replace(feature, template=template)


def what_it_is(arguments: TrainArguments, feature: Feature, revision: str | None) -> dict[str, Any]:
    """Return the part of a record's facts that says which model this is."""
    base = {"name": arguments.model_name_or_path, "commit": revision}
    return {"project": "sbic_llama", "kind": "adapter", "base": base, "feature": feature.name}


def build_trainer(arguments: TrainArguments, context: RunContext, data: TrainingData) -> FeatureTrainer:
    """Build the trainer: the 4-bit base with a new adapter in fp32, and tokenized posts."""
    name, feature = base_path(arguments.model_name_or_path), data.feature
    tokenizer = load_tokenizer(name, data.revision)
    learned = learned_answers(feature, data.posts, balanced=arguments.class_weights == "balanced")
    if feature.choices:
        log(f"{len(data.posts):,} posts × {len(feature.choices)} labels, each learned as yes or no")
    elif len(learned) > len(data.posts):
        log(
            f"{len(data.posts):,} posts with {len(learned):,} different answers, each learned by its share of annotators"
        )
    rows = weighted_rows(tokenizer, feature, learned, max_post_tokens=arguments.max_post_tokens)
    validation = training_rows(tokenizer, feature, data.dev_posts, max_post_tokens=arguments.max_post_tokens)
    announce(arguments, feature, context.precision, rows, len(data.dev_posts), data.revision)
    base = load_base(name, data.revision, tokenizer, precision=context.precision)
    for each in (rows, validation):
        each.encoded.require_context(max(map(len, each.answers)), context_of(base))
    share = shares_instruction(arguments, base)
    try:
        trainer = FeatureTrainer(
            model=base,
            peft_config=adapter.lora_config(arguments, base, data.revision),
            args=trainer_arguments(arguments, context.precision, feature),
            feature=feature,
            rows=rows,
            validation=validation,
            validation_labels=[feature.label_of(post) for post in data.dev_posts] if feature.classifies else [],
            processing_class=tokenizer,
            data_collator=SharedInstruction(rows.encoded.prefix_ids, tokenizer.pad_token_id, share=share),
            callbacks=[*callbacks(arguments), TrainsInFp32()],
        )
    except ValueError as error:
        if "lora_dropout" not in str(error):
            raise
        raise UserError(
            "PEFT adapts this base's experts without dropout only", key="lora_dropout", expected="0"
        ) from error
    adapters_to_fp32(trainer.model)
    return trainer


def shares_instruction(arguments: TrainArguments, base: Any) -> bool:
    """Return whether the posts of a batch share one copy of the instruction; neither dropout nor some bases allow it."""
    if arguments.shares_instruction and base.exactness.packed:
        return True
    if not base.exactness.padded and arguments.per_device_train_batch_size > 1:
        problem = f"padding changes the losses of {base.exactness.base}"
        raise UserError(problem, key="per_device_train_batch_size", expected="1")
    if arguments.shares_instruction:
        log("with this base every post has its own copy of the instruction: sharing one would change the losses")
    return False


def trainer_arguments(arguments: TrainArguments, precision: hardware.Precision, feature: Feature) -> SFTConfig:
    """Return SFTTrainer's own arguments."""
    metric, greater = ("balanced_accuracy", True) if feature.classifies else ("loss", False)
    output_dir = arguments.output_dir / feature.name
    settings = trainer_settings(arguments, precision, metric=metric, greater_is_better=greater, output_dir=output_dir)
    return SFTConfig(
        **settings,
        optim=arguments.optim,
        activation_checkpointing=arguments.activation_checkpointing,
        dataset_kwargs={"skip_prepare_dataset": True},  # rows are token ids, already truncated
        remove_unused_columns=False,
        packing=False,
        max_length=None,
        include_num_input_tokens_seen="all",
        router_aux_loss_coef=0.0,  # routers of experts are frozen, and their loss does not take the 4-D mask
    )


def announce(
    arguments: TrainArguments,
    feature: Feature,
    precision: hardware.Precision,
    rows: TrainingRows,
    validation: int,
    revision: str | None,
) -> None:
    """Print, before the base is loaded, what will be trained on how much, and the memory that it takes."""
    lengths, prefix = [len(ids) for ids in rows.input_ids], len(rows.encoded.prefix_ids)
    size = arguments.per_device_train_batch_size
    truncated = f"{rows.encoded.cut:,} truncated to {arguments.max_post_tokens} tokens"
    learned = "answers to learn" if len(set(map(tuple, rows.encoded.prompts))) < len(lengths) else "training posts"
    log(f"{len(lengths):,} {learned} ({truncated}), {validation:,} for validation")
    if feature.classifies:
        log(f"validated by balanced accuracy, which is {1 / len(feature.labels):.2f} for a constant answer")
    separate = sum(lengths)
    if arguments.shares_instruction:
        sharing = sum(map(rows.encoded.shares, range(len(lengths))))
        shared = separate - prefix * sharing + prefix * math.ceil(len(lengths) / size)
        log(
            f"{shared:,} tokens per epoch: {size} posts share a copy of the instruction ({separate:,} with a copy each)"
        )
    else:
        log(f"{separate:,} tokens per epoch: with LoRA dropout every post has its own copy of the instruction")
    estimated = estimate_run(arguments, precision, rows, revision)
    if estimated is not None:
        parameters, memory = estimated
        trainable, total = parameters["trainable"], parameters["total"]
        log(f"{trainable:,} of {total:,} parameters trained ({trainable / total:.2%})")
        log(memory.line())


def save(
    arguments: TrainArguments, context: RunContext, data: TrainingData, trainer: FeatureTrainer, result: TrainResult
) -> None:
    """Save the adapter, its description and the run's record, on the first process."""
    model = trained_model(trainer, lambda: untrained_model(arguments, context, data.revision))
    if model is not None:
        facts = {
            **what_it_is(arguments, data.feature, data.revision),
            "base": base_facts(arguments.model_name_or_path, data.revision),
            "settings": data.identity,
            "data": data_facts(data) | {"cut_to_max_post_tokens": trainer.rows.encoded.cut},
            "parameters": trainer.parameter_counts,
            **result_facts(trainer, context, result),
        }
        tokenizer, probe = trainer.processing_class, [post.text for post in data.dev_posts[:PROBE]]
        temperature, thresholds, review = calibrate(
            model, tokenizer, data.feature, data.dev_posts, arguments, trainer.best_scores()
        )
        learned = learned_answers(data.feature, data.posts, balanced=arguments.class_weights == "balanced")
        shares = label_shares(data.feature, learned)
        described = description.describe(
            arguments, data.feature, data.revision, temperature, review, shares, thresholds or None
        )
        trained_texts.write(
            arguments.output_dir / data.feature.name, (post.text for post in (*data.posts, *data.dev_posts))
        )
        write = partial(adapter.save, model, tokenizer, described, feature=data.feature, probe=probe)
        save_run(write, facts, arguments.output_dir / data.feature.name)
    trainer.accelerator.wait_for_everyone()


def untrained_model(arguments: TrainArguments, context: RunContext, revision: str | None) -> PeftModel:
    """Build the base with a new adapter, to receive trained weights that are sharded."""
    name = base_path(arguments.model_name_or_path)
    base = load_base(name, revision, load_tokenizer(name, revision), precision=context.precision)
    model = get_peft_model(base, adapter.lora_config(arguments, base, revision), autocast_adapter_dtype=False)
    adapters_to_fp32(model)
    return model


def data_facts(data: TrainingData) -> dict[str, Any]:
    """Return a record's facts about the training posts."""
    feature, report = data.feature, data.loaded.report.as_dict()
    facts: dict[str, Any] = {"loaded": len(data.loaded.posts), "used": len(data.posts), "report": report}
    if feature.classifies:
        labels = [feature.label_of(post) for post in data.posts]
        facts["labels"] = {name: labels.count(i) for i, name in enumerate(feature.labels)}
    if feature.choices:
        facts["labels"] = {name: sum(name in feature.label_of(post) for post in data.posts) for name in feature.choices}
    if feature.codebook:
        facts["validation"] = len(data.dev_posts)
    return facts | {"fingerprint": data.identity["data"]}
