"""Annotate posts with trained adapters: any number of adapters share one base model in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from common.cli.errors import UserError, shown
from common.models.loading import base_path, local_folder, with_revision
from common.models.quantization import Quantization, load_tokenizer
from common.runtime import hardware
from common.tables.reading import in_windows
from sbic_llama.data.corpus import clean
from sbic_llama.data.encoding import encode
from sbic_llama.data.features import OF_CHOICES, Feature, Label, confidence
from sbic_llama.data.texts import joined, text_names
from sbic_llama.model.adapter import attach, precision_for, read_description
from sbic_llama.model.answering import answer, reweighted
from sbic_llama.model.description import AnnotatorFile
from sbic_llama.model.exactness import load_base
from sbic_llama.model.scoring import PrefixCache, needs_plain_passes

WINDOW = 1024  # posts that are sorted by length and deduplicated together


@dataclass(frozen=True)
class Adapter:
    """One of an annotator's adapters, or a base without one that answers a codebook's question."""

    name: str  # the feature's, which is also the adapter's in the model
    folder: Path | None  # None for a base without an adapter
    description: AnnotatorFile
    feature: Feature
    # How much more frequent each label is among the posts than in training; empty if as frequent.
    ratios: tuple[float, ...] = ()

    @property
    def columns(self) -> list[str]:
        """Return the columns of a row: the answer, then each label's probability or a list's mean log-probability."""
        if self.feature.classifies:
            return [self.feature.name, *(f"{self.feature.name}_probability_{label}" for label in self.feature.labels)]
        if self.feature.choices:
            return [self.feature.name, *(f"{self.feature.name}_{OF_CHOICES}{label}" for label in self.feature.choices)]
        return [self.feature.name, f"{self.feature.name}_mean_log_probability"]

    def row(self, label: Label | None, details: dict[str, float]) -> dict[str, Any]:
        """Return an answer as the values of ``columns``."""
        numbers = {f"{self.feature.name}_{name}": value for name, value in details.items()}
        return {self.feature.name: self.feature.answer(() if label is None else label)} | {
            name: numbers[name] for name in self.columns[1:]
        }

    def confidence(self, row: dict[str, Any]) -> float:
        """Return the confidence of the answer in a row, see :func:`sbic_llama.data.features.confidence`."""
        start = len(self.feature.name) + 1
        return confidence(self.feature, {name[start:]: row[name] for name in self.columns[1:]})


class Annotator:
    """Label posts for one or more features.

    Text in a post is never taken as an instruction. ::

        annotator = Annotator("user/llama2-7b-offensiveYN", "output/sbic/targetMinority")
        for row in annotator.annotate(posts):
            print(row["offensiveYN"], row["offensiveYN_probability_Offensive"], row["targetMinority"])

    Args:
        adapters: Folders or Hub ids of adapters for different features on the same base model. ``user/name@v1`` selects a
            branch, tag or commit. Also what :func:`sbic_llama.model.untrained.untrained` returns.
        label_shares: Label → its share among the posts, if a single classifying adapter was trained with other shares.
        quantization: How to store the base model's weights: ``nf4`` as in training, ``int8``, or ``none``.
        batch_size: Maximum number of posts per forward pass. Results do not depend on it, except for rounding.

    Raises:
        UserError: An adapter or base model cannot be loaded, two adapters are for one feature, their bases differ, or
            ``label_shares`` are not those of its labels.
    """

    def __init__(
        self,
        *adapters: str | Path | Adapter,
        label_shares: Mapping[str, float] | None = None,
        quantization: Quantization = "nf4",
        batch_size: int = 32,
    ):
        self.adapters = read_adapters(adapters, label_shares)
        self.text_names = text_names(adapter.feature.texts for adapter in self.adapters)
        self.batch_size = batch_size
        first = self.adapters[0].description
        hardware.choose_device()
        self.precision = precision_for(first)
        base, revision = base_path(first.base_model), first.base_revision
        settings: dict[str, Any] = {"precision": self.precision.value, "quantization": quantization}
        self._tokenizer = load_tokenizer(base, revision)
        model: Any = load_base(base, revision, self._tokenizer, **settings)
        for name, adapter in zip(adapters, self.adapters, strict=True):
            if adapter.folder is not None:
                model = attach(model, adapter.folder, str(name), adapter.name)
        self._model = model.eval()
        self._prefixes: dict[str, PrefixCache | None] = {}
        self.cut = 0  # posts truncated so far, counted per adapter

    @property
    def columns(self) -> list[str]:
        """Return the names of a row's values, in order."""
        return [column for adapter in self.adapters for column in adapter.columns]

    def annotate(self, posts: Iterable[str | Sequence[str]]) -> Iterator[dict[str, Any]]:
        """Yield a row per post, in the posts' order: each feature's answer and its probabilities.

        Where the codebook names several columns of texts, a post is a sequence of as many texts.

        A stream is read :data:`WINDOW` posts at a time, so it may be longer than memory. A row depends on its post alone,
        except for rounding: in bf16 and fp16, the third digit of a probability may change with the posts around it.

        Raises:
            TypeError: A post is not a string, or not as many strings as the codebook has columns of texts.
        """
        for window in in_windows(posts, WINDOW):
            yield from self.annotate_window(window)

    def annotate_window(self, posts: Sequence[str | Sequence[str]]) -> list[dict[str, Any]]:
        """Return the rows of posts that are processed together; equal posts are scored once."""
        cleaned = [clean(self._text(post)) for post in posts]
        distinct = list(dict.fromkeys(cleaned))
        rows: dict[str, dict[str, Any]] = {post: {} for post in distinct}
        for adapter in self.adapters:
            for post, row in zip(distinct, self._answers(adapter, distinct), strict=True):
                rows[post] |= row
        return [dict(rows[post]) for post in cleaned]

    def _text(self, post: str | Sequence[str]) -> str:
        if isinstance(post, str):
            return post
        names = self.text_names
        if not isinstance(post, list | tuple) or len(post) != len(names) or not all(isinstance(t, str) for t in post):
            expected = f"a string, or {len(names)} strings ({', '.join(names)})" if names else "a string"
            raise TypeError(f"a post must be {expected}, not {type(post).__name__}")
        return joined(names, post)

    def _answers(self, adapter: Adapter, posts: Sequence[str]) -> list[dict[str, Any]]:
        if adapter.folder is not None:
            self._model.set_adapter(adapter.name)
        without = adapter.folder is None and isinstance(self._model, PeftModel)
        with torch.inference_mode(), self._model.disable_adapter() if without else contextlib.nullcontext():
            return self._scored(adapter, posts)

    def _scored(self, adapter: Adapter, posts: Sequence[str]) -> list[dict[str, Any]]:
        length = adapter.description.max_post_tokens
        if adapter.name not in self._prefixes:
            instruction = encode(self._tokenizer, adapter.feature, [], max_post_tokens=length).prefix_ids
            plain = needs_plain_passes(self._model)
            self._prefixes[adapter.name] = None if plain else PrefixCache(self._model, instruction)
        answers = answer(
            self._model,
            self._tokenizer,
            adapter.feature,
            posts,
            max_post_tokens=length,
            batch_size=self.batch_size,
            prefix=self._prefixes[adapter.name],
            temperature=adapter.description.temperature,
        )
        self.cut += answers.cut
        if adapter.ratios:
            answers = reweighted(answers, adapter.ratios)
        return [adapter.row(label, details) for label, details in zip(answers.labels, answers.details, strict=True)]


