"""Annotating a file of posts in parts, so that a run that was killed goes on where it stopped, and ends as if it had not been.

A part is the annotation of a fixed window of rows, written whole or not at all, into a folder beside the output. The output is
made of input and parts at the end, row by row: it does not depend on how often the run was stopped.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import json_text
from common.errors import UserError, shown
from common.files import written_aside
from common.loading import hub_commit
from common.progress import bar
from common.stages import say, stage
from common.table_writer import row_writer
from common.tables import Row, read_rows, table_format
from sbic_llama.annotator_file import ANNOTATOR_FILE
from sbic_llama.corpus import clean

if TYPE_CHECKING:
    import pyarrow

    from sbic_llama.annotator import Adapter, Annotator

WINDOW = 256  # rows a part: what a killed run loses at most
IDENTITY = "run.json"
SHOWN = 5  # problems that are told one by one


@dataclass
class Survey:
    """What a first reading of the whole file found.

    Attributes:
        rows: How many rows there are.
        columns: Their columns, in order of appearance.
        kinds: Of JSON Lines, the kinds of values in each column, as :func:`kind_of` names them.
        problems: How many rows can't be annotated.
        digest: SHA-256 of the file's bytes.
    """

    rows: int = 0
    columns: list[str] = field(default_factory=list)
    kinds: dict[str, set[str]] = field(default_factory=dict)
    problems: int = 0
    digest: str = ""


def survey(path: Path, text_column: str, *, strict: bool) -> Survey:
    """Reads the whole file once, before any model is loaded, and tells which rows can't be annotated.

    Raises:
        UserError: A file that can't be read, or with ``strict`` its first row that can't be annotated.
    """
    found = Survey()
    columns: dict[str, set[str]] = {}
    for row in read_rows(path, () if table_format(path) == ".jsonl" else (text_column,), lenient=not strict):
        found.rows += 1
        for name, value in row.values.items():
            columns.setdefault(name, set()).add(kind_of(value))
        if reason := problem(row, text_column):
            found.problems += 1
            error = row.error(f"row {row.number}: {reason}", text_column)
            if strict:
                raise error
            if found.problems <= SHOWN:
                say(f"{error}: it is kept without an annotation")
    if found.problems > SHOWN:
        say(f"{found.problems:,} rows in all are kept without an annotation")
    if not found.rows:
        raise UserError("no rows", file=path, expected="at least one post")
    if text_column not in columns:
        raise UserError(f"missing column {text_column!r}", file=path, expected=f"it among {shown(list(columns), 200)}")
    found.columns, found.kinds = list(columns), columns
    with open(path, "rb") as file:
        found.digest = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def kind_of(value: Any) -> str:
    """The name of a value's type. A whole number is ``int`` as far as a float holds it, ``long`` in 64 bits, and ``huge``."""
    if type(value) is not int or abs(value) <= 2**53:
        return type(value).__name__
    return "long" if -(2**63) <= value < 2**63 else "huge"


def problem(row: Row, text_column: str) -> str | None:
    """Why a row can't be annotated, if it can't."""
    if row.problem:
        return row.problem
    text = row.values.get(text_column)
    if text is None or (isinstance(text, str) and not clean(text)):  # nothing that a model would read
        return "no text"
    if isinstance(text, float) and text != text:
        return "no text"
    return None if isinstance(text, str) else f"{type(text).__name__} instead of text"


def digest_of(adapter: Adapter) -> str:
    """What makes an adapter this one: its commit on the Hub, or its files' bytes."""
    if commit := hub_commit(adapter.folder):
        return commit
    content = [(adapter.folder / name).read_bytes() for name in ("adapter_model.safetensors", "adapter_config.json")]
    described = f"{adapter.description.prompt_hash} {adapter.description.temperature}"
    return hashlib.sha256(b"".join([*content, described.encode()])).hexdigest()


def claim(folder: Path, identity: dict[str, Any]) -> None:
    """Takes the folder of parts for this run, or finds that it is this run's already.

    Raises:
        UserError: It holds the parts of another run.
    """
    path = folder / IDENTITY
    if path.is_file():
        try:
            found = json_text.loads(path.read_bytes())
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise UserError("not a run's description", file=path, fix="remove the folder, or choose another --output")
        for key in identity:
            if found.get(key) != identity[key]:
                raise UserError(
                    f"it holds parts of another run: {key} was {shown(found.get(key))} and is {shown(identity[key])}",
                    file=folder,
                    fix="repeat that run's command to continue it, or remove the folder",
                )
        return
    if folder.exists() and any(folder.iterdir()):
        raise UserError("a folder of something else is in the way", file=folder, fix="choose another --output")
    with written_aside(path) as part:
        part.write_text(json.dumps(identity, indent=1), encoding="utf-8")


