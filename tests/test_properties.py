"""Property tests with many examples; the default tests use a few."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_many_examples():
    command = [sys.executable, "-m", "pytest", "-q", "-m", "properties and not slow", "--hypothesis-profile", "many"]
    result = subprocess.run(
        [*command, "-p", "no:cacheprovider"], cwd=ROOT, capture_output=True, text=True, timeout=1800
    )
    assert result.returncode == 0, result.stdout[-5000:]
    assert " passed" in result.stdout
