"""Run a module with FSDP on CPU processes, as accelerate does on GPUs: ``fsdp_on_cpu.py module argument…``.

On CPUs accelerate silently skips FSDP. Here it takes the processes for GPUs and really shards, over gloo.
"""

from __future__ import annotations

import runpy
import sys
from typing import Any

from accelerate import PartialState
from accelerate.utils import DistributedType
from transformers import Trainer

_init, _prepare = PartialState.__init__, Trainer._prepare_for_training


def as_on_gpus(self: PartialState, *given: Any, **named: Any) -> None:
    _init(self, *given, **named)
    if self._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
        self._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def counted(self: Trainer, *given: Any, **named: Any) -> Any:
    """Print how much of the model this process keeps."""
    result = _prepare(self, *given, **named)
    parts = [parameter for parameter in self.model.parameters() if type(parameter).__name__ == "DTensor"]
    kept = sum(parameter.to_local().numel() for parameter in parts) / sum(parameter.numel() for parameter in parts)
    print(
        f"{len(parts)} of {len(list(self.model.parameters()))} parameters in shards, {kept:.2f} of them here",
        flush=True,
    )
    return result


if __name__ == "__main__":
    PartialState.__init__, Trainer._prepare_for_training = as_on_gpus, counted
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__")
