"""Measure what every recipe takes, and write the tables that ``common.doctor`` reads: ``python -m tests.forecasts``"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from unittest import mock

from common.models.step_memory import sizes_in
from common.runtime import hardware
from common.runtime.project import PROJECTS

PRECISIONS = ("bf16", "fp32")  # fp16 takes what bf16 does


def measure(project: str, table: Path) -> dict[str, list[int]]:
    """Return the sizes of a project's recipes in each precision: those in the table, and the others measured."""
    module = importlib.import_module(f"{project}.training.forecast")
    patched, module.SIZES = module.SIZES, table
    sizes_in.cache_clear()
    try:
        with mock.patch.object(hardware, "cpu_has_bf16", return_value=True):  # sizes are of every machine
            for precision in PRECISIONS:
                module.forecasts("--precision", precision)
        return dict(sorted(sizes_in(table).items()))
    finally:
        module.SIZES = patched
        sizes_in.cache_clear()


if __name__ == "__main__":
    for project in PROJECTS:
        table = importlib.import_module(f"{project}.training.forecast").SIZES
        lines = [
            f"{json.dumps(key, ensure_ascii=False)}: {sizes}"
            for key, sizes in measure(project, Path("nothing")).items()
        ]
        table.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
