"""Estimate the share of posts in each class: ``python -m sbic_llama.prevalence annotated.csv --human_labels labels.csv``.

Shares are overall and by any column of the file, from the machine's labels of all posts and people's labels of a few that were
drawn at random. The command also says how many human labels an interval of a given width takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from common.cli.arguments import option, parse
from common.cli.errors import run
from common.hub.table_download import table_name
from common.results.finding import Finding
from common.results.scoring import command_line
from sbic_llama.evaluation.both_labels import BothLabelsArguments
from sbic_llama.evaluation.prevalence import WIDTHS, prevalence_finding

MODULE = "sbic_llama.prevalence"


@dataclass(kw_only=True)
class PrevalenceArguments(BothLabelsArguments):
    """Estimates the share of posts in each class from a machine's labels of all posts and people's labels of a few.

    Each share has a prediction-powered 95% interval. Next to it are the share from the human labels alone and the share with the
    machine's labels taken for the truth.
    """

    by: tuple[str, ...] = option((), "columns of the annotated file: a share for each value with enough human labels")
    width: tuple[float, ...] = option(
        WIDTHS, "widths of 95% intervals for which to say how many human labels they take", above=0, maximum=0.99
    )
    share_of: Literal["file", "population"] = option(
        "file", "shares of this file, or of the population of posts that it was drawn from at random"
    )


def estimate(arguments: PrevalenceArguments) -> Finding:
    """Return the finding on the two files."""
    both = arguments.read(arguments.by)
    return prevalence_finding(
        both.annotated,
        both.labels,
        source=table_name(arguments.annotated[0]),
        target=arguments.share_of,
        widths=arguments.width,
        drawn=both.drawn,
        notes=both.votes.notes(),
        **arguments.about(command_line(MODULE)),
    )


def main() -> None:
    arguments = parse(
        PrevalenceArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} annotated.csv --human_labels labels.csv --key id --by source --output prevalence.json",
    )
    finding = estimate(arguments)
    arguments.show(finding)


if __name__ == "__main__":
    run(main)
