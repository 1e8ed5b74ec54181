"""Former name of :mod:`sbic_llama.prevalence`; it works for one more release."""

import runpy
import sys

if __name__ == "__main__":
    print(
        "sbic_llama.estimate is now sbic_llama.prevalence; the old name will be removed in the next release",
        file=sys.stderr,
    )
    runpy.run_module("sbic_llama.prevalence", run_name="__main__", alter_sys=True)
