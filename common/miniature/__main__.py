"""Builds and describes the miniature: ``python -m common.miniature``. With a command behind it, runs that beside a Hub.

``python -m common.miniature bash`` gives a shell in which every command's Hub is a server on the loopback that holds the
miniature's base models: to try publishing without an account. It forgets everything when the shell ends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common.errors import run
from common.loading import MINIATURE
from common.miniature import corpora
from common.miniature.hub import LocalHub
from common.miniature.pretrain import FACTS_FILE, MODELS
from common.stages import say, stage

HELP = """\
usage: python -m common.miniature            build the miniature's corpora, describe them and the models
       python -m common.miniature COMMAND …  run a command beside a Hub on the loopback, as bash or make demo-hub"""


def describe_files(folder: Path) -> None:
    for path in sorted(folder.rglob("*.csv")) + sorted(folder.rglob("*.jsonl")):
        print(f"  {path.relative_to(folder)}  {path.stat().st_size / 1e3:,.0f} kB")


def describe_models() -> None:
    for folder in sorted(MODELS.iterdir()):
        facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
        size = (folder / "model.safetensors").stat().st_size / 1e6
        print(
            f"  {folder.name}  {facts['parameters']:,} parameters, {size:.2f} MB, pre-trained in {facts['steps']:,} steps "
            f"({facts['seconds']:.0f} s on one thread), last loss {facts['loss']}"
        )


def beside_a_hub(command: list[str]) -> int:
    """Runs a command whose Hub is a local server, and returns its exit status."""
    with LocalHub() as hub, tempfile.TemporaryDirectory(prefix="hub-home-") as home:
        for folder in MODELS.iterdir():
            hub.add_model(f"{MINIATURE}{folder.name}", folder)
        say(f"a Hub on the loopback: {hub.url}, with write access to {MINIATURE}")
        return subprocess.run(command, env={**os.environ, **hub.environment(home)}).returncode


def main() -> None:
    if sys.argv[1:2] and sys.argv[1] in ("-h", "--help"):
        print(HELP)
        return
    if sys.argv[1:]:
        sys.exit(beside_a_hub(sys.argv[1:]))
    with stage("building the miniature's corpora"):
        folder = corpora.build()
    print(f"The miniature: invented posts and sentences, in {folder}")
    describe_files(folder)
    print("Its models:")
    describe_models()


if __name__ == "__main__":
    run(main)
