"""Measure the memory that annotating files takes that unpack to gigabytes: ``python -m benchmarks.hostile_files``"""

from __future__ import annotations

import csv
import gzip
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.cli.arguments import option, parse
from common.cli.console import log
from common.cli.errors import UserError, run
from common.results import rendering
from common.results.finding import Finding, Listing, worded
from common.results.scoring import command_line
from common.runtime import hardware
from common.tables.report import fingerprint

MODULE = "benchmarks.hostile_files"
ANNOTATE = "sbic_llama.annotate"
WORDS = Path(__file__).with_name("templates") / "hostile_files.jinja"
MB = 10**6
WORD = "florbs sing "  # of the miniature; a post repeats it


@dataclass(kw_only=True)
class HostileArguments:
    """Measure the peak memory of sbic_llama.annotate on small files that unpack to gigabytes, and on very long posts (Linux)."""

    adapter: str = option(help="folder or Hub id of an adapter")
    shrink: int = option(1, "divides the sizes of the files", minimum=1)
    output: Path | None = option(None, "JSON file for the finding")


def one_post(path: Path, shrink: int) -> None:
    path.write_text(f"post\n{WORD}\n", encoding="utf-8")


def huge_cell(path: Path, shrink: int) -> None:
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"post\n")
        for _ in range(1000 // shrink):
            file.write(b"x" * MB)


def repeated_text(path: Path, shrink: int) -> None:
    import pyarrow
    import pyarrow.parquet

    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * (1024 // shrink)), ["x" * 10 * MB])
    pyarrow.parquet.write_table(pyarrow.table({"post": texts}), path)


def long_posts(path: Path, shrink: int) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["post"], *([[WORD * (10 * MB // len(WORD))]] * max(1, 30 // shrink))])


FILES: dict[str, tuple[str, Callable[[Path, int], None]]] = {
    "one short post": ("short.csv", one_post),
    "a cell of 1 GB, gzipped": ("cell.csv.gz", huge_cell),
    "1,024 rows with one text of 10 MB": ("text.parquet", repeated_text),
    "30 posts of 10 MB": ("posts.csv", long_posts),
}


def measured(source: Path, adapter: str, output: Path) -> tuple[float, float, str]:
    """Annotate a file in a process of its own; return its peak memory in MB, its seconds, and its last line."""
    command = [sys.executable, "-m", ANNOTATE, str(source), "--adapter", adapter, "--output", str(output)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    peak = 0
    with tempfile.TemporaryFile() as stderr:
        start = time.monotonic()
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=stderr)
        # Not getrusage: its peak begins with the memory of this process, from which the child was forked.
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
            peak = max([peak, *map(int, re.findall(r"VmHWM:\s*(\d+)", status))])
            time.sleep(0.02)
        seconds = time.monotonic() - start
        stderr.seek(0)
        last = stderr.read().decode(errors="replace").strip().splitlines()[-1]
    if process.returncode not in (0, UserError.exit_status):
        raise UserError(f"ended with status {process.returncode}: {last}", file=source)
    return peak * 1024 / MB, seconds, "annotated" if process.returncode == 0 else "refused"


def hostile_finding(arguments: HostileArguments) -> Finding:
    """Annotate each file in turn."""
    rows: list[list[str | int]] = []
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        for name, (filename, write) in FILES.items():
            source = Path(folder) / filename
            write(source, arguments.shrink)
            peak, seconds, outcome = measured(source, arguments.adapter, Path(folder) / f"annotated-{filename}")
            rows.append([name, source.stat().st_size, outcome, round(peak), round(seconds)])
            log(f"{name}: {outcome} in {seconds:.0f} s, at most {peak:.0f} MB")
    above = max(int(row[3]) for row in rows) - int(rows[0][3])
    columns = ["file", "bytes", "outcome", "peak memory, MB", "seconds"]
    return Finding(
        name="hostile-files",
        task=ANNOTATE,
        model="tiny Llama",
        **worded(WORDS, above=above, short=rows[0][3]),
        parts=[Listing("Peak memory by file", columns, rows)],
        data={
            "name": "made-up files",
            "split": f"sizes divided by {arguments.shrink}",
            "fingerprint": fingerprint(FILES),
        },
        facts={"hardware": hardware.describe()},
        miniature=True,
        command=command_line(MODULE),
    )


def main() -> None:
    example = f"  python -m {MODULE} --adapter output/miniature_sbic/offensiveYN --output finding.json"
    arguments = parse(HostileArguments, prog=f"python -m {MODULE}", examples=example)
    finding = hostile_finding(arguments)
    if arguments.output is not None:
        finding.write(arguments.output)
    print("\n".join(rendering.lines(finding)))


if __name__ == "__main__":
    run(main)
