"""One run of a study, for a process of its own: importing this module is what takes such a process seconds."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from common.stages import quiet_libraries, say
from snli_roberta.arguments import TrainArguments

quiet_libraries()  # before the first of them is imported

from common.training import Estimate  # noqa: E402
from snli_roberta import training  # noqa: E402


def train(arguments: TrainArguments) -> None:
    """See :func:`snli_roberta.training.train`. Waits while another process of this machine trains the same run: one whose study was
    killed may still be in a validation."""
    name = hashlib.sha256(str(arguments.output_dir.resolve()).encode()).hexdigest()[:16]
    # Not in the run's folder: a network drive may know no locks.
    lock = FileLock(Path(tempfile.gettempdir()) / f"snli-study-{os.getuid()}-{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say("another process trains this run: waiting until it has ended")
        lock.acquire()
    with lock:
        training.train(arguments)


def estimate(arguments: TrainArguments) -> Estimate:
    """See :func:`snli_roberta.training.estimate`."""
    return training.estimate(arguments)
