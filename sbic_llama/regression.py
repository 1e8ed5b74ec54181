"""Regress on or with labels: ``python -m sbic_llama.regression annotated.csv --human_labels labels.csv --on source date``.

Differences between groups, trends and other coefficients, from the machine's labels of all posts and people's labels of a few that
were drawn at random, beside what the machine's labels give if they are taken for the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.cli.arguments import option, parse
from common.cli.errors import UserError, run
from common.results.scoring import command_line
from sbic_llama.evaluation.both_labels import BothLabelsArguments
from sbic_llama.evaluation.regression import regression_finding

MODULE = "sbic_llama.regression"


@dataclass(kw_only=True)
class RegressionArguments(BothLabelsArguments):
    """Estimates how a label depends on other columns of the annotated file, or how another column depends on the label.

    By default the outcome is whether a post has the label. With --outcome, it is that column, and the label is the first covariate.
    Columns of numbers and of dates (YYYY-MM-DD) have one coefficient, for a difference of 1 and of a year; other columns have one
    for each value, against the most frequent value.
    """

    on: tuple[str, ...] = option((), "columns of the annotated file as covariates")
    label: str | None = option(None, "which label it is about (default: the first)")
    outcome: str | None = option(None, "column of numbers as the outcome; the label is a covariate then")
    categories: tuple[str, ...] = option((), "columns of numbers or dates that are categories")
    kind: Literal["linear", "logistic"] = option(
        "linear", "linear: differences of shares or means; logistic: of log-odds, for outcomes of 0 and 1"
    )

    def __post_init__(self) -> None:
        BothLabelsArguments.__post_init__(self)
        if not self.on and self.outcome is None:
            expected = "columns of the annotated file, as in --on source"
            raise UserError("no covariates", key="--on", expected=expected)
        if odd := set(self.categories) - set(self.on):
            raise UserError(
                f"not a covariate: {', '.join(sorted(odd))}", key="--categories", expected="columns of --on"
            )
        if self.outcome in self.on:
            raise UserError(f"{self.outcome!r} is the outcome", key="--on", fix="leave it out")


def main() -> None:
    arguments = parse(
        RegressionArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} annotated.csv --human_labels labels.csv --key id --on source",
    )
    outcome = (arguments.outcome,) if arguments.outcome else ()
    both = arguments.read((*dict.fromkeys(arguments.on), *outcome))
    finding = regression_finding(
        both,
        source=Path(arguments.annotated[0]),
        on=tuple(dict.fromkeys(arguments.on)),
        label=arguments.label,
        outcome=arguments.outcome,
        categories=arguments.categories,
        kind=arguments.kind,
        **arguments.about(command_line(MODULE)),
    )
    arguments.show(finding)


if __name__ == "__main__":
    run(main)
