"""From which width on does bf16 train faster than fp32? What the product chooses by itself rests on this."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median

from benchmarks import encoder
from benchmarks.alternating import finished, middle, python
from benchmarks.corpora import cut_snli
from benchmarks.setting import environment
from benchmarks.training_sides import ENCODER_RATE, PAIRS_A_STEP, training_json
from common.cli.console import log
from common.runtime import hardware
from common.runtime.child_process import call

WIDTHS, QUICK_WIDTHS = (128, 192, 256, 384), (128, 384)
PAIRS, QUICK_PAIRS = 384, 128
COLUMNS = ["hidden size", "pairs/s in fp32", "pairs/s in bf16", "bf16 to fp32 (from–to)", "chosen", "target", "met"]
Found = dict[int, dict[str, list[float]]]


def measure(snli_dir: str, tokenizer: str, cores: int, rounds: int, *, quick: bool) -> Found:
    """Pairs a second of full fine-tuning by width and precision, in turn, a number a round; nothing where a CPU lacks bf16."""
    if not hardware.cpu_has_bf16():
        return {}
    widths, pairs = (QUICK_WIDTHS, QUICK_PAIRS) if quick else (WIDTHS, PAIRS)
    bases = {width: call(encoder.made, (tokenizer, width), preload="common.cli.console") for width in widths}
    found: Found = {width: {"fp32": [], "bf16": []} for width in widths}
    with tempfile.TemporaryDirectory(prefix="bench-") as data:
        cut_snli(Path(snli_dir), Path(data), train=pairs, dev=PAIRS_A_STEP)
        for turn in range(rounds):
            for width, base in bases.items():
                for precision in list(found[width])[:: 1 if turn % 2 else -1]:
                    with tempfile.TemporaryDirectory(dir=data) as output:
                        words = (
                            "--method",
                            "full",
                            "--model_name_or_path",
                            base,
                            "--data_dir",
                            data,
                            "--precision",
                            precision,
                        )
                        words += ("--output_dir", output, "--per_device_train_batch_size", PAIRS_A_STEP)
                        words += ("--num_train_epochs", 1, "--evaluations", 1, "--learning_rate", ENCODER_RATE)
                        finished(
                            "snli_roberta.train_full", python("snli_roberta.train_full", *words), environment(cores)
                        )
                        found[width][precision].append(pairs / training_json(Path(output)).seconds)
                log(
                    f"width {width}: "
                    + ", ".join(f"{rates[-1]:,.0f} pairs/s in {name}" for name, rates in found[width].items())
                )
    return found


def rows(found: Found) -> list[list]:
    """A row for each width; met is whether the product chooses the faster precision."""
    made = []
    for width, rates in found.items():
        ratios = [half / single for half, single in zip(rates["bf16"], rates["fp32"], strict=True)]
        chosen = hardware.choose_precision(width=width).value
        faster = "bf16" if median(ratios) >= 1 else "fp32"
        each = [round(median(rates[name])) for name in ("fp32", "bf16")]
        made.append([width, *each, middle(ratios), chosen, "the faster", chosen == faster])
    return made
