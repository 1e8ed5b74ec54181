"""Fill one dataclass from a YAML recipe and the command line; refuse whatever fits no field.

Nothing heavy is imported here, so ``--help`` and errors appear at once.
"""

from __future__ import annotations

import argparse
import codecs
import dataclasses
import difflib
import functools
import math
import operator
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from common.cli.console import be_quiet
from common.cli.errors import UserError, shown

Arguments = TypeVar("Arguments")
REQUIRED = dataclasses.MISSING
ENCODING = "TABLE_ENCODING"  # environment variable, so that a command's other processes know it, too
COMPLETING = "_ARGCOMPLETE"  # set where a shell asks for completions
MAX_SEED = 2**32 - 1  # NumPy's largest
LARGEST = 10**9  # for all integers but seeds: libraries overflow beyond 64 bits
BOUNDS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "minimum": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "maximum": ("at most", operator.le),
    "below": ("below", operator.lt),
}


def option(
    default: Any = REQUIRED,
    help: str = "",
    *,
    minimum: float | None = None,
    above: float | None = None,
    maximum: float | None = None,
    below: float | None = None,
    positional: bool = False,  # a tuple of the words that belong to no --key
    empty: bool = False,  # allow empty text, which is usually an unset shell variable
    instead_of: str | None = None,  # on the command line, this field discards the recipe's value of that one
    added_later: bool = False,  # earlier versions' runs do not record it: they are those of its default
    writes: tuple[str, ...] = (),  # endings of a file to write: never one that another option names
) -> Any:
    """Declare a dataclass field with its help text and bounds; without a default it is required."""
    metadata = {"help": help, "minimum": minimum, "above": above, "maximum": maximum, "below": below}
    metadata |= {"positional": positional, "empty": empty, "instead_of": instead_of, "added_later": added_later}
    metadata |= {"writes": writes}
    return dataclasses.field(default=default, metadata=metadata)


def identifying(arguments: Any) -> dict[str, Any]:
    """Return a dataclass's values by name, without those options added later that have their default."""
    return {
        field.name: getattr(arguments, field.name)
        for field in dataclasses.fields(arguments)
        if not (field.metadata.get("added_later") and getattr(arguments, field.name) == field.default)
    }


def given(arguments: Any, group: type, name: str) -> bool:
    """Return whether an option is given, without which the others of ``group`` do nothing.

    Raises:
        UserError: It is not, and one of the others is.
    """
    if getattr(arguments, name) is not None:
        return True
    for field in dataclasses.fields(group):
        if getattr(arguments, field.name) != field.default:
            raise UserError(f"it has no effect without --{name}", key=field.name, fix=f"add --{name}")
    return False


def parse(
    kind: type[Arguments], argv: Sequence[str] | None = None, *, prog: str | None = None, examples: str = ""
) -> Arguments:
    """Read ``--config recipe.yaml`` and ``--key value`` pairs into the dataclass ``kind``; the command line wins.

    Fields are ``str``, ``int``, ``float``, ``bool``, ``Path``, ``Literal`` or ``tuple[T, ...]``, each optionally ``| None``.
    ``bool`` fields accept ``--key``, ``--key true`` and ``--key false``; tuples take several values. The docstring of ``kind``
    opens the help, and ``examples`` close it.

    Raises:
        UserError: An unknown key, a value of the wrong type or out of bounds, a missing argument, or an unreadable recipe.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    types_ = typing.get_type_hints(kind)
    parser = _parser(kind, fields, types_, prog, examples)
    if COMPLETING in os.environ:  # the shell asks what may follow; this ends the process
        import argcomplete

        argcomplete.autocomplete(parser)
    given = _given(parser, list(fields), sys.argv[1:] if argv is None else argv)
    if given.pop("quiet", False):
        be_quiet()
    if encoding := given.pop("encoding", None):
        os.environ[ENCODING] = _text_encoding(encoding)
    recipe = given.pop("config", None)
    values, origins = _read_recipe(_recipe_path(recipe, kind), fields) if recipe else ({}, {})
    for name, value in given.items():
        values[name], origins[name] = value, {"key": f"--{name}"}
        if (other := fields[name].metadata.get("instead_of")) and other not in given:
            values.pop(other, None)
    checked = {}
    for name, field in fields.items():
        if name in values:
            checked[name] = _convert(types_[name], values[name], field.metadata, origins[name])
        elif field.default is REQUIRED and field.default_factory is REQUIRED:
            fix = "give it, or a recipe that has it with --config (see --help)"
            raise UserError(f"--{name} is missing", expected=field.metadata.get("help"), fix=fix)
    _check_written(checked, fields, origins)
    try:
        return kind(**checked)
    except UserError as error:
        # A dataclass's own __post_init__ knows the key but not where its value came from.
        if error.file is None and error.key in origins:
            origin = origins[error.key]
            error.file, error.line, error.key = origin.get("file"), origin.get("line"), origin["key"]
        raise


class _Once(argparse.Action):
    """Keep an argument's value and refuse a second one, which argparse would silently prefer."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if hasattr(namespace, self.dest):
            raise UserError("given twice", key=f"--{self.dest}", fix="keep one of them")
        setattr(namespace, self.dest, values)


