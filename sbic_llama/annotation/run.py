"""Annotate a file, or a folder of files, with this process, several processes, or a Ray cluster."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from common.cli.arguments import option
from common.cli.console import log, quiet_libraries, warn
from common.cli.errors import UserError, counted, file_name
from common.cli.options import on_hub
from common.runtime import hardware
from common.runtime.processes import ALONE, Processes
from common.runtime.run_folder import IDENTITY, check_identity, write_identity
from common.tables.reading import FORMATS, table_format
from sbic_llama.annotation.arguments import AnnotatorArguments
from sbic_llama.annotation.input import Part, RowFormat, Survey, annotated, files_of, survey, windows
from sbic_llama.annotation.parts import (
    FINISHED,
    AnnotationJob,
    claimed,
    clear,
    identity_of,
    new_columns,
    review_thresholds,
)
from sbic_llama.data.features import only_answer

if TYPE_CHECKING:
    from sbic_llama.model.annotator import Adapter

STREAM = "-"  # standard input or output
Format = Literal["csv", "tsv", "jsonl", "parquet"]
# Makes the requested parts in any order: (files, parts, row format) → parts.
Engine = Callable[[Sequence[Survey], Sequence[tuple[int, int]], RowFormat], Iterator[Part]]


@dataclass(kw_only=True)
class AnnotateArguments(AnnotatorArguments):
    """Annotate every post of a file, or of a folder's files, with one or more adapters, or with a codebook and a base model.

    All columns and the row order are kept.

    Repeat the command to continue a run that was stopped or killed, even with another number of processes or another engine. A
    row that cannot be annotated is kept, with the reason in the column PREFIXproblem.
    """

    posts: tuple[str, ...] = option(
        (),
        "file of posts (.csv, .jsonl, .parquet, .xlsx, .sav, .dta, …; text also .gz), folder of files, "
        "hf://datasets/user/name@revision:split, or -",
        positional=True,
    )
    output: str = option(
        help="file to write, in the format of its ending; a folder for a folder of posts; hf://datasets/user/name; or -"
    )
    public: bool = option(
        False, "let everybody read a new dataset on the Hub, which holds the posts (default: private)"
    )
    input_format: Format | None = option(None, "format of standard input (default: csv)")
    output_format: Format | None = option(None, "format of standard output (default: csv)")
    prefix: str = option("model_", "prefix of the new columns", empty=True)
    quantization: Literal["nf4", "int8", "none"] = option("nf4", "how to store the base model's weights")
    batch_size: int = option(
        32, "maximum posts per forward pass; results do not depend on it, except for rounding", minimum=1
    )
    review_share: float | None = option(
        None, "mark about this share of rows, the least certain, for review by a person", above=0, maximum=0.99
    )
    target_accuracy: float | None = option(
        None, "mark rows for review such that the others reach this accuracy on validation posts", above=0, maximum=1
    )
    strict: bool = option(False, "stop at the first row that cannot be annotated, before the model is loaded")

    engine: Literal["local", "ray"] = option("local", "ray: actors of a Ray cluster (needs requirements-scale.txt)")
    ray_address: str | None = option(None, "head of a running cluster, host:port (default: a new one on this machine)")
    actors: int | None = option(
        None, "models that Ray keeps, each on a GPU or a core (default: one per GPU, else one)", minimum=1
    )

    def __post_init__(self) -> None:
        if len(self.posts) != 1:
            raise UserError(f"{len(self.posts)} files were given", expected="one file of posts, or -")
        AnnotatorArguments.__post_init__(self)
        for key in ("review_share", "target_accuracy"):
            if getattr(self, key) is not None and self.codebook is not None:
                problem = "a base without an adapter has no thresholds for review"
                raise UserError(problem, key=key, fix="remove it, or train an adapter with the codebook")
            if getattr(self, key) is not None and self.label_shares:
                problem = "the thresholds for review hold for the shares of labels in training"
                raise UserError(problem, key=key, fix="remove it, or --label_shares")
        if self.review_share is not None and self.target_accuracy is not None:
            expected = "review_share or target_accuracy"
            raise UserError("two rules for review were given", key="review_share", expected=expected)
        if self.engine == "local":
            for key in ("ray_address", "actors"):
                if getattr(self, key) is not None:
                    raise UserError("only Ray uses it", key=key, fix="add --engine ray, or remove it")
        if self.public and not on_hub(self.output):
            raise UserError("only a dataset on the Hub is public or private", key="public", fix="remove it")
        for key, name in (("input_format", self.posts[0]), ("output_format", self.output)):
            if getattr(self, key) is not None and name != STREAM:
                raise UserError("only a stream (-) needs it", key=key, fix="remove it; a file's ending says its format")
        source, output = Path(self.posts[0]), self.output_path
        if source.is_dir():
            self._check_folder(source, output)
        else:
            for name, writing in ((self.posts[0], False), (self.output, True)):
                if name != STREAM and not on_hub(name):
                    table_format(Path(name), writing=writing)
        # An upload may have to be continued, and a run that was killed while it cleared up has left its marks.
        cleared = all((parts_of(output) / name).is_file() for name in (IDENTITY, FINISHED))
        if output.exists() and not (self.output == STREAM or on_hub(self.output) or cleared):
            raise UserError("the output already exists", file=output, fix="remove it, or choose another --output")

    @property
    def output_path(self) -> Path:
        """Return the file to write; that of a dataset is uploaded from there."""
        if not on_hub(self.output):
            return Path(self.output)
        from sbic_llama.annotation.hub_output import local_file

        return local_file(self.output)

    def _check_folder(self, source: Path, output: Path) -> None:
        if (
            self.output == STREAM
            or on_hub(self.output)
            or output.name in ("", "..")
            or output.name.endswith((*FORMATS, ".gz"))
        ):
            raise UserError("the posts are a folder", file=self.output, expected="a new folder as --output")
        if output.resolve().is_relative_to(source.resolve()):
            raise UserError("the output is inside the folder of posts", file=output, fix="choose another --output")


def parts_of(output: Path) -> Path:
    """Return the folder beside an output that keeps its parts until it is complete."""
    return output.with_name(f"{output.name}.parts")


def annotate(
    arguments: AnnotateArguments,
    source: Path,
    output: Path,
    processes: Processes = ALONE,
    *,
    dataset: str | None = None,
) -> None:
    """Annotate ``source`` into ``output`` in parts, which several processes divide among them.

    ``dataset`` names the split on the Hub, at a commit, that ``source`` is a copy of.
    """
    texts = arguments.texts
    files = processes.shared(lambda: [survey(path, texts, strict=arguments.strict) for path in files_of(source)])
    job = AnnotationJob(files, parts_of(output), output, source.is_dir(), dataset)
    job.check_output()
    log(counted(job.rows, "row") + (f" in {counted(len(files), 'file')}" if job.into_folder else ""))
    quiet_libraries()
    from sbic_llama.model.annotator import read_adapters

    named = arguments.annotators()
    shares = arguments.expected_shares()
    adapters = read_adapters(named, shares)
    if shares:
        (adapter,) = adapters
        learned = zip(adapter.feature.labels, adapter.description.label_shares or (), strict=True)
        trained = ", ".join(f"{label} {share:.3g}" for label, share in learned)
        log(f"probabilities are corrected for the given shares of labels; those in training: {trained}")
    if invented := [adapter.name for adapter in adapters if adapter.description.of_miniature]:
        warn(f"{', '.join(invented)}: trained on the miniature's invented posts; answers about real posts mean nothing")
    thresholds = review_thresholds(adapters, arguments.review_share, arguments.target_accuracy)
    row_format = RowFormat(texts, arguments.prefix, thresholds)
    columns = new_columns(adapters, files, arguments.prefix, review=bool(thresholds))
    if on_hub(arguments.output) and processes.shared(lambda: output.exists() and not job.folder.exists()):
        identity = identity_of(job, row_format, adapters, arguments.quantization, "")
        check_identity(output.parent, identity, option="--output", ignore=("computed in",))
        log(f"annotated already: {output}")
        return
    with contextlib.ExitStack() as stack:
        engine, precision = stack.enter_context(_engine(arguments, adapters, named))
        identity = identity_of(job, row_format, adapters, arguments.quantization, precision)
        if processes.first:
            stack.enter_context(claimed(job.folder, identity))
        # The first process decides before any has begun; otherwise later ones would divide other parts.
        missing = processes.shared(lambda: None if output.exists() else job.missing())
        if missing is None:  # the last run was killed while cleaning up
            if processes.first:
                clear(job.folder)
            log(f"finished already: {file_name(output)}")
            return
        check_identity(job.folder, identity, option="--output")
        _work(job, missing, row_format, engine, processes)
        if processes.first:
            summary = _summary(job, row_format)
            _warn_of_only_answers(job, row_format, adapters)
            if on_hub(arguments.output):
                _write_facts(arguments, job, adapters, columns, identity, precision)
            job.assemble(columns, arguments.prefix)
            for line in summary:
                log(line)


def _write_facts(
    arguments: AnnotateArguments,
    job: AnnotationJob,
    adapters: Sequence[Adapter],
    columns: dict[str, type],
    identity: dict[str, Any],
    precision: str,
) -> None:
    """Write which run the output is of, and what its card will say, before there is an output to upload."""
    from sbic_llama.annotation.hub_output import write_facts

    settings: dict[str, Any] = {
        "prefix": arguments.prefix,
        "quantization": arguments.quantization,
        "precision": precision,
        "label_shares": arguments.expected_shares(),
        "thresholds": identity["thresholds"],
    }
    write_facts(job, adapters, columns, text_columns=arguments.texts.columns, **settings)
    write_identity(job.output.parent, identity)


def _summary(job: AnnotationJob, row_format: RowFormat) -> list[str]:
    problems = sum(file.problems for file in job.files)
    reasons = f"; reasons for the other {problems:,} are in {row_format.prefix}problem" if problems else ""
    lines = [f"{job.rows - problems:,} of {counted(job.rows, 'post')} annotated{reasons}"]
    if row_format.thresholds:
        column = f"{row_format.prefix}needs_review"
        marked = f"{job.marked(column):,} of {job.rows:,} rows need review ({column})"
        lines.append(f"{marked}, by thresholds learned on validation posts")
    return lines


def _warn_of_only_answers(job: AnnotationJob, row_format: RowFormat, adapters: Sequence[Adapter]) -> None:
    """Warn of each adapter that gave all posts one answer."""
    counts: dict[str, Counter[Any]] = {adapter.name: Counter() for adapter in adapters if adapter.feature.branches}
    for row in job.annotations():
        for name, of_feature in counts.items():
            if (text := row.get(f"{row_format.prefix}{name}")) is not None:
                of_feature[text] += 1
    features = {adapter.name: adapter.feature for adapter in adapters}
    given = {
        name: Counter({features[name].parse(text): n for text, n in each.items()}) for name, each in counts.items()
    }
    for name, each in given.items():
        if sentence := only_answer(features[name], each):
            warn(sentence)


def _work(
    job: AnnotationJob, missing: list[tuple[int, int]], row_format: RowFormat, engine: Engine, processes: Processes
) -> None:
    """Make this process's share of the missing parts, and wait for the others."""
    count, share = len(job.parts()), missing[processes.rank :: processes.count]
    if len(missing) < count:
        log(f"continuing: {count - len(missing):,} of {count:,} parts exist already")
    total, done = job.rows, job.rows - job.rows_of(missing)
    if processes.count > 1 and missing:
        total, done = job.rows_of(share), 0
        log(f"{processes.count} processes share the work; the bar shows the first one's")
    try:
        parts = engine(job.files, share, row_format) if share else ()
        cut = job.keep(parts, total=total, done=done, show=processes.first and bool(share))
    except KeyboardInterrupt:
        log("stopped: the same command continues")
        raise
    if cut := sum(processes.gathered(cut)):
        warn(f"{counted(cut, 'post')} {'was' if cut == 1 else 'were'} truncated to an adapter's maximum length")


