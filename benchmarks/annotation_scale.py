"""Compare how fast one process, two processes, and actors on Ray annotate a file: ``python -m benchmarks.annotation_scale``

Every way annotates the same posts of the miniature with a command of its own, in turn; all must write the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

from common.cli.arguments import option, parse
from common.cli.console import log
from common.cli.errors import UserError, run
from common.results import rendering
from common.results.finding import Finding, Listing, worded
from common.results.scoring import command_line
from common.runtime import hardware
from common.runtime.project import miniature_corpora
from common.tables.writing import write_rows
from sbic_llama.annotation.input import WINDOW
from sbic_llama.annotation.run import parts_of
from sbic_llama.data.corpus import load_splits

MODULE = "benchmarks.annotation_scale"
ANNOTATE = "sbic_llama.annotate"
LAUNCH = "accelerate.commands.launch --config_file accelerate_config.yaml --num_processes 2 -m sbic_llama.annotate"
WAYS = {  # the command, and further options
    "one process": (ANNOTATE, ""),
    "two processes": (LAUNCH, ""),
    "Ray, one actor": (ANNOTATE, "--engine ray --actors 1"),
    "Ray, two actors": (ANNOTATE, "--engine ray --actors 2"),
}
WORDS = Path(__file__).with_name("templates") / "annotation_scale.jinja"


@dataclass(kw_only=True)
class ScaleArguments:
    """Time sbic_llama.annotate on posts of the miniature: one process, two, and one and two actors on Ray.

    They run on the CPU, with one thread per model.
    """

    adapter: str = option(help="folder or Hub id of an adapter")
    rows: int = option(12000, "rows to annotate", minimum=10 * WINDOW)
    rounds: int = option(3, "rounds; in each, every way runs once", minimum=1)
    besides: str = option("nothing else", "what else was running on the machine, for the record")
    output: Path | None = option(None, "JSON file for the finding")


class Timing(NamedTuple):
    """One run of a command."""

    seconds: float  # from start to end
    steady: float  # rows per second between the first part and the last, when all models are loaded
    digest: str  # SHA-256 of the output


def timed(way: tuple[str, str], source: Path, adapter: str, output: Path) -> Timing:
    """Run a command, and watch its parts arrive."""
    module, more = (words.split() for words in way)
    command = [sys.executable, "-m", *module, str(source), "--adapter", adapter, "--output", str(output), *more]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    arrivals: dict[str, float] = {}
    with tempfile.TemporaryFile() as stderr:
        start = time.monotonic()
        process = subprocess.Popen(command, env=environment, stderr=stderr)
        while process.poll() is None:
            for part in parts_of(output).glob("*.jsonl"):
                arrivals.setdefault(part.name, time.monotonic())
            time.sleep(0.05)
        seconds = time.monotonic() - start
        if process.returncode:
            stderr.seek(0)
            last = stderr.read().decode(errors="replace").strip().splitlines()[-1:]
            raise UserError(f"{' '.join(way)}: {''.join(last)}", fix="for Ray, pip install -r requirements-scale.txt")
    steady = (len(arrivals) - 1) * WINDOW / (max(arrivals.values()) - min(arrivals.values()))
    return Timing(seconds, steady, hashlib.sha256(output.read_bytes()).hexdigest())


def scale_finding(arguments: ScaleArguments) -> Finding:
    """Run every way in each round; a UserError if one fails or writes other bytes."""
    timings: dict[str, list[Timing]] = {name: [] for name in WAYS}
    test = load_splits(data_dir=miniature_corpora() / "SBIC.v2")["test"]
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        source = Path(folder) / "posts.csv"
        texts, draw = [post.text for post in test.posts], random.Random(0)
        # The number makes most posts differ.
        write_rows(source, [{"number": n, "post": f"{draw.choice(texts)} {n}"} for n in range(arguments.rows)])
        posts = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
        for turn in range(arguments.rounds):
            for name, way in WAYS.items():
                timing = timed(way, source, arguments.adapter, Path(folder) / f"{turn}-{name.replace(' ', '_')}.csv")
                timings[name].append(timing)
                log(f"{name}: {timing.seconds:.0f} s, {timing.steady:.0f} rows/s once loaded")
                if timing.digest != timings["one process"][0].digest:
                    raise UserError(f"{name}: the output differs from that of one process")
    rows = [
        [name, round(median(t.seconds for t in each)), round(median(t.steady for t in each)),
         ", ".join(f"{t.steady:.0f}" for t in each)]
        for name, each in timings.items()
    ]  # fmt: skip
    columns = ["way", "seconds, start to end", "rows/s once loaded", "rounds"]
    rate, runs = {row[0]: row[2] for row in rows}, arguments.rounds * len(WAYS)
    return Finding(
        name="annotation-scale",
        task=ANNOTATE,
        model="tiny Llama",
        **worded(WORDS, rate=rate, rounds=arguments.rounds, runs=runs, rows=arguments.rows),
        parts=[Listing("Medians, and each round", columns, rows)],
        data={"name": "miniature posts", "split": f"{arguments.rows:,} rows", "fingerprint": posts},
        facts={"hardware": hardware.describe(), "threads a model": 1, "ran besides": arguments.besides},
        miniature=True,
        command=command_line(MODULE),
    )


def main() -> None:
    example = f"  python -m {MODULE} --adapter output/miniature_sbic/offensiveYN --output finding.json"
    arguments = parse(ScaleArguments, prog=f"python -m {MODULE}", examples=example)
    finding = scale_finding(arguments)
    print("\n".join(rendering.lines(finding)))
    if arguments.output is not None:
        finding.write(arguments.output)
        log(f"finding: {arguments.output}")


if __name__ == "__main__":
    run(main)
