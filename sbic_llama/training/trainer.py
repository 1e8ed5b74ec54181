"""Trainer of a feature: SFTTrainer that validates the way adapters answer."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import SeedableRandomSampler
from datasets import Dataset
from safetensors.numpy import load_file, save_file
from torch.utils.data import Sampler
from transformers import PreTrainedTokenizerBase
from trl import SFTTrainer

from common.models.merged_lora import merged_lora
from common.models.prompt import answer_ids
from common.results.record import count_parameters
from common.runtime.processes import Processes
from common.stats import metrics
from common.training.checkpoints import checkpoint_folder, unsharded
from sbic_llama.data.corpus import Post
from sbic_llama.data.encoding import Encoded, encode
from sbic_llama.data.features import Feature, Label
from sbic_llama.model.packing import IGNORED, answer_losses
from sbic_llama.model.scoring import label_probabilities, score_branches, score_labels

SCORES_FILE = "validation_scores.safetensors"  # in a checkpoint


@dataclass(frozen=True)
class TrainingRows:
    """The prompts of posts as tokens, and those of each one's answer."""

    encoded: Encoded
    answers: list[list[int]]
    weights: list[float] | None = None  # of the answers in the loss; None where all count the same
    given: list[int] | None = None  # first tokens of each answer that are not learned; None where all tokens are

    @property
    def input_ids(self) -> list[list[int]]:
        """Return prompt and answer of each row."""
        return [prompt + answer for prompt, answer in zip(self.encoded.prompts, self.answers, strict=True)]

    @property
    def labels(self) -> list[list[int]]:
        """Return labels of the same lengths: only the answer and its end are learned."""
        rows = zip(self.encoded.prompts, self.answers, self.given or [0] * len(self.answers), strict=True)
        return [[IGNORED] * (len(prompt) + given) + answer[given:] for prompt, answer, given in rows]


def training_rows(
    tokenizer: PreTrainedTokenizerBase, feature: Feature, posts: Sequence[Post], *, max_post_tokens: int
) -> TrainingRows:
    """Tokenize posts and their answers."""
    answers = [(post, text, 1.0) for post in posts for text in feature.learned(_label(feature, post))]
    return weighted_rows(tokenizer, feature, answers, max_post_tokens=max_post_tokens)


def _label(feature: Feature, post: Post) -> Label:
    label = feature.label_of(post)
    assert label is not None, "only posts with a label are learned"
    return label


def weighted_rows(
    tokenizer: PreTrainedTokenizerBase,
    feature: Feature,
    learned: Sequence[tuple[Post, str, float]],
    *,
    max_post_tokens: int,
) -> TrainingRows:
    """Tokenize posts and the answers to learn, see :func:`learned_answers`.

    Where several labels may hold, an answer begins with its label, which is not learned: only yes or no is.
    """
    posts, answers, weights = zip(*learned, strict=True)
    shared: dict[str, int] = {}
    if feature.choices:
        for pair, ids in zip(pairs(feature.branches), pairs(branch_ids(tokenizer, feature)), strict=True):
            same = itertools.takewhile(lambda both: both[0] == both[1], zip(*ids, strict=False))
            shared |= dict.fromkeys(pair, len(list(same)))
    return TrainingRows(
        encode(tokenizer, feature, [post.text for post in posts], max_post_tokens=max_post_tokens),
        answer_ids(tokenizer, answers, feature.template),
        None if set(weights) == {1.0} else list(weights),
        [shared[answer] for answer in answers] if feature.choices else None,
    )


