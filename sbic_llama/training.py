"""One training function for all features: QLoRA with TRL's SFTTrainer on ready token ids and labels."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from common import hardware, metrics, quantised, training
from common.data_report import fingerprint
from common.errors import UserError
from common.files import written_aside
from common.loading import commit_of
from common.quantised import TrainsInFp32
from common.records import count_parameters
from common.stages import say
from sbic_llama import annotator_file, model
from sbic_llama.arguments import TrainArguments, base_path
from sbic_llama.corpus import Post, Split, labelled
from sbic_llama.encoding import Encoded, answer_ids, encode
from sbic_llama.features import Feature, feature
from sbic_llama.memory import estimate
from sbic_llama.packing import IGNORED, SharedInstruction
from sbic_llama.scoring import score_branches, score_labels

PROBE = 32  # validation posts on which a saved adapter must answer exactly as the trained one


def train(arguments: TrainArguments, feature_name: str) -> None:
    """Trains an adapter, keeps the checkpoint that validates best, saves it and proves that it loads.

    Raises:
        UserError: Bad data, an unknown model, or an ``output_dir`` that holds another run.
        Interrupted: A signal stopped the run; the same command continues it.
    """
    declared = feature(feature_name, arguments.label_policy, arguments.wording)
    if arguments.dump_dataset:
        dump_dataset(declared, arguments.load()["train"], arguments.dump_dataset)
        return
    output_dir = arguments.output_dir / feature_name
    setup = training.set_up(arguments)
    if arguments.optim != "adamw_torch" and hardware.device_type() != "cuda":
        raise UserError(f"{arguments.optim} needs an NVIDIA GPU", key="optim", expected="adamw_torch")
    splits = arguments.load()
    posts, dev_posts = (labelled(splits[name], declared.label_of) for name in ("train", "dev"))
    identity = training.identity(
        arguments, fingerprint([declared.prompt_hash(), post.text, declared.target(post)] for post in posts)
    )
    if training.finished_before(output_dir, identity):
        return

    name = base_path(arguments.model_name_or_path)
    revision = commit_of(name, arguments.model_revision)
    tokenizer = quantised.load_tokenizer(name, revision)
    base = quantised.load_base(name, revision, precision=setup.precision)
    rows = training_rows(tokenizer, declared, posts, max_post_tokens=arguments.max_post_tokens)
    dev = validation_set(tokenizer, declared, dev_posts, max_post_tokens=arguments.max_post_tokens)
    refuse_beyond_context(base, rows, arguments)
    trainer = FeatureTrainer(
        validation=dev,
        model=base,
        args=trainer_arguments(arguments, setup.precision, declared, output_dir),
        train_dataset=Dataset.from_dict({"input_ids": rows.input_ids, "labels": rows.labels}),
        processing_class=tokenizer,
        peft_config=model.lora_config(
            rank=arguments.lora_rank, alpha=arguments.lora_alpha, dropout=arguments.lora_dropout, revision=revision
        ),
        data_collator=SharedInstruction(
            rows.prefix_ids, tokenizer.pad_token_id, share=arguments.lora_dropout == 0
        ),
        callbacks=[*training.callbacks(arguments), TrainsInFp32()],
    )  # fmt: skip
    quantised.adapters_to_fp32(trainer.model)
    parameters = count_parameters(trainer.model)
    announce(arguments, setup.precision, rows, len(dev_posts), parameters, trainer.model)
    course = training.run(trainer, output_dir)
    if trainer.is_world_process_zero():
        facts = {
            "feature": declared.name,
            "settings": identity,
            "data": data_facts(splits["train"], posts, declared)
            | {"fingerprint": identity["data"], "cut_to_max_post_tokens": rows.cut},
            "parameters": parameters,
            **training.outcome_facts(trainer, setup, course),
        }
        save = partial(
            model.save,
            training.plain_model(trainer),
            tokenizer,
            annotator_file.describe(arguments, declared, revision),
            feature=declared,
            probe=[post.text for post in dev_posts[:PROBE]],
        )
        training.finish(save, facts, output_dir)
    trainer.accelerator.wait_for_everyone()


def dump_dataset(declared: Feature, split: Split, path: Path) -> None:
    """Writes a feature's training posts as prompt, completion and label, one JSON object a line."""
    posts = labelled(split, declared.label_of)
    with written_aside(path) as part, part.open("w", encoding="utf-8") as file:
        for post in posts:
            label = declared.label_of(post)
            row = {
                "prompt": declared.prompt(post),
                "completion": declared.target(post),
                "label": declared.labels[label] if isinstance(label, int) else list(label),
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    say(f"{len(posts):,} training posts of {declared.name}: {path}")


@dataclass(frozen=True)
class TrainingRows:
    """What the trainer reads: the shared instruction, and of each post its tokens, its answer, and what is learnt of them."""

    prefix_ids: list[int]
    input_ids: list[list[int]]
    labels: list[list[int]]
    cut: int


def training_rows(
    tokenizer: PreTrainedTokenizerBase, declared: Feature, posts: Sequence[Post], *, max_post_tokens: int
) -> TrainingRows:
    """Posts with their answers as token ids. Only the answer and its EOS are learnt."""
    encoded = encode(tokenizer, declared, [post.text for post in posts], max_post_tokens=max_post_tokens)
    answers = answer_ids(tokenizer, [declared.target(post) for post in posts])
    prompts = [post_ids + encoded.tail_ids for post_ids in encoded.post_ids]
    return TrainingRows(
        prefix_ids=encoded.prefix_ids,
        input_ids=[prompt + answer for prompt, answer in zip(prompts, answers, strict=True)],
        labels=[[IGNORED] * len(prompt) + answer for prompt, answer in zip(prompts, answers, strict=True)],
        cut=encoded.cut,
    )


def refuse_beyond_context(base: Any, rows: TrainingRows, arguments: TrainArguments) -> None:
    """Refuses posts that, with their instruction, reach beyond the positions that the base model knows."""
    context = getattr(base.config, "max_position_embeddings", math.inf)
    longest = len(rows.prefix_ids) + max(map(len, rows.input_ids))
    if longest > context:
        raise UserError(
            f"the longest training sequence has {longest} tokens, the model reads {context}",
            key="max_post_tokens",
            expected=f"at most {arguments.max_post_tokens - (longest - context)}",
        )


@dataclass(frozen=True)
class ValidationSet:
    """What chooses the best checkpoint: posts in pieces, and for each the answer and (where there are labels) its index."""

    tokenizer: PreTrainedTokenizerBase
    feature: Feature
    encoded: Encoded
    answers: list[list[int]]
    labels: list[int]


def validation_set(
    tokenizer: PreTrainedTokenizerBase, declared: Feature, posts: Sequence[Post], *, max_post_tokens: int
) -> ValidationSet:
    return ValidationSet(
        tokenizer,
        declared,
        encode(tokenizer, declared, [post.text for post in posts], max_post_tokens=max_post_tokens),
        answer_ids(tokenizer, [declared.target(post) for post in posts]),
        [declared.label_of(post) for post in posts] if declared.classifies else [],
    )


class FeatureTrainer(SFTTrainer):
    """SFTTrainer that validates as the product answers, and counts the tokens that it reads.

    TRL's own validation gives the loss of single batches, unweighted, and never a label. Here the label texts are scored,
    and the loss is the mean over the answers' tokens.
    """

    def __init__(self, *, validation: ValidationSet, **more: Any):
        self.validation = validation
        super().__init__(**more, eval_dataset=more["train_dataset"])

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        found = {f"{metric_key_prefix}_{name}": value for name, value in self._validate().items()}
        self.log(found)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found

    def _validate(self) -> dict[str, float]:
        part = range(self.accelerator.process_index, len(self.validation.answers), self.accelerator.num_processes)
        with self.compute_loss_context_manager():
            scored = list(zip(part, self._answer_and_label_scores(part), strict=True))
        together = dict(gather_object(scored))
        scores = np.array([together[i] for i in range(len(self.validation.answers))])
        found = {"loss": float(-scores[:, 0].sum() / sum(map(len, self.validation.answers)))}
        if self.validation.feature.classifies:
            names = self.validation.feature.labels
            confusion = metrics.confusion_matrix(self.validation.labels, scores[:, 1].astype(int), len(names))
            found["balanced_accuracy"] = float(metrics.scores(confusion, names)["balanced_accuracy"])
        return found

    def _answer_and_label_scores(self, part: Sequence[int]) -> list[tuple[float, float]]:
        """For each post of ``part`` the log-probability of its answer, and the index of the label that scores highest."""
        known = self.validation
        encoded = Encoded(
            known.encoded.prefix_ids, [known.encoded.post_ids[i] for i in part], known.encoded.tail_ids, cut=0
        )
        plain, size = self.accelerator.unwrap_model(self.model), self.args.per_device_eval_batch_size
        if not known.feature.classifies:
            scores = score_branches(plain, encoded, [[known.answers[i]] for i in part], batch_size=size)
            return [(float(score), 0.0) for score in scores[:, 0]]
        scores = score_labels(plain, known.tokenizer, known.feature, encoded, batch_size=size)
        return [(float(row[known.labels[i]]), float(row.argmax())) for i, row in zip(part, scores, strict=True)]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        before = self._total_train_tokens
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        # TRL takes the sum of the attention mask for the number of tokens; of a 4-D mask that is about its square.
        read = torch.tensor(inputs["input_ids"].numel(), device=self.accelerator.device)
        self._total_train_tokens = before + int(self.accelerator.gather(read).sum())
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        return loss

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """TRL writes a card with every checkpoint; the project's own is made from records."""


def trainer_arguments(
    arguments: TrainArguments, precision: hardware.Precision, declared: Feature, output_dir: Path
) -> SFTConfig:
    """SFTTrainer's own arguments for a run."""
    metric, greater = ("balanced_accuracy", True) if declared.classifies else ("loss", False)
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
    )