def thresholds(adapters: Sequence[Adapter], share: float | None, accuracy: float | None) -> dict[str, float]:
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


def annotate_parts(
    path: Path,
    folder: Path,
    found: Survey,
    annotator: Callable[[], Annotator],
    *,
    text_column: str,
    prefix: str,
    thresholds: dict[str, float],
) -> None:
    """Writes the parts that are not there yet. ``annotator`` is called when the first of them is due.

    A row goes to a person where an answer is less sure than its feature's threshold, or where there is none.
    """
    parts = [folder / f"{number:08}.jsonl" for number in range(-(-found.rows // WINDOW))]
    missing = [part for part in parts if not part.is_file()]
    if len(missing) < len(parts):
        say(f"continuing: {len(parts) - len(missing):,} of {len(parts):,} parts are there already")
    if not missing:
        return
    model = annotator()
    rows = read_rows(path, lenient=True)
    done = sum(min(WINDOW, found.rows - number * WINDOW) for number, part in enumerate(parts) if part.is_file())
    with bar(found.rows, "post", show=True, done=done) as progress:
        for part in parts:
            window = list(itertools.islice(rows, WINDOW))
            if part.is_file():
                continue
            reasons = [problem(row, text_column) for row in window]
            posts = [row.values[text_column] for row, reason in zip(window, reasons, strict=True) if not reason]
            answers = iter(model.annotate_window(posts))
            with written_aside(part) as aside, open(aside, "w", encoding="utf-8") as file:
                for reason in reasons:
                    values = {} if reason else {name: _rounded(value) for name, value in next(answers).items()}
                    if thresholds:
                        values["needs_review"] = bool(reason) or any(
                            adapter.confidence(values) < thresholds[adapter.name] for adapter in model.adapters
                        )
                    annotated = {f"{prefix}{name}": value for name, value in values.items()}
                    file.write(json.dumps(annotated | {f"{prefix}problem": reason}, ensure_ascii=False) + "\n")
            progress.update(len(window))
    if model.cut:
        say(f"{model.cut:,} times a post was longer than an adapter reads, and was cut")


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def assemble(path: Path, folder: Path, output: Path, found: Survey, annotation: dict[str, type]) -> None:
    """Writes the input's rows with their annotations: all of its columns, in its order."""
    types = column_types(path, found, annotation) if table_format(output) == ".parquet" else None
    with stage(f"writing {output}"), row_writer(output, [*found.columns, *annotation], types) as write:
        for row, values in zip(read_rows(path, lenient=True), _annotations(folder), strict=True):
            write(_fitting(row.values, found, types) | dict.fromkeys(annotation) | values)
    clear(folder)


def clear(folder: Path) -> None:
    """Removes the folder of parts; what says whose they are goes last, so that a run that is killed here is known by the next."""
    for part in folder.iterdir():
        if part.name != IDENTITY:
            part.unlink()
    (folder / IDENTITY).unlink()
    folder.rmdir()


def _annotations(folder: Path) -> Iterator[dict[str, Any]]:
    for part in sorted(folder.glob("*.jsonl")):
        with open(part, encoding="utf-8") as file:
            yield from map(json.loads, file)


def column_types(path: Path, found: Survey, annotation: dict[str, type]) -> dict[str, pyarrow.DataType]:
    """Parquet types of all columns: those of a Parquet input; of JSON Lines what all values of a column are, else text."""
    import pyarrow
    import pyarrow.parquet

    text, number, whole, flag = pyarrow.string(), pyarrow.float64(), pyarrow.int64(), pyarrow.bool_()
    simple = {"float": number, "int": whole, "long": whole, "bool": flag}
    if table_format(path) == ".parquet":
        schema = pyarrow.parquet.read_schema(path)
        types = {name: schema.field(name).type for name in found.columns}
    else:
        types = {}
        for name in found.columns:
            of_all = {simple.get(kind, text) for kind in found.kinds[name] - {"NoneType"}}
            mixed = number if found.kinds[name] - {"NoneType"} == {"int", "float"} else text
            types[name] = of_all.pop() if len(of_all) == 1 else mixed
    return types | {name: simple.get(kind.__name__, text) for name, kind in annotation.items()}


def _fitting(values: dict[str, Any], found: Survey, types: dict[str, Any] | None) -> dict[str, Any]:
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
