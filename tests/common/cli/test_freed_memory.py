"""Freed memory is reused without requesting new pages from the system, and returned when a training asks for that."""

from __future__ import annotations

import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from common.training import callbacks, run

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


GAPS = """
import torch
from common.cli.errors import keep_freed_memory, return_freed_memory

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS"))

keep_freed_memory()
tensors = [torch.ones(250_000) for _ in range(400)]  # 400 MB, of which every eighth tensor stays
del tensors[1::2], tensors[1::2], tensors[1::2]
before = resident()
return_freed_memory()
print(before - resident())
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_pages_between_tensors_in_use_are_returned():
    result = subprocess.run([sys.executable, "-c", GAPS], capture_output=True, text=True, check=True)
    assert int(result.stdout) > 250_000  # kilobytes


def test_trainings_return_freed_memory(monkeypatch):
    returned = []
    monkeypatch.setattr(callbacks, "return_freed_memory", lambda: returned.append(True))
    options = SimpleNamespace(early_stopping_patience=1, save_total_limit=2)
    (callback,) = [each for each in run.callbacks(options) if isinstance(each, callbacks.MemoryReturn)]
    for step in range(1, 31):
        callback.on_step_end(None, SimpleNamespace(global_step=step), None)
    callback.on_evaluate()
    assert len(returned) == 4
