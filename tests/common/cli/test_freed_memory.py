"""Freed memory is reused without requesting new pages from the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
{first}
torch.set_num_threads(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):  # like layers: many tensors of a few megabytes, all freed before the next pass
    several = [torch.ones(500_000 + 1000 * i) for i in range(30)]
    while several:
        several.pop()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(first: str) -> int:
    result = subprocess.run(
        [sys.executable, "-c", FAULTS.format(first=first)], capture_output=True, text=True, check=True
    )
    return int(result.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_freed_pages_are_kept():
    kept = faults("from common.cli.errors import keep_freed_memory; keep_freed_memory()")
    assert kept < faults("") / 4