class _Loader(yaml.SafeLoader):
    """Read numbers and dates as text, as the command line does: YAML reads 010 as 8, 1:30 as 90, and 1.10 as 1.1."""


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
    config = "YAML file of arguments; the command line overrides it"
    parser.add_argument("--config", action=_Once, metavar="RECIPE", help=config)
    parser.add_argument("--quiet", action="store_true", help="print only results, warnings and errors, no progress")
    encoding = (
        "encoding of tables of text that are not UTF-8, as cp1251 (default: recognized, as UTF-16 or Windows-1252)"
    )
    parser.add_argument("--encoding", action=_Once, metavar="NAME", help=encoding)
    for name, field in fields.items():
        inner, help = _without_none(types_[name]), field.metadata.get("help", "").replace("%", "%%")
        if field.metadata.get("positional"):
            parser.add_argument(name, nargs="*", metavar=name.upper(), help=help)
            continue
        extra: dict[str, Any] = {"metavar": _type_name(inner), "action": _Once}
        if inner is bool:
            extra |= {"nargs": "?", "const": True}
        elif typing.get_origin(inner) is tuple:
            extra |= {"nargs": "+", "action": "extend"}  # --key a b, or --key a --key b
        default = "" if field.default in (REQUIRED, None) else f" (default: {field.default})"
        argument = parser.add_argument(f"--{name}", help=help + default.replace("%", "%%"), **extra)
        if typing.get_origin(inner) is Literal:  # not argparse's choices, whose error is another
            words = [str(word) for word in typing.get_args(inner)]
            argument.completer = functools.partial(_completions, words)
    # `--learning_rate -1e-4` is a rate out of bounds, not an argument called -1e-4; argparse only knows -1 and -0.1.
    parser._negative_number_matcher = re.compile(r"-\.?\d")
    return parser


def _text_encoding(name: str) -> str:
    try:
        info = codecs.lookup(name)
        if info._is_text_encoding:
            return info.name
    except LookupError:
        pass
    raise UserError(
        f"unknown encoding {shown(name)}", key="--encoding", expected="one that Python knows, as cp1251 or utf-16"
    )


def _completions(words: list[str], **_: Any) -> list[str]:
    return words


def _given(parser: argparse.ArgumentParser, names: list[str], argv: Sequence[str]) -> dict[str, Any]:
    # --dry-run and --dry_run are the same argument
    words = [re.sub("(?<=^--)[^=]+", lambda name: name[0].replace("-", "_"), word) for word in argv]
    known, unknown = parser.parse_known_args(words)
    if unknown and not unknown[0].startswith("--"):
        raise UserError(f"unexpected argument {shown(unknown[0])}", fix="see --help")
    if unknown:
        name = unknown[0].partition("=")[0]  # the value may be a secret, as in --token=…
        raise UserError(f"unknown argument {name}", fix=_suggestion(name.lstrip("-"), names))
    return vars(known)


def _recipe_path(recipe: str, kind: type) -> Path:
    """Return a path as it is, and for a bare name the recipe that the package of ``kind`` brings, wherever it is installed."""
    if Path(recipe).name != recipe or Path(recipe).suffix or Path(recipe).exists():
        return Path(recipe)
    above = Path(sys.modules[kind.__module__].__file__).resolve().parents  # __main__ has a file too
    folder = next((folder / "recipes" for folder in above[:3] if (folder / "recipes").is_dir()), None)
    found = {path.stem: path for path in sorted(folder.glob("*.yaml"))} if folder else {}
    if recipe not in found:
        names = f"a path, or one of {', '.join(found)}" if found else "a path"
        raise UserError(f"no such recipe {shown(recipe)}", key="--config", expected=names)
    return found[recipe]