def pairs(branches: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return yes and no of each of several labels."""
    return list(zip(branches[::2], branches[1::2], strict=True))


def branch_ids(tokenizer: PreTrainedTokenizerBase, feature: Feature) -> list[list[int]]:
    return answer_ids(tokenizer, feature.branches, feature.template)


def learned_answers(feature: Feature, posts: Sequence[Post], *, balanced: bool) -> list[tuple[Post, str, float]]:
    """Return the answers to learn, each with its weight in the loss, which is 1 on average over posts.

    A codebook with ``several: soft`` has every label of a post's annotators learned, weighted by the share of annotators who
    gave it. ``balanced`` divides the weight of an answer by how often it occurs, so that all labels count the same and, where
    several may hold, yes and no of each.
    """
    soft = feature.codebook is not None and feature.codebook.several == "soft"
    answers = []
    for post in posts:
        votes = [feature.opinion_of(vote) for vote in post.annotations] if soft else [feature.label_of(post)]
        counts: Counter[str] = Counter()
        for label, count in sorted(Counter(votes).items()):
            counts.update(dict.fromkeys(feature.learned(label), count))
        answers += [(post, text, count / len(votes)) for text, count in counts.items()]
    if balanced:
        totals = _totals(answers)
        question = {text: number // 2 for number, text in enumerate(feature.branches) if feature.choices}
        kinds = Counter(question.get(text) for text in totals)
        answers = [
            (post, text, weight * len(posts) / (kinds[question.get(text)] * totals[text]))
            for post, text, weight in answers
        ]
    return answers


def _totals(answers: Sequence[tuple[Post, str, float]]) -> Counter[str]:
    totals: Counter[str] = Counter()
    for _, text, weight in answers:
        totals[text] += weight
    return totals


def label_shares(feature: Feature, learned: Sequence[tuple[Post, str, float]]) -> tuple[float, ...] | None:
    """Return the share of each label among the answers to learn, by their weights; None for lists, or if a label is missing."""
    totals = _totals(learned)
    if not feature.classifies or len(totals) < len(feature.labels):
        return None
    return tuple(totals[label] / totals.total() for label in feature.labels)


class EvenOrder(Sampler[int]):
    """Order an epoch's rows as a single process does, and end with blank rows, so that all processes get as many.

    accelerate would repeat the epoch's first rows instead, which would then count twice.
    """

    def __init__(self, rows: int, seed: int, multiple: int):
        self.rows, self.blanks = SeedableRandomSampler(range(rows), data_seed=seed), -rows % multiple

    def __iter__(self) -> Iterator[int]:
        yield from self.rows
        yield from [len(self.rows)] * self.blanks  # the index of the blank row, behind all others

    def __len__(self) -> int:
        return len(self.rows) + self.blanks

    def set_epoch(self, epoch: int) -> None:
        self.rows.set_epoch(epoch)


class FeatureTrainer(SFTTrainer):
    """SFTTrainer that validates the way adapters answer, and that takes the same steps with any number of processes.

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
        self._scored: tuple[int, np.ndarray] | None = None  # the last validated step, and the labels' scores then
        ids, labels = rows.input_ids, rows.labels
        # The last row is blank: EvenOrder fills the last step of several processes with it.
        columns: dict[str, list[Any]] = {"input_ids": [*ids, ids[0]], "labels": [*labels, [IGNORED] * len(ids[0])]}
        if rows.weights is not None:
            columns["weight"] = [*rows.weights, 0.0]
        data = Dataset.from_dict(columns)
        # Trainer requires an eval_dataset, which evaluate() does not read.
        super().__init__(**settings, train_dataset=data, eval_dataset=data)
        self.parameter_counts = count_parameters(self.model)  # before FSDP shards them

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        size = self.args.train_batch_size * self.args.world_size
        count = len(self.rows.answers)
        return EvenOrder(count, self.args.data_seed, size if self.args.world_size > 1 else 1)

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
        decisions = len(scores) if self.feature.choices else sum(map(len, self.validation.answers))
        results = {"loss": float(-scores[:, 0].sum() / decisions)}
        if self.feature.classifies:
            # A copy: safetensors would store the memory behind a slice, whatever its strides.
            self._scored = (self.state.global_step, np.ascontiguousarray(scores[:, 2:]))
            names = self.feature.labels
            confusion = metrics.confusion_matrix(self.validation_labels, scores[:, 1].astype(int), len(names))
            results["balanced_accuracy"] = float(metrics.scores(confusion, names)["balanced_accuracy"])
        return results

    def _answer_and_label_scores(self, part: Sequence[int]) -> list[tuple[float, ...]]:
        """Return for each post of ``part`` its answer's log-probability, the index of the most probable label, and all scores.

        Where several labels may hold, ``part`` has a row for each, and the log-probability is that of yes or no.
        """
        encoded, answers = self.validation.encoded.select(part), self.validation.answers
        model, size = self.accelerator.unwrap_model(self.model), self.args.per_device_eval_batch_size
        if self.feature.choices:
            either = {
                tuple(ids): pair for pair in pairs(branch_ids(self.processing_class, self.feature)) for ids in pair
            }
            branches = [either[tuple(answers[i])] for i in part]
            scores = label_probabilities(score_branches(model, encoded, branches, batch_size=size))
            right = [pair.index(answers[i]) for i, pair in zip(part, branches, strict=True)]
            return [(float(np.log(row[place])), 0.0) for row, place in zip(scores, right, strict=True)]
        if not self.feature.classifies:
            scores = score_branches(model, encoded, [[answers[i]] for i in part], batch_size=size)
            return [(float(score), 0.0) for score in scores[:, 0]]
        scores = score_labels(model, self.processing_class, self.feature, encoded, batch_size=size)
        labels = [self.validation_labels[i] for i in part]
        return [
            (float(row[label]), float(row.argmax()), *map(float, row))
            for label, row in zip(labels, scores, strict=True)
        ]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save a checkpoint, with the labels' scores if it was validated: calibration needs those of the best one."""
        super()._save_checkpoint(model, trial)
        if self._scored and self._scored[0] == self.state.global_step and self.is_world_process_zero():
            folder = checkpoint_folder(self.args.output_dir, self.state.global_step)
            save_file({"scores": self._scored[1]}, folder / SCORES_FILE)

    def best_scores(self) -> np.ndarray | None:
        """Return the labels' scores on validation posts by the best checkpoint, shape (posts, labels); None if it has none."""
        path = Path(self.state.best_model_checkpoint or "") / SCORES_FILE
        return load_file(path)["scores"] if path.is_file() else None

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Return the mean loss over the answers' tokens.

        TRL's loss also computes entropy and accuracy of tokens, which nothing here reads, over tiles of mostly ignored
        positions. With 64 answer tokens per step and a vocabulary of 32,000, that took more than half of a step.
        """
        losses = answer_losses(model, inputs)
        if "weights" in inputs:
            losses = losses * inputs["weights"].to(losses.device)
        # With several processes, num_items_in_batch counts all of them, and gradients are averaged.
        total = len(losses) if num_items_in_batch is None else num_items_in_batch / self.accelerator.num_processes
        return losses.sum() / total

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Skip the card that TRL writes with every checkpoint; ours is rendered from records."""
