"""Trainer and collator of a feature: SFTTrainer that validates the way adapters answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase
from trl import SFTTrainer

from common.models.merged_lora import merged_lora
from common.results.record import count_parameters
from common.runtime.processes import Processes
from common.stats import metrics
from common.training.checkpoints import unsharded
from sbic_llama.data.corpus import Post
from sbic_llama.data.encoding import Encoded, answer_ids, encode
from sbic_llama.data.features import Feature
from sbic_llama.model.scoring import score_branches, score_labels

IGNORED = -100  # label of a token that is not learned


@dataclass(frozen=True)
class TrainingRows:
    """Posts in pieces, and the token ids of each one's answer."""

    encoded: Encoded
    answers: list[list[int]]

    @property
    def input_ids(self) -> list[list[int]]:
        """Return post, tail and answer of each row."""
        return [prompt + answer for prompt, answer in zip(self._prompts, self.answers, strict=True)]

    @property
    def labels(self) -> list[list[int]]:
        """Return labels of the same lengths: only the answer and its EOS are learned."""
        return [[IGNORED] * len(prompt) + answer for prompt, answer in zip(self._prompts, self.answers, strict=True)]

    @property
    def _prompts(self) -> list[list[int]]:
        return [post_ids + self.encoded.tail_ids for post_ids in self.encoded.post_ids]


def training_rows(
    tokenizer: PreTrainedTokenizerBase, feature: Feature, posts: Sequence[Post], *, max_post_tokens: int
) -> TrainingRows:
    """Tokenize posts and their answers."""
    return TrainingRows(
        encode(tokenizer, feature, [post.text for post in posts], max_post_tokens=max_post_tokens),
        answer_ids(tokenizer, [feature.target(post) for post in posts]),
    )


class FeatureTrainer(SFTTrainer):
    """SFTTrainer that validates the way adapters answer.

    TRL's own validation averages the losses of single batches and knows no labels. Here labels are scored, and the loss is
    the mean over the answers' tokens.
    """

    def __init__(
        self,
        *,
        feature: Feature,
        rows: TrainingRows,
        validation: TrainingRows,
        validation_labels: Sequence[int],  # indices of labels; empty where the answer is a list of groups
        **settings: Any,
    ):
        self.feature, self.rows = feature, rows
        self.validation, self.validation_labels = validation, validation_labels
        data = Dataset.from_dict({"input_ids": rows.input_ids, "labels": rows.labels})
        # Trainer requires an eval_dataset, which evaluate() does not read.
        super().__init__(**settings, train_dataset=data, eval_dataset=data)
        self.parameter_counts = count_parameters(self.model)  # before FSDP shards them

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        scores = {f"{metric_key_prefix}_{name}": value for name, value in self._validate().items()}
        self.log(scores)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, scores)
        return scores

    def _validate(self) -> dict[str, float]:
        # Without autocast, like the scores of a saved adapter: the layers below the output layer bypass accelerate's
        # wrapper.
        processes = Processes(self.accelerator.process_index, self.accelerator.num_processes)
        with unsharded(self.model), merged_lora(self.model):
            rows = range(len(self.validation.answers))
            scores = np.array(processes.divided(rows, self._answer_and_label_scores))
        results = {"loss": float(-scores[:, 0].sum() / sum(map(len, self.validation.answers)))}
        if self.feature.classifies:
            names = self.feature.labels
            confusion = metrics.confusion_matrix(self.validation_labels, scores[:, 1].astype(int), len(names))
            results["balanced_accuracy"] = float(metrics.scores(confusion, names)["balanced_accuracy"])
        return results

    def _answer_and_label_scores(self, part: Sequence[int]) -> list[tuple[float, float]]:
        """Return for each post of ``part`` its answer's log-probability and the index of the most probable label."""
        whole, answers = self.validation.encoded, self.validation.answers
        encoded = Encoded(whole.prefix_ids, [whole.post_ids[i] for i in part], whole.tail_ids, cut=0)
        model, size = self.accelerator.unwrap_model(self.model), self.args.per_device_eval_batch_size
        if not self.feature.classifies:
            scores = score_branches(model, encoded, [[answers[i]] for i in part], batch_size=size)
            return [(float(score), 0.0) for score in scores[:, 0]]
        scores = score_labels(model, self.processing_class, self.feature, encoded, batch_size=size)
        labels = [self.validation_labels[i] for i in part]
        return [(float(row[label]), float(row.argmax())) for label, row in zip(labels, scores, strict=True)]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Return the mean loss over the answers' tokens, computing logits for these alone.

        TRL's loss also computes entropy and accuracy of tokens, which nothing here reads, over tiles of mostly ignored
        positions. With 64 answer tokens per step and a vocabulary of 32,000, that took more than half of a step.
        """
        labels = inputs["labels"][:, 1:]
        answers = torch.nn.functional.pad(labels != IGNORED, (0, 1))  # the positions before them
        rest = {name: tensor for name, tensor in inputs.items() if name != "labels"}
        logits = model(**rest, use_cache=False, logits_to_keep=answers).logits
        expected = labels[labels != IGNORED]
        loss = torch.nn.functional.cross_entropy(logits.float(), expected, reduction="sum")
        # With several processes, num_items_in_batch counts all of them, and gradients are averaged.
        total = len(expected) if num_items_in_batch is None else num_items_in_batch / self.accelerator.num_processes
        return loss / total

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Skip the card that TRL writes with every checkpoint; ours is rendered from records."""


class SharedInstruction:
    """Collate posts into one sequence: the instruction once, then post, tail and answer of each.

    A 4-D mask lets every token attend to the instruction and to earlier tokens of its own post; positions restart after
    the instruction. Loss and gradients equal those of separate sequences. With dropout inside an adapter they would not,
    as all posts would share the instruction's dropout; then use ``share=False`` for separate, padded sequences.

    Examples hold ``input_ids`` (post, tail and answer) and ``labels`` (the answer; :data:`IGNORED` elsewhere).
    """

    def __init__(self, prefix_ids: list[int], pad_token_id: int, *, share: bool):
        self.prefix = torch.tensor(prefix_ids)
        self.pad_token_id = pad_token_id
        self.share = share

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return self._shared(examples) if self.share else self._separate(examples)

    def _shared(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        start = len(self.prefix)
        lengths = [len(example["input_ids"]) for example in examples]
        ids = torch.cat([self.prefix, *(torch.tensor(example["input_ids"]) for example in examples)])
        ignored = torch.full((start,), IGNORED)
        labels = torch.cat([ignored, *(torch.tensor(example["labels"]) for example in examples)])
        positions = torch.cat([torch.arange(start), *(torch.arange(start, start + length) for length in lengths)])
        owner = torch.repeat_interleave(torch.arange(len(lengths) + 1), torch.tensor([start, *lengths]))
        visible = (owner[None, :] == 0) | (owner[None, :] == owner[:, None])
        mask = visible & torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
        batch = {"input_ids": ids, "labels": labels, "position_ids": positions, "attention_mask": mask[None]}
        return {name: tensor[None] for name, tensor in batch.items()}

    def _separate(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ignored = torch.full((len(self.prefix),), IGNORED)
        ids = [torch.cat([self.prefix, torch.tensor(example["input_ids"])]) for example in examples]
        labels = [torch.cat([ignored, torch.tensor(example["labels"])]) for example in examples]
        mask = [torch.ones_like(row) for row in ids]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.pad_token_id),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
            "attention_mask": pad_sequence(mask, batch_first=True),
        }