def announce(
    arguments: TrainArguments,
    precision: hardware.Precision,
    rows: TrainingRows,
    validation: int,
    parameters: dict[str, int],
    model: Any,
) -> None:
    """Says before the first step what will be trained, on how much, and the memory that it will take."""
    share = parameters["trainable"] / parameters["total"]
    say(f"{parameters['trainable']:,} of {parameters['total']:,} parameters trained ({share:.2%})")
    tokens, prefix = sum(map(len, rows.input_ids)), len(rows.prefix_ids)
    size = arguments.per_device_train_batch_size
    packed = tokens + prefix * math.ceil(len(rows.input_ids) / size)
    apart = tokens + prefix * len(rows.input_ids)
    shared = (
        f"{packed:,} with {size} posts behind one copy of the instruction"
        if arguments.lora_dropout == 0
        else "which they have, because of the dropout"
    )
    say(
        f"{len(rows.input_ids):,} training posts ({rows.cut:,} cut to {arguments.max_post_tokens} tokens), "
        f"{validation:,} for validation"
    )
    say(f"{apart:,} tokens a pass with a copy of the instruction for every post; {shared}")
    longest = sorted(map(len, rows.input_ids))[-size:]
    tokens_a_step = prefix + sum(longest) if arguments.lora_dropout == 0 else size * (prefix + longest[-1])
    say(estimate(model, tokens_a_step, precision=precision, checkpointing=arguments.activation_checkpointing).line())


def data_facts(loaded: Split, used: Sequence[Post], declared: Feature) -> dict[str, Any]:
    """What a run's record says of its training posts."""
    facts: dict[str, Any] = {"loaded": len(loaded.posts), "used": len(used), "report": loaded.report.as_dict()}
    if declared.classifies:
        labels = [declared.label_of(post) for post in used]
        facts["labels"] = {name: labels.count(i) for i, name in enumerate(declared.labels)}
    return facts
