"""How the cost of a command grows with its input: CPU time and peak memory at several sizes, and the exponent of the time."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.processes import environment, failure, finished, python
from common.cli.console import log
from common.results.record import read_record
from common.runtime.project import ROOT, miniature_corpora
from common.tables.reading import read_rows
from common.tables.writing import write_rows

START = 64  # rows whose cost is that of starting
SIZES = (1_000, 10_000, 100_000)
STARTS = 3  # runs with :data:`START` rows, because their time is subtracted from all others
LEAST_SECONDS = 0.25  # CPU time beyond the start below which a size says nothing about growth
MOST_GROWTH = 1.1
GROWTH_COLUMNS = ["command", "of", *(f"{size:,}: CPU s, peak MB" for size in SIZES), "exponent", "target", "met"]
# Linux counts the memory of a process that starts another toward the other's peak, so a small one in between starts the command.
WATCH = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=sys.stderr)
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps([usage.ru_utime, usage.ru_maxrss, os.waitstatus_to_exitcode(status)]))
"""
Cost = tuple[float, float]  # user CPU seconds, peak bytes
Costs = dict[int, list[Cost]]  # size → each run


@dataclass(frozen=True)
class Growing:
    """A command whose input grows."""

    command: str
    of: str  # what there is more of
    prepare: Callable[[Path, int, Mapping[str, Path]], list[str]]  # (empty folder, size, models) → command line
    scale: int = 1  # divides the sizes, for commands that take fewer and larger things


def cost_of(name: str, command: list[str]) -> Cost:
    """Run a command, and return its user CPU seconds and peak memory with those of the processes that it waited for."""
    watched = [sys.executable, "-c", WATCH, *command]
    done = subprocess.run(watched, cwd=ROOT, env=environment() | {"OMP_NUM_THREADS": "1"}, capture_output=True)
    seconds, peak, status = json.loads(done.stdout)
    if status:
        raise failure(name, done.stderr, status)
    return seconds, peak * (1 if sys.platform == "darwin" else 1024)


def _posts(folder: Path, size: int) -> Path:
    texts = [str(row.values["post"]) for row in read_rows(miniature_corpora() / "own_file" / "posts.csv")]
    draw = random.Random(0)
    # The number makes posts differ: equal ones are scored once.
    write_rows(folder / "posts.jsonl", [{"id": n, "post": f"{draw.choice(texts)} {n:06d}"} for n in range(size)])
    return folder / "posts.jsonl"


def _votes(folder: Path, size: int, people: int, names: tuple[str, str, str]) -> Path:
    draw, labels, rows = random.Random(1), ("Offensive", "Not offensive"), []
    for item in range(size):
        label = draw.choice(labels)
        for person in range(people):
            given = label if draw.random() < 0.8 else draw.choice(labels)
            rows.append(dict(zip(names, (item, f"person {person}", given), strict=True)))
    write_rows(folder / "votes.csv", rows)
    return folder / "votes.csv"


def _annotate(folder: Path, size: int, models: Mapping[str, Path]) -> list[str]:
    return python("sbic_llama.annotate", _posts(folder, size), adapter=models["adapter"], output=folder / "out.csv")


def _trust(folder: Path, size: int, models: Mapping[str, Path]) -> list[str]:
    votes = _votes(folder, size, 2, ("id", "annotator", "offensiveYN"))
    options = {"human_labels": votes, "key": "id", "adapter": models["adapter"], "output_dir": folder / "trust"}
    return python("sbic_llama.trust", _posts(folder, size), **options)


def _agreement(folder: Path, size: int, models: Mapping[str, Path]) -> list[str]:
    people = _votes(folder, size, 3, ("item", "annotator", "label"))
    draw = random.Random(2)
    answers = [{"item": n, "label": draw.choice(("Offensive", "Not offensive"))} for n in range(size)]
    write_rows(folder / "answers.csv", answers)
    return python("common.agreement", annotations=people, predictions=folder / "answers.csv")


def _pairs(size: int) -> list[dict[str, Any]]:
    """Return labeled pairs of the miniature, each made different by its number."""
    path = miniature_corpora() / "snli_1.0" / "snli_1.0_train.jsonl"
    pairs = [row.values for row in read_rows(path) if row.values["gold_label"] != "-"]
    draw = random.Random(3)
    chosen = (draw.choice(pairs) for _ in range(size))
    return [pair | {"sentence2": f"{pair['sentence2']} {n:06d}", "pairID": f"{n}"} for n, pair in enumerate(chosen)]


