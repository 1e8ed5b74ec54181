"""What the step of a training holds in memory, told without using any.

The step is carried out on fake tensors (PyTorch's ``FakeTensorMode``): they have shapes, types and lifetimes, and no memory.
"""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

BLOCK = 512  # bytes: PyTorch gives memory on a GPU in multiples of it
Weight = Callable[[torch.nn.Module, str, torch.nn.Parameter], "torch.nn.Parameter | None"]


def make_fake(model: torch.nn.Module, weight: Weight = lambda module, name, parameter: None) -> None:
    """Gives a model on the meta device fake tensors; where ``weight`` gives one, that in place of a parameter."""
    made: dict[int, torch.nn.Parameter] = {}  # tied weights stay one
    with FakeTensorMode():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) not in made:
                    given = weight(module, name, parameter)
                    if given is None:
                        empty = torch.empty(parameter.shape, dtype=parameter.dtype)
                        given = torch.nn.Parameter(empty, requires_grad=parameter.requires_grad)
                    made[id(parameter)] = given
                setattr(module, name, made[id(parameter)])
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))


def peak_bytes(model: torch.nn.Module, forward: Callable[[], torch.Tensor], *, checkpointing: bool = False) -> int:
    """The most bytes that tensors hold at once in a forward and a backward pass, besides the model's and its gradients."""
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    was_training = model.training
    model.train()
    held = _Held(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    hooks = [p.register_post_accumulate_grad_hook(lambda p: held.leave_out(p.grad)) for p in trained]
    try:
        with fake_mode(model), held:
            forward().backward()
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
        model.zero_grad(set_to_none=True)
        if checkpointing:
            model.activation_checkpointing_disable()
            model.disable_input_require_grads()
    return held.peak


def fake_mode(model: torch.nn.Module) -> contextlib.AbstractContextManager[Any]:
    """The mode in which a model of fake tensors runs; for a real one, nothing."""
    return getattr(next(model.parameters()), "fake_mode", contextlib.nullcontext())


class _Held(TorchDispatchMode):
    """Follows the memory of tensors from the operation that makes them until nothing refers to them.

    Attributes:
        peak: The most bytes that were held at once.
    """

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.peak = self.now = 0
        self._known: dict[weakref.ref, int] = {}
        self._model = {storage._cdata for storage in _storages(model)}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor):
                self._hold(tensor.untyped_storage())
        if func is torch.ops.bitsandbytes.gemm_4bit.default:
            self.peak = max(self.peak, self.now + _blocks(math.prod(args[2]) * args[0].dtype.itemsize))
        return result

    def _hold(self, storage: torch.UntypedStorage) -> None:
        reference = weakref.ref(storage, self._release)
        if storage._cdata in self._model or reference in self._known:
            return
        self._known[reference] = _blocks(storage.nbytes())
        self.now += self._known[reference]
        self.peak = max(self.peak, self.now)

    def _release(self, reference: weakref.ref) -> None:
        self.now -= self._known.pop(reference)

    def leave_out(self, tensor: torch.Tensor) -> None:
        """Counts a tensor no longer, as a weight's gradient, which is counted apart."""
        self.now -= self._known.get(reference := weakref.ref(tensor.untyped_storage()), 0)
        if reference in self._known:
            self._known[reference] = 0


def _blocks(size: int) -> int:
    return math.ceil(size / BLOCK) * BLOCK


def model_bytes(model: torch.nn.Module) -> int:
    """Bytes of a model's parameters and buffers, with the constants of 4-bit ones."""
    return sum(storage.nbytes() for storage in _storages(model))


def _storages(model: torch.nn.Module) -> list[torch.UntypedStorage]:
    """Where a model's parameters, buffers and 4-bit constants lie, each once."""
    tensors = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        while state is not None:  # double quantisation: the constants have constants
            tensors += [state.absmax, state.code, *([] if state.offset is None else [state.offset])]
            state = state.state2
    return list({storage._cdata: storage for storage in (tensor.untyped_storage() for tensor in tensors)}.values())


def kept_bytes(model: torch.nn.Module, forward: Callable[[], Any]) -> int:
    """Bytes that autograd keeps of a forward pass for the backward pass, weights not counted."""
    weights = {storage._cdata for storage in _storages(model)}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage  # held, so that no other tensor gets its address
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    del result
    return sum(storage.nbytes() for storage in kept.values())
