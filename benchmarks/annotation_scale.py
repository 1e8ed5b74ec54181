"""How fast do one process, two, and actors on Ray annotate a file? ``python -m benchmarks.annotation_scale --adapter PATH``

Every way annotates the same posts of the miniature, as a command of its own, in turn; all must write the same bytes.
"""

from __future__ import annotations

import csv
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

from common.cli.arguments import option, parse
from common.cli.console import log
from common.cli.errors import UserError, run
from common.results import rendering
from common.results.finding import Finding, Listing
from common.results.scoring import command_line
from common.runtime import hardware
from common.runtime.project import miniature_corpora
from sbic_llama.annotation.input import WINDOW
from sbic_llama.annotation.run import parts_of
from sbic_llama.data.corpus import load_splits

MODULE = "benchmarks.annotation_scale"
ANNOTATE = "sbic_llama.annotate"
LAUNCH = (
    "accelerate.commands.launch",
    "--config_file",
    "accelerate_config.yaml",
    "--num_processes",
    "2",
    "-m",
    ANNOTATE,
)
WAYS = {
    "one process": (ANNOTATE,),
    "two processes": LAUNCH,
    "Ray, one actor": (ANNOTATE, "--engine", "ray", "--actors", "1"),
    "Ray, two actors": (ANNOTATE, "--engine", "ray", "--actors", "2"),
}
LIMITS = (
    "How it scales on GPUs or over a network: these are processes of one machine, which share its memory and caches, and what else "
    "ran there counts too. The model is tiny, so reading, writing and passing posts on weigh more than beside a large one."
)


@dataclass(kw_only=True)
class ScaleArguments:
    """Times sbic_llama.annotate on posts of the miniature: one process, two, one actor on Ray, and two.

    They run on the CPU, with one thread for each model.
    """

    adapter: str = option(help="folder or Hub id of an adapter")
    rows: int = option(12000, "rows to annotate", minimum=10 * WINDOW)
    rounds: int = option(3, "times that each way is timed, in turn with the others", minimum=1)
    besides: str = option("nothing else", "what else ran on the machine, for the record")
    output: Path | None = option(None, "JSON file for the finding")


@dataclass(frozen=True)
class Timing:
    """One command.

    Attributes:
        seconds: From its start to its end.
        steady: Rows a second between the first part and the last, when all models were loaded.
        digest: SHA-256 of what it wrote.
    """

    seconds: float
    steady: float
    digest: str


def write_posts(path: Path, rows: int) -> None:
    """Test posts of the miniature, each with a number, so that most differ."""
    posts, draw = (
        [post.text for post in load_splits(data_dir=miniature_corpora() / "SBIC.v2")["test"].posts],
        random.Random(0),
    )
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "post"])
        writer.writerows([number, f"{draw.choice(posts)} {number}"] for number in range(rows))


def timed(way: tuple[str, ...], source: Path, adapter: str, output: Path) -> Timing:
    """Runs a way, and watches its parts come.

    Raises:
        UserError: It failed, with what it said last.
    """
    module, more = (way, ()) if way == LAUNCH else (way[:1], way[1:])
    command = [sys.executable, "-m", *module, str(source), "--adapter", adapter, "--output", str(output), *more]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    arrivals: dict[str, float] = {}
    with tempfile.TemporaryFile() as said:
        start = time.monotonic()
        process = subprocess.Popen(command, env=environment, stderr=said)
        while process.poll() is None:
            for part in parts_of(output).glob("*.jsonl"):
                arrivals.setdefault(part.name, time.monotonic())
            time.sleep(0.05)
        seconds = time.monotonic() - start
        if process.returncode:
            said.seek(0)
            last = said.read().decode(errors="replace").strip().splitlines()[-1:]
            raise UserError(f"{' '.join(way)}: {''.join(last)}", fix="Ray needs requirements-scale.txt")
    first, last = min(arrivals.values()), max(arrivals.values())
    steady = (len(arrivals) - 1) * WINDOW / (last - first)
    return Timing(seconds, steady, hashlib.sha256(output.read_bytes()).hexdigest())


def scale_finding(arguments: ScaleArguments) -> Finding:
    """Runs every way, round after round.

    Raises:
        UserError: A way failed, or wrote other bytes than the others.
    """
    timings: dict[str, list[Timing]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        source = Path(folder) / "posts.csv"
        write_posts(source, arguments.rows)
        posts = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
        for turn in range(arguments.rounds):
            for name, way in WAYS.items():
                output = Path(folder) / f"{turn}-{len(timings[name])}-{name.replace(' ', '_')}.csv"
                timing = timed(way, source, arguments.adapter, output)
                timings[name].append(timing)
                log(f"{name}: {timing.seconds:.0f} s, {timing.steady:.0f} rows/s when under way")
                if timing.digest != timings["one process"][0].digest:
                    raise UserError(f"{name}: it wrote other bytes than one process did")
    rows = [
        [name, *(round(median(values)) for values in ([t.seconds for t in each], [t.steady for t in each])),
         ", ".join(f"{t.steady:.0f}" for t in each)]
        for name, each in timings.items()
    ]  # fmt: skip
    rate = {row[0]: row[2] for row in rows}
    return Finding(
        name="annotation-scale",
        title="How fast files are annotated by several processes, and on Ray",
        task="sbic_llama.annotate",
        model="tiny Llama",
        summary=[
            f"All {arguments.rounds * len(WAYS)} runs over {arguments.rows:,} rows wrote the same bytes.",
            f"Under way, two processes annotated {rate['two processes'] / rate['one process']:.2f} times as many rows a second "
            f"as one, and two actors {rate['Ray, two actors'] / rate['Ray, one actor']:.2f} times as many as one actor "
            f"(medians of {arguments.rounds} rounds). One actor did {rate['Ray, one actor'] / rate['one process']:.2f} times as "
            "many as one process.",
        ],
        parts=[
            Listing("Medians, and each round", ["way", "seconds, start to end", "rows/s under way", "rounds"], rows)
        ],
        limits=LIMITS,
        data={"name": "miniature posts", "split": f"{arguments.rows:,} rows", "fingerprint": posts},
        facts={"hardware": hardware.describe(), "threads a model": 1, "ran besides": arguments.besides},
        miniature=True,
        command=command_line(MODULE),
    )


def main() -> None:
    arguments = parse(
        ScaleArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} --adapter output/miniature_sbic/offensiveYN --output finding.json",
    )
    found = scale_finding(arguments)
    print("\n".join(rendering.lines(found)))
    if arguments.output is not None:
        found.write(arguments.output)
        log(f"finding: {arguments.output}")


if __name__ == "__main__":
    run(main)
