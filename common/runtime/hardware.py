"""What the machine can do: precision, threads, attention, and how many processes really run."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from common.cli.errors import UserError

if TYPE_CHECKING:
    import torch


Precision = Literal["fp32", "bf16", "fp16"]
WIDE = 256  # hidden size; from there on bf16 trains 1.4 times as fast and more (results/bench-cpu-2-cores.json)


@dataclass(frozen=True)
class Choice:
    """A setting and the reason for it, in words for a log line."""

    value: str
    reason: str


def device_type() -> Literal["cuda", "mps", "cpu"]:
    import torch

    if _cpu_asked_for():
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def choose_precision(asked: Literal["auto", "fp32", "bf16", "fp16"] = "auto", *, width: int) -> Choice:
    """The compute precision on this device; ``asked`` is refused where the device lacks it.

    A T4 emulates bf16 and ``torch.cuda.is_bf16_supported()`` counts that, so the compute capability decides (8.0 and up).
    A CPU with bf16 instructions multiplies several times as fast in bf16, which pays from :data:`WIDE` on: narrower models gain
    little, and stay exact. Without such instructions fp32 is faster too.

    Args:
        asked: ``auto``, or a precision.
        width: The model's hidden size.

    Raises:
        UserError: The device has no such precision.
    """
    device = device_type()
    if device == "cuda":
        import torch

        # Every visible card takes part: the oldest decides.
        major, minor = min(torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count()))
        name = f"compute capability {major}.{minor}"
        supported = ("bf16", "fp16", "fp32") if major >= 8 else ("fp16", "fp32")
    elif device == "mps":
        name, supported = "Apple GPU", ("fp32",)
    else:
        fast = cpu_has_bf16()
        name = "CPU with bf16 instructions" if fast else "CPU without bf16 instructions"
        supported = ("fp32",) if not fast else ("bf16", "fp32") if width >= WIDE else ("fp32", "bf16")
        if fast and width < WIDE:
            name += f", a model of width {width}"
    if asked == "auto":
        return Choice(supported[0], name)
    if asked not in supported:
        raise UserError(
            f"{asked} is not supported here ({name})", key="precision", expected=f"auto or {' or '.join(supported)}"
        )
    return Choice(asked, f"as asked; {name}")


def dtype(precision: Precision) -> torch.dtype:
    """PyTorch's type of a precision."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware (x86: AVX512-BF16 or AMX; Arm: bf16). Without, bf16 is slower than fp32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def attention_implementation() -> Choice:
    """The attention kernel: PyTorch's own, the only fast one that takes the block masks of packed training and scoring."""
    return Choice("sdpa", "takes 4-D block masks")


def cpu_threads() -> int:
    """Cores that this process may use: its affinity, divided among the processes that a launcher started on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // local_processes())


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or the limit of its container or batch job (a Linux control group)."""
    import psutil

    found = [psutil.virtual_memory().total]
    try:
        groups = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        groups = []
    for line in groups:
        _, kinds, path = line.split(":", 2)
        root = Path("/sys/fs/cgroup/memory" if "memory" in kinds.split(",") else "/sys/fs/cgroup")
        name = "memory.limit_in_bytes" if "memory" in kinds.split(",") else "memory.max"
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):  # a limit further up counts too
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
                found.append(int((folder / name).read_text(encoding="ascii")))
    return min(found)


def local_processes() -> int:
    """How many processes a launcher started on this machine, this one among them."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _cpu_asked_for() -> bool:
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")


def shards() -> bool:
    """Whether accelerate was asked to shard the model among the processes (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes")


@dataclass(frozen=True)
class Processes:
    """How many processes train together, and by which means."""

    count: int
    distributed_type: str


def check_processes() -> Processes:
    """Compares the processes that the launcher was asked for with those that really train together.

    Two set-ups of ``accelerate launch`` go wrong in silence: on a CPU without ``ACCELERATE_USE_CPU=true`` several processes
    start and each trains alone, writing over the others; with ``distributed_type: MULTI_CPU`` only one starts.

    Raises:
        UserError: The numbers differ.
    """
    from accelerate import PartialState

    if device_type() == "cuda" and "WORLD_SIZE" not in os.environ:
        import torch

        if torch.cuda.device_count() > 1:
            # Trainer would split each batch among the cards (DataParallel) and so train at a multiple of the batch size.
            raise UserError(
                f"{torch.cuda.device_count()} GPUs are visible to one process",
                fix="use accelerate launch --num_processes with their number, or CUDA_VISIBLE_DEVICES=0 for one of them",
            )
    # By default a GPU's process gives up after ten minutes in which another one evaluates or saves.
    state = PartialState(cpu=_cpu_asked_for(), timeout=datetime.timedelta(hours=2))
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != state.num_processes:
        raise UserError(
            f"{started} processes were started but each would work alone",
            fix="on a machine without GPUs set ACCELERATE_USE_CPU=true before accelerate launch, or use --num_processes 1",
        )
    if shards() and state.distributed_type.value not in ("MULTI_GPU", "FSDP"):
        raise UserError(
            f"FSDP was asked for, and {state.num_processes} process(es) on this device would train without it",
            expected="several GPUs",
            fix="use accelerate_config.yaml",
        )
    # accelerate's launcher sets MASTER_ADDR when more than one process is asked for, and WORLD_SIZE only where it starts them.
    if (
        os.environ.get("ACCELERATE_MIXED_PRECISION")
        and os.environ.get("MASTER_ADDR")
        and "WORLD_SIZE" not in os.environ
    ):
        raise UserError(
            "several processes were asked for but only one was started",
            fix="use distributed_type: MULTI_GPU, as in accelerate_config.yaml, with ACCELERATE_USE_CPU=true on a CPU",
        )
    return Processes(state.num_processes, state.distributed_type.value)


def describe() -> dict[str, object]:
    """The machine as a run record keeps it: no host name, no user, no path."""
    import torch

    device = device_type()
    result: dict[str, object] = {
        "device": device,
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_bf16": cpu_has_bf16(),
        "attention": attention_implementation().value,
        "os": platform.system(),
    }
    if device == "cuda":
        result["gpus"] = [
            {
                "name": torch.cuda.get_device_name(i),
                "memory_bytes": torch.cuda.get_device_properties(i).total_memory,
                "compute_capability": ".".join(map(str, torch.cuda.get_device_capability(i))),
            }
            for i in range(torch.cuda.device_count())
        ]
    return result


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def choose_device() -> None:
    """Chooses the CPU on a Mac: 4-bit training has not been tried on Apple GPUs."""
    if device_type() == "mps":
        os.environ["ACCELERATE_USE_CPU"] = "true"
