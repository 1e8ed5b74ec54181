"""SFTTrainer that validates as the product answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase
from trl import SFTTrainer

from common import metrics
from common.folded import folded
from common.processes import Processes
from common.sharding import whole
from sbic_llama.corpus import Post
from sbic_llama.encoding import Encoded, answer_ids, encode
from sbic_llama.features import Feature
from sbic_llama.packing import IGNORED
from sbic_llama.scoring import score_branches, score_labels


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
        with whole(self.model), folded(self.model):
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
