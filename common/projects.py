"""From a trained model's folder to the project that trained it, which knows the model's card, code and corpus."""

from __future__ import annotations

import importlib
from typing import Protocol, cast

from common.card import Trained
from common.corpus_options import CorpusOptions
from common.errors import UserError, shown
from common.training_file import TRAINING_FILE

PROJECTS = ("sbic_llama", "snli_roberta")  # by name only: nothing here imports them unless a folder is theirs


class Publication(Protocol):
    """A project's ``publication`` module.

    Attributes:
        FILES: What its models can't do without, besides weights and tokenizer.
        EVALUATE: The command that evaluates one of them, up to the folder.
    """

    FILES: tuple[str, ...]
    EVALUATE: str

    def render(self, trained: Trained, repo_id: str) -> dict[str, bytes]:
        """The card's files by path."""

    def snippet(self, trained: Trained, repo_id: str) -> str:
        """The code on the card; it defines ``annotate``."""

    def inputs(self, trained: Trained, corpus: CorpusOptions) -> dict[str, tuple[str, ...]]:
        """The scored items by id: what ``annotate`` takes."""


def publication_of(trained: Trained) -> Publication:
    """The project's module that knows a trained model.

    Raises:
        UserError: No project of this repository trained it.
    """
    name = trained.facts["project"]
    if name not in PROJECTS:
        raise UserError(
            f"trained by {shown(name)}", file=trained.folder / TRAINING_FILE, expected=" or ".join(PROJECTS)
        )
    return cast(Publication, importlib.import_module(f"{name}.publication"))
