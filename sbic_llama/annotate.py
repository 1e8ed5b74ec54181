"""Annotates a file of posts: ``python -m sbic_llama.annotate posts.csv --adapter PATH_OR_ID --output annotated.csv``."""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.arguments import option, parse
from common.errors import UserError, run
from common.stages import quiet_libraries, say
from common.tables import table_format

MODULE = "sbic_llama.annotate"
STREAM = "-"  # standard input, or standard output
Format = Literal["csv", "tsv", "jsonl", "parquet"]


@dataclass(kw_only=True)
class AnnotateArguments:
    """Annotates every post of a file with one or more adapters. All columns and the order of the rows are kept.

    The same command continues a run that was stopped or killed. A row that can't be annotated is kept, with the reason in
    the column PREFIXproblem.
    """

    posts: tuple[str, ...] = option(
        (), "file of posts (.csv, .tsv, .jsonl, .parquet; text also .gz), or -", positional=True
    )
    text_column: str = option("post", "its column of the posts")
    adapter: tuple[str, ...] = option(
        help="adapters for different features: folders or Hub ids, user/name@v1 at a revision"
    )
    output: str = option(help="file to write, its ending says the format; or -")
    input_format: Format = option("csv", "format of standard input")
    output_format: Format = option("csv", "format on standard output")
    prefix: str = option("model_", "what the names of the new columns begin with", empty=True)
    quantisation: Literal["nf4", "int8", "none"] = option("nf4", "how the base model's weights are kept")
    batch_size: int = option(32, "posts a forward pass at most; the result does not depend on it", minimum=1)
    review_share: float | None = option(
        None, "mark about that share of the rows, the least certain, for a person", above=0, maximum=0.99
    )
    target_accuracy: float | None = option(
        None, "mark as many that the others were right so often on validation", above=0, maximum=1
    )
    strict: bool = option(False, "stop at the first row that can't be annotated, before the model is loaded")

    def __post_init__(self) -> None:
        if len(self.posts) != 1:
            raise UserError(
                f"{len(self.posts)} files were given", expected="one file of posts, or - for standard input"
            )
        if self.review_share is not None and self.target_accuracy is not None:
            raise UserError("two rules for the review", key="review_share", expected="review_share or target_accuracy")
        for name in (self.posts[0], self.output):
            if name != STREAM:
                table_format(Path(name))
        output = Path(self.output)
        if self.output != STREAM and output.exists() and not parts_of(output).is_dir():
            raise UserError("it exists already", file=output, fix="remove it, or choose another --output")


def parts_of(output: Path) -> Path:
    """The folder beside an output in which its parts are kept until it is whole."""
    return output.with_name(f"{output.name}.parts")


def annotate(arguments: AnnotateArguments, source: Path, output: Path) -> None:
    """Annotates ``source`` into ``output``; see :mod:`sbic_llama.annotation`.

    Raises:
        UserError: A bad file or adapter, before the base model is loaded.
    """
    from sbic_llama import annotation

    found = annotation.survey(source, arguments.text_column, strict=arguments.strict)
    say(f"{found.rows:,} rows")
    quiet_libraries()
    from common import hardware, quantised
    from sbic_llama.annotator import Annotator, describe

    adapters = describe(arguments.adapter)
    thresholds = annotation.thresholds(adapters, arguments.review_share, arguments.target_accuracy)
    columns = annotation.columns_of(adapters, arguments.prefix, review=bool(thresholds))
    if taken := [name for name in columns if name in found.columns]:
        raise UserError(f"it has a column {taken[0]!r} already", file=source, fix="choose another --prefix")
    folder = parts_of(output)
    quantised.choose_device()
    annotation.claim(
        folder,
        {
            "posts": found.digest,
            "text_column": arguments.text_column,
            "adapters": {one.name: annotation.digest_of(one) for one in adapters},
            "prefix": arguments.prefix,
            "thresholds": thresholds,
            "quantisation": arguments.quantisation,
            "computed in": hardware.training_precision().value,
            "rows a part": annotation.WINDOW,
        },
    )
    if output.exists():  # the last run was killed while it cleared up
        annotation.clear(folder)
        say(f"finished already: {output}")
        return

    def annotator() -> Annotator:
        model = Annotator(*arguments.adapter, quantisation=arguments.quantisation, batch_size=arguments.batch_size)
        say(f"{', '.join(one.name for one in model.adapters)} in {model.precision.value} ({model.precision.reason})")
        return model

    try:
        annotation.annotate_parts(
            source,
            folder,
            found,
            annotator,
            text_column=arguments.text_column,
            prefix=arguments.prefix,
            thresholds=thresholds,
        )
    except KeyboardInterrupt:
        say("stopped: the same command continues")
        raise
    annotation.assemble(source, folder, output, found, columns)
    say(f"{found.rows - found.problems:,} posts annotated")


def main() -> None:
    arguments = parse(
        AnnotateArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} posts.csv --adapter output/miniature_sbic/offensiveYN --output annotated.csv\n"
        f"  zcat posts.csv.gz | python -m {MODULE} - --adapter user/name@v1 --output - > annotated.csv",
    )
    with tempfile.TemporaryDirectory(prefix="annotate-") as scratch:
        # A stream can be read once, and a run needs its input three times: it is kept in a file until the run ends.
        source, output = Path(arguments.posts[0]), Path(arguments.output)
        if arguments.output == STREAM:
            output = Path(scratch) / f"out.{arguments.output_format}"
        if arguments.posts[0] == STREAM:
            source = Path(scratch) / f"in.{arguments.input_format}"
            with open(source, "wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        annotate(arguments, source, output)
        if arguments.output == STREAM:
            with open(output, "rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    run(main)
