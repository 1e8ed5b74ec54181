"""How fast this machine multiplies matrices: the most that a model could use of it. ``python -m benchmarks.matmul``"""

from __future__ import annotations

import json
import time

SHAPES = ((2048, 2048, 2048), (2048, 2048, 4096), (4096, 2048, 2048))  # rows, inner, columns
TIMES = 5


def rates() -> dict[str, float]:
    """Operations a second by precision, the best of some shapes and times; bf16 only where the CPU has it."""
    import torch

    from common.runtime.hardware import cpu_has_bf16

    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        if name == "bf16" and not cpu_has_bf16():
            continue
        best = 0.0
        for rows, inner, columns in SHAPES:
            left, right = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)
            torch.nn.functional.linear(left, right)
            for _ in range(TIMES):
                start = time.perf_counter()
                torch.nn.functional.linear(left, right)
                best = max(best, 2 * rows * inner * columns / (time.perf_counter() - start))
        found[name] = best
    return found


if __name__ == "__main__":
    from common.runtime import hardware

    print(json.dumps({"rates": rates(), "hardware": hardware.describe()}))
