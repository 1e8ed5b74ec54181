"""The text that is put to a model: that of one column of a table or, where a question is about several, of all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.cli.errors import UserError
from sbic_llama.data.corpus import clean, is_blank

LONGEST_POST = 100_000  # characters of a cleaned post: more than any model reads


@dataclass(frozen=True)
class TextColumns:
    """Where the texts of a table are."""

    columns: tuple[str, ...]
    names: tuple[str, ...] = ()  # what the model is told they are; empty for one column, whose text has no name

    @property
    def place(self) -> str | dict[str, str]:
        """Return the column or, of several, name → column, for a file that says what was read."""
        return dict(zip(self.names, self.columns, strict=True)) if self.names else self.columns[0]

    @property
    def example(self) -> str:
        return joined(self.names, ["…"] * len(self.names))

    def problem(self, values: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return a column from which nothing can be read, and why; None if all is well."""
        for column in self.columns:
            text = values.get(column)
            if text is None or (isinstance(text, str) and is_blank(text)) or (isinstance(text, float) and text != text):
                return column, "no text"
            if not isinstance(text, str):
                return column, f"{type(text).__name__} instead of text"
        return None

    def read(self, values: Mapping[str, Any]) -> str:
        """Return a row's text."""
        texts = [shortened(values[column]) for column in self.columns]
        return joined(self.names, texts) if self.names else texts[0]


POST = TextColumns(("post",))  # of SBIC's features


def shortened(post: str) -> str:
    """Return a post, or, if it is long, the start of what :func:`clean` makes of it."""
    return post if len(post) <= LONGEST_POST else clean(post[: 10 * LONGEST_POST])[:LONGEST_POST]


def joined(names: Sequence[str], texts: Sequence[str]) -> str:
    """Return several texts as one, each behind its name: ``[premise] … [hypothesis] …``.

    A name in brackets within a text loses its brackets, so a text can't pass for another. Cleaning the result changes nothing.
    """
    marker = re.compile("|".join(rf"\[(\s*{re.escape(clean(name))}\s*)\]" for name in names), re.IGNORECASE)
    parts = []
    for name, text in zip(names, texts, strict=True):
        while (cleaned := clean(text)) != text:  # entities may hold entities
            text = cleaned
        while (without := marker.sub(lambda match: match[0][1:-1], text)) != text:
            text = without
        parts.append(f"[{clean(name)}] {text}")
    return clean(" ".join(parts))


def text_names(questions: Iterable[TextColumns]) -> tuple[str, ...]:
    """Return the names of the texts that questions are about, none for a single text."""
    names = {each.names for each in questions}
    if len(names) > 1:
        columns = "; ".join(sorted(", ".join(each) or "a single one" for each in names))
        raise UserError(f"questions about different columns ({columns})", fix="annotate them one after the other")
    return names.pop()


def text_columns(questions: Sequence[TextColumns], given: str | None = None) -> TextColumns:
    """Return where a file has the texts of questions: in the column that is ``given``, otherwise where the questions say.

    Raises:
        UserError: The questions are about different texts, or one column is ``given`` for questions about several.
    """
    names = text_names(questions)
    if given is not None and names:
        fix = f"remove it, and name the columns of the file {' and '.join(names)}"
        raise UserError(f"a question about {len(names)} columns", key="--text_column", fix=fix)
    if given is not None:
        return TextColumns((given,))
    declared = set(questions)
    if len(declared) > 1:
        columns = ", ".join(sorted(texts.columns[0] for texts in declared))
        fix = "name the column for all of them"
        raise UserError(f"questions about different columns ({columns})", key="--text_column", fix=fix)
    return declared.pop()
