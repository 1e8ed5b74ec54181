"""A machine's labels of all posts of a file and people's labels of some: options and files that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.cli.arguments import option
from common.cli.console import log, warn
from common.cli.errors import UserError, counted
from common.cli.options import on_hub
from common.results import rendering
from common.results.finding import Finding
from common.runtime.project import is_miniature
from common.stats.design import Design, Draw, design_of
from common.stats.votes import Votes, examples
from sbic_llama.data.codebook import read_codebook
from sbic_llama.data.features import Label, feature_of
from sbic_llama.data.label_files import (
    MIN_HUMAN_LABELS,
    PREFIX,
    Annotated,
    labels_of,
    read_annotated,
    read_draw,
    read_human_votes,
    shared_feature,
    warn_unmatched,
)

DIFFERENT = 0.05  # by which share the file that labels were drawn from may differ in size from the annotated one


@dataclass(frozen=True)
class BothLabels:
    """The two files, read."""

    annotated: Annotated
    labels: dict[str, Label]  # key of a post → its human label
    votes: Votes
    drawn: Draw | None  # how the labeled posts were drawn; None for a simple draw

    @property
    def people(self) -> dict[int, Label]:
        """Return people's labels by the post's position in the annotated file."""
        places = self.annotated.keys
        return {places[key]: label for key, label in self.labels.items() if key in places}


@dataclass(kw_only=True)
class BothLabelsArguments:
    """An annotated file and people's labels of some of its posts."""

    annotated: tuple[str, ...] = option((), "file that sbic_llama.annotate wrote", positional=True)
    human_labels: Path = option(
        help="human labels of some of its posts, drawn at random: a file, or a folder with one for each person"
    )
    key: str = option("post", "column in both files that identifies a post")
    feature: str | None = option(None, "feature (default: the one that both files have)")
    codebook: Path | None = option(
        None, "codebook of the feature, for its rule of how several people's labels become one (default: majority)"
    )
    prefix: str = option(PREFIX, "prefix of the annotation's columns", empty=True)
    output: Path | None = option(None, "JSON file for the finding", writes=(".json",))

    def __post_init__(self) -> None:
        if len(self.annotated) != 1:
            raise UserError(f"{len(self.annotated)} files were given", expected="one annotated file")
        if on_hub(self.annotated[0]):
            from common.hub.table_download import download_table

            self.annotated = (download_table(self.annotated[0]).name,)  # with its commit, which findings then name
        if self.codebook is not None and self.feature is not None:
            raise UserError("the codebook names its feature", key="feature", fix="remove it")

    def read(self, columns: Sequence[str]) -> BothLabels:
        """Read both files; ``columns`` are those of the annotated file to keep."""
        from common.hub.table_download import local_table

        path, labeled = local_table(Path(self.annotated[0])), local_table(self.human_labels)
        if self.codebook is not None:
            feature = feature_of(read_codebook(self.codebook))
        else:
            feature = shared_feature(path, labeled, self.feature, self.prefix)
        votes = read_human_votes(labeled, self.key, feature)
        labels = labels_of(votes, feature)
        if not labels:
            fix = f"fill in the column {feature.name!r} for a random draw of posts"
            expected = f"at least {MIN_HUMAN_LABELS}"
            raise UserError(f"no human labels of {feature.name}", file=labeled, expected=expected, fix=fix)
        annotated = read_annotated(path, feature, key=self.key, columns=columns, prefix=self.prefix)
        shared = len(labels.keys() & annotated.keys.keys())
        if shared < MIN_HUMAN_LABELS:
            ids = examples(labels, labeled, annotated.keys, path)
            fix = "label more posts"
            if shared < len(labels):
                fix += f", or check the key column {self.key!r}, which must match in both files: {ids}"
            raise UserError(
                f"only {shared:,} of its {counted(len(labels), 'post')} with a label of {feature.name} are annotated in {path}",
                file=labeled,
                expected=f"at least {MIN_HUMAN_LABELS}",
                fix=fix,
            )
        if annotated.unanswered:
            warn(f"left out: {counted(annotated.unanswered, 'row')} without an annotation")
        warn_unmatched(votes, labels, annotated.keys, path)
        return BothLabels(annotated, labels, votes, read_draw(labeled, self.key, feature) or None)

    def show(self, finding: Finding) -> None:
        """Write the finding if asked to, and print it."""
        if self.output is not None:
            finding.write(self.output)
            log(f"finding: {self.output}")
        rendering.show([finding])

    def about(self, command: str) -> dict[str, Any]:
        """Return what a finding on the files says about them."""
        from common.hub.table_download import table_name

        name = table_name(self.annotated[0])
        return {"model": name, "miniature": is_miniature(self.human_labels), "command": command}


def design_in(annotated: Annotated, people: dict[int, Label], drawn: Draw) -> Design:
    """Return how the labeled posts were drawn, in the file's order."""
    here = {annotated.keys[key]: how for key, how in drawn.items() if key in annotated.keys}
    design = design_of(here, sorted(people))
    items, stated = len(annotated.answers), float(design.sizes.sum())
    if empty := {stratum for stratum, _ in here.values()} - {here[place][0] for place in people}:
        posts = sum(1 / probability for stratum, probability in here.values() if stratum in empty)
        problem = f"no post of {counted(len(empty), 'stratum', 'strata')} has a label yet"
        if posts > DIFFERENT * items:
            expected = f"a label in each of those with more than {DIFFERENT:.0%} of the posts"
            raise UserError(
                f"{problem}, with {posts:,.0f} of {counted(items, 'post')}", expected=expected, fix="label some"
            )
        warn(f"{problem}; the estimates take their posts to be like the others")
    elif abs(stated / items - 1) > DIFFERENT:
        problem = f"the labels were drawn from about {stated:,.0f} posts, and {items:,} are annotated"
        warn(f"{problem}: draw from the annotated file, unless these are several draws from it")
    return design


def indicators(annotated: Annotated, people: dict[int, Label], label: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return whether posts have a label: by people, NaN where unknown, by the machine, and its probability, shape (posts,) each.

    Without probabilities the last two are equal. A list of groups or labels has each that is in it.
    """
    feature = annotated.feature
    index = feature.labels.index(label) if feature.classifies else None

    def has(answer: Any) -> float:
        return float(answer == index if index is not None else label in answer)

    by_people = np.full(len(annotated.answers), np.nan)
    for place, answer in people.items():
        by_people[place] = has(answer)
    machine = np.array([has(answer) for answer in annotated.answers])
    if annotated.probabilities is None:
        return by_people, machine, machine
    column = index if index is not None else feature.choices.index(label)
    return by_people, machine, annotated.probabilities[:, column]