def _read_recipe(path: Path, fields: dict) -> tuple[dict[str, Any], dict[str, dict]]:
    """Return a recipe's values and their places (file, line, key)."""
    expected = "one `key: value` per line"
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise UserError("no such recipe", file=path, fix="check the path given to --config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"can't be read: {error}", file=path) from None
    except (yaml.YAMLError, RecursionError) as error:
        line = error.problem_mark.line + 1 if getattr(error, "problem_mark", None) else None
        deep = "nested too deeply" if isinstance(error, RecursionError) else "not YAML"
        raise UserError(getattr(error, "problem", None) or deep, file=path, line=line, expected="YAML") from None
    if node is None:
        return {}, {}
    if not isinstance(node, yaml.MappingNode):
        raise UserError("not a recipe", file=path, expected=expected)
    values: dict[str, Any] = {}
    origins: dict[str, dict] = {}
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError("the key is not a word", file=path, line=line, expected=expected)
        if key not in fields:
            raise UserError(f"unknown key {shown(key)}", file=path, line=line, fix=_suggestion(key, list(fields)))
        if key in values:
            raise UserError(f"duplicate key {key!r}", file=path, line=line, fix="keep one of them")
        origins[key] = {"file": path, "line": line, "key": key}
        try:
            values[key] = yaml.constructor.SafeConstructor().construct_document(value_node)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            problem = getattr(error, "problem", None) or str(error)
            raise UserError(problem, **origins[key], expected="a plain value") from None
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


def _convert(kind: Any, value: Any, options: Mapping[str, Any], origin: dict) -> Any:
    """Convert a value from YAML or the command line; only strings are parsed, other types are never coerced."""
    inner = _without_none(kind)
    if value is None or (inner is not kind and value == "none"):
        if inner is kind:
            raise UserError("no value", **origin, expected=_type_name(inner))
        return None
    if typing.get_origin(inner) is tuple:
        items = value if isinstance(value, list) else [value]
        if not items and "file" in origin:
            fix = "give at least one value, or remove the key"
            raise UserError("an empty list", **origin, expected=_type_name(inner), fix=fix)
        return tuple(_convert(typing.get_args(inner)[0], item, options, origin) for item in items)
    wrong = UserError(f"{shown(value)} is not valid", **origin, expected=_expectation(inner, options))
    if typing.get_origin(inner) is Literal:
        for choice in typing.get_args(inner):
            if str(value) == str(choice):
                return choice
        raise wrong
    if inner is bool:
        word = str(value).lower() if isinstance(value, (str, bool)) else None
        if word not in ("true", "false"):
            raise wrong
        return word == "true"
    if not isinstance(value, str):
        raise wrong
    if inner not in (str, Path):
        return _number(inner, value.strip(), options, wrong)
    if not value.strip() and not options.get("empty"):
        raise UserError("the value is empty", **origin, expected=_expectation(inner, options))
    try:
        if b"\0" in os.fsencode(value):
            raise wrong
    except UnicodeEncodeError:  # half of a surrogate pair, which YAML can spell
        raise wrong from None
    if not value.lower().endswith(options.get("writes") or ""):
        raise wrong
    return inner(value)


def _check_written(checked: Mapping[str, Any], fields: dict, origins: dict[str, dict]) -> None:
    """Refuse to write over a file that another argument names."""
    written = [name for name in checked if fields[name].metadata.get("writes") and checked[name] is not None]
    others = [
        path
        for name in checked.keys() - written
        for path in (checked[name] if isinstance(checked[name], tuple) else [checked[name]])
        if isinstance(path, Path) or fields[name].metadata.get("positional")
    ]
    there = [path for path in others if os.path.exists(path)]
    for name in written:
        if os.path.exists(checked[name]) and any(os.path.samefile(path, checked[name]) for path in there):
            raise UserError("the command reads this file", **origins[name], fix="choose another")


def _number(kind: type, text: str, options: Mapping[str, Any], wrong: UserError) -> int | float:
    # int() accepts `1_000` and other scripts' digits: only plain ASCII numbers are valid here.
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?" if kind is float else r"[+-]?\d+", text, re.ASCII):
        raise wrong
    most = max(LARGEST, options.get("maximum") or 0)
    if kind is int and (len(text) > 100 or abs(int(text)) > most):  # Python refuses numbers with thousands of digits
        wrong.expected = f"{_expectation(kind, options)}, and at most {most}"
        raise wrong
    number = kind(text)
    bounds = [(holds, options[name]) for name, (_, holds) in BOUNDS.items() if options.get(name) is not None]
    if not math.isfinite(number) or not all(holds(number, bound) for holds, bound in bounds):
        raise wrong
    return number


def _expectation(kind: Any, options: Mapping[str, Any]) -> str:
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    text = {str: "text", Path: "a path", int: "an integer", float: "a number", bool: "true or false"}[kind]
    bounds = [f"{words} {options[name]}" for name, (words, _) in BOUNDS.items() if options.get(name) is not None]
    bounds += [f"that ends with {' or '.join(endings)}"] if (endings := options.get("writes")) else []
    return f"{text} {' and '.join(bounds)}" if bounds else text
