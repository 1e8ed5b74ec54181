"""A codebook: a question of your own about texts, its labels and their definitions, declared in a YAML file."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from common.cli.errors import UserError, counted, shown
from common.stats.votes import MISSING, folded
from sbic_llama.data.corpus import clean
from sbic_llama.data.groups import NONE, split_groups
from sbic_llama.data.texts import TextColumns, joined

# How the labels of several people become one: the most frequent, the first label of the codebook that anybody gave, or the one
# nearest to the mean place in the labels' order. With "soft" it is the most frequent, and a training learns all of them.
Several = Literal["majority", "any", "mean", "soft"]
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")  # part of a folder's and a column's name
MOST_LABELS, MOST_EXAMPLES = 100, 1000
LONGEST, LONGEST_LABEL = 4000, 200  # characters of a text, and of a label, which names a column
LARGEST = 4 * 2**20  # bytes of a file
DEEPEST = 20  # levels of a file
OPENING = (
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
)
CLOSING = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)
# Columns of an annotated file that are not a feature's own, and parts of columns that come after a feature's name.
RESERVED = re.compile(r"needs_review|problem|raw_record|.*_(probability_.*|mean_log_probability|margin)", re.IGNORECASE)
MEANS = ("micro", "macro", "weighted", "targeted")  # of metrics, which are named like those of a label
RULES: dict[Several, str] = {
    "majority": "the label that most annotators gave; of equally many, the first in the codebook",
    "soft": "the label that most annotators gave; each annotator's was learned, by its share",
    "any": "the first label of the codebook that any annotator gave",
    "mean": "the label nearest to the annotators' mean place in the codebook's order; of two, the first",
}
UNITED = "every name that any annotator gave, in lower case, sorted"
CHOSEN: dict[Several, str] = {  # with multi_label
    "majority": "every label that at least half of the annotators gave",
    "soft": "every label that at least half of the annotators gave; each annotator's were learned, by their share",
    "any": "every label that any annotator gave",
}


@dataclass(frozen=True)
class Columns:
    """The columns of a table with labels."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    text: str | tuple[str, ...] = "text"  # or several, which the model reads one behind the other
    label: str = "label"
    annotator: str | None = None  # who gave the label; without it, every row of a text is another person's
    item: str | None = None  # id of the text; without it, equal texts are one item
    group: str | None = None  # such as the author or thread: texts of a group are never in two splits
    split: str | None = None  # train, dev or test; without it, texts are divided by a draw

    @property
    def texts(self) -> TextColumns:
        return TextColumns((self.text,)) if isinstance(self.text, str) else TextColumns(self.text, self.text)


