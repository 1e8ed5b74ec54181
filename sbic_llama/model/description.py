"""Read and write ``annotator.json``: what others need to annotate with an adapter exactly as it was trained."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Len, Lt

from common.cli.errors import UserError, counted, shown
from common.models.loading import local_folder, require, with_revision
from common.models.prompt import STUDY, Template
from common.runtime.files import Count, Number, atomic_write, read_json
from common.runtime.project import MINIATURE
from sbic_llama.data.codebook import Codebook
from sbic_llama.data.features import FEATURES, Feature, Policy, Wording, feature_of, get_feature
from sbic_llama.data.texts import TextColumns
from sbic_llama.training.arguments import OF_MINIATURE, SBIC_NAMES, TrainArguments

ANNOTATOR_FILE = "annotator.json"
SCHEMA = 1
POINTS = 101  # of a review curve: one per percent
MAX_POSTS = 1000  # validation posts for a review curve: generating groups for more takes long

UNTRAINED = "nothing"  # corpus of a base that answers as it is

Points = Annotated[tuple[Number, ...], Len(POINTS, POINTS)]


@dataclass(frozen=True)
class ReviewCurve:
    """How confidence relates to accuracy on validation posts."""

    confidence: Points  # the 0, 1, … 100 % quantiles of the answers' confidence
    accuracy: Points  # for each, the accuracy of the answers that are at least so confident
    posts: Count  # validation posts behind the curve

    def for_share(self, share: float) -> float:
        """Return the confidence below which that share of the answers falls."""
        import numpy as np

        return float(np.interp(share * (POINTS - 1), range(POINTS), self.confidence))

    def for_accuracy(self, accuracy: float, name: str) -> float:
        """Return the lowest confidence from which answers reach an accuracy."""
        enough = [c for c, reached in zip(self.confidence, self.accuracy, strict=True) if reached >= accuracy]
        if not enough:
            best = max(self.accuracy)
            raise UserError(
                f"{name} reaches at most {best:.3f} on validation posts",
                key="--target_accuracy",
                expected=f"at most {math.floor(best * 1000) / 1000}",
            )
        return min(enough)


@dataclass(frozen=True)
class AnnotatorFile:
    """Facts about an adapter; field names are the file's keys."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    feature: str
    labels: tuple[str, ...]  # in the order of their indices; empty where the answer is a list of groups
    instruction: str
    prompt_hash: str
    label_policy: Policy
    label_policy_text: str
    corpus: str
    aggregation: str  # how annotations became one label per post
    wording: Wording
    max_post_tokens: Annotated[int, Ge(1), Lt(10**18)]
    base_model: str  # folder or Hub id
    base_revision: str | None  # the commit that was trained on; None for a folder
    temperature: Annotated[float, Gt(0), Lt(10**18)] = 1.0  # divides the labels' log-probabilities
    review: ReviewCurve | None = None  # None in adapters of earlier versions
    prompt: Template = STUDY  # as the base's tokenizer rendered it when the adapter was trained
    codebook: Codebook | None = None  # of the adapter's own question; None for a feature of SBIC
    # Share of each label among the answers learned, by their weights in the loss; None for lists, and in earlier versions.
    label_shares: Annotated[tuple[Annotated[Number, Gt(0), Lt(1)], ...], Len(2)] | None = None
    # The probability from which each of several labels holds, fitted on validation posts; None where one label holds.
    thresholds: tuple[Annotated[Number, Gt(0), Lt(1)], ...] | None = None
    schema: Literal[1] = SCHEMA

    @property
    def of_miniature(self) -> bool:
        """Return whether it was trained on invented posts, so that its answers about real ones mean nothing."""
        if self.corpus == UNTRAINED:
            return self.base_model.startswith(MINIATURE)
        return self.corpus == SBIC_NAMES[0] or self.corpus.startswith(OF_MINIATURE)

    def write(self, folder: Path) -> None:
        with atomic_write(folder / ANNOTATOR_FILE) as part:
            values = dataclasses.asdict(self)
            for key in ("codebook", "label_shares", "thresholds"):
                if values[key] is None:  # as earlier versions know the file
                    del values[key]
            text = json.dumps(values, indent=1, ensure_ascii=False)
            text = re.sub(r"\[\n[^][\"]*\]", lambda match: " ".join(match[0].split()), text)  # a curve on one line
            part.write_text(text + "\n", encoding="utf-8")

    def resolve_feature(self) -> Feature:
        """Return the feature as this version declares it, in the adapter's template."""
        feature = replace(self._declared(), template=self.prompt, thresholds=self.thresholds or ())
        current = (feature.prompt_hash(), feature.labels, feature.instruction)
        if current != (self.prompt_hash, self.labels, self.instruction):
            raise UserError(
                f"the adapter was trained with another prompt or other labels (hash {self.prompt_hash})",
                file=ANNOTATOR_FILE,
                expected=feature.prompt_hash(),
                fix="use the version of this project that trained it, or retrain it",
            )
        for key, given, of in (
            ("label_shares", self.label_shares, feature.labels),
            ("thresholds", self.thresholds, feature.choices),
        ):
            if given is not None and len(given) != len(of):
                problem, expected = counted(len(given), "number"), f"{len(of)}, one for each label"
                raise UserError(problem, file=ANNOTATOR_FILE, key=key, expected=expected, fix="retrain the adapter")
        return feature

    def _declared(self) -> Feature:
        if self.codebook is None:
            return get_feature(self.feature, self.label_policy, self.wording)
        return feature_of(self.codebook)


