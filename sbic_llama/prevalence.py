"""How many posts of my file are of a class? ``python -m sbic_llama.prevalence annotated.csv --human_labels labels.csv``

The share of posts in each class, in all and by any column of the file, from the machine's labels of all posts and people's labels
of a few, drawn at random; and how many human labels an interval of a given width takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.cli.arguments import option, parse
from common.cli.console import log
from common.cli.errors import UserError, run
from common.results import finding as findings
from common.results import rendering
from common.results.scoring import command_line
from common.runtime.project import is_miniature
from sbic_llama.data.features import Name
from sbic_llama.data.label_files import MIN_HUMAN_LABELS, PREFIX, read_annotated, read_human_labels, shared_feature
from sbic_llama.evaluation.prevalence import WIDTHS, prevalence_finding

MODULE = "sbic_llama.prevalence"


@dataclass(kw_only=True)
class EstimateArguments:
    """Estimates the share of posts in each class from a machine's labels of all posts and people's labels of a few.

    Beside each share with its prediction-powered 95 % interval stand the share from the human labels alone and the share of the
    machine's labels taken for the truth.
    """

    annotated: tuple[str, ...] = option((), "file that sbic_llama.annotate wrote", positional=True)
    read_human_labels: Path = option(help="file of the human labels of some of its posts, drawn at random")
    key: str = option("post", "column that both files share and that names a post")
    feature: Name | None = option(None, "feature (default: the one that both files have)")
    by: tuple[str, ...] = option((), "columns of the annotated file: a share for each value with enough human labels")
    width: tuple[float, ...] = option(
        WIDTHS, "widths of 95 % intervals for which to say how many human labels they take", above=0, maximum=0.99
    )
    share_of: Literal["file", "population"] = option(
        "file", "shares of this file, or of the population of posts that it was drawn from at random"
    )
    prefix: str = option(PREFIX, "what the names of the annotation's columns begin with", empty=True)
    output: Path | None = option(None, "JSON file for the finding")

    def __post_init__(self) -> None:
        if len(self.annotated) != 1:
            raise UserError(f"{len(self.annotated)} files were given", expected="one annotated file")


def estimate(arguments: EstimateArguments) -> findings.Finding:
    """The finding of :func:`sbic_llama.evaluation.prevalence.prevalence_finding` on two files.

    Raises:
        UserError: A file that can't be read, has not what it takes, or too few human labels.
    """
    path, labelled = Path(arguments.annotated[0]), arguments.human_labels
    declared = shared_feature(path, labelled, arguments.feature, arguments.prefix)
    said = read_human_labels(labelled, arguments.key, declared)
    if not said:
        raise UserError(f"no human labels of {declared.name}", file=labelled, expected=f"at least {MIN_HUMAN_LABELS}")
    annotated = read_annotated(path, declared, key=arguments.key, columns=arguments.by, prefix=arguments.prefix)
    found = len(said.keys() & annotated.keys.keys())
    if found < MIN_HUMAN_LABELS:
        raise UserError(
            f"{found:,} of its {len(said):,} posts with a label of {declared.name} are annotated in {path}",
            file=labelled,
            expected=f"at least {MIN_HUMAN_LABELS}",
            fix=f"label more posts, or check the key column {arguments.key!r}, which both files must share",
        )
    if annotated.unanswered:
        log(f"{annotated.unanswered:,} rows without an annotation are left out")
    if found < len(said):
        log(f"{len(said) - found:,} human labels belong to no annotated post")
    return prevalence_finding(
        annotated,
        said,
        source=path.name,
        target=arguments.share_of,
        widths=arguments.width,
        model=path.name,
        miniature=is_miniature(labelled),
        command=command_line(MODULE),
    )


def main() -> None:
    arguments = parse(
        EstimateArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} annotated.csv --human_labels labels.csv --key id --by source --output prevalence.json",
    )
    found = estimate(arguments)
    print("\n".join(rendering.lines(found)))
    print(f"  What this does not show: {found.limits}")
    if arguments.output is not None:
        found.write(arguments.output)
        log(f"finding: {arguments.output}")


if __name__ == "__main__":
    run(main)
