"""What answers: adapters, or a base model as it is with a codebook. Shared by the commands that annotate."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli.arguments import given, option
from common.cli.errors import UserError, shown
from common.models.loading import base_path, check_place, with_revision
from common.models.prompt import PromptChoice
from sbic_llama.data.codebook import read_codebook
from sbic_llama.data.texts import TextColumns, text_columns

if TYPE_CHECKING:
    from sbic_llama.model.annotator import Adapter


@dataclass(kw_only=True)
class UntrainedArguments:
    """Which codebook's question to put to which base model without training."""

    codebook: Path | None = option(None, "codebook (YAML) whose question a base model answers without training")
    model: str | None = option(None, "that base model, a folder or Hub id")
    model_revision: str | None = option(None, "its branch, tag or commit on the Hub")
    prompt: PromptChoice = option(
        "auto", "template of its prompts: the base's own for chats, or the study's (auto: chat if it has one)"
    )


@dataclass(kw_only=True)
class AnnotatorArguments(UntrainedArguments):
    """What answers."""

    adapter: tuple[str, ...] = option(
        (), "adapters for different features: folders or Hub ids, user/name@v1 for a revision"
    )

    label_shares: tuple[str, ...] = option(
        (), "about which share of these posts has each label, as Yes=0.1 No=0.9, if training had other shares"
    )

    text_column: str | None = option(None, "column of the posts (default: the codebook's, otherwise post)")

    def __post_init__(self) -> None:
        self.expected_shares()
        for name in self.adapter:
            check_place(*with_revision(name))
        if given(self, UntrainedArguments, "codebook"):
            read_codebook(Path(str(self.codebook)))
            if self.model is None:
                raise UserError("no base model", key="codebook", fix="add --model, a folder or Hub id")
            check_place(base_path(self.model), self.model_revision)
        elif not self.adapter:
            fix = "give --adapter, or --codebook and --model"
            raise UserError("nothing to annotate with", key="--adapter", expected="a folder or Hub id", fix=fix)

    def expected_shares(self) -> dict[str, float]:
        """Return label → share among the posts, empty if none were given."""
        shares = {}
        for word in self.label_shares:
            label, _, number = word.rpartition("=")
            if label in shares:
                raise UserError(f"{shown(label)} is given twice", key="--label_shares", fix="keep one of them")
            try:
                shares[label] = float(number)
            except ValueError:
                expected = "label=share, as Yes=0.1"
                raise UserError(
                    f"{shown(word)} is no share of a label", key="--label_shares", expected=expected
                ) from None
        return shares

    @functools.cached_property
    def texts(self) -> TextColumns:
        """Return where the texts are: in the given column, or in those that codebooks name."""
        from sbic_llama.model.description import texts_of

        questions = [texts_of(name) for name in self.adapter]
        questions += [read_codebook(self.codebook).columns.texts] if self.codebook is not None else []
        return text_columns(questions, self.text_column)

    def annotators(self) -> list[str | Adapter]:
        """Return the adapters by name, and the base that answers a codebook's question, for an ``Annotator``."""
        if self.codebook is None:
            return list(self.adapter)
        from sbic_llama.model.untrained import untrained

        asked = untrained(read_codebook(self.codebook), str(self.model), self.model_revision, self.prompt)
        return [*self.adapter, asked]
