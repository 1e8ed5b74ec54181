"""Annotate in parts, so that a killed run continues where it stopped and ends with the same bytes.

A part is the annotation of a fixed window of rows, written atomically into a folder beside the output. Parts can be made in
any order, by several processes or machines. In the end, the output is assembled from input and parts row by row, so it does
not depend on who made them or how often the run was stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli.console import bar, stage
from common.cli.errors import UserError, file_name, shown
from common.models.loading import base_identity, hub_commit
from common.runtime.files import atomic_write
from common.runtime.run_folder import IDENTITY, LOCK, check_identity, locked_inside, write_identity
from common.tables import spreadsheet
from common.tables.reading import table_format
from common.tables.writing import json_text, row_writer
from sbic_llama.annotation.input import REMEMBERED, WINDOW, Part, RowFormat, Survey, resolved, surveyed_rows

if TYPE_CHECKING:
    import pyarrow

    from common.models.quantization import Quantization
    from sbic_llama.model.annotator import Adapter

WHOLE = "whole"  # where the output is assembled
FINISHED = "finished"  # is there once the output is, until the parts are removed
MARKS = (IDENTITY, FINISHED, LOCK)  # of a folder of parts, in the order in which they are removed
RAW_RECORD = "raw_record"  # column of malformed records as they are in the file, if there are any


@dataclass(frozen=True)
class AnnotationJob:
    """What is annotated into what."""

    files: list[Survey]
    folder: Path  # keeps the parts until all are done
    output: Path  # a file, or a folder for files of the same names
    into_folder: bool
    dataset: str | None = None  # on the Hub, with its commit, from which the posts come

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    def part(self, file: int, number: int) -> Path:
        folder = self.folder / self.files[file].path.name if self.into_folder else self.folder
        return folder / f"{number:08}.jsonl"

    def parts(self) -> list[tuple[int, int]]:
        """Return the numbers of file and part of every part."""
        return [(file, number) for file in range(len(self.files)) for number in self._numbers(file)]

    def _numbers(self, file: int) -> range:
        return range(-(-self.files[file].rows // WINDOW))

    def missing(self) -> list[tuple[int, int]]:
        """Return the parts that do not exist yet."""
        return [each for each in self.parts() if not self.part(*each).is_file()]

    def check_output(self) -> None:
        """Check, before any work, that a spreadsheet can hold the output if it is one."""
        if not self.into_folder and table_format(self.output) == ".xlsx":  # a folder's files keep their formats
            (file,) = self.files
            spreadsheet.check_fits(self.output, rows=file.rows, longest=file.longest)

    def rows_of(self, parts: Iterable[tuple[int, int]]) -> int:
        return sum(min(WINDOW, self.files[file].rows - number * WINDOW) for file, number in parts)

    def keep(self, parts: Iterable[Part], *, total: int, done: int, show: bool = True) -> int:
        """Write parts as they come, with a bar from ``done`` to ``total`` rows; return how many posts were truncated."""
        cut = 0
        with bar(total, "post", show=show, done=done) as progress:
            for part in parts:
                with atomic_write(self.part(part.file, part.number)) as aside:
                    aside.write_text(part.text, encoding="utf-8")
                cut += part.cut
                progress.update(part.rows)
        return cut

    def marked(self, column: str) -> int:
        """Return in how many rows a new column is true."""
        return sum(bool(row.get(column)) for row in self.annotations())

    def annotations(self) -> Iterator[dict[str, Any]]:
        """Yield the new values of all rows."""
        for file in range(len(self.files)):
            yield from self._annotations(file)

    def assemble(self, columns: dict[str, type], prefix: str) -> None:
        """Write the input's rows, in order and with all columns, followed by the annotation's columns.

        Raises:
            UserError: Parts are missing, the posts have changed since the survey, or the output can't be written.
        """
        if missing := self.missing():
            problem, fix = (
                f"{len(missing):,} parts of other processes are missing",
                "use a disk that all machines share",
            )
            raise UserError(problem, file=self.folder, fix=fix)
        whole = self.folder / WHOLE  # a killed run leaves nothing outside the folder of parts
        for number, file in enumerate(self.files):
            path = whole / (file.path.name if self.into_folder else self.output.name)
            if path.is_file():
                continue
            shown_path = self.output / path.name if self.into_folder else self.output
            raw = f"{prefix}{RAW_RECORD}"
            new = {name: kind for name, kind in columns.items() if file.raw or name != raw}
            schema = output_schema(file, new) if table_format(path) == ".parquet" else None
            with stage(f"writing {file_name(shown_path)}"), row_writer(path, [*file.columns, *new], schema) as write:
                for row, values in zip(surveyed_rows(file), self._annotations(number), strict=True):
                    record = {raw: row.raw} if file.raw else {}
                    write(_fitting(row.values, schema) | dict.fromkeys(new) | values | record)
        (whole if self.into_folder else whole / self.output.name).replace(self.output)
        (self.folder / FINISHED).touch()
        clear(self.folder)

    def _annotations(self, file: int) -> Iterator[dict[str, Any]]:
        yield from resolved(self._lines(file))

    def _lines(self, file: int) -> Iterator[str]:
        for number in self._numbers(file):
            with open(self.part(file, number), encoding="utf-8") as lines:
                yield from lines


def identity_of(
    job: AnnotationJob, row_format: RowFormat, adapters: Sequence[Adapter], quantization: Quantization, precision: str
) -> dict[str, Any]:
    """Return what parts depend on; a run with another identity must not use them."""
    posts = {file.path.name: file.digest for file in job.files}
    rows = {file.path.name: file.digests[-1] for file in job.files}
    return ({"dataset": job.dataset} if job.dataset else {}) | {
        "posts": posts if job.into_folder else job.files[0].digest,
        "rows as read": rows if job.into_folder else job.files[0].digests[-1],
        "text_column": row_format.texts.place,
        "adapters": {adapter.name: digest_of(adapter) for adapter in adapters},
        "prefix": row_format.prefix,
        "thresholds": row_format.thresholds,
        "quantisation": quantization,
        "computed in": precision,
        "rows a part": WINDOW,
        "different posts remembered": REMEMBERED,
    }


def digest_of(adapter: Adapter) -> str:
    """Return what identifies an adapter: its commit on the Hub, or a digest of its files; of a base alone, its prompt.

    With a base in a folder, also a digest of that.
    """
    base, revision = adapter.description.base_model, adapter.description.base_revision
    of_base = f" {base_identity(base, None)}" if Path(base).is_dir() else ""
    if adapter.folder is None:
        return f"{base} {revision} {adapter.description.prompt_hash}{of_base}"
    ratios = "".join(f" {ratio:.9g}" for ratio in adapter.ratios)
    if commit := hub_commit(adapter.folder):
        return f"{commit}{ratios}{of_base}"
    content = [(adapter.folder / name).read_bytes() for name in ("adapter_model.safetensors", "adapter_config.json")]
    described = f"{adapter.description.prompt_hash} {adapter.description.temperature}{ratios}{of_base}"
    described += "".join(f" {threshold:.9g}" for threshold in adapter.feature.thresholds)
    return hashlib.sha256(b"".join([*content, described.encode()])).hexdigest()


def review_thresholds(adapters: Sequence[Adapter], share: float | None, accuracy: float | None) -> dict[str, float]:
    """Return by feature the confidence below which an answer needs review; empty without a rule.

    Args:
        adapters: The adapters.
        share: Maximum share of rows to mark, on posts like the validation posts. Several features divide it.
        accuracy: Accuracy of the unmarked answers on validation posts, for every feature.
    """
    if share is None and accuracy is None:
        return {}
    thresholds = {}
    for adapter in adapters:
        review = adapter.description.review
        if review is None:
            raise UserError("the adapter has no review curve", file=adapter.folder, fix="retrain it with this version")
        thresholds[adapter.name] = (
            review.for_share(share / len(adapters))
            if share is not None
            else review.for_accuracy(accuracy, adapter.name)
        )
    return thresholds


def new_columns(adapters: Sequence[Adapter], files: Iterable[Survey], prefix: str, *, review: bool) -> dict[str, type]:
    """Return the annotation's columns and the types of their values."""
    columns: dict[str, type] = {}
    for adapter in adapters:
        answer, *numbers = adapter.columns
        columns |= {f"{prefix}{answer}": str} | dict.fromkeys([f"{prefix}{number}" for number in numbers], float)
    columns |= ({f"{prefix}needs_review": bool} if review else {}) | {f"{prefix}problem": str}
    columns |= {f"{prefix}{RAW_RECORD}": str} if any(file.raw for file in files) else {}
    for file in files:
        if taken := [name for name in columns if name in file.columns]:
            fix = "rename that column, or choose another --prefix"
            raise UserError(f"the file already has a column {shown(taken[0])}", file=file.path, fix=fix)
    return columns


