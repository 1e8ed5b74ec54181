"""Annotating posts in parts, so that a run that was killed goes on where it stopped, and ends as if it had not been.

A part is the annotation of a fixed window of rows, written whole or not at all, into a folder beside the output. Parts can be made
in any order, by several processes or machines. The output is made of input and parts at the end, row by row: it depends neither on
who made them nor on how often the run was stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli.console import bar, stage
from common.cli.errors import UserError
from common.models.loading import hub_commit
from common.runtime.files import atomic_write
from common.tables.reading import read_rows, table_format
from common.tables.writing import row_writer
from sbic_llama.annotation.input import WINDOW, Part, RowFormat, Survey
from sbic_llama.model.description import ANNOTATOR_FILE

if TYPE_CHECKING:
    import pyarrow

    from common.models.quantization import Quantization
    from sbic_llama.model.annotator import Adapter

import contextlib
import fcntl
import os
import shutil

from common.cli.errors import shown
from common.runtime import files

WHOLE = "whole"  # where the output is put together


@dataclass(frozen=True)
class AnnotationJob:
    """What is annotated into what.

    Attributes:
        files: The files of posts.
        folder: Where the parts are kept until all is done.
        output: The file to write, or the folder for files of the same names.
        into_folder: Whether it is a folder.
    """

    files: list[Survey]
    folder: Path
    output: Path
    into_folder: bool

    @property
    def rows(self) -> int:
        return sum(found.rows for found in self.files)

    def part(self, file: int, number: int) -> Path:
        folder = self.folder / self.files[file].path.name if self.into_folder else self.folder
        return folder / f"{number:08}.jsonl"

    def parts(self) -> list[tuple[int, int]]:
        """File and number of every part."""
        return [(file, n) for file, found in enumerate(self.files) for n in range(-(-found.rows // WINDOW))]

    def missing(self) -> list[tuple[int, int]]:
        """File and number of the parts that are not there."""
        return [each for each in self.parts() if not self.part(*each).is_file()]

    def rows_of(self, parts: Iterable[tuple[int, int]]) -> int:
        return sum(min(WINDOW, self.files[file].rows - number * WINDOW) for file, number in parts)

    def keep(self, parts: Iterable[Part], *, total: int, done: int, show: bool = True) -> int:
        """Writes parts as they come, with a bar over ``total`` rows, ``done`` of them done; returns how often a post was cut."""
        cut = 0
        with bar(total, "post", show=show, done=done) as progress:
            for part in parts:
                with atomic_write(self.part(part.file, part.number)) as aside:
                    aside.write_text(part.text, encoding="utf-8")
                cut += part.cut
                progress.update(part.rows)
        return cut

    def marked(self, column: str) -> int:
        """In how many rows a new column is true."""
        return sum(bool(row.get(column)) for file in range(len(self.files)) for row in self._annotations(file))

    def assemble(self, annotation: dict[str, type]) -> None:
        """Writes the input's rows with their annotations: all of its columns, in its order.

        Raises:
            UserError: A part is missing, or the output can't be written.
        """
        if missing := self.missing():
            raise UserError(
                f"{len(missing):,} parts of other processes are not here",
                file=self.folder,
                fix="it must be on a disk that all machines share",
            )
        whole = self.folder / WHOLE
        for file, found in enumerate(self.files):
            # Written inside the folder of parts: what a killed run leaves of it goes with that.
            path = whole / (found.path.name if self.into_folder else self.output.name)
            if path.is_file():
                continue
            shown_path = self.output / path.name if self.into_folder else self.output
            types = column_types(found, annotation) if table_format(path) == ".parquet" else None
            with stage(f"writing {shown_path}"), row_writer(path, [*found.columns, *annotation], types) as write:
                for row, values in zip(read_rows(found.path, lenient=True), self._annotations(file), strict=True):
                    write(_fitting(row.values, types) | dict.fromkeys(annotation) | values)
        (whole if self.into_folder else whole / self.output.name).replace(self.output)
        clear(self.folder)

    def _annotations(self, file: int) -> Iterator[dict[str, Any]]:
        for each, number in self.parts():
            if each == file:
                with open(self.part(file, number), encoding="utf-8") as lines:
                    yield from map(json.loads, lines)


def identity_of(
    run: AnnotationJob, rule: RowFormat, adapters: Sequence[Adapter], quantisation: Quantization, precision: str
) -> dict[str, Any]:
    """What parts depend on: a run with another identity may not use them."""
    digests = {found.path.name: found.digest for found in run.files}
    return {
        "posts": digests if run.into_folder else run.files[0].digest,
        "text_column": rule.text_column,
        "adapters": {adapter.name: digest_of(adapter) for adapter in adapters},
        "prefix": rule.prefix,
        "thresholds": rule.thresholds,
        "quantisation": quantisation,
        "computed in": precision,
        "rows a part": WINDOW,
    }


def digest_of(adapter: Adapter) -> str:
    """What makes an adapter this one: its commit on the Hub, or its files' bytes."""
    if commit := hub_commit(adapter.folder):
        return commit
    content = [(adapter.folder / name).read_bytes() for name in ("adapter_model.safetensors", "adapter_config.json")]
    described = f"{adapter.description.prompt_hash} {adapter.description.temperature}"
    return hashlib.sha256(b"".join([*content, described.encode()])).hexdigest()


