"""Estimate the share of posts in each class: ``python -m sbic_llama.prevalence annotated.csv --human_labels labels.csv``.

Shares are overall and by any column of the file, from the machine's labels of all posts and people's labels of a few that were
drawn at random. The command also says how many human labels an interval of a given width takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.cli.arguments import option, parse
from common.cli.console import log, warn
from common.cli.errors import UserError, counted, run
from common.results.finding import Finding
from common.results.rendering import show
from common.results.scoring import command_line
from common.runtime.project import is_miniature
from common.stats.votes import examples
from sbic_llama.data.codebook import read_codebook
from sbic_llama.data.features import feature_of
from sbic_llama.data.label_files import (
    MIN_HUMAN_LABELS,
    PREFIX,
    labels_of,
    read_annotated,
    read_draw,
    read_human_votes,
    shared_feature,
    warn_unmatched,
)
from sbic_llama.evaluation.prevalence import WIDTHS, prevalence_finding

MODULE = "sbic_llama.prevalence"


@dataclass(kw_only=True)
class PrevalenceArguments:
    """Estimates the share of posts in each class from a machine's labels of all posts and people's labels of a few.

    Each share has a prediction-powered 95% interval. Next to it are the share from the human labels alone and the share with the
    machine's labels taken for the truth.
    """

    annotated: tuple[str, ...] = option((), "file that sbic_llama.annotate wrote", positional=True)
    human_labels: Path = option(
        help="human labels of some of its posts, drawn at random: a file, or a folder with one for each person"
    )
    key: str = option("post", "column in both files that identifies a post")
    feature: str | None = option(None, "feature (default: the one that both files have)")
    codebook: Path | None = option(
        None, "codebook of the feature, for its rule of how several people's labels become one (default: majority)"
    )
    by: tuple[str, ...] = option((), "columns of the annotated file: a share for each value with enough human labels")
    width: tuple[float, ...] = option(
        WIDTHS, "widths of 95% intervals for which to say how many human labels they take", above=0, maximum=0.99
    )
    share_of: Literal["file", "population"] = option(
        "file", "shares of this file, or of the population of posts that it was drawn from at random"
    )
    prefix: str = option(PREFIX, "prefix of the annotation's columns", empty=True)
    output: Path | None = option(None, "JSON file for the finding")

    def __post_init__(self) -> None:
        if len(self.annotated) != 1:
            raise UserError(f"{len(self.annotated)} files were given", expected="one annotated file")
        if self.codebook is not None and self.feature is not None:
            raise UserError("the codebook names its feature", key="feature", fix="remove it")


def estimate(arguments: PrevalenceArguments) -> Finding:
    """Return the finding on the two files."""
    path, labeled = Path(arguments.annotated[0]), arguments.human_labels
    if arguments.codebook is not None:
        feature = feature_of(read_codebook(arguments.codebook))
    else:
        feature = shared_feature(path, labeled, arguments.feature, arguments.prefix)
    votes = read_human_votes(labeled, arguments.key, feature)
    labels = labels_of(votes, feature)
    if not labels:
        fix = f"fill in the column {feature.name!r} for a random draw of posts"
        expected = f"at least {MIN_HUMAN_LABELS}"
        raise UserError(f"no human labels of {feature.name}", file=labeled, expected=expected, fix=fix)
    annotated = read_annotated(path, feature, key=arguments.key, columns=arguments.by, prefix=arguments.prefix)
    shared = len(labels.keys() & annotated.keys.keys())
    if shared < MIN_HUMAN_LABELS:
        ids = examples(labels, labeled, annotated.keys, path)
        fix = "label more posts"
        if shared < len(labels):
            fix += f", or check the key column {arguments.key!r}, which must match in both files: {ids}"
        raise UserError(
            f"only {shared:,} of its {counted(len(labels), 'post')} with a label of {feature.name} are annotated in {path}",
            file=labeled,
            expected=f"at least {MIN_HUMAN_LABELS}",
            fix=fix,
        )
    if annotated.unanswered:
        warn(f"left out: {counted(annotated.unanswered, 'row')} without an annotation")
    warn_unmatched(votes, labels, annotated.keys, path)
    return prevalence_finding(
        annotated,
        labels,
        source=path.name,
        target=arguments.share_of,
        widths=arguments.width,
        drawn=read_draw(labeled, arguments.key, feature),
        notes=votes.notes(),
        model=path.name,
        miniature=is_miniature(labeled),
        command=command_line(MODULE),
    )


def main() -> None:
    arguments = parse(
        PrevalenceArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} annotated.csv --human_labels labels.csv --key id --by source --output prevalence.json",
    )
    finding = estimate(arguments)
    if arguments.output is not None:
        finding.write(arguments.output)
        log(f"finding: {arguments.output}")
    show([finding])


if __name__ == "__main__":
    run(main)
