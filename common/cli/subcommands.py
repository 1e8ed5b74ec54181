"""Run a package's modules as subcommands of one command: ``sbic train`` is ``python -m sbic_llama.train``."""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.util
import os
import re
import runpy
import sys
from collections.abc import Iterable
from pathlib import Path

from common.cli.arguments import COMPLETING
from common.cli.errors import UserError, run, shown

FORMER = "Former name of"  # how the docstring of a renamed command begins: it runs, but isn't listed
RUNS = '__name__ == "__main__"'  # in the file of whatever can be run


def main(package: str, prog: str) -> None:
    """Run the subcommand that the command line names, as ``python -m`` would; exit with status 2 if there is none.

    Its ``--help``, and the command in its records, name the module: that also works without an installation.
    """
    commands = subcommands(package)
    if COMPLETING in os.environ:
        sys.argv[1:] = typed(commands, at=1)
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in commands:
        run(lambda: _without(name, commands, prog))
    del sys.argv[1]
    runpy.run_module(commands[name][0], run_name="__main__", alter_sys=True)


def typed(choices: Iterable[str], at: int) -> list[str]:
    """Return the word at a position of the line that a shell wants to complete; while it is being typed, offer choices and exit."""
    import argcomplete

    line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
    words = line.split()
    if len(words) <= at or (len(words) == at + 1 and not line[-1].isspace()):
        os.environ[COMPLETING] = str(at)  # argcomplete ignores the words before, as those of `python -m`
        parser = argparse.ArgumentParser(add_help=False)
        parser.add_argument("subcommand", choices=list(choices))
        argcomplete.autocomplete(parser)
    os.environ[COMPLETING] = str(at + 1)
    return words[at : at + 1]


def subcommands(package: str) -> dict[str, tuple[str, Path]]:
    """Return what can be run of a package and of ``common``: the module and its file, by the name of the subcommand."""
    commands = {}
    for owner in ("common", package):
        (folder,) = importlib.util.find_spec(owner).submodule_search_locations
        for path in (*Path(folder).glob("*.py"), *Path(folder).glob("*/__main__.py")):
            name = path.parent.name if path.stem == "__main__" else path.stem
            if name not in (owner, "miniature") and RUNS in path.read_text(encoding="utf-8"):
                commands[name.replace("_", "-")] = f"{owner}.{name}", path
    return dict(sorted(commands.items()))


def purpose(path: Path) -> str:
    """Return what a command does, from its docstring: nothing is imported."""
    first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    return re.sub(r":\w+:`([^`]*)`", r"\1", first).partition(": ``")[0].rstrip(".")


def _without(name: str, commands: dict[str, tuple[str, Path]], prog: str) -> None:
    if name not in ("-h", "--help"):
        near = difflib.get_close_matches(name.replace("_", "-"), commands, n=1)
        fix = f"did you mean {prog} {near[0]}?" if near else f"see {prog} --help"
        raise UserError(f"{prog} has no subcommand {shown(name)}", fix=fix)
    print(f"usage: {prog} SUBCOMMAND [OPTIONS]\n\nsubcommands (each has --help):")
    for subcommand, (_, path) in commands.items():
        if not (line := purpose(path)).startswith(FORMER):
            print(f"  {subcommand:<32} {line}")