@contextlib.contextmanager
def _engine(
    arguments: AnnotateArguments, adapters: Sequence[Adapter], named: Sequence[str | Adapter]
) -> Iterator[tuple[Engine, str]]:
    """Yield the engine that makes parts, and the precision in which it computes."""
    if arguments.engine == "ray":
        from sbic_llama.annotation import ray_actors

        with ray_actors.connected(arguments.ray_address):
            settings = ray_actors.choose_actors(
                adapters,
                named,
                label_shares=arguments.expected_shares(),
                quantization=arguments.quantization,
                batch_size=arguments.batch_size,
                new_cluster=arguments.ray_address is None,
                actors=arguments.actors,
            )
            yield functools.partial(ray_actors.parts, settings), settings.precision
    else:
        from sbic_llama.model.adapter import precision_for

        hardware.choose_device()
        yield _local_engine(arguments, named), precision_for(adapters[0].description).value


def _local_engine(arguments: AnnotateArguments, named: Sequence[str | Adapter]) -> Engine:
    """Return an engine that loads the model into this process."""

    def parts(files: Sequence[Survey], wanted: Sequence[tuple[int, int]], row_format: RowFormat) -> Iterator[Part]:
        from sbic_llama.model.annotator import Annotator

        settings: dict[str, Any] = {"quantization": arguments.quantization, "batch_size": arguments.batch_size}
        model = Annotator(*named, label_shares=arguments.expected_shares(), **settings)
        names = ", ".join(adapter.name for adapter in model.adapters)
        log(f"{names} in {model.precision.value} ({model.precision.reason})")
        return (annotated(window, model, row_format) for window in windows(files, wanted, row_format.texts))

    return parts
