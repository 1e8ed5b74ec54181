"""Memory that a forward pass has freed is kept for the next one: having the system clear new pages costs a tenth of the time."""

from __future__ import annotations

import ctypes
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt(3)
MIB = 2**20


def keep_freed_memory() -> None:
    """Lets this process's C library (glibc; others are left alone) keep up to 2 GB that tensors have freed.

    By itself it gives the end of its heap back after nearly every layer on a CPU, and gets it again, page by page, for the next.
    Tensors over 32 MiB, the most that glibc lets be asked for, still go back at once.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_THRESHOLD, 32 * MIB)
        library.mallopt(TRIM_THRESHOLD, 2048 * MIB - 1)