@dataclass(frozen=True)
class Example:
    """A text with its label, which an untrained model is shown."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    text: str | tuple[str, ...]  # as many as there are columns of texts
    label: str


@dataclass(frozen=True)
class Codebook:
    """What to ask about a text, and how people's labels in a table are read; field names are the file's keys."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    name: str  # of the feature: names the adapter's folder and the columns of answers
    question: str  # for a reader
    instruction: str  # for the model, without the labels, which follow it
    labels: dict[str, str] = field(default_factory=dict)  # label → its definition, which may be empty
    ordered: bool = False  # whether the labels are listed from lowest to highest
    multi_label: bool = False  # whether any number of the labels may hold
    text: bool = False  # whether the answer is a comma-separated list of names instead of a label
    several: Several = "majority"
    examples: tuple[Example, ...] = ()
    columns: Columns = Columns()

    @property
    def whole_instruction(self) -> str:
        """Return the instruction followed by the labels with their definitions."""
        if self.text:
            return self.instruction
        lines = [
            f"- {label}: {definition}" if definition else f"- {label}" for label, definition in self.labels.items()
        ]
        if self.multi_label:
            lines = ["Any number of these labels may hold:", *lines, "Answer yes or no for each."]
        else:
            lines = ["Answer with one of these labels:", *lines]
        return "\n".join([self.instruction, *lines])

    def example_texts(self) -> list[str]:
        """Return the texts of the examples, as a model reads them."""
        names = self.columns.texts.names
        return [joined(names, each.text) if names else clean(str(each.text)) for each in self.examples]

    def ties(self, votes: Sequence[Any]) -> bool:
        """Return whether only the order of the labels decides what several people's labels make."""
        if self.text or self.multi_label or self.several not in ("majority", "soft"):
            return False
        counts = sorted(Counter(votes).values())
        return len(counts) > 1 and counts[-1] == counts[-2]

    def combine(self, votes: Sequence[Any]) -> Any:
        """Return the label that several people's labels make."""
        if self.text or (self.multi_label and self.several == "any"):
            return tuple(sorted(set().union(*votes)))
        if self.multi_label:
            counts = Counter(label for vote in votes for label in vote)
            return tuple(sorted(label for label, count in counts.items() if 2 * count >= len(votes)))
        if self.several == "any":
            return min(votes)
        if self.several == "mean":
            mean = sum(votes) / len(votes)
            return min(range(len(self.labels)), key=lambda label: (abs(label - mean), label))
        return min(set(votes), key=lambda label: (-votes.count(label), label))

    def problem(self) -> tuple[str, str, str] | None:
        """Return the first wrong key, what is wrong with it, and what was expected; None if all is well."""
        texts = {"question": self.question, "instruction": self.instruction}
        texts |= {f"labels.{label}": f"{label}{definition}" for label, definition in self.labels.items()}
        if not NAME.fullmatch(self.name):
            return (
                "name",
                f"{shown(self.name)} is not a name",
                "at most 64 letters, digits and _, beginning with a letter",
            )
        if RESERVED.fullmatch(self.name):
            return "name", f"{shown(self.name)} is the name of another column of annotated files", "another name"
        for key, text in texts.items():
            if not text.strip():
                return key, "the value is empty", "text"
            if len(text) > LONGEST:
                return key, f"{len(text):,} characters", f"at most {LONGEST:,}"
        return self._problem_of_labels() or self._problem_of_examples()

    def _problem_of_labels(self) -> tuple[str, str, str] | None:
        if self.text:
            for key, given in (
                ("labels", self.labels),
                ("ordered", self.ordered),
                ("several", self.several != "majority"),
                ("multi_label", self.multi_label),
            ):
                if given:
                    return key, "the answers are free text", f"no {key}, or no `text: true`"
            return None
        if not 2 <= len(self.labels) <= MOST_LABELS:
            return "labels", counted(len(self.labels), "label"), f"2 to {MOST_LABELS} labels, or text: true"
        names: dict[str, str] = {}
        for label in self.labels:
            if not label:
                return "labels", "a label is empty", "a word"
            if len(label) > LONGEST_LABEL:
                return f"labels.{label}", f"a label of {len(label):,} characters", f"at most {LONGEST_LABEL}"
            if label in MEANS:
                return f"labels.{label}", f"{shown(label)} is the name of a mean in tables", "another word"
            if label != " ".join(label.split()) or not label.isprintable():
                problem = f"{shown(label)} has needless spaces, or characters that cannot be seen"
                return f"labels.{label}", problem, "words with a space between them"
            if folded(label) in names:
                other = shown(names[folded(label)])
                return f"labels.{label}", f"it differs from {other} in case or spaces only", "different labels"
            if self.multi_label and len(split_groups(label)) != 1:
                problem = f"{shown(label)} can't be told from a list of labels, or from none of them"
                return f"labels.{label}", problem, f"labels without , and ;, and none called {NONE}"
            if self.multi_label and len(names_of([*names.values(), label])) <= len(names):
                return f"labels.{label}", f"{shown(label)} is like another label in a list", "different labels"
            names[folded(label)] = label
        for key, given in (("ordered", self.ordered), ("examples", self.examples)) if self.multi_label else ():
            if given:
                return key, "several labels may hold", f"no {key}, or no `multi_label: true`"
        if self.several == "mean" and not self.ordered:
            return "several", "a mean needs an order", "majority or any, or ordered: true"
        return None

    def _problem_of_examples(self) -> tuple[str, str, str] | None:
        known = {folded(label) for label in self.labels}
        if len(self.examples) > MOST_EXAMPLES:
            return "examples", counted(len(self.examples), "example"), f"at most {MOST_EXAMPLES:,}"
        for number, example in enumerate(self.examples):
            key = f"examples.{number}"
            names = self.columns.texts.names
            texts = (example.text,) if isinstance(example.text, str) else example.text
            if isinstance(example.text, str) == bool(names) or len(texts) != max(1, len(names)):
                return f"{key}.text", counted(len(texts), "text"), f"{', '.join(names)}" if names else "one text"
            if not all(text.strip() for text in texts):
                return key, "the text is empty", "a text with its label"
            if not self.text and folded(example.label) not in known:
                return f"{key}.label", f"unknown label {shown(example.label)}", ", ".join(self.labels)
        return self._problem_of_columns()

    def _problem_of_columns(self) -> tuple[str, str, str] | None:
        given = dataclasses.asdict(self.columns) | {"text": None}
        named = [("text", name) for name in self.columns.texts.columns]
        named += [(key, name) for key, name in given.items() if name is not None]
        for key, name in named:
            if not name.strip():
                return f"columns.{key}", "the value is empty", "the name of a column, or no such line"
        if not isinstance(self.columns.text, str) and len(self.columns.text) < 2:
            return "columns.text", "a list of one column", "the name of the column, or several"
        if twice := next((name for name in self.columns.texts.names if "]" in name), None):
            return "columns.text", f"{shown(twice)} holds a bracket", "columns without ]"
        used = [name for _, name in named]
        if twice := next((name for name in used if used.count(name) > 1), None):
            return "columns", f"{shown(twice)} is named for two things", "different columns"
        return None


