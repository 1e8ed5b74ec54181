"""Memory that a forward pass has freed is kept for the next one: having the system clear new pages takes a tenth of the time."""

from __future__ import annotations

import ctypes
import platform

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # mallopt(3)


def keep_freed_memory() -> None:
    """Lets this process's C library (glibc; others are left alone) keep up to 2 GB that tensors have freed.

    By itself it gives tensors from 32 MiB on back to the system each time, as the gradient of the word embeddings or the logits
    of a batch, and often the end of its heap, to get them again page by page.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(MMAP_MAX, 0)
        library.mallopt(TRIM_THRESHOLD, 2**31 - 1)