def describe(
    arguments: TrainArguments,
    feature: Feature,
    base_revision: str | None,
    temperature: float = 1.0,
    review: ReviewCurve | None = None,
    label_shares: tuple[float, ...] | None = None,
    thresholds: tuple[float, ...] | None = None,
) -> AnnotatorFile:
    """Describe the adapter that a run trains."""
    return AnnotatorFile(
        feature=feature.name,
        labels=feature.labels,
        instruction=feature.instruction,
        prompt_hash=feature.prompt_hash(),
        label_policy=arguments.label_policy,
        label_policy_text=feature.policy,
        corpus=arguments.corpus_name,
        aggregation=arguments.aggregation,
        wording=arguments.wording,
        max_post_tokens=arguments.max_post_tokens,
        base_model=arguments.model_name_or_path,
        base_revision=base_revision,
        temperature=temperature,
        review=review,
        prompt=feature.template,
        codebook=feature.codebook,
        label_shares=label_shares,
        thresholds=thresholds,
    )


def read(path: Path) -> AnnotatorFile:
    """Read ``annotator.json``."""
    description = read_json(AnnotatorFile, path, what="an adapter's description", fix="retrain the adapter")
    if description.codebook is not None:
        problem = description.codebook.problem()
        if problem or description.codebook.name != description.feature:
            key, what, expected = problem or ("name", shown(description.codebook.name), description.feature)
            raise UserError(f"codebook: {what}", file=path, key=key, expected=expected, fix="retrain the adapter")
    elif description.feature not in FEATURES:
        expected = ", ".join(FEATURES)
        raise UserError(f"unknown feature {shown(description.feature)}", file=path, key="feature", expected=expected)
    try:
        description._declared()
    except UserError as error:
        error.file = path
        raise
    return description


def texts_of(name: str | Path) -> TextColumns:
    """Return in which columns of a table the texts of an adapter are, a folder or Hub id."""
    return read(require(local_folder(*with_revision(name)), ANNOTATOR_FILE, name))._declared().texts


def curve(confidences: Sequence[float], right: Sequence[bool]) -> ReviewCurve:
    """Compute the review curve of validation answers from their confidences, 0 to 1, and whether each was right."""
    import numpy as np

    sure, correct = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    thresholds = np.quantile(sure, np.linspace(0, 1, POINTS), method="lower")
    accuracy = [correct[sure >= threshold].mean() for threshold in thresholds]
    return ReviewCurve(
        tuple(round(float(value), 6) for value in thresholds),
        tuple(round(float(value), 6) for value in accuracy),
        len(sure),
    )
