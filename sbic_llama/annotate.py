"""Annotate posts: ``python -m sbic_llama.annotate posts.csv --adapter PATH_OR_ID --output annotated.csv``."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from common.cli.arguments import parse
from common.cli.errors import STREAMS, UserError, run
from common.cli.options import on_hub
from common.runtime.processes import join
from sbic_llama.annotation.run import STREAM, AnnotateArguments, annotate

MODULE = "sbic_llama.annotate"


def main() -> None:
    arguments = parse(
        AnnotateArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} posts.csv --adapter output/miniature_sbic/offensiveYN --output annotated.csv\n"
        f"  python -m {MODULE} hf://datasets/user/posts@main:train --adapter user/name@v1 \\\n"
        "    --output hf://datasets/user/annotated\n"
        f"  zcat posts.csv.gz | python -m {MODULE} - --adapter user/name@v1 --output - > annotated.csv\n"
        "  accelerate launch --config_file accelerate_config.yaml --num_processes 4 \\\n"
        f"    -m {MODULE} posts.parquet --adapter user/name@v1 --output annotated.parquet\n"
        f"  python -m {MODULE} folder_of_posts --adapter user/name@v1 --output annotated --engine ray --actors 4",
    )
    processes = join()
    if processes.count > 1 and arguments.engine == "ray":
        problem = f"{processes.count} processes were started, and Ray starts its own"
        raise UserError(problem, key="--engine", fix="start it with python -m, or use --engine local")
    with tempfile.TemporaryDirectory(prefix="annotate-") as scratch:
        source, output, dataset = processes.shared(lambda: _places(arguments, Path(scratch)))
        annotate(arguments, source, output, processes, dataset=dataset)
        if on_hub(arguments.output) and processes.first:
            from sbic_llama.annotation import hub_output

            hub_output.publish(arguments.output, private=not arguments.public)
        if arguments.output == STREAM and processes.first:
            with open(output, "rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()


def _places(arguments: AnnotateArguments, scratch: Path) -> tuple[Path, Path, str | None]:
    """Return the files to read and write, and the Hub's name of what is read, if it comes from there.

    A stream is stored, because a run reads its input three times.
    """
    source, output, dataset = Path(arguments.posts[0]), arguments.output_path, None
    if on_hub(arguments.output):
        from sbic_llama.annotation import hub_output

        hub_output.check(arguments.output, private=not arguments.public)
    if on_hub(arguments.posts[0]):
        from common.hub.table_download import download_table

        table = download_table(arguments.posts[0])
        source, dataset = table.path, table.name
    if arguments.output == STREAM:
        output = scratch / f"out.{arguments.output_format or 'csv'}"
        STREAMS[str(output)] = "standard output"
    if arguments.posts[0] == STREAM:
        source = scratch / f"in.{arguments.input_format or 'csv'}"
        STREAMS[str(source)] = "standard input"
        with open(source, "wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
    return source, output, dataset


if __name__ == "__main__":
    run(main, several=True)
