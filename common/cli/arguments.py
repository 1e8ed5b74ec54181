"""Strict arguments: a recipe (YAML) and the command line fill one dataclass; whatever fits no field is refused.

Nothing heavy is imported here, so ``--help`` and a refusal come at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import math
import os
import re
import sys
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from common.cli.console import be_quiet
from common.cli.errors import UserError, shown

Arguments = TypeVar("Arguments")
REQUIRED = dataclasses.MISSING
MAX_SEED = 2**32 - 1  # NumPy takes no larger one
LARGEST = 10**9  # whole number of anything but a seed; libraries overflow on what is beyond 64 bits


def option(
    default: Any = REQUIRED,
    help: str = "",
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
    positional: bool = False,
    empty: bool = False,
    instead_of: str | None = None,
) -> Any:
    """A dataclass field with its help text and the bounds of a number. Without a default it must be given.

    A text may only be ``empty`` where that means something: elsewhere it is a variable of a shell that was not set.
    A ``positional`` field (a tuple) takes the words of the command line that belong to no ``--key``. A field that is given on
    the command line puts aside the recipe's value of the field that it is ``instead_of``.
    """
    metadata = {"help": help, "minimum": minimum, "above": above, "maximum": maximum, "below": below}
    metadata |= {"positional": positional, "empty": empty, "instead_of": instead_of}
    return dataclasses.field(default=default, metadata=metadata)


def parse(
    kind: type[Arguments], argv: Sequence[str] | None = None, *, prog: str | None = None, examples: str = ""
) -> Arguments:
    """Reads ``--config recipe.yaml`` and ``--key value`` pairs into the dataclass ``kind``; the command line wins.

    ``bool`` fields take ``--key``, ``--key true`` and ``--key false``; ``tuple[T, ...]`` fields take several values.

    Args:
        kind: A dataclass of ``str``, ``int``, ``float``, ``bool``, ``Path``, ``Literal`` and ``tuple[…, ...]`` fields
            (each ``| None`` where it may be absent). Its docstring opens the help.
        argv: Arguments without the program's name; ``sys.argv`` when None.
        prog: Name shown in the help, as ``python -m sbic_llama.evaluate``.
        examples: Commands shown at the end of the help.

    Raises:
        UserError: An unknown key, a value of the wrong type or out of bounds, a missing argument, or an unreadable recipe.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    types_ = typing.get_type_hints(kind)
    words = [_underscored(word) for word in (sys.argv[1:] if argv is None else argv)]
    given = vars(_parser(kind, fields, types_, prog, examples).parse_args(words))
    if given.pop("quiet", False):
        be_quiet()
    recipe = given.pop("config", None)
    values, origins = _read_recipe(Path(recipe), fields) if recipe else ({}, {})
    for name, value in given.items():
        values[name], origins[name] = value, {"key": f"--{name}"}
        if (other := fields[name].metadata.get("instead_of")) and other not in given:
            values.pop(other, None)
    checked = {}
    for name, field in fields.items():
        if name in values:
            checked[name] = _convert(types_[name], values[name], field.metadata, origins[name])
        elif field.default is REQUIRED and field.default_factory is REQUIRED:
            raise UserError(f"--{name} is missing", expected=field.metadata.get("help"), fix="see --help")
    try:
        return kind(**checked)
    except UserError as error:
        # A dataclass's own __post_init__ knows the key but not where its value came from.
        if error.file is None and error.key in origins:
            origin = origins[error.key]
            error.file, error.line, error.key = origin.get("file"), origin.get("line"), origin["key"]
        raise


def _underscored(word: str) -> str:
    """``--dry-run`` and ``--dry_run`` are the same argument."""
    name, equals, value = word.partition("=")
    return name.replace("-", "_").replace("__", "--", 1) + equals + value if name.startswith("--") else word


class _Once(argparse.Action):
    """Keeps an argument's value; given twice, one of the two would be lost in silence."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if hasattr(namespace, self.dest):
            raise UserError("it is given twice", key=f"--{self.dest}", fix="keep one of them")
        setattr(namespace, self.dest, values)


class _Loader(yaml.SafeLoader):
    """Reads numbers and dates as text, as the command line does: YAML takes 010 for 8, 1:30 for 90 and 1.10 for 1.1."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":bool", ":null"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        raise UserError(message, fix="see --help")


def _parser(kind: type, fields: dict, types_: dict, prog: str | None, examples: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=prog,
        description=kind.__doc__,
        epilog=f"examples:\n{examples}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--config", action=_Once, metavar="RECIPE", help="YAML file of arguments; the command line overrides it"
    )
    parser.add_argument("--quiet", action="store_true", help="say nothing of the progress: results and errors only")
    for name, field in fields.items():
        inner = _without_none(types_[name])
        extra: dict[str, Any] = {"metavar": _type_name(inner), "action": _Once}
        if inner is bool:
            extra |= {"nargs": "?", "const": True}
        elif typing.get_origin(inner) is tuple:
            extra |= {"nargs": "+", "action": "extend"}  # --key a b, or --key a --key b
        if field.metadata.get("positional"):
            parser.add_argument(name, nargs="*", metavar=name.upper(), help=field.metadata["help"].replace("%", "%%"))
            continue
        default = "" if field.default in (REQUIRED, None) else f" (default: {field.default})"
        parser.add_argument(f"--{name}", help=(field.metadata.get("help", "") + default).replace("%", "%%"), **extra)
    # `--learning_rate -1e-4` is a rate out of bounds, not an argument called -1e-4; argparse knows -1 and -0.1 only.
    parser._negative_number_matcher = re.compile(r"-\.?\d")
    parser.parse_args = lambda argv: _known_only(parser, list(fields), argv)  # type: ignore[method-assign]
    return parser