def review_thresholds(adapters: Sequence[Adapter], share: float | None, accuracy: float | None) -> dict[str, float]:
    """By feature, the confidence under which an answer goes to a person; nothing where neither rule is given.

    Args:
        adapters: The adapters.
        share: Share of the rows to mark at most, as far as they are like the validation posts. Several features divide it.
        accuracy: How often the answers that are not marked were right on validation, for every feature.

    Raises:
        UserError: An adapter without a curve, or an accuracy that it does not reach.
    """
    if share is None and accuracy is None:
        return {}
    found = {}
    for adapter in adapters:
        review = adapter.description.review
        if review is None:
            raise UserError(
                "it has no review curve", file=adapter.folder / ANNOTATOR_FILE, fix="train it again with this version"
            )
        found[adapter.name] = (
            review.for_share(share / len(adapters))
            if share is not None
            else review.for_accuracy(accuracy, adapter.name)
        )
    return found


def columns_of(adapters: Sequence[Adapter], prefix: str, *, review: bool) -> dict[str, type]:
    """The annotation's columns and the kinds of their values."""
    columns: dict[str, type] = {}
    for adapter in adapters:
        answer, *numbers = adapter.columns
        columns |= {f"{prefix}{answer}": str} | dict.fromkeys([f"{prefix}{number}" for number in numbers], float)
    return columns | ({f"{prefix}needs_review": bool} if review else {}) | {f"{prefix}problem": str}


def column_types(found: Survey, annotation: dict[str, type]) -> dict[str, pyarrow.DataType]:
    """Parquet types of all columns: those of a Parquet input; of JSON Lines what all values of a column are, else text."""
    import pyarrow
    import pyarrow.parquet

    text, number, whole, flag = pyarrow.string(), pyarrow.float64(), pyarrow.int64(), pyarrow.bool_()
    simple = {"float": number, "int": whole, "long": whole, "bool": flag}
    if table_format(found.path) == ".parquet":
        schema = pyarrow.parquet.read_schema(found.path)
        types = {name: schema.field(name).type for name in found.columns}
    else:
        types = {}
        for name in found.columns:
            kinds = found.kinds[name] - {"NoneType"}
            of_all = {simple.get(kind, text) for kind in kinds}
            mixed = number if kinds == {"int", "float"} else text
            types[name] = of_all.pop() if len(of_all) == 1 else mixed
    return types | {name: simple.get(kind.__name__, text) for name, kind in annotation.items()}


def _fitting(values: dict[str, Any], types: dict[str, Any] | None) -> dict[str, Any]:
    """A row's values as their Parquet columns take them: what has no type of its own there is JSON text."""
    if types is None:
        return values
    import pyarrow

    text = {name for name, kind in types.items() if kind == pyarrow.string()}
    return {
        name: json.dumps(value, ensure_ascii=False, default=str)
        if name in text and value is not None and not isinstance(value, str)
        else value
        for name, value in values.items()
    }


IDENTITY, LOCK = "run.json", ".lock"


@contextlib.contextmanager
def claimed(folder: Path, identity: dict[str, Any]) -> Iterator[None]:
    """While entered, the folder of parts is this run's alone. It is a new one, or this run's from before.

    Raises:
        UserError: It holds the parts of another run, or another command is at work in it.
    """
    if folder.is_dir() and not (folder / IDENTITY).is_file() and {path.name for path in folder.iterdir()} - {LOCK}:
        raise UserError("a folder of something else is in the way", file=folder, fix="choose another --output")
    with _locked(folder):
        if (folder / IDENTITY).is_file():
            check(folder, identity)
        else:
            with atomic_write(folder / IDENTITY) as part:
                part.write_text(json.dumps(identity, indent=1), encoding="utf-8")
        yield


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    path = folder / LOCK
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = open(path, "a")  # noqa: SIM115
        except FileNotFoundError:  # another command has just cleared up
            continue
        except OSError as error:
            raise UserError(f"can't be written: {error.strerror}", file=path, fix="choose another --output") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    "another command is annotating into it",
                    file=folder,
                    fix="wait for its end, or choose another --output",
                ) from None
            except OSError:
                pass  # a network disk without locks
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                yield
                return


def check(folder: Path, identity: dict[str, Any]) -> None:
    """Checks that a folder of parts is this run's.

    Raises:
        UserError: It holds the parts of another run, or something damaged.
    """
    try:
        found = files.loads((folder / IDENTITY).read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        fix = "remove the folder, or choose another --output"
        raise UserError("not a run's description", file=folder / IDENTITY, fix=fix)
    for key in identity:
        if found.get(key) != identity[key]:
            raise UserError(
                f"it holds parts of another run: {key} was {shown(found.get(key))} and is {shown(identity[key])}",
                file=folder,
                fix="repeat that run's command to continue it, or remove the folder",
            )


def clear(folder: Path) -> None:
    """Removes the folder of parts; what says whose they are goes last, so that a run that is killed here is known by the next."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in (IDENTITY, LOCK):
            path.unlink()
    (folder / IDENTITY).unlink(missing_ok=True)
    (folder / LOCK).unlink(missing_ok=True)
    folder.rmdir()