def output_schema(file: Survey, annotation: dict[str, type]) -> pyarrow.Schema:
    """Return the columns of a Parquet output.

    Columns of a Parquet file keep their types, and the file its metadata. Columns of JSON Lines get the type of all their
    values, else text.
    """
    import pyarrow
    import pyarrow.parquet

    text, number, integer, flag = pyarrow.string(), pyarrow.float64(), pyarrow.int64(), pyarrow.bool_()
    simple = {"float": number, "int": integer, "long": integer, "bool": flag}
    schema = pyarrow.schema([])
    if table_format(file.path) == ".parquet":
        schema = pyarrow.parquet.read_schema(file.path)
    else:
        for name in file.columns:
            kinds = file.kinds[name] - {"NoneType"}
            of_all = {simple.get(kind, text) for kind in kinds}
            mixed = number if kinds == {"int", "float"} else text
            schema = schema.append(pyarrow.field(name, of_all.pop() if len(of_all) == 1 else mixed))
    for name, kind in annotation.items():
        schema = schema.append(pyarrow.field(name, simple.get(kind.__name__, text)))
    return schema


def _fitting(values: dict[str, Any], schema: pyarrow.Schema | None) -> dict[str, Any]:
    """Return a row's values as their Parquet columns take them; values without a type of their own become JSON text."""
    if schema is None:
        return values
    import pyarrow

    text = {name for name, kind in zip(schema.names, schema.types, strict=True) if kind == pyarrow.string()}
    return {
        name: json_text(value) if name in text and value is not None and not isinstance(value, str) else value
        for name, value in values.items()
    }


@contextlib.contextmanager
def claimed(folder: Path, identity: dict[str, Any]) -> Iterator[None]:
    """Hold a folder of parts, which is new or of this run."""
    if folder.is_dir() and not (folder / IDENTITY).is_file() and {path.name for path in folder.iterdir()} - {LOCK}:
        problem = "the folder is not empty and holds no annotation run"
        raise UserError(problem, file=folder, fix="choose another --output, or remove the folder")
    fix = "wait until it has ended, or choose another --output"
    busy = UserError("another command is annotating into this folder", file=folder, fix=fix)
    with locked_inside(folder, busy=busy):
        if (folder / IDENTITY).is_file():
            check_identity(folder, identity, option="--output")
        else:
            write_identity(folder, identity)
        yield


def clear(folder: Path) -> None:
    """Remove a folder of parts, its marks last, so that the next run recognizes what a killed one leaves."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in MARKS:
            path.unlink()
    for name in MARKS:
        (folder / name).unlink(missing_ok=True)
    folder.rmdir()