def names_of(labels: Iterable[str]) -> dict[str, str]:
    """Return labels by their names in a list, as :func:`sbic_llama.data.groups.split_groups` reads it."""
    return {name: label for label in labels for name in split_groups(label)}


def missing_words(codebook: Codebook) -> frozenset[str]:
    """Return the words that stand for a missing label in a table, unless the codebook has them as labels."""
    lists = codebook.text or codebook.multi_label
    return MISSING - {folded(label) for label in codebook.labels} - ({NONE} if lists else set())


def read_codebook(path: Path) -> Codebook:
    """Read a codebook from a YAML file.

    Raises:
        UserError: No such file, not YAML, an unknown or missing key, or a value that is not valid, each with its line.
    """
    from pydantic import TypeAdapter, ValidationError

    node = _parsed(path)
    if not isinstance(node, yaml.MappingNode):
        expected = "`key: value` lines: name, question, instruction, labels"
        raise UserError("not a codebook", file=path, line=1, expected=expected)
    lines: dict[str, int] = {}
    value = _value(node, "", lines, path)
    if isinstance(value.get("labels"), list):  # labels without definitions
        value["labels"] = _definitions(value["labels"], lines, path)
    try:
        codebook = TypeAdapter(Codebook).validate_python(value)
    except ValidationError as error:
        raise _in_yaml(error.errors(include_url=False)[0], lines, path) from None
    if problem := codebook.problem():
        key, what, expected = problem
        raise UserError(what, file=path, line=_line(key, lines), key=key, expected=expected)
    return codebook


