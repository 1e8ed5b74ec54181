"""Labels for pairs of sentences: ``python -m snli_roberta.predict --model PATH_OR_ID "premise" "hypothesis"``, or a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.arguments import option, parse
from common.errors import UserError, run, shown
from common.stages import quiet_libraries, say
from common.table_writer import write_rows
from common.tables import Row, read_rows, table_format
from snli_roberta.corpus import LABELS, Pair

MODULE = "snli_roberta.predict"


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
    max_length: int | None = option(None, "tokens a pair at most (default: as it was trained, else 128)", minimum=8)

    def __post_init__(self) -> None:
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


def read_pairs(arguments: PredictArguments) -> tuple[list[Row], list[Pair]]:
    """The input's rows and their pairs.

    Raises:
        UserError: A row whose sentences are not text, with its place.
    """
    columns = (arguments.premise_column, arguments.hypothesis_column)
    rows = list(read_rows(arguments.input, columns))
    if not rows:
        raise UserError("no rows", file=arguments.input, expected="at least one pair")
    for row in rows:
        for column in columns:
            if not isinstance(row.values[column], str) or not row.values[column].strip():
                raise row.error(f"{shown(row.values[column])} is no sentence", column, expected="text")
    return rows, [Pair(*(row.values[column] for column in columns), label=-1) for row in rows]


def main() -> None:
    arguments = parse(
        PredictArguments,
        prog=f"python -m {MODULE}",
        examples=f'  python -m {MODULE} --model output/miniature_lora "A boy who is wet is indoors and quiet." "A child is dry."',
    )
    rows: list[Row] = []
    if arguments.input is None:
        pairs = [Pair(*arguments.sentences, label=-1)]
    else:
        rows, pairs = read_pairs(arguments)

    quiet_libraries()  # before the first of them is imported
    from snli_roberta import classifier

    model = classifier.load(arguments.model, arguments.revision)
    probabilities = model.probabilities(
        pairs, max_length=arguments.max_length, progress=arguments.input is not None
    ).tolist()
    answers = [
        {"predicted_label": LABELS[max(range(len(LABELS)), key=row.__getitem__)]}
        | {f"probability_{label}": round(p, 6) for label, p in zip(LABELS, row, strict=True)}
        for row in probabilities
    ]
    if arguments.output is None:
        (answer,) = answers
        print(answer["predicted_label"])
        for label in LABELS:
            print(f"  {label:14} {answer[f'probability_{label}']:.4f}")
        return
    columns = dict.fromkeys(column for row in rows for column in row.values)
    write_rows(
        arguments.output, [row.values | answer for row, answer in zip(rows, answers, strict=True)], list(columns)
    )
    say(f"{len(rows):,} pairs labelled: {arguments.output}")


if __name__ == "__main__":
    run(main)
