"""Annotates posts: ``python -m sbic_llama.annotate posts.csv --adapter PATH_OR_ID --output annotated.csv``."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli.arguments import parse
from common.cli.errors import UserError, run
from common.runtime.processes import join
from sbic_llama.annotation.run import STREAM, AnnotateArguments, annotate

if TYPE_CHECKING:
    pass

MODULE = "sbic_llama.annotate"


def main() -> None:
    arguments = parse(
        AnnotateArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} posts.csv --adapter output/miniature_sbic/offensiveYN --output annotated.csv\n"
        f"  zcat posts.csv.gz | python -m {MODULE} - --adapter user/name@v1 --output - > annotated.csv\n"
        "  accelerate launch --config_file accelerate_config.yaml --num_processes 4 \\\n"
        f"    -m {MODULE} posts.parquet --adapter user/name@v1 --output annotated.parquet\n"
        f"  python -m {MODULE} folder_of_posts --adapter user/name@v1 --output annotated --engine ray --actors 4",
    )
    processes = join()
    if processes.count > 1 and arguments.engine == "ray":
        raise UserError(f"{processes.count} processes, and Ray", key="--engine", expected="one or the other")
    with tempfile.TemporaryDirectory(prefix="annotate-") as scratch:
        source, output = processes.shared(lambda: _paths(arguments, Path(scratch)))
        annotate(arguments, source, output, processes)
        if arguments.output == STREAM and processes.first:
            with open(output, "rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()


def _paths(arguments: AnnotateArguments, scratch: Path) -> tuple[Path, Path]:
    """The files to read and write. A stream can be read once, and a run needs its input three times: it is kept till the end."""
    source, output = Path(arguments.posts[0]), Path(arguments.output)
    if arguments.output == STREAM:
        output = scratch / f"out.{arguments.output_format}"
    if arguments.posts[0] == STREAM:
        source = scratch / f"in.{arguments.input_format}"
        with open(source, "wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
    return source, output


if __name__ == "__main__":
    run(main, several=True)
