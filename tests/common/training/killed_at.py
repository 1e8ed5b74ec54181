"""Runs a command and kills it with SIGKILL at a place in its code: ``killed_at.py PLACE COUNT module argument…``."""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import sys
from typing import Any

# Place → module, attribute: the process dies when that is called for the COUNTth time, before it does anything.
PLACES = {
    "before a step": ("transformers.trainer", "Trainer.training_step"),
    "before a checkpoint's weights": ("transformers.trainer", "Trainer.save_model"),
    "before a checkpoint's optimizer": ("transformers.trainer", "Trainer._save_optimizer_and_scheduler"),
    "before a checkpoint's random state": ("transformers.trainer", "Trainer._save_rng_state"),
    "before a checkpoint's manifest": ("common.training.checkpoints", "_digests"),
    "before an old checkpoint is removed": ("common.training.checkpoints", "shutil.rmtree"),
    "before the best checkpoint is loaded": ("transformers.trainer", "Trainer._load_best_model"),
    "before the model is saved": ("common.training.run", "save_run"),
    "while the model is moved in place": ("common.training.run", "readable_mode"),
    "before the run's record": ("common.training.run", "atomic_write"),
}


def main() -> None:
    place, count, module, *words = sys.argv[1:]
    owner: Any
    owner, name = importlib.import_module(PLACES[place][0]), PLACES[place][1]
    *path, name = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    original, left = getattr(owner, name), int(count)

    def counted(*given: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*given, **named)

    setattr(owner, name, counted)
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__")


if __name__ == "__main__":
    main()