def _known_only(parser: argparse.ArgumentParser, names: list[str], argv: list[str]) -> argparse.Namespace:
    known, unknown = parser.parse_known_args(argv)
    if unknown:
        if not unknown[0].startswith("--"):
            raise UserError(f"unexpected argument {shown(unknown[0])}", fix="see --help")
        name = unknown[0].partition("=")[0]  # what it was given may be a secret, as --token=…
        raise UserError(f"unknown argument {name}", fix=_suggestion(name.lstrip("-"), names))
    return known


def _read_recipe(path: Path, fields: dict) -> tuple[dict[str, Any], dict[str, dict]]:
    """A recipe's values, and for each where it stands (file, line, key)."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise UserError("no such recipe", file=path, fix="check the path given to --config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"can't be read: {error}", file=path) from None
    except RecursionError:
        raise UserError("nested too deeply", file=path, expected="one `key: value` a line") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or "not YAML"
        raise UserError(problem, file=path, line=mark.line + 1 if mark else None, expected="YAML") from None
    if node is None:
        return {}, {}
    if not isinstance(node, yaml.MappingNode):
        raise UserError("not a recipe", file=path, expected="one `key: value` a line")
    values: dict[str, Any] = {}
    origins: dict[str, dict] = {}
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError("a key that is no word", file=path, line=line, expected="one `key: value` a line")
        if key not in fields:
            raise UserError(f"unknown key {shown(key)}", file=path, line=line, fix=_suggestion(key, list(fields)))
        if key in values:
            raise UserError(f"key {key!r} stands twice", file=path, line=line, fix="keep one of them")
        try:
            values[key] = yaml.constructor.SafeConstructor().construct_document(value_node)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            problem = getattr(error, "problem", None) or str(error)
            raise UserError(problem, file=path, line=line, key=key, expected="a plain value") from None
        origins[key] = {"file": path, "line": line, "key": key}
    return values, origins


def _suggestion(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else "see --help for the arguments"


def _without_none(kind: Any) -> Any:
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        (kind,) = [member for member in typing.get_args(kind) if member is not type(None)]
    return kind


def _type_name(kind: Any) -> str:
    origin = typing.get_origin(kind)
    if origin is Literal:
        return "{" + ",".join(map(str, typing.get_args(kind))) + "}"
    if origin is tuple:
        return _type_name(typing.get_args(kind)[0])
    return {str: "TEXT", int: "N", float: "X", bool: "true|false", Path: "PATH"}[kind]


def _convert(kind: Any, value: Any, bounds: typing.Mapping[str, Any], origin: dict) -> Any:
    """``value``, from YAML or the command line, as ``kind``. Strings are parsed; no other type is coerced silently."""
    inner = _without_none(kind)
    if value is None or (inner is not kind and value == "none"):
        if inner is kind:
            raise UserError("no value", **origin, expected=_type_name(inner))
        return None
    if typing.get_origin(inner) is tuple:
        items = value if isinstance(value, list) else [value]
        if not items and "file" in origin:
            raise UserError(
                "an empty list", **origin, expected=_type_name(inner), fix="name one at least, or drop the key"
            )
        return tuple(_convert(typing.get_args(inner)[0], item, bounds, origin) for item in items)
    wrong = UserError(f"{shown(value)} does not fit", **origin, expected=_expectation(inner, bounds))
    if typing.get_origin(inner) is Literal:
        for choice in typing.get_args(inner):
            if value == choice or str(value) == str(choice):
                return choice
        raise wrong
    if inner is bool:
        if isinstance(value, bool):
            return value
        word = value.lower() if isinstance(value, str) else None
        if word not in ("true", "false"):
            raise wrong
        return word == "true"
    if inner in (str, Path):
        if not isinstance(value, str):
            raise wrong
        if not value.strip() and not bounds.get("empty"):
            raise UserError("it is empty", **origin, expected=_expectation(inner, bounds))
        try:
            unfit = b"\0" in os.fsencode(value)
        except UnicodeEncodeError:  # half of a surrogate pair, which YAML can spell
            unfit = True
        if unfit:
            raise wrong
        return inner(value)
    return _number(inner, value, bounds, wrong)


def _number(kind: type, value: Any, bounds: typing.Mapping[str, Any], wrong: UserError) -> int | float:
    if not isinstance(value, str):
        raise wrong
    text = value.strip()
    # int() takes `1_000` and other scripts' digits: settle on plain ASCII numbers.
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?" if kind is float else r"[+-]?\d+", text, re.ASCII):
        raise wrong
    most = max(LARGEST, bounds.get("maximum") or 0)
    if kind is int and (len(text) > 100 or abs(int(text)) > most):  # Python reads no number of thousands of digits
        wrong.expected = f"{_expectation(kind, bounds)}, and at most {most}"
        raise wrong
    number = kind(text)
    if (
        not math.isfinite(number)
        or (bounds.get("minimum") is not None and number < bounds["minimum"])
        or (bounds.get("above") is not None and number <= bounds["above"])
        or (bounds.get("maximum") is not None and number > bounds["maximum"])
        or (bounds.get("below") is not None and number >= bounds["below"])
    ):
        raise wrong
    return number


def _expectation(kind: Any, bounds: typing.Mapping[str, Any]) -> str:
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    text = {str: "text", Path: "a path", int: "a whole number", float: "a number", bool: "true or false"}[kind]
    found = [
        f"{words} {bounds[key]}"
        for key, words in (("minimum", "at least"), ("above", "above"), ("maximum", "at most"), ("below", "below"))
        if bounds.get(key) is not None
    ]
    return f"{text} {' and '.join(found)}" if found else text