def _predict(folder: Path, size: int, models: Mapping[str, Path]) -> list[str]:
    pairs = [{"premise": pair["sentence1"], "hypothesis": pair["sentence2"]} for pair in _pairs(size)]
    write_rows(folder / "pairs.csv", pairs)
    return python(
        "snli_roberta.predict", model=models["classifier"], input=folder / "pairs.csv", output=folder / "out.csv"
    )


def _prepare(folder: Path, size: int, models: Mapping[str, Path]) -> list[str]:
    data = folder / "snli"
    data.mkdir()
    write_rows(data / "snli_1.0_train.jsonl", _pairs(size))
    for split in ("dev", "test"):
        write_rows(data / f"snli_1.0_{split}.jsonl", _pairs(START))
    recipe = "snli_roberta/recipes/miniature_full.yaml"
    step = {"max_steps": 1, "evaluations": 1}
    return python("snli_roberta.train_full", config=recipe, data_dir=data, output_dir=folder / "model", **step)


def _report(folder: Path, size: int, models: Mapping[str, Path]) -> list[str]:
    record = read_record(ROOT / "results" / "snli_tiny_roberta" / "snli-6-lora.json")
    for number in range(size):
        replace(record, title=f"model {number:04d}").write(folder / "records" / f"{number:04d}.json")
    return python("common.report", records=folder / "records", output=folder / "report.html")


GROWING = (
    Growing("sbic_llama.annotate", "posts", _annotate),
    Growing("snli_roberta.predict --input", "pairs", _predict),
    Growing("common.agreement", "items with 3 labels", _agreement),
    Growing("sbic_llama.trust", "posts with 2 labels, annotated first", _trust),
    Growing("snli_roberta.train_full, one step", "pairs", _prepare),
    Growing("common.report", "records, a hundredth as many", _report, scale=100),
)


def measure_growth(scratch: Path, *, quick: bool) -> dict[str, Costs]:
    """Return the costs of each command by size; each run is a process of its own."""
    few = {"max_steps": 20, "evaluations": 1}
    recipes = {
        "adapter": ("sbic_llama.train_offensive_yn", "sbic_llama/recipes/miniature.yaml", "offensiveYN"),
        "classifier": ("snli_roberta.train_full", "snli_roberta/recipes/miniature_full.yaml", ""),
    }
    models = {}
    for name, (module, recipe, folder) in recipes.items():
        finished(module, python(module, config=recipe, output_dir=scratch / name, **few))
        models[name] = scratch / name / folder
    costs: dict[str, Costs] = {growing.command: {} for growing in GROWING}
    for size in (START, *(SIZES[:2] if quick else SIZES)):
        for growing in GROWING:
            runs = costs[growing.command][size] = []
            for _ in range(STARTS if size == START else 1):
                with tempfile.TemporaryDirectory(dir=scratch) as folder:
                    command = growing.prepare(Path(folder), max(1, size // growing.scale), models)
                    runs.append(cost_of(growing.command, command))
            seconds, peak = middle_of(runs)
            log(f"{growing.command}, {max(1, size // growing.scale):,}: {seconds:.1f} CPU s, {peak / 1e6:,.0f} MB")
    return costs


def middle_of(runs: list[Cost]) -> Cost:
    """Return the median seconds and the median peak."""
    return median(seconds for seconds, _ in runs), median(peak for _, peak in runs)


def exponent(costs: Costs) -> float | None:
    """Return the slope of log CPU time beyond the start over log size; None if fewer than two sizes took long enough.

    The few rows of the start are subtracted from the size, as their time is from the time.
    """
    start, _ = middle_of(costs[START])
    beyond = {size - START: middle_of(runs)[0] - start for size, runs in costs.items() if size > START}
    long = {size: seconds for size, seconds in beyond.items() if seconds >= LEAST_SECONDS}
    if len(long) < 2:
        return None
    return float(np.polyfit(np.log(list(long)), np.log(list(long.values())), 1)[0])


def growth_rows(costs: dict[str, Costs]) -> list[list]:
    """Return a row per command."""
    rows = []
    for growing in GROWING:
        of_command = costs[growing.command]
        cells = []
        for size in SIZES:
            seconds, peak = middle_of(of_command[size]) if size in of_command else (None, None)
            cells.append("–" if seconds is None else f"{seconds:.1f}, {peak / 1e6:,.0f}")
        slope = exponent(of_command)
        shown = "too short to tell" if slope is None else f"{slope:.2f}"
        met = slope is not None and slope <= MOST_GROWTH
        rows.append([growing.command, growing.of, *cells, shown, f"≤ {MOST_GROWTH}", met])
    return rows
