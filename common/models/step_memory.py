"""Predict what a training takes without running it: its step's peak memory, from fake tensors, and its time.

Fake tensors (PyTorch's ``FakeTensorMode``) have shapes, types and lifetimes, but no memory.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import math
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from common.cli.errors import UserError
from common.models.loading import base_path, load_config
from common.runtime import files, hardware

MINIATURE = "miniature"  # the corpus of recipes that name none
BLOCK = 512  # bytes: PyTorch allocates GPU memory in multiples of it
ADAM_BYTES = 8  # two fp32 moments for each trained weight
# Operations for each weight and token: 2 forward, 2 backward, 2 more where trained, 2 where the forward pass is repeated.
FULL, LORA, RECOMPUTE = 6, 4, 2
# Trainings here reached 15 to 23 % of the rate of large matrix products on a CPU (results/bench-cpu-2-cores.json); the
# range is wider on purpose, to hold on other machines.
LEAST_USE, MOST_USE = 0.1, 0.5
STEP_SECONDS = 0.02, 0.2  # overhead of a step; with tiny models, most of its time
MASKED = {"full_attention", "sliding_attention", "chunked_attention"}  # kinds of layers that differ in their mask only
KINDS = ("layer_types", "no_rope_layers")  # where configurations list what kind each layer is
SIDE, TIMES = 2048, 5  # of the matrices to multiply, and how often
Weight = Callable[[torch.nn.Module, str, torch.nn.Parameter], "torch.nn.Parameter | None"]


@dataclass(frozen=True)
class Forecast:
    """What the trainings of one recipe take."""

    recipe: Path  # relative to the repository's root
    base: str
    memory: int | None  # bytes at the largest step, without the libraries' own; None where the base's shape is unknown
    operations: float | None  # floating-point operations of all its trainings; None likewise
    steps: int
    corpus: str
    options: tuple[str, ...] = ()  # what the command needs beside the recipe

    def seconds(self, rate: float) -> tuple[float, float] | None:
        """Return the least and most time on a device with this many operations per second in large products."""
        if self.operations is None:
            return None
        low, high = (self.operations / rate / use for use in (MOST_USE, LEAST_USE))
        return low + self.steps * STEP_SECONDS[0], high + self.steps * STEP_SECONDS[1]


def matmul_rate(precision: hardware.Precision) -> float:
    """Measure operations per second in products of large matrices on this device (best of a few)."""
    device = hardware.device_type()
    left, right = (torch.randn(SIDE, SIDE).to(device, hardware.dtype(precision)) for _ in range(2))
    best = 0.0
    for turn in range(TIMES + 1):
        start = time.perf_counter()
        torch.nn.functional.linear(left, right)
        if device != "cpu":
            torch.accelerator.synchronize()
        if turn:  # the first one warms up
            best = max(best, 2 * SIDE**3 / (time.perf_counter() - start))
    return best


def config_of(base: str, revision: str | None, shapes: dict[str, Any]) -> Any:
    """Return a base's configuration, from its folder or from ``shapes`` of known Hub models; None for others.

    The Hub is not asked, so gated models have a configuration too.
    """
    place = base_path(base)
    if not Path(place).is_dir():
        return shapes.get(base)
    try:
        return load_config(place, revision)
    except UserError:
        return None


@functools.cache
def sizes_in(table: Path) -> dict[str, list[int]]:
    """Read the measured sizes that come with a project's recipes; see :func:`sizes_of`."""
    return files.loads(table.read_bytes()) if table.is_file() else {}


def sizes_of(key: str, table: Path, measure: Callable[[], list[int]]) -> list[int]:
    """Return what ``measure`` would return, from the table if it has the key; nothing is measured twice.

    Measuring all recipes takes half a minute, so their sizes come with them. ``python -m tests.forecasts`` writes the tables.
    """
    known = sizes_in(table)
    if key not in known:
        known[key] = measure()
    return known[key]


