"""TODO docstring."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from common.cli.arguments import option
from common.cli.console import log, quiet_libraries
from common.cli.errors import UserError
from common.models.loading import check_place, with_revision
from common.runtime import hardware
from common.runtime.processes import ALONE, Processes
from common.tables.reading import FORMATS, table_format
from sbic_llama.annotation.input import Part, RowFormat, Survey, annotated, files_of, survey, windows
from sbic_llama.annotation.parts import IDENTITY, check, claimed, clear

if TYPE_CHECKING:
    from sbic_llama.annotation.parts import AnnotationJob


STREAM = "-"  # standard input, or standard output

Format = Literal["csv", "tsv", "jsonl", "parquet"]

# Makes the parts that are asked for, in any order: (files, their parts, how a row is made) → parts.
Engine = Callable[[Sequence[Survey], Sequence[tuple[int, int]], RowFormat], Iterator[Part]]


@dataclass(kw_only=True)
class AnnotateArguments:
    """Annotates every post of a file, or of a folder's files, with one or more adapters. All columns and the order of the rows are
    kept.

    The same command continues a run that was stopped or killed, also on another number of processes or another engine. A row
    that can't be annotated is kept, with the reason in the column PREFIXproblem.
    """

    posts: tuple[str, ...] = option(
        (), "file of posts (.csv, .tsv, .jsonl, .parquet; text also .gz), folder of files, or -", positional=True
    )
    text_column: str = option("post", "its column of the posts")
    adapter: tuple[str, ...] = option(
        help="adapters for different features: folders or Hub ids, user/name@v1 at a revision"
    )
    output: str = option(help="file to write, its ending says the format; for a folder of posts a folder; or -")
    input_format: Format = option("csv", "format of standard input")
    output_format: Format = option("csv", "format on standard output")
    prefix: str = option("model_", "what the names of the new columns begin with", empty=True)
    quantisation: Literal["nf4", "int8", "none"] = option("nf4", "how the base model's weights are kept")
    batch_size: int = option(
        32, "posts a forward pass at most; the result does not depend on it, but for rounding", minimum=1
    )
    review_share: float | None = option(
        None, "mark about that share of the rows, the least certain, for a person", above=0, maximum=0.99
    )
    target_accuracy: float | None = option(
        None, "mark as many that the others were right so often on validation", above=0, maximum=1
    )
    strict: bool = option(False, "stop at the first row that can't be annotated, before the model is loaded")

    engine: Literal["local", "ray"] = option("local", "ray: actors of a Ray cluster (needs requirements-scale.txt)")
    ray_address: str | None = option(None, "head of a running cluster, host:port (default: a new one on this machine)")
    actors: int | None = option(
        None, "models that Ray keeps, each on a GPU or a core (default: one a GPU, else one)", minimum=1
    )

    def __post_init__(self) -> None:
        if len(self.posts) != 1:
            raise UserError(
                f"{len(self.posts)} files were given", expected="one file of posts, or - for standard input"
            )
        for name in self.adapter:
            check_place(*with_revision(name))
        if self.review_share is not None and self.target_accuracy is not None:
            raise UserError("two rules for the review", key="review_share", expected="review_share or target_accuracy")
        if self.engine == "local":
            for key in ("ray_address", "actors"):
                if getattr(self, key) is not None:
                    raise UserError("it is for Ray", key=key, expected="--engine ray beside it")
        source, output = Path(self.posts[0]), Path(self.output)
        if source.is_dir():
            self._check_folder(source, output)
        else:
            for name in (self.posts[0], self.output):
                if name != STREAM:
                    table_format(Path(name))
        if self.output != STREAM and output.exists() and not (parts_of(output) / IDENTITY).is_file():
            raise UserError("it exists already", file=output, fix="remove it, or choose another --output")

    def _check_folder(self, source: Path, output: Path) -> None:
        if self.output == STREAM or output.name in ("", "..") or output.name.endswith((*FORMATS, ".gz")):
            raise UserError("the posts are a folder", file=self.output, expected="a new folder as --output")
        if output.resolve().is_relative_to(source.resolve()):
            raise UserError("it lies in the folder of posts", file=output, fix="choose another --output")


def parts_of(output: Path) -> Path:
    """The folder beside an output in which its parts are kept until it is whole."""
    return output.with_name(f"{output.name}.parts")


def annotate(arguments: AnnotateArguments, source: Path, output: Path, processes: Processes = ALONE) -> None:
    """Annotates ``source`` into ``output``; see :mod:`sbic_llama.annotation.parts`. Several processes divide the parts among them.

    Raises:
        UserError: A bad file or adapter, before the base model is loaded.
    """
    found = processes.shared(
        lambda: [survey(path, arguments.text_column, strict=arguments.strict) for path in files_of(source)]
    )
    quiet_libraries()
    from sbic_llama.annotation import parts as annotation
    from sbic_llama.model.adapter import precision_for
    from sbic_llama.model.annotator import read_adapters

    run = annotation.AnnotationJob(found, parts_of(output), output, source.is_dir())
    log(f"{run.rows:,} rows" + (f" in {len(found):,} files" if run.into_folder else ""))
    adapters = read_adapters(arguments.adapter)
    if invented := [adapter.name for adapter in adapters if adapter.description.of_miniature]:
        log(
            f"{', '.join(invented)}: trained on the miniature's invented posts; what it says of real ones means nothing"
        )
    thresholds = annotation.review_thresholds(adapters, arguments.review_share, arguments.target_accuracy)
    rule = RowFormat(arguments.text_column, arguments.prefix, thresholds)
    columns = annotation.columns_of(adapters, arguments.prefix, review=bool(thresholds))
    for file in found:
        if taken := [name for name in columns if name in file.columns]:
            raise UserError(f"it has a column {taken[0]!r} already", file=file.path, fix="choose another --prefix")
    with contextlib.ExitStack() as stack:
        if arguments.engine == "ray":
            from sbic_llama.annotation import ray_actors

            pool = stack.enter_context(ray_actors.pool(arguments, adapters))
            engine, precision = pool.parts, pool.precision
        else:
            hardware.choose_device()
            engine, precision = local_engine(arguments), precision_for(adapters[0].description).value
        identity = annotation.identity_of(run, rule, adapters, arguments.quantisation, precision)
        if processes.first:
            stack.enter_context(claimed(run.folder, identity))
        # The first process local_engine looks, and before any has begun: who looked later would divide other parts.
        missing = processes.shared(lambda: None if output.exists() else run.missing())
        if missing is None:  # the last run was killed while it cleared up
            if processes.first:
                clear(run.folder)
            log(f"finished already: {output}")
            return
        check(run.folder, identity)
        _work(run, missing, rule, engine, processes)
        if processes.first:
            said = _what_was_done(found, run, rule)
            run.assemble(columns)
            for line in said:
                log(line)


def _what_was_done(found: Sequence[Survey], run: AnnotationJob, rule: RowFormat) -> list[str]:
    problems = sum(file.problems for file in found)
    left = f"; {problems:,} not, and {rule.prefix}problem says why" if problems else ""
    lines = [f"{run.rows - problems:,} of {run.rows:,} posts annotated{left}"]
    if rule.thresholds:
        column = f"{rule.prefix}needs_review"
        lines.append(
            f"{run.marked(column):,} of {run.rows:,} go to a person ({column}), by thresholds learnt on validation posts"
        )
    return lines


def _work(
    run: AnnotationJob, missing: list[tuple[int, int]], rule: RowFormat, engine: Engine, processes: Processes
) -> None:
    """Makes this process's share of the missing parts, and waits for the others'."""
    count, share = len(run.parts()), missing[processes.rank :: processes.count]
    if len(missing) < count:
        log(f"continuing: {count - len(missing):,} of {count:,} parts are there already")
    total, done = run.rows, run.rows - run.rows_of(missing)
    if processes.count > 1 and missing:
        total, done = run.rows_of(share), 0
        log(f"{processes.count} processes share the work; the bar shows that of the first")
    try:
        parts = engine(run.files, share, rule) if share else ()
        cut = run.keep(parts, total=total, done=done, show=processes.first and bool(share))
    except KeyboardInterrupt:
        log("stopped: the same command continues")
        raise
    if cut := sum(processes.gathered(cut)):
        log(f"{cut:,} times a post was longer than an adapter reads, and was cut")


def local_engine(arguments: AnnotateArguments) -> Engine:
    """What makes parts with a model in this process."""

    def parts(files: Sequence[Survey], wanted: Sequence[tuple[int, int]], rule: RowFormat) -> Iterator[Part]:
        from sbic_llama.model.annotator import Annotator

        model = Annotator(*arguments.adapter, quantisation=arguments.quantisation, batch_size=arguments.batch_size)
        log(f"{', '.join(one.name for one in model.adapters)} in {model.precision.value} ({model.precision.reason})")
        return (annotated(window, model, rule) for window in windows(files, wanted, rule.text_column))

    return parts
