"""Annotating posts with trained adapters: one base model in memory, any number of adapters on it, posts in, rows out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from common.cli.errors import UserError
from common.models import quantization
from common.models.loading import base_path, local_folder, with_revision
from common.models.quantization import Quantization
from common.runtime import hardware
from common.tables.reading import in_windows
from sbic_llama.data.corpus import clean
from sbic_llama.data.encoding import encode
from sbic_llama.data.features import Feature, Label, confidence
from sbic_llama.model.adapter import attach, precision_for, read_description
from sbic_llama.model.answering import answer
from sbic_llama.model.description import AnnotatorFile
from sbic_llama.model.scoring import PrefixCache

WINDOW = 1024  # posts that are sorted by length, and looked through for repeats, together


@dataclass(frozen=True)
class Adapter:
    """One of an annotator's adapters.

    Attributes:
        name: How the model knows it.
        folder: Where its files are.
        description: Its ``annotator.json``.
        feature: The feature that it answers.
    """

    name: str
    folder: Path
    description: AnnotatorFile
    feature: Feature

    @property
    def columns(self) -> list[str]:
        """What a row says of a post: the answer, then each label's probability or how sure a list of groups is."""
        if self.feature.classifies:
            return [self.feature.name, *(f"{self.feature.name}_probability_{label}" for label in self.feature.labels)]
        return [self.feature.name, f"{self.feature.name}_mean_log_probability"]

    def row(self, label: Label | None, details: dict[str, float]) -> dict[str, Any]:
        """An answer as the values of ``columns``."""
        numbers = {f"{self.feature.name}_{name}": value for name, value in details.items()}
        return {self.feature.name: self.feature.answer(() if label is None else label)} | {
            name: numbers[name] for name in self.columns[1:]
        }

    def confidence(self, row: dict[str, Any]) -> float:
        """How sure the answer in a row is; see :func:`sbic_llama.data.features.confidence`."""
        start = len(self.feature.name) + 1
        return confidence(self.feature, {name[start:]: row[name] for name in self.columns[1:]})


class Annotator:
    """Labels posts for one or more features; posts are only read, whatever they say.

    ::

        annotator = Annotator("user/llama2-7b-offensiveYN", "output/sbic/targetMinority")
        for row in annotator.annotate(posts):
            print(row["offensiveYN"], row["offensiveYN_probability_Offensive"], row["targetMinority"])

    Args:
        adapters: Folders or Hub ids of adapters for different features on the same base model. ``user/name@v1`` is a Hub id at a
            branch, tag or commit.
        quantisation: How the base model's weights are kept: ``nf4`` as in training, ``int8``, or ``none``.
        batch_size: Posts a forward pass at most; results do not depend on it, but for rounding.

    Raises:
        UserError: An adapter or base that can't be loaded, two of one feature, or adapters of different bases.
    """

    def __init__(self, *adapters: str | Path, quantisation: Quantization = "nf4", batch_size: int = 32):
        self.adapters = read_adapters(adapters)
        self.batch_size = batch_size
        first = self.adapters[0].description
        hardware.choose_device()
        self.precision = precision_for(first)
        base = base_path(first.base_model)
        model: Any = quantization.load_base(
            base, first.base_revision, precision=self.precision.value, quantization=quantisation
        )
        self._tokenizer = quantization.load_tokenizer(base, first.base_revision)
        for name, adapter in zip(adapters, self.adapters, strict=True):
            model = attach(model, adapter.folder, name, adapter.name)
        self._model = model.eval()
        self._prefixes: dict[str, PrefixCache] = {}
        self.cut = 0  # posts so far that were longer than an adapter reads, and were cut

    @property
    def columns(self) -> list[str]:
        """The names of a row's values, in order."""
        return [column for adapter in self.adapters for column in adapter.columns]

    def annotate(self, posts: Iterable[str]) -> Iterator[dict[str, Any]]:
        """A row a post, in the posts' order: for each feature its answer, and how probable that is.

        A stream is read :data:`WINDOW` posts at a time, so memory does not grow with it. A row depends on its post alone,
        but for rounding: in bf16 and fp16 the third digit of a probability may be another beside other posts.

        Raises:
            TypeError: A post is no text.
        """
        for window in in_windows(posts, WINDOW):
            yield from self.annotate_window(window)

    def annotate_window(self, posts: Sequence[str]) -> list[dict[str, Any]]:
        """The rows of posts that are worked on together; equal posts are scored once."""
        for post in posts:
            if not isinstance(post, str):
                raise TypeError(f"a post must be text, not {type(post).__name__}")
        cleaned = [clean(post) for post in posts]
        distinct = list(dict.fromkeys(cleaned))
        rows: dict[str, dict[str, Any]] = {post: {} for post in distinct}
        for adapter in self.adapters:
            for post, row in zip(distinct, self._answers(adapter, distinct), strict=True):
                rows[post] |= row
        return [dict(rows[post]) for post in cleaned]

    @torch.inference_mode()
    def _answers(self, adapter: Adapter, posts: Sequence[str]) -> list[dict[str, Any]]:
        self._model.set_adapter(adapter.name)
        length = adapter.description.max_post_tokens
        if adapter.name not in self._prefixes:
            instruction = encode(self._tokenizer, adapter.feature, [], max_post_tokens=length).prefix_ids
            self._prefixes[adapter.name] = PrefixCache(self._model, instruction)
        found = answer(
            self._model,
            self._tokenizer,
            adapter.feature,
            posts,
            max_post_tokens=length,
            batch_size=self.batch_size,
            prefix=self._prefixes[adapter.name],
            temperature=adapter.description.temperature,
        )
        self.cut += found.cut
        return [adapter.row(label, details) for label, details in zip(found.labels, found.details, strict=True)]


def read_adapters(names: Sequence[str | Path]) -> list[Adapter]:
    """What adapters say of themselves, without loading one; those on the Hub are fetched.

    Raises:
        UserError: See :class:`Annotator`.
    """
    if not names:
        raise UserError("no adapter was given", expected="a folder or Hub id of at least one")
    found: list[Adapter] = []
    for name in names:
        folder = local_folder(*with_revision(name))
        description = read_description(folder, name)
        adapter = Adapter(description.feature, folder, description, description.resolve_feature())
        for other in found:
            if other.name == adapter.name:
                raise UserError(f"a second adapter for {adapter.name}", file=name, expected="one adapter a feature")
            bases = [(one.description.base_model, one.description.base_revision) for one in (other, adapter)]
            if bases[0] != bases[1]:
                raise UserError(
                    f"it is for the base model {bases[1][0]}",
                    file=name,
                    expected=f"{bases[0][0]}, as the first adapter's",
                )
        found.append(adapter)
    return found