def by_depth(config: Any, measure: Callable[[Any], Sequence[int]], *, few: int = 2) -> list[int]:
    """Extrapolate what ``measure`` returns for a configuration from models of ``few`` and one more layers, for speed.

    Layers may differ in masks and in whether they use positions; with other kinds of layers, the model is measured whole.
    """
    layers = config.get_text_config().num_hidden_layers
    kinds = set(getattr(config.get_text_config(), "layer_types", None) or ())
    if 2 * few + 1 >= layers or not kinds <= MASKED:  # the two smaller ones would take as long
        return list(measure(config))
    pairs = zip(measure(_cut(config, few)), measure(_cut(config, few + 1)), strict=True)
    return [low + (high - low) * (layers - few) for low, high in pairs]


def layers_alike(config: Any) -> bool:
    """Return whether a configuration declares one kind of layer."""
    text = config.get_text_config()
    return all(len(set(getattr(text, name, None) or ())) <= 1 for name in KINDS)


def _cut(config: Any, count: int) -> Any:
    """Return a configuration with ``count`` layers, from the last one before the first of another kind."""
    cut = copy.deepcopy(config)
    text = cut.get_text_config()
    text.num_hidden_layers = count
    for name in KINDS:
        if kinds := getattr(text, name, None):
            first = next((place for place, kind in enumerate(kinds) if kind != kinds[0]), 1) - 1
            setattr(text, name, kinds[first : first + count])
    return cut


def make_fake(model: torch.nn.Module, weight: Weight = lambda module, name, parameter: None) -> None:
    """Replace the tensors of a model on the meta device by fake ones, or by what ``weight`` returns for a parameter."""
    made: dict[int, torch.nn.Parameter] = {}  # tied weights stay tied
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
    """Return the peak of a forward and a backward pass, without the model and its gradients."""
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    was_training = model.training
    model.train()
    live = _LiveBytes(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    hooks = [p.register_post_accumulate_grad_hook(lambda p: live.ignore(p.grad)) for p in trained]
    # Which logs what fake tensors cannot do, with a traceback; the caller hears of it by the exception.
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)
    try:
        with fake_mode(model), live:
            forward().backward()
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
        model.zero_grad(set_to_none=True)
        if checkpointing:
            model.activation_checkpointing_disable()
            model.disable_input_require_grads()
    return live.peak


def fake_mode(model: torch.nn.Module) -> contextlib.AbstractContextManager[Any]:
    """Return the mode in which a model of fake tensors runs; a null context for a real model."""
    return getattr(next(model.parameters()), "fake_mode", contextlib.nullcontext())


class _LiveBytes(TorchDispatchMode):
    """Count the bytes of tensors from the operation that makes them until nothing refers to them."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.peak = self.now = 0
        self._sizes: dict[weakref.ref, int] = {}
        self._model = {storage._cdata for storage in storages(model)}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        if func is torch.ops.bitsandbytes.gemm_4bit.default:  # unpacks the weight for the time of the product
            self.peak = max(self.peak, self.now + _allocated(math.prod(args[2]) * args[0].dtype.itemsize))
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        reference = weakref.ref(storage, self._release)
        if storage._cdata in self._model or reference in self._sizes:
            return
        self._sizes[reference] = _allocated(storage.nbytes())
        self.now += self._sizes[reference]
        self.peak = max(self.peak, self.now)

    def _release(self, reference: weakref.ref) -> None:
        self.now -= self._sizes.pop(reference)

    def ignore(self, tensor: torch.Tensor) -> None:
        """Stop counting a tensor, such as a weight's gradient, which is counted separately."""
        self.now -= self._sizes.get(reference := weakref.ref(tensor.untyped_storage()), 0)
        if reference in self._sizes:
            self._sizes[reference] = 0


def _allocated(size: int) -> int:
    return math.ceil(size / BLOCK) * BLOCK


def model_bytes(model: torch.nn.Module) -> int:
    """Return the bytes of a model's parameters and buffers, with the constants of 4-bit weights."""
    return sum(storage.nbytes() for storage in storages(model))


def storages(model: torch.nn.Module) -> list[torch.UntypedStorage]:
    """List the storages of a model's parameters, buffers and 4-bit constants, each once."""
    tensors = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        while state is not None:  # with double quantization, the constants have constants
            tensors += [state.absmax, state.code, *([] if state.offset is None else [state.offset])]
            state = state.state2
    return list({storage._cdata: storage for storage in (tensor.untyped_storage() for tensor in tensors)}.values())
