"""``annotator.json``: what an adapter must say of itself so that others can annotate with it as it was trained."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.cli.errors import UserError, shown
from common.results.shape import NUMBER, wrong
from common.runtime import files
from common.runtime.files import atomic_write
from sbic_llama.data.features import Feature, Policy, Wording, get_feature
from sbic_llama.training.arguments import TrainArguments

ANNOTATOR_FILE = "annotator.json"
SCHEMA = 1


@dataclass(frozen=True)
class AnnotatorFile:
    """Facts of an adapter.

    Attributes:
        feature: Name of the feature.
        labels: Its label texts, in the order of their indices; empty where the answer is a list of groups.
        instruction: What the model was asked.
        prompt_hash: :meth:`Feature.prompt_hash` of what it was trained with.
        label_policy: Name of the policy that made the labels.
        label_policy_text: The same in words.
        corpus: Name of the corpus that it was trained on.
        aggregation: How annotations became one label a post.
        wording: Whose instruction and labels.
        max_post_tokens: Tokens to which a post is cut.
        base_model: Folder or Hub id of the base model.
        base_revision: The commit that was trained on; None for a folder.
        temperature: What the labels' log-probabilities are divided by, fitted on validation posts; 1 where nothing was fitted.
        review: What validation says of how sure its answers are; None where that was not learnt.
        schema: Version of this file's fields.
    """

    get_feature: str
    labels: tuple[str, ...]
    instruction: str
    prompt_hash: str
    label_policy: Policy
    label_policy_text: str
    corpus: str
    aggregation: str
    wording: Wording
    max_post_tokens: int
    base_model: str
    base_revision: str | None
    temperature: float = 1.0
    review: ReviewCurve | None = None
    schema: int = SCHEMA

    @property
    def of_miniature(self) -> bool:
        """Whether it was trained on invented posts, so that what it says of real ones means nothing."""
        return "miniature" in self.corpus

    def write(self, folder: Path) -> None:
        with atomic_write(folder / ANNOTATOR_FILE) as part:
            text = json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False)
            text = re.sub(r"\[[^][\"]*\]", lambda match: " ".join(match[0].split()), text)  # a curve on one line
            part.write_text(text + "\n", encoding="utf-8")

    def declared(self) -> Feature:
        """The feature as this version declares it.

        Raises:
            UserError: This version asks otherwise than the adapter was trained to answer.
        """
        declared = get_feature(self.feature, self.label_policy, self.wording)
        same = (declared.prompt_hash(), declared.labels, declared.instruction)
        if same != (self.prompt_hash, self.labels, self.instruction):
            raise UserError(
                f"the adapter was trained with another prompt or other labels (hash {self.prompt_hash})",
                file=ANNOTATOR_FILE,
                expected=declared.prompt_hash(),
                fix="use the version of this project that trained it, or train again",
            )
        return declared


def describe(
    arguments: TrainArguments,
    declared: Feature,
    base_revision: str | None,
    temperature: float = 1.0,
    review: ReviewCurve | None = None,
) -> AnnotatorFile:
    """The facts of the adapter that a run trains."""
    return AnnotatorFile(
        feature=declared.name,
        labels=declared.labels,
        instruction=declared.instruction,
        prompt_hash=declared.prompt_hash(),
        label_policy=arguments.label_policy,
        label_policy_text=declared.policy,
        corpus=arguments.corpus_name,
        aggregation=arguments.aggregation,
        wording=arguments.wording,
        max_post_tokens=arguments.max_post_tokens,
        base_model=arguments.model_name_or_path,
        base_revision=base_revision,
        temperature=temperature,
        review=review,
    )


def read(path: Path) -> AnnotatorFile:
    """Reads ``annotator.json``.

    Raises:
        UserError: It is none of this version, or names no feature of this project.
    """
    refusal = UserError("not an annotator's description", file=path, fix="train the adapter again")
    try:
        values = files.loads(path.read_bytes())
        if values["schema"] != SCHEMA:
            raise UserError(
                f"a description of schema {shown(values['schema'])}", file=path, expected=f"schema {SCHEMA}"
            )
        found = AnnotatorFile(**{**values, "labels": tuple(values["labels"]), "review": _curve(values.get("review"))})
        get_feature(found.feature, found.label_policy, found.wording)
    except UserError as error:
        error.file = path
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise refusal from error
    kinds = typing.get_type_hints(AnnotatorFile)
    others = ("max_post_tokens", "schema", "temperature", "review", "labels", "base_revision")
    texts = [getattr(found, name) for name in kinds if name not in others]
    if not all(isinstance(text, str) for text in [*texts, *found.labels, found.base_revision or ""]):
        raise refusal
    if wrong(found.temperature, NUMBER) or found.temperature <= 0:
        raise refusal
    if type(found.max_post_tokens) is not int or found.max_post_tokens < 1:
        raise refusal
    return found


def _curve(values: Any) -> ReviewCurve | None:
    if values is None:
        return None
    if problem := wrong(values, {"confidence": [NUMBER, ...], "accuracy": [NUMBER, ...], "posts": int}):
        raise ValueError(problem)
    found = ReviewCurve(tuple(values["confidence"]), tuple(values["accuracy"]), values["posts"])
    if not len(found.confidence) == len(found.accuracy) == POINTS:
        raise ValueError("a curve of another length")
    return found


POINTS = 101  # of the curve: one a per cent
MAX_POSTS = 1000  # validation posts that it is learnt from: generating the groups of more takes long


@dataclass(frozen=True)
class ReviewCurve:
    """What validation says of how sure an adapter is.

    Attributes:
        confidence: The 0, 1, … 100 % quantiles of the confidence of the answers.
        accuracy: For each, the share of right answers among those at least so confident.
        posts: How many validation posts it was learnt from.
    """

    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    posts: int

    def for_share(self, share: float) -> float:
        """The threshold under which that share of the answers falls."""
        return float(np.interp(share * (POINTS - 1), range(POINTS), self.confidence))

    def for_accuracy(self, accuracy: float, name: str) -> float:
        """The lowest threshold from which answers are right often enough.

        Raises:
            UserError: There is none: also the surest answers are wrong more often.
        """
        enough = [c for c, reached in zip(self.confidence, self.accuracy, strict=True) if reached >= accuracy]
        if not enough:
            raise UserError(
                f"{name} reaches {max(self.accuracy):.3f} on validation at best",
                key="--target_accuracy",
                expected=f"at most {math.floor(max(self.accuracy) * 1000) / 1000}",
            )
        return min(enough)


def curve(confidences: Sequence[float], right: Sequence[bool]) -> ReviewCurve:
    """The curve of validation answers.

    Args:
        confidences: One an answer, 0 to 1.
        right: Whether it was right.
    """
    sure, correct = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    thresholds = np.quantile(sure, np.linspace(0, 1, POINTS), method="lower")
    accuracy = [correct[sure >= threshold].mean() for threshold in thresholds]
    return ReviewCurve(
        tuple(round(float(value), 6) for value in thresholds),
        tuple(round(float(value), 6) for value in accuracy),
        len(sure),
    )
