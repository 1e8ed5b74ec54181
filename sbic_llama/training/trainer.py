"""SFTTrainer that validates as the product answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase
from trl import SFTTrainer

from common.cli.console import log
from common.models.merged_lora import merged_lora
from common.runtime.files import atomic_write
from common.runtime.processes import Processes
from common.stats import metrics
from common.training.checkpoints import unsharded
from sbic_llama.data.corpus import Post, Split, labeled
from sbic_llama.data.encoding import Encoded, answer_ids, encode
from sbic_llama.data.features import Feature
from sbic_llama.model.scoring import score_branches, score_labels

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
    """SFTTrainer that validates as the product answers.

    TRL's own validation gives the loss of single batches, unweighted, and never a label. Here the label texts are scored,
    and the loss is the mean over the answers' tokens.
    """

    def __init__(self, *, validation: ValidationSet, **more: Any):
        self.validation = validation
        super().__init__(**more, eval_dataset=more["train_dataset"])  # Trainer wants one; evaluate() reads none

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        found = {f"{metric_key_prefix}_{name}": value for name, value in self._validate().items()}
        self.log(found)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found

    def _validate(self) -> dict[str, float]:
        # Without autocast, like the scores of a saved adapter: the layers under the output layer do not pass accelerate's wrapper.
        together = Processes(self.accelerator.process_index, self.accelerator.num_processes)
        with unsharded(self.model), merged_lora(self.model):
            scores = np.array(together.divided(range(len(self.validation.answers)), self._answer_and_label_scores))
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
    ) -> torch.Tensor:
        """The mean loss over the answers' tokens, with logits for these alone.

        TRL's own loss also gives entropy and accuracy of tokens, which nobody reads here, over tiles of positions that are
        mostly empty: with 64 answer tokens a step and 32,000 tokens to choose from it took more than half of the step.
        """
        labels = inputs["labels"][:, 1:]
        answers = torch.nn.functional.pad(labels != IGNORED, (0, 1))  # the positions before them
        rest = {name: tensor for name, tensor in inputs.items() if name != "labels"}
        logits = model(**rest, use_cache=False, logits_to_keep=answers).logits
        expected = labels[labels != IGNORED]
        loss = torch.nn.functional.cross_entropy(logits.float(), expected, reduction="sum")
        # Of several processes: the number is that of all, and gradients are averaged.
        total = len(expected) if num_items_in_batch is None else num_items_in_batch / self.accelerator.num_processes
        return loss / total

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """TRL writes a card with every checkpoint; the project's own is made from records."""


IGNORED = -100


class SharedInstruction:
    """Collates posts into one sequence: the instruction once, then post, tail and answer of each.

    A 4-D mask lets every token see the instruction and, of the rest, what stands before it in its own post; positions start
    again after the instruction. Loss and gradients equal those of separate sequences. Dropout inside an adapter would fall on
    the shared instruction once for all its posts, which is not the same, so ``share=False`` makes separate, padded sequences.

    An example holds ``input_ids`` (post, tail and answer) and ``labels`` (the answer, the rest :data:`IGNORED`).
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
        nothing = torch.full((start,), IGNORED)
        labels = torch.cat([nothing, *(torch.tensor(example["labels"]) for example in examples)])
        positions = torch.cat([torch.arange(start), *(torch.arange(start, start + length) for length in lengths)])
        owner = torch.repeat_interleave(torch.arange(len(lengths) + 1), torch.tensor([start, *lengths]))
        visible = (owner[None, :] == 0) | (owner[None, :] == owner[:, None])
        mask = visible & torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
        return {
            "input_ids": ids[None],
            "labels": labels[None],
            "position_ids": positions[None],
            "attention_mask": mask[None, None],
        }

    def _separate(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        nothing = torch.full((len(self.prefix),), IGNORED)
        ids = [torch.cat([self.prefix, torch.tensor(example["input_ids"])]) for example in examples]
        labels = [torch.cat([nothing, torch.tensor(example["labels"])]) for example in examples]
        mask = [torch.ones_like(row) for row in ids]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.pad_token_id),
            "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
            "attention_mask": pad_sequence(mask, batch_first=True),
        }


@dataclass(frozen=True)
class TrainingRows:
    """What the trainer reads: posts in pieces, and the token ids of each one's answer."""

    encoded: Encoded
    answers: list[list[int]]

    @property
    def input_ids(self) -> list[list[int]]:
        """Post, tail and answer of each."""
        return [prompt + answer for prompt, answer in zip(self._prompts, self.answers, strict=True)]

    @property
    def labels(self) -> list[list[int]]:
        """The same length: only the answer and its EOS are learnt."""
        return [[IGNORED] * len(prompt) + answer for prompt, answer in zip(self._prompts, self.answers, strict=True)]

    @property
    def _prompts(self) -> list[list[int]]:
        return [post_ids + self.encoded.tail_ids for post_ids in self.encoded.post_ids]


def training_rows(
    tokenizer: PreTrainedTokenizerBase, declared: Feature, posts: Sequence[Post], *, max_post_tokens: int
) -> TrainingRows:
    """Posts with their answers as token ids."""
    return TrainingRows(
        encode(tokenizer, declared, [post.text for post in posts], max_post_tokens=max_post_tokens),
        answer_ids(tokenizer, [declared.target(post) for post in posts]),
    )


def dump_dataset(declared: Feature, split: Split, path: Path) -> None:
    """Writes a feature's training posts as prompt, completion and label, one JSON object a line."""
    posts = labeled(split, declared.label_of)
    with atomic_write(path) as part, part.open("w", encoding="utf-8") as file:
        for post in posts:
            label = declared.label_of(post)
            row = {
                "prompt": declared.prompt(post),
                "completion": declared.target(post),
                "label": declared.labels[label] if isinstance(label, int) else list(label),
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    log(f"{len(posts):,} training posts of {declared.name}: {path}")
