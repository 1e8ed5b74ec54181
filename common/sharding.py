"""Models that FSDP has cut into shards, one a process (Zhao et al. 2023; PyTorch's ``fully_shard``)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import Trainer


@contextlib.contextmanager
def whole(model: torch.nn.Module) -> Iterator[None]:
    """While entered, each process has the whole model, and runs it without waiting for the others; all enter and leave together.

    Without it every forward pass gathers what the others have, so all must make as many passes, and only through the outermost
    module. The whole model must fit beside a step's memory: 4-bit weights of 7 billion parameters take 4 GB. Models that are not
    sharded are left alone.
    """
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            # As accelerate has it, but for the output layer, which from now on is gathered once more a step.
            part.set_reshard_after_forward(part is not parts[0], recurse=False)
            part.reshard()


def keep_packed(trainer: Trainer) -> None:
    """Keeps FSDP from casting what it gathers: eight 4-bit numbers in what looks like an fp32 would become one rounded bf16.

    accelerate asks for the cast wherever a training computes in half precision, which autocast does anyway.
    """
    trainer.accelerator.state.fsdp_plugin.set_mixed_precision(torch.float32, override=True)


def trained_copy(model: torch.nn.Module, build: Callable[[], Any], *, here: bool) -> Any:
    """A model that is not sharded, with what ``model`` has learnt; all processes call this together.

    Args:
        model: The sharded model.
        build: Makes the model as it was before the training.
        here: Whether this process gets it; None for the others.
    """
    learnt = {name: _gathered(p) for name, p in model.named_parameters() if p.requires_grad}
    if not here:
        return None
    copy = build()
    own = dict(copy.named_parameters())
    with torch.no_grad():
        for name, values in learnt.items():
            own[name].copy_(values)
    return copy


def _gathered(parameter: torch.Tensor) -> torch.Tensor:
    whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
    return whole.detach().cpu()
