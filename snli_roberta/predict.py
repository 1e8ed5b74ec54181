"""Label a pair of sentences, or a file: ``python -m snli_roberta.predict --model PATH_OR_ID "premise" "hypothesis"``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common.cli.arguments import option, parse
from common.cli.console import bar, log, quiet_libraries, stage
from common.cli.errors import UserError, counted, file_name, return_freed_memory, run, shown
from common.models.loading import check_place
from common.runtime import hardware
from common.tables.reading import Row, in_windows, read_rows, table_format
from common.tables.writing import parquet_schema, row_writer
from snli_roberta.data.corpus import LABELS, Pair
from snli_roberta.model import classifier
from snli_roberta.model.classifier import Classifier

MODULE = "snli_roberta.predict"
WINDOW = 4096  # pairs that are sorted by length and held in memory together
BLANK = {"predicted_label": ""} | dict.fromkeys((f"probability_{label}" for label in LABELS), 0.0)  # an empty answer


@dataclass(kw_only=True)
class PredictArguments:
    """Tell whether a premise entails a hypothesis, with the probability of each label."""

    sentences: tuple[str, ...] = option((), "a premise and a hypothesis", positional=True)
    model: str = option(help="folder or Hub ID of the trained model or adapter")
    revision: str | None = option(None, "its branch, tag or commit on the Hub")
    input: Path | None = option(
        None, "file of pairs instead (.csv, .tsv, .jsonl, .parquet, .xlsx, .sav, .dta; text also .gz)"
    )
    output: Path | None = option(
        None, "file to write: the input's columns, predicted_label, and a probability per label"
    )
    prefix: str = option("", "prefix of the new columns", empty=True)
    premise_column: str = option("premise", "column of the premises")
    hypothesis_column: str = option("hypothesis", "column of the hypotheses")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = option(
        "auto", "compute precision; evaluations use fp32, half precision may change the third digit of a probability"
    )
    max_length: int | None = option(None, "maximum tokens per pair (default: as trained, else 128)", minimum=8)

    def __post_init__(self) -> None:
        check_place(self.model, self.revision)
        if self.input is None and len(self.sentences) != 2:
            problem = f"{len(self.sentences)} sentences were given"
            raise UserError(problem, expected="a premise and a hypothesis, or --input")
        if self.input is not None and self.sentences:
            raise UserError("sentences and --input were given", fix="give only one of them")
        if (self.input is None) != (self.output is None):
            raise UserError("--input and --output go together", fix="give both")
        for key in ("prefix", "premise_column", "hypothesis_column"):
            if self.input is None and getattr(self, key) != getattr(PredictArguments, key):
                raise UserError("it has no effect without --input", key=key, fix="add --input and --output")
        if self.output is not None:
            table_format(self.output, writing=True)
            if self.output.exists():
                fix = "remove it, or choose another --output"
                raise UserError("the output already exists", file=self.output, fix=fix)


@dataclass(frozen=True)
class Input:
    """A checked file of pairs: its columns, in order of appearance, and its number of rows."""

    arguments: PredictArguments
    columns: tuple[str, ...]
    rows: int

    def windows(self) -> Iterator[tuple[list[Row], list[Pair]]]:
        """Yield the rows and their pairs, :data:`WINDOW` at a time."""
        names = (self.arguments.premise_column, self.arguments.hypothesis_column)
        for rows in in_windows(checked_rows(self.arguments), WINDOW):
            yield list(rows), [Pair(*(row.values[name] for name in names), label=-1) for row in rows]


def checked_rows(arguments: PredictArguments) -> Iterator[Row]:
    """Yield the input's rows; refuse one without text in its sentences."""
    names = (arguments.premise_column, arguments.hypothesis_column)
    for row in read_rows(arguments.input, names):
        for name in names:
            if not isinstance(row.values[name], str) or not row.values[name].strip():
                raise row.error(f"not a sentence: {shown(row.values[name])}", name, expected="text")
        yield row


def prefixed(answer: dict[str, Any], arguments: PredictArguments) -> dict[str, Any]:
    """Return an answer with the names of its columns in the output."""
    return {f"{arguments.prefix}{name}": value for name, value in answer.items()}


def survey(arguments: PredictArguments) -> Input:
    """Check the whole input before the model is loaded."""
    columns: dict[str, None] = {}
    count = 0
    for row in checked_rows(arguments):
        columns |= dict.fromkeys(row.values)
        count += 1
    if not count:
        raise UserError("no rows", file=arguments.input, expected="at least one pair")
    if taken := [name for name in prefixed(BLANK, arguments) if name in columns]:
        fix = "rename that column, or choose another --prefix"
        raise UserError(f"the file already has a column {shown(taken[0])}", file=arguments.input, fix=fix)
    return Input(arguments, tuple(columns), count)


def answers(model: Classifier, pairs: Sequence[Pair], **how: Any) -> list[dict[str, Any]]:
    """Return each pair's label and the probability of each label; keywords are those of :meth:`Classifier.logits`."""
    probabilities = model.probabilities(pairs, **how)
    return [
        {"predicted_label": LABELS[max(range(len(LABELS)), key=row.__getitem__)]}
        | {f"probability_{label}": round(p, 6) for label, p in zip(LABELS, row, strict=True)}
        for row in probabilities.tolist()
    ]


def label_file(model: Classifier, source: Input) -> None:
    """Write the input's rows with their answers to a complete file, or none."""
    output, types, labeled = source.arguments.output, None, 0
    blank = prefixed(BLANK, source.arguments)
    columns = [*source.columns, *blank]
    if table_format(output) == ".parquet":
        types = parquet_schema(output, ([row.values | blank for row in rows] for rows, _ in source.windows()))
    with row_writer(output, columns, types) as write, bar(source.rows, "pair", show=True) as done:
        for rows, pairs in source.windows():
            answered = answers(model, pairs, max_length=source.arguments.max_length, answered=done.update)
            for row, answer in zip(rows, answered, strict=True):
                write(row.values | prefixed(answer, source.arguments))
            labeled += len(rows)
            return_freed_memory()  # batches of ever other lengths leave gaps that nothing fills
        if labeled != source.rows:
            raise UserError(
                f"the file had {counted(source.rows, 'row')} and now has {labeled:,}",
                file=source.arguments.input,
                expected="a file that does not change meanwhile",
                fix="repeat the command",
            )
    log(f"{counted(source.rows, 'pair')} labeled: {output}")


def main() -> None:
    arguments = parse(
        PredictArguments,
        prog=f"python -m {MODULE}",
        examples=f'  python -m {MODULE} --model output/miniature_lora "A boy who is wet is indoors and quiet." "A child is dry."',
    )
    source = None
    if arguments.input is not None:
        with stage(f"reading {file_name(arguments.input)}"):
            source = survey(arguments)
    quiet_libraries()  # before other imports of these libraries
    model = classifier.load(arguments.model, arguments.revision, precision=arguments.precision)
    log(f"{hardware.device_type()}, {model.precision.value} ({model.precision.reason})")
    if source is not None:
        label_file(model, source)
        return
    (answer,) = answers(model, [Pair(*arguments.sentences, label=-1)], max_length=arguments.max_length)
    print(answer["predicted_label"])
    for label in LABELS:
        print(f"  {label:14} {answer[f'probability_{label}']:.4f}")


if __name__ == "__main__":
    run(main)