def read_adapters(
    names: Sequence[str | Path | Adapter], label_shares: Mapping[str, float] | None = None
) -> list[Adapter]:
    """Read the descriptions of adapters without loading any; those on the Hub are downloaded, those read stay."""
    if not names:
        raise UserError("no adapter was given", expected="a folder or Hub id of at least one")
    adapters: dict[str, Adapter] = {}
    for name in names:
        adapter = name if isinstance(name, Adapter) else _read(name)
        description = adapter.description
        called = description.base_model if isinstance(name, Adapter) else name
        if description.feature in adapters:
            expected = "one adapter per feature"
            raise UserError(f"a second adapter for {description.feature}", file=called, expected=expected)
        adapters[description.feature] = adapter
        first = next(iter(adapters.values())).description
        if (description.base_model, description.base_revision) != (first.base_model, first.base_revision):
            expected = f"{first.base_model}, as for the first adapter"
            problem = f"the adapter is for the base model {description.base_model}"
            raise UserError(problem, file=called, expected=expected)
    for name in adapters:
        if f"{name}_label" in adapters:
            expected = "a question with another name"
            raise UserError(f"the columns of {name}_label would look like labels of {name}", expected=expected)
    if label_shares:
        return [replace(each, ratios=_ratios(each, len(adapters), label_shares)) for each in adapters.values()]
    return list(adapters.values())


def _ratios(adapter: Adapter, adapters: int, shares: Mapping[str, float]) -> tuple[float, ...]:
    """Return each label's share among the posts, divided by its share in training."""
    labels, learned, key = adapter.feature.labels, adapter.description.label_shares, "--label_shares"
    if adapters > 1:
        raise UserError(f"{adapters} adapters were given", key=key, expected="a single one")
    if adapter.feature.choices:
        expected = "an adapter whose answer is one label"
        raise UserError(f"several labels of {adapter.name} may hold", key=key, expected=expected)
    if learned is None:
        known = "a trained adapter" if adapter.folder is None else "an adapter that knows the shares of its training"
        fix = "train one whose answers are labels, with this version"
        raise UserError(f"{adapter.name} has no shares to correct", key=key, expected=known, fix=fix)
    wanted = ", ".join(labels)
    if set(shares) != set(labels):
        raise UserError(f"shares of {', '.join(map(shown, shares))}", key=key, expected=f"one for each of {wanted}")
    total = sum(shares.values())
    if not min(shares.values()) > 0 or not abs(total - 1) <= 0.01:  # nan is neither
        raise UserError(f"shares with a sum of {total:.4g}", key=key, expected="shares above 0 that sum to 1")
    return tuple(shares[label] / total / part for label, part in zip(labels, learned, strict=True))


def _read(name: str | Path) -> Adapter:
    folder = local_folder(*with_revision(name))
    description = read_description(folder, name)
    return Adapter(description.feature, folder, description, description.resolve_feature())
