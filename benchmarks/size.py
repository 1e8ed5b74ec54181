"""Does a row cost as much in a large file as in a small one, in time and memory? ``python -m benchmarks.size WHAT MODEL ROWS``

Each size has a process of its own, which does a few rows first, so that imports and loading are not counted as the rows' time.
"""

from __future__ import annotations

import csv
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.alternating import finished, python
from benchmarks.setting import environment
from common.cli.console import log, quiet_libraries
from common.cli.errors import run
from common.runtime.project import miniature_corpora

FEW = 64
SMALL, LARGE, QUICK_LARGE = 1_000, 100_000, 10_000
TIMES_SMALL = 5  # a thousand rows take a second or so: the median of some runs
LEAST_RATIO, MOST_GROWTH = 0.9, 1.1
WAYS = {"annotator": "Annotator.annotate, a tiny Llama", "predict": "snli_roberta.predict --input, a tiny RoBERTa"}
COLUMNS = ["what", "rows", "rows/s", "peak MB", "of more rows", "their rows/s", "their peak MB"]
COLUMNS += ["speed, large to small", "memory, large to small", "target", "met"]


def models(scratch: Path, cores: int) -> dict[str, str]:
    """A tiny adapter and a tiny classifier on the miniature, trained by the product's commands for some steps."""
    few = ("--max_steps", 20, "--evaluations", 1, "--output_dir")
    sbic, snli = scratch / "size_sbic", scratch / "size_snli"
    words = ("--config", "sbic_llama/recipes/miniature.yaml", *few, sbic)
    finished("a tiny adapter", python("sbic_llama.train_offensive_yn", *words), environment(cores))
    words = ("--config", "snli_roberta/recipes/miniature_full.yaml", *few, snli)
    finished("a tiny classifier", python("snli_roberta.train_full", *words), environment(cores))
    return {"annotator": str(sbic / "offensiveYN"), "predict": str(snli)}


def measure(scratch: Path, cores: int, large: int) -> dict[str, dict[int, dict[str, Any]]]:
    """What each way did with either number of rows: rows a second of each run, and the process's peak memory in bytes."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for what, model in models(scratch, cores).items():
        found[what] = {}
        for count in (SMALL, large):
            said = finished(what, python("benchmarks.size", what, model, count), environment(cores))
            found[what][count] = json.loads(said.strip().splitlines()[-1])
            log(f"{WAYS[what]}, {count:,} rows: {median(found[what][count]['rates']):,.0f} rows/s")
    return found


def rows(found: dict[str, dict[int, dict[str, Any]]]) -> list[list]:
    """A row for each way; speed and memory each have a target."""
    made = []
    for what, sizes in found.items():
        (small, few), (large, many) = sizes.items()
        speed = median(many["rates"]) / median(few["rates"])
        memory = many["peak_bytes"] / few["peak_bytes"]
        cells = [
            cell
            for count, one in ((small, few), (large, many))
            for cell in (count, round(median(one["rates"])), round(one["peak_bytes"] / 1e6))
        ]
        target = f"≥ {LEAST_RATIO}, and ≤ {MOST_GROWTH}"
        met = speed >= LEAST_RATIO and memory <= MOST_GROWTH
        made.append([WAYS[what], *cells, round(speed, 2), round(memory, 2), target, met])
    return made


def _annotator(model: str, scratch: Path) -> Callable[[int], None]:
    from sbic_llama.data.corpus import load_splits
    from sbic_llama.model.annotator import Annotator

    annotator = Annotator(model)
    posts = [post.text for post in load_splits(data_dir=miniature_corpora() / "SBIC.v2")["test"].posts]

    def stream(count: int) -> Iterator[str]:
        draw = random.Random(0)
        for number in range(count):  # the number makes each a post of its own: equal ones are scored once
            yield f"{draw.choice(posts)} {number:06d}"

    def work(count: int) -> None:
        for _ in annotator.annotate(stream(count)):
            pass

    return work


def _predict(model: str, scratch: Path) -> Callable[[int], None]:
    from snli_roberta import predict
    from snli_roberta.data.corpus import load_split

    pairs = load_split("test", data_dir=miniature_corpora() / "snli_1.0").pairs

    def work(count: int) -> None:
        source, draw = scratch / f"{count}.csv", random.Random(0)
        if not source.exists():
            with open(source, "w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["premise", "hypothesis"])
                for _ in range(count):
                    pair = draw.choice(pairs)
                    writer.writerow([pair.premise, pair.hypothesis])
        output = scratch / "out.csv"
        output.unlink(missing_ok=True)
        sys.argv = ["predict", "--model", model, "--input", str(source), "--output", str(output)]
        predict.main()

    return work


def main() -> None:
    what, model, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    quiet_libraries()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        work = {"annotator": _annotator, "predict": _predict}[what](model, Path(folder))
        for _ in range(2):  # the first time libraries are loaded, the second it is only what every call costs
            begun = time.perf_counter()
            work(FEW)
            few = time.perf_counter() - begun
        work(count if count == SMALL else FEW)
        rates = []
        for _ in range(TIMES_SMALL if count == SMALL else 1):
            begun = time.perf_counter()
            work(count)
            rates.append((count - FEW) / (time.perf_counter() - begun - few))
    # Linux counts it in KiB.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"rates": rates, "peak_bytes": peak}))


if __name__ == "__main__":
    run(main)
