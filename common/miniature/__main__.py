"""Build and describe the miniature: ``python -m common.miniature``. With a command, run that next to a local Hub.

``python -m common.miniature bash`` opens a shell in which every command's Hub is a server on the loopback that holds the
miniature's base models, to try publishing without an account. It forgets everything when the shell ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from common.cli.arguments import option, parse
from common.cli.console import log, stage
from common.cli.errors import run
from common.miniature import cache as corpora
from common.miniature.loopback_hub import LocalHub
from common.miniature.pretrain import FACTS_FILE, MODELS
from common.runtime.project import MINIATURE


@dataclass
class MiniatureArguments:
    """Builds the miniature's corpora and describes them and the models; given a command, runs that next to a local Hub."""

    print_folder: bool = option(False, "print only the folder of the corpora")


def describe(folder: Path) -> None:
    print(f"The miniature (invented posts and sentences) is in {folder}")
    for path in sorted(folder.rglob("*.csv")) + sorted(folder.rglob("*.jsonl")):
        print(f"  {path.relative_to(folder)}  {path.stat().st_size / 1e3:,.0f} kB")
    print("Its models:")
    for model in sorted(MODELS.iterdir()):
        facts = json.loads((model / FACTS_FILE).read_text(encoding="utf-8"))
        size = (model / "model.safetensors").stat().st_size / 1e6
        print(
            f"  {model.name}  {facts['parameters']:,} parameters, {size:.2f} MB, pre-trained for {facts['steps']:,} steps "
            f"({facts['seconds']:.0f} s on one thread), final loss {facts['loss']}"
        )


def run_beside_hub(command: list[str]) -> int:
    """Run a command with a local server as its Hub, and return its exit status."""
    with LocalHub() as hub, tempfile.TemporaryDirectory(prefix="hub-home-") as home:
        for folder in MODELS.iterdir():
            hub.add_model(f"{MINIATURE}{folder.name}", folder)
        log(f"local Hub at {hub.url}, with write access to {MINIATURE}")
        return subprocess.run(command, env={**os.environ, **hub.environment(home)}).returncode


def main() -> None:
    if sys.argv[1:] and not sys.argv[1].startswith("-"):
        sys.exit(run_beside_hub(sys.argv[1:]))
    prog = "python -m common.miniature"
    arguments = parse(MiniatureArguments, prog=prog, examples=f"  {prog}\n  {prog} bash")
    with stage("building the miniature's corpora"):
        folder = corpora.build()
    if arguments.print_folder:
        print(folder)
    else:
        describe(folder)


if __name__ == "__main__":
    run(main)
