"""Former name of :mod:`sbic_llama.baselines`; it works for one more release."""

import runpy
import sys

if __name__ == "__main__":
    print(
        "sbic_llama.controls is now sbic_llama.baselines; the old name will be removed in the next release",
        file=sys.stderr,
    )
    runpy.run_module("sbic_llama.baselines", run_name="__main__", alter_sys=True)
