"""Commands refuse a missing file before anything heavy is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.solo import missing_files

ROOT = Path(__file__).parents[2]
RUN = """
import runpy, sys
heavy = ("torch", "transformers", "sklearn", "datasets", "pandas")
try:
    runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=True)
except SystemExit as end:
    print(end.code, *(name for name in heavy if name in sys.modules))
"""


@pytest.mark.parametrize(("module", "line"), missing_files().items(), ids=missing_files())
def test_a_missing_file_is_refused_before_anything_heavy_is_imported(tmp_path, module, line):
    command = [sys.executable, "-c", RUN, module, *line.format(tmp_path).split()]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert result.stdout.split()[-1:] == ["2"], result.stdout + result.stderr[-500:]