def _parsed(path: Path) -> yaml.Node | None:
    """Return a YAML file's nodes without aliases, with which a small file can unpack to more than memory holds."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError("no such file", file=path, fix="check the path given to --codebook") from None
    except OSError as error:
        raise UserError(f"can't be read: {error.strerror}", file=path) from None
    if len(data) > LARGEST:
        raise UserError(f"{len(data):,} bytes", file=path, expected=f"a codebook of at most {LARGEST:,}")
    try:
        text = data.decode("utf-8-sig")
        depth = 0
        for token in yaml.scan(text, Loader=yaml.BaseLoader):
            depth += isinstance(token, OPENING) - isinstance(token, CLOSING)
            if depth > DEEPEST:  # the time to read it grows with the square of the depth
                line = token.start_mark.line + 1
                raise UserError("too many levels", file=path, line=line, expected=f"at most {DEEPEST}")
            if isinstance(token, yaml.AliasToken):
                line, problem = token.start_mark.line + 1, f"the alias *{token.value[:40]}"
                fix = "write the text again, or put it in quotes if it begins with *"
                raise UserError(problem, file=path, line=line, expected="YAML without aliases", fix=fix)
        return yaml.compose(text, Loader=yaml.BaseLoader)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError("not UTF-8", file=path, line=line, fix="save the file as UTF-8") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(f"the character {shown(chr(error.character))}", file=path, line=line, expected="text") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        problem = getattr(error, "problem", None) or "not YAML"
        if "\\t" in problem:
            raise UserError("a tab", file=path, line=line, expected="spaces, with which YAML indents") from None
        fix = (
            "put a text with `: ` or ` #` in it in quotation marks"
            if re.search("mapping values|got ':'", problem)
            else None
        )
        raise UserError(problem, file=path, line=line, expected="YAML", fix=fix) from None


def _value(node: yaml.Node, key: str, lines: dict[str, int], path: Path) -> Any:
    """Return a YAML node as dictionaries, lists and text, and note the line of each key; Yes, No and 1 stay text."""
    lines.setdefault(key, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        return node.value
    inside = f"{key}." if key else ""
    if isinstance(node, yaml.SequenceNode):
        return [_value(each, f"{inside}{number}", lines, path) for number, each in enumerate(node.value)]
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError("the key is not a word", file=path, line=line, expected="`key: value` lines")
        name = key_node.value
        if name in result:
            raise UserError("given twice", file=path, line=line, key=f"{inside}{name}", fix="keep one of them")
        lines[f"{inside}{name}"] = line
        result[name] = _value(value_node, f"{inside}{name}", lines, path)
    return result


def _definitions(labels: list[Any], lines: dict[str, int], path: Path) -> dict[str, str]:
    result: dict[str, str] = {}
    for number, label in enumerate(labels):
        line = lines[f"labels.{number}"]
        if not isinstance(label, str):
            fix = "write `label: definition` lines without dashes"
            raise UserError("not a label", file=path, line=line, key="labels", expected="a word", fix=fix)
        if label in result:
            raise UserError(
                f"{shown(label)} is given twice", file=path, line=line, key="labels", fix="keep one of them"
            )
        result[label] = ""
        lines[f"labels.{label}"] = line
    return result


def _line(key: str, lines: dict[str, int]) -> int | None:
    while key and key not in lines:
        key = key.rpartition(".")[0]
    return lines.get(key)


def _in_yaml(error: Mapping[str, Any], lines: dict[str, int], path: Path) -> UserError:
    """Return pydantic's first error as one about a line of the file."""
    *places, name = map(str, error["loc"])
    key = ".".join([*places, name])
    where: dict[str, Any] = {"file": path, "line": _line(key, lines), "key": key}
    if error["type"] == "missing":
        return UserError("missing", **where, fix=f"add a line `{name}: …`")
    if error["type"] == "unexpected_keyword_argument":
        kind = {"columns": Columns, "examples": Example}.get(places[0] if places else "", Codebook)
        names = [each.name for each in dataclasses.fields(kind)]
        close = difflib.get_close_matches(name, names, n=1)
        return UserError(
            "unknown key", **where, fix=f"did you mean {close[0]!r}?" if close else f"use {', '.join(names)}"
        )
    message = error["msg"].removeprefix("Input should be ")
    if error["type"] in ("dataclass_type", "dict_type"):
        message = "`key: value` lines"
    return UserError(f"{shown(error['input'])} is not valid", **where, expected=message)
