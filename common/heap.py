"""Memory that a forward pass has freed is kept for the next one, so that the system need not clear its pages again."""

from __future__ import annotations

import ctypes
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt(3)
MIB = 2**20


def keep_freed_memory() -> None:
    """Lets this process's C library (glibc; others are left alone) keep up to 2 GB of free memory at the end of its heap.

    By itself it keeps a few times the largest tensor so far, and gives the rest back after nearly every layer, to get it again
    page by page. Tensors of 32 MiB and more, the most that can be set, always go back at once.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_THRESHOLD, 32 * MIB)
        library.mallopt(TRIM_THRESHOLD, 2048 * MIB - 1)
