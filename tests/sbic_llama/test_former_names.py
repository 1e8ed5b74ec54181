"""Commands work under their former names for one more release, with a notice."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("former", "name"), [("controls", "baselines"), ("estimate", "prevalence")])
def test_a_former_name_runs_the_command(former, name):
    command = [sys.executable, "-m", f"sbic_llama.{former}"]
    result = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert result.returncode == 0
    assert f"python -m sbic_llama.{name}" in result.stdout
    assert f"sbic_llama.{former} is now sbic_llama.{name}" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert subprocess.run([*command, "--no_such", "1"], capture_output=True).returncode == 2
