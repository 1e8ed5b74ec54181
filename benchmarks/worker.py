"""A side's process: ``python -m benchmarks.worker LOAD SETTING`` loads, then answers a line of JSON a round.

LOAD is a function of this package, as ``snli_sides.pipeline``; SETTING is a :class:`benchmarks.setting.Setting` as JSON.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys

from benchmarks.setting import Measure, Setting
from common.cli.console import quiet_libraries
from common.cli.errors import run


def load(name: str, setting: Setting) -> Measure:
    """Calls the function that a job names."""
    module, _, function = name.partition(".")
    return getattr(importlib.import_module(f"benchmarks.{module}"), function)(setting)


def main() -> None:
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(values: dict) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    quiet_libraries()
    measure = load(sys.argv[1], Setting(**json.loads(sys.argv[2])))
    answer({"ready": True})
    for line in sys.stdin:
        answer(dataclasses.asdict(measure(json.loads(line)["items"])))


if __name__ == "__main__":
    run(main)
