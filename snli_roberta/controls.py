"""Former name of :mod:`snli_roberta.baselines`; it works for one more release."""

import runpy
import sys

if __name__ == "__main__":
    print(
        "snli_roberta.controls is now snli_roberta.baselines; the old name will be removed in the next release",
        file=sys.stderr,
    )
    runpy.run_module("snli_roberta.baselines", run_name="__main__", alter_sys=True)
