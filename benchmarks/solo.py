"""Jobs of the product alone: startup time of commands, cost of a row by file size, and speed of bf16 by a model's width.

``python -m benchmarks.solo WAY MODEL ROWS`` measures one file size in a process of its own, which does a few rows first, so that
imports and loading do not count.
"""

from __future__ import annotations

import importlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from benchmarks.processes import ROOT, Setting, environment, finished, middle, python
from common.cli.console import log, quiet_libraries
from common.cli.errors import UserError, run
from common.runtime import hardware
from common.runtime.project import MINIATURE_MODELS, miniature_corpora
from common.tables.writing import row_writer

# ---- start: how soon every command prints its help, or refuses a bad command line

START_TARGET = 1.5  # seconds
START_COLUMNS = ["asked", "commands", "median seconds", "slowest", "which", "target", "met"]


def missing_files() -> dict[str, str]:
    """Return a command line that names a missing file for each command; ``{}`` is a folder to write to."""
    return yaml.safe_load(Path(__file__).with_name("missing_files.yaml").read_text(encoding="utf-8"))


def seconds_of(words: list[str], status: int) -> float:
    """Return how long a command takes to exit; a UserError if it exits with another status."""
    options = {"cwd": ROOT, "env": environment(), "stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    start = time.perf_counter()
    done = subprocess.run(words, **options)
    seconds = time.perf_counter() - start
    if done.returncode != status:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise UserError(f"{' '.join(words[2:])} exited with status {done.returncode}: {last}", expected=f"{status}")
    return seconds


def measure_start(scratch: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of each round, by request and command."""
    lines = missing_files()
    folder = scratch / "start"  # for what a refused command might write
    folder.mkdir(exist_ok=True)
    requests = {
        "--help": (0, dict.fromkeys(lines, "--help")),
        "an unknown option": (2, dict.fromkeys(lines, "--no_such_option 1")),
        "a missing file": (2, {name: line.format(folder) for name, line in lines.items()}),
    }
    seconds = {request: {name: [] for name in lines} for request in requests}
    for _ in range(rounds):
        for request, (status, words) in requests.items():
            for name in lines:
                seconds[request][name].append(seconds_of(python(name, *words[name].split()), status))
            log(f"{request}: {len(lines)} commands")
    return seconds


def start_rows(seconds: dict[str, dict[str, list[float]]]) -> list[list]:
    """Return a row per request; the slowest command counts."""
    rows = []
    for request, times in seconds.items():
        each = {name: median(rounds) for name, rounds in times.items()}
        slowest = max(each, key=lambda name: each[name])
        cells = [round(median(each.values()), 2), round(each[slowest], 2), slowest, f"< {START_TARGET} s"]
        rows.append([request, len(each), *cells, each[slowest] < START_TARGET])
    return rows


# ---- size: does a row cost as much in a large file as in a small one, in time and memory?

FEW = 64
SMALL, LARGE, QUICK_LARGE = 1_000, 100_000, 10_000
REPEATS_SMALL = 5  # a thousand rows take about a second
LEAST_SPEED, MOST_MEMORY = 0.9, 1.1  # large relative to small
WAYS = {"annotator": "Annotator.annotate, a tiny Llama", "predict": "snli_roberta.predict --input, a tiny RoBERTa"}
SIZE_COLUMNS = ["what", "rows", "rows/s", "peak MB", "of more rows", "their rows/s", "their peak MB"]
SIZE_COLUMNS += ["speed, large to small", "memory, large to small", "target", "met"]


def measure_size(scratch: Path, *, quick: bool) -> dict[str, dict[int, dict[str, Any]]]:
    """Return rows per second of each repeat and peak memory in bytes, by way and number of rows."""
    measured: dict[str, dict[int, dict[str, Any]]] = {}
    few = {"max_steps": 20, "evaluations": 1}
    for way, module, recipe, folder in (
        ("annotator", "sbic_llama.train_offensive_yn", "sbic_llama/recipes/miniature.yaml", "offensiveYN"),
        ("predict", "snli_roberta.train_full", "snli_roberta/recipes/miniature_full.yaml", ""),
    ):
        finished(module, python(module, config=recipe, output_dir=scratch / way, **few))
        measured[way] = {}
        for count in (SMALL, QUICK_LARGE if quick else LARGE):
            output = finished(way, python("benchmarks.solo", way, scratch / way / folder, count))
            measured[way][count] = json.loads(output.strip().splitlines()[-1])
            log(f"{WAYS[way]}, {count:,} rows: {median(measured[way][count]['rates']):,.0f} rows/s")
    return measured


def size_rows(measured: dict[str, dict[int, dict[str, Any]]]) -> list[list]:
    """Return a row per way."""
    rows = []
    for way, sizes in measured.items():
        (_, few), (_, many) = sizes.items()
        speed = median(many["rates"]) / median(few["rates"])
        memory = many["peak_bytes"] / few["peak_bytes"]
        cells: list[Any] = [WAYS[way]]
        for count, each in sizes.items():
            cells += [count, round(median(each["rates"])), round(each["peak_bytes"] / 1e6)]
        met = speed >= LEAST_SPEED and memory <= MOST_MEMORY
        target = f"≥ {LEAST_SPEED}, and ≤ {MOST_MEMORY}"
        rows.append([*cells, round(speed, 2), round(memory, 2), target, met])
    return rows


def _annotator(model: str, scratch: Path) -> Callable[[int], None]:
    from sbic_llama.data.corpus import load_splits
    from sbic_llama.model.annotator import Annotator

    annotator = Annotator(model)
    posts = [post.text for post in load_splits(data_dir=miniature_corpora() / "SBIC.v2")["test"].posts]

    def work(count: int) -> None:
        draw = random.Random(0)
        # The number makes each post unique: equal ones are scored once.
        for _ in annotator.annotate(f"{draw.choice(posts)} {number:06d}" for number in range(count)):
            pass

    return work


def _predict(model: str, scratch: Path) -> Callable[[int], None]:
    from snli_roberta.data.corpus import load_split

    pairs = load_split("test", data_dir=miniature_corpora() / "snli_1.0").pairs
    command = importlib.import_module("snli_roberta.predict")  # runs in this process, because its memory counts

    def work(count: int) -> None:
        source, output, draw = scratch / f"{count}.csv", scratch / "out.csv", random.Random(0)
        if not source.exists():
            with row_writer(source, ("premise", "hypothesis")) as write:
                for pair in (draw.choice(pairs) for _ in range(count)):
                    write({"premise": pair.premise, "hypothesis": pair.hypothesis})
        output.unlink(missing_ok=True)
        sys.argv = ["predict", "--model", model, "--input", str(source), "--output", str(output)]
        command.main()

    return work


def main() -> None:
    way, model, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    quiet_libraries()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        work = {"annotator": _annotator, "predict": _predict}[way](model, Path(folder))
        for _ in range(2):  # the first call loads libraries, the second takes what every call costs
            start = time.perf_counter()
            work(FEW)
            few = time.perf_counter() - start
        work(count if count == SMALL else FEW)
        rates = []
        for _ in range(REPEATS_SMALL if count == SMALL else 1):
            start = time.perf_counter()
            work(count)
            rates.append((count - FEW) / (time.perf_counter() - start - few))
    kilobytes = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobytes
    print(json.dumps({"rates": rates, "peak_bytes": peak}))


# ---- width: from which width on is bf16 faster than fp32? The product's automatic choice rests on this.

WIDTHS, QUICK_WIDTHS = (128, 192, 256, 384), (128, 384)
WIDTH_PAIRS, QUICK_WIDTH_PAIRS = 384, 128
Rates = dict[int, dict[str, list[float]]]


WIDTH_COLUMNS = [
    "hidden size",
    "pairs/s in fp32",
    "pairs/s in bf16",
    "bf16 to fp32 (from–to)",
    "chosen",
    "target",
    "met",
]


def measure_width(setting: Setting, rounds: int, *, quick: bool) -> Rates:
    """Return pairs per second of full fine-tuning in each round, by width and precision; nothing if the CPU lacks bf16."""
    if not hardware.cpu_has_bf16():
        return {}
    from benchmarks import materials, training
    from common.runtime.child_process import call

    widths, pairs = (QUICK_WIDTHS, QUICK_WIDTH_PAIRS) if quick else (WIDTHS, WIDTH_PAIRS)
    make = {width: partial(materials.encoder, width=width) for width in widths}
    tokenizer = str(MINIATURE_MODELS / "tiny_roberta")  # a RoBERTa's, whatever encoder the other jobs use
    bases = {width: call(make[width], tokenizer, preload="common.cli.console") for width in widths}
    rates: Rates = {width: {"fp32": [], "bf16": []} for width in widths}
    with tempfile.TemporaryDirectory(prefix="bench-") as data:
        materials.cut_snli(Path(setting.snli_dir), Path(data), train=pairs, dev=training.PAIRS_PER_STEP)
        for turn in range(rounds):
            for width, base in bases.items():
                for precision in list(rates[width])[:: 1 if turn % 2 else -1]:
                    with tempfile.TemporaryDirectory(dir=data) as output:
                        options = training.snli_options("full", base, data, output) | {"precision": precision}
                        seconds, *_ = training.train("snli_roberta.train_full", Path(output), **options)
                        rates[width][precision].append(pairs / seconds)
                each = ", ".join(f"{values[-1]:,.0f} pairs/s in {name}" for name, values in rates[width].items())
                log(f"width {width}: {each}")
    return rates


def width_rows(rates: Rates) -> list[list]:
    """Return a row per width; the target is met where the product chooses the faster precision."""
    rows = []
    for width, by_precision in rates.items():
        ratios = [half / single for half, single in zip(by_precision["bf16"], by_precision["fp32"], strict=True)]
        chosen = hardware.choose_precision(width=width).value
        faster = "bf16" if median(ratios) >= 1 else "fp32"
        each = [round(median(by_precision[name])) for name in ("fp32", "bf16")]
        rows.append([width, *each, middle(ratios), chosen, "the faster", chosen == faster])
    return rows


if __name__ == "__main__":
    run(main)
