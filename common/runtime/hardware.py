"""What this machine offers: device, precision, threads, memory, and the processes that train together."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from common.cli.errors import UserError, counted

if TYPE_CHECKING:
    import torch


Precision = Literal["fp32", "bf16", "fp16"]
WIDE = 256  # from this hidden size on, bf16 trains over 1.6 times as fast (results/bench-cpu-2-cores-width.json)
ATTENTION = "sdpa"  # the only fast kernel that takes the 4-D block masks of packed training and scoring


@dataclass(frozen=True)
class Choice:
    """A setting and the reason for it, for a log line."""

    value: str
    reason: str


def device_type() -> Literal["cuda", "mps", "cpu"]:
    import torch

    if _enabled("ACCELERATE_USE_CPU"):
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def choose_device() -> None:
    """Use the CPU on a Mac: 4-bit training has not been tried on Apple GPUs."""
    if device_type() == "mps":
        os.environ["ACCELERATE_USE_CPU"] = "true"


def choose_precision(requested: Literal["auto", "fp32", "bf16", "fp16"] = "auto", *, width: int) -> Choice:
    """Choose the compute precision for a model of hidden size ``width``, or check the requested one.

    A T4 emulates bf16, and ``torch.cuda.is_bf16_supported()`` counts that, so the compute capability decides (8.0 and up).
    A CPU with bf16 instructions multiplies several times as fast in bf16, which pays off from :data:`WIDE` on: narrower models
    gain little and stay exact. Without such instructions fp32 is faster too.

    Raises:
        UserError: The device does not support the requested precision.
    """
    device = device_type()
    if device == "cuda":
        import torch

        # All visible cards take part: the oldest decides.
        major, minor = min(torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count()))
        name = f"compute capability {major}.{minor}"
        supported = ("bf16", "fp16", "fp32") if major >= 8 else ("fp16", "fp32")
    elif device == "mps":
        name, supported = "Apple GPU", ("fp32",)
    else:
        name, supported = "CPU without bf16 instructions", ("fp32",)
        if cpu_has_bf16():
            wide = width >= WIDE
            name = "CPU with bf16 instructions" + ("" if wide else f", a model of width {width}")
            supported = ("bf16", "fp32") if wide else ("fp32", "bf16")
    if requested == "auto":
        return Choice(supported[0], name)
    if requested not in supported:
        problem = f"{requested} is not supported here ({name})"
        raise UserError(problem, key="precision", expected=f"auto or {' or '.join(supported)}")
    return Choice(requested, f"as requested; {name}")


def dtype(precision: Precision) -> torch.dtype:
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def cpu_has_bf16() -> bool:
    """Return whether the CPU multiplies bf16 in hardware (AVX512-BF16, AMX, or Arm's bf16); otherwise bf16 is slower."""
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(_text_of("/proc/cpuinfo").split())


def _text_of(path: str) -> str:
    """Return a file of Linux's /proc; empty on other systems."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def cpu_threads() -> int:
    """Return the number of cores for this process: its affinity, divided among the launch's local processes."""
    return max(1, _cores() // local_processes())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Return the memory this process may use: the machine's, or the limit of its Linux control group."""
    import psutil

    limits = [psutil.virtual_memory().total]
    for line in _text_of("/proc/self/cgroup").splitlines():
        _, kinds, path = line.split(":", 2)
        first_version = "memory" in kinds.split(",")
        root = Path("/sys/fs/cgroup/memory" if first_version else "/sys/fs/cgroup")
        name = "memory.limit_in_bytes" if first_version else "memory.max"
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):  # limits of parent groups apply too
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
                limits.append(int((folder / name).read_text(encoding="ascii")))
    return min(limits)


def local_processes() -> int:
    """Return how many processes a launcher started on this machine, including this one."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def shards() -> bool:
    """Return whether accelerate shards the model among the processes (FSDP)."""
    return _enabled("ACCELERATE_USE_FSDP")


def _enabled(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes")


def check_processes() -> int:
    """Return how many processes train together; raise ``UserError`` if the launcher was asked for another number.

    Two configurations of ``accelerate launch`` fail silently: on a CPU without ``ACCELERATE_USE_CPU=true``, several processes
    start and each trains alone, overwriting the others; with ``distributed_type: MULTI_CPU`` only one starts.
    """
    from accelerate import PartialState

    if device_type() == "cuda" and "WORLD_SIZE" not in os.environ:
        import torch

        if (count := torch.cuda.device_count()) > 1:
            # Trainer would split each batch among the cards (DataParallel), and train with a multiple of the batch size.
            fix = "use accelerate launch --num_processes with their number, or CUDA_VISIBLE_DEVICES=0 for one of them"
            raise UserError(f"{count} GPUs are visible to one process", fix=fix)
    # By default, a GPU's process gives up after ten minutes in which another one evaluates or saves.
    state = PartialState(cpu=_enabled("ACCELERATE_USE_CPU"), timeout=datetime.timedelta(hours=2))
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != state.num_processes:
        fix = "on a machine without GPUs set ACCELERATE_USE_CPU=true before accelerate launch, or use --num_processes 1"
        raise UserError(f"{started} processes were started but each would work alone", fix=fix)
    if shards() and state.distributed_type.value not in ("MULTI_GPU", "FSDP"):
        processes = counted(state.num_processes, "process", "processes")
        problem = f"FSDP was requested, but {processes} on this device would train without it"
        raise UserError(problem, expected="several GPUs", fix="use accelerate_config.yaml")
    # accelerate's launcher sets MASTER_ADDR if several processes are requested, and WORLD_SIZE only if it starts them.
    requested = os.environ.get("ACCELERATE_MIXED_PRECISION") and os.environ.get("MASTER_ADDR")
    if requested and "WORLD_SIZE" not in os.environ:
        fix = "use distributed_type: MULTI_GPU, as in accelerate_config.yaml, with ACCELERATE_USE_CPU=true on a CPU"
        raise UserError("several processes were requested but only one was started", fix=fix)
    return state.num_processes


def describe() -> dict[str, object]:
    """Describe the machine for a run record, without host name, user, or paths."""
    import torch

    device = device_type()
    result: dict[str, object] = {
        "device": device,
        "cpu": _cpu_name(),
        "cores": _cores(),
        "threads": torch.get_num_threads(),
        "cpu_bf16": cpu_has_bf16(),
        "attention": ATTENTION,
        "os": platform.system(),
    }
    if device == "cuda":
        result["gpus"] = [
            {"name": gpu.name, "memory_bytes": gpu.total_memory, "compute_capability": f"{gpu.major}.{gpu.minor}"}
            for gpu in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
        ]
    return result


def _cpu_name() -> str:
    name = re.search(r"^model name.*?:(.*)$", _text_of("/proc/cpuinfo"), re.MULTILINE)
    return name[1].strip() if name else platform.processor() or platform.machine()
