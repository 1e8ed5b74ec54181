"""Labels for pairs of sentences: ``python -m snli_roberta.predict --model PATH_OR_ID "premise" "hypothesis"``, or a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from common.cli.arguments import option, parse
from common.cli.console import bar, log, quiet_libraries
from common.cli.errors import UserError, run, shown
from common.models.loading import check_place
from common.runtime import hardware
from common.tables.reading import Row, in_windows, read_rows, table_format
from common.tables.writing import parquet_types, row_writer
from snli_roberta.data.corpus import LABELS, Pair

if TYPE_CHECKING:
    from snli_roberta.model.classifier import Classifier

MODULE = "snli_roberta.predict"
WINDOW = 4096  # pairs that are sorted by length together
BLANK = {"predicted_label": ""} | dict.fromkeys((f"probability_{label}" for label in LABELS), 0.0)  # an answer


@dataclass(kw_only=True)
class PredictArguments:
    """Says whether a premise entails a hypothesis, with the probability of each label."""

    sentences: tuple[str, ...] = option((), "a premise and a hypothesis", positional=True)
    model: str = option(help="folder or Hub id of the trained model or adapter")
    revision: str | None = option(None, "its branch, tag or commit on the Hub")
    input: Path | None = option(None, "file of pairs instead (.csv, .tsv, .jsonl, .parquet; text formats also .gz)")
    output: Path | None = option(
        None, "file to write: the input's columns, then predicted_label and a probability a label"
    )
    premise_column: str = option("premise", "column of the premises")
    hypothesis_column: str = option("hypothesis", "column of the hypotheses")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto", "compute precision; evaluations use fp32, half precision may change a probability's third digit"
    )
    max_length: int | None = option(None, "tokens a pair at most (default: as it was trained, else 128)", minimum=8)

    def __post_init__(self) -> None:
        check_place(self.model, self.revision)
        if self.input is None and len(self.sentences) != 2:
            raise UserError(
                f"{len(self.sentences)} sentences were given", expected="a premise and a hypothesis, or --input"
            )
        if self.input is not None and self.sentences:
            raise UserError("sentences and --input were given", fix="give one of them")
        if (self.input is None) != (self.output is None):
            raise UserError("--input and --output go together", fix="give both")
        if self.output is not None:
            table_format(self.output)


@dataclass(frozen=True)
class Input:
    """A file of pairs that were all looked at: its columns, in order of appearance, and how many rows it has."""

    arguments: PredictArguments
    columns: tuple[str, ...]
    rows: int

    def windows(self) -> Iterator[tuple[list[Row], list[Pair]]]:
        """The rows and their pairs, :data:`WINDOW` at a time: memory does not grow with the file."""
        names = (self.arguments.premise_column, self.arguments.hypothesis_column)
        for rows in in_windows(checked_rows(self.arguments), WINDOW):
            yield list(rows), [Pair(*(row.values[name] for name in names), label=-1) for row in rows]


def checked_rows(arguments: PredictArguments) -> Iterator[Row]:
    """The input's rows.

    Raises:
        UserError: A row whose sentences are not text, with its place.
    """
    names = (arguments.premise_column, arguments.hypothesis_column)
    for row in read_rows(arguments.input, names):
        for name in names:
            if not isinstance(row.values[name], str) or not row.values[name].strip():
                raise row.error(f"{shown(row.values[name])} is no sentence", name, expected="text")
        yield row


def survey(arguments: PredictArguments) -> Input:
    """Reads the input once.

    Raises:
        UserError: A row whose sentences are not text, with its place, or no row at all.
    """
    columns: dict[str, None] = {}
    count = 0
    for row in checked_rows(arguments):
        columns |= dict.fromkeys(row.values)
        count += 1
    if not count:
        raise UserError("no rows", file=arguments.input, expected="at least one pair")
    return Input(arguments, tuple(columns), count)


def answers(model: Classifier, pairs: Sequence[Pair], max_length: int | None) -> list[dict[str, Any]]:
    """For each pair its label and the probability of each label.

    Raises:
        UserError: The model gives no numbers, as in a precision whose range is too small for it.
    """
    probabilities = model.probabilities(pairs, max_length=max_length)
    if not np.isfinite(probabilities).all():
        raise UserError(f"it gives no numbers in {model.precision.value}", file=model.name, fix="--precision fp32")
    return [
        {"predicted_label": LABELS[max(range(len(LABELS)), key=row.__getitem__)]}
        | {f"probability_{label}": round(p, 6) for label, p in zip(LABELS, row, strict=True)}
        for row in probabilities.tolist()
    ]


def label_file(model: Classifier, found: Input) -> None:
    """Writes the input's rows with their answers, whole or not at all.

    Raises:
        UserError: A path that can't be written to, or a Parquet column of mixed types.
    """
    output, types, labelled = found.arguments.output, None, 0
    columns = list(dict.fromkeys([*found.columns, *BLANK]))
    if table_format(output) == ".parquet":
        types = parquet_types(output, ([row.values | BLANK for row in rows] for rows, _ in found.windows()))
    with row_writer(output, columns, types) as write, bar(found.rows, "pair", show=True) as done:
        for rows, pairs in found.windows():
            for row, answer in zip(rows, answers(model, pairs, found.arguments.max_length), strict=True):
                write(row.values | answer)
            done.update(len(rows))
            labelled += len(rows)
        if labelled != found.rows:
            raise UserError(
                f"it had {found.rows:,} rows and now {labelled:,}",
                file=found.arguments.input,
                expected="a file that nobody writes to",
                fix="repeat the command",
            )
    log(f"{found.rows:,} pairs labelled: {output}")


def main() -> None:
    arguments = parse(
        PredictArguments,
        prog=f"python -m {MODULE}",
        examples=f'  python -m {MODULE} --model output/miniature_lora "A boy who is wet is indoors and quiet." "A child is dry."',
    )
    found = survey(arguments) if arguments.input is not None else None

    quiet_libraries()  # before the first of them is imported
    from snli_roberta.model import classifier

    model = classifier.load(arguments.model, arguments.revision, precision=arguments.precision)
    log(f"{hardware.device_type()}, {model.precision.value} ({model.precision.reason})")
    if found is not None:
        label_file(model, found)
        return
    (answer,) = answers(model, [Pair(*arguments.sentences, label=-1)], arguments.max_length)
    print(answer["predicted_label"])
    for label in LABELS:
        print(f"  {label:14} {answer[f'probability_{label}']:.4f}")


if __name__ == "__main__":
    run(main)
