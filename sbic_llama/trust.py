"""How good are a model's labels on *my* file? ``python -m sbic_llama.trust posts.csv --human_labels labels.csv --adapter …``

Annotates the file, compares the answers with the labels that people gave to some of its posts, and writes one HTML page.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from common.cli.arguments import MAX_SEED, option, parse
from common.cli.console import log, quiet_libraries
from common.cli.errors import UserError, run, shown
from common.models.loading import check_place, with_revision
from common.results import pictures
from common.results.finding import KEPT, Finding, about, read_findings
from common.results.record import RunRecord, git_commit, versions
from common.results.rendering import heading, on_page, page, scores, with_interval
from common.results.scoring import ScoredSet, class_counts, command_line
from common.runtime.files import atomic_write
from common.tables.reading import read_rows, text_of
from common.tables.report import fingerprint
from common.tables.writing import row_writer
from sbic_llama.annotation.input import survey
from sbic_llama.annotation.run import AnnotateArguments, annotate, parts_of
from sbic_llama.baselines import ScoredGroups
from sbic_llama.data.features import Feature, Label
from sbic_llama.data.groups import PRESENCE
from sbic_llama.data.label_files import MIN_HUMAN_LABELS, read_annotated, read_human_labels, read_opinions
from sbic_llama.evaluation.prevalence import prevalence_finding
from sbic_llama.evaluation.with_people import agreement_with_people, certainty_findings

if TYPE_CHECKING:
    from sbic_llama.model.annotator import Adapter

MODULE = "sbic_llama.trust"
ELSEWHERE = ("robustness", "hatecheck", "md-agreement")  # findings of an adapter that a user's own labels can't give
LIMITS = (
    "How good the labels are on other files, or whether the people who labelled were right. The numbers hold for this file as far "
    "as the labelled posts were drawn from it at random: posts that were picked for a reason say something of such posts only."
)


@dataclass(kw_only=True)
class TrustArguments:
    """Says on one page how good a model's labels are on a file of posts, some of which people have labelled too.

    The file of human labels has the key column of the posts and, for each adapter, a column named as its feature with label texts
    (or groups, separated by commas, or none). A post may have several rows, one a person: the commonest label counts.
    """

    posts: tuple[str, ...] = option((), "file of posts (.csv, .tsv, .jsonl, .parquet; text also .gz)", positional=True)
    read_human_labels: Path = option(help="file of the human labels of some of them, a few hundred drawn at random")
    adapter: tuple[str, ...] = option(
        help="adapters for different features: folders or Hub ids, user/name@v1 at a revision"
    )
    text_column: str = option("post", "column of the posts")
    key: str | None = option(None, "column that both files share and that names a post (default: the text column)")
    review_share: float = option(0.1, "share of the file to propose for a person's look", above=0, maximum=0.99)
    quantization: Literal["nf4", "int8", "none"] = option("nf4", "how the base model's weights are kept")
    batch_size: int = option(32, "posts a forward pass at most", minimum=1)
    output_dir: Path = option(Path("output/trust"), "folder for the page, the annotated file and the rows for review")
    seed: int = option(0, "seed of the bootstrap", minimum=0, maximum=MAX_SEED)

    def __post_init__(self) -> None:
        if len(self.posts) != 1:
            raise UserError(f"{len(self.posts)} files were given", expected="one file of posts")
        for path in (Path(self.posts[0]), self.human_labels):
            if not path.is_file():
                raise UserError("no such file", file=path, fix="check the path")
        for name in self.adapter:
            check_place(*with_revision(name))


@dataclass(frozen=True)
class Judged:
    """A feature's answers on the posts that people labelled, the least certain first, and on the whole file.

    Attributes:
        declared: The feature.
        labels: What people said.
        answers: What the model said.
        confidences: How sure it was, 0 to 1, rising.
        probabilities: Of the labels, shape (posts, labels); None of a list of groups.
        everywhere: Answer text → number of posts of the whole file.
        missing: Human labels of posts that are not in the file or have no annotation.
        by_key: Key of a labelled post → the model's answer.
        repeated: Rows of the file whose key stands in an earlier row.
    """

    declared: Feature
    labels: list[Label]
    answers: list[Label]
    confidences: list[float]
    probabilities: np.ndarray | None
    everywhere: dict[str, int]
    missing: int
    by_key: dict[str, Label]
    repeated: int


def judge(adapter: Adapter, annotated: Path, said: dict[str, Label], *, key: str) -> Judged:
    """Joins a feature's answers with what people said, by the key column."""
    declared, left = adapter.feature, dict(said)
    found: list[tuple[float, Label, Label, list[float]]] = []
    everywhere: Counter[str] = Counter()
    by_key: dict[str, Label] = {}
    keys: set[str] = set()
    for row in read_rows(annotated):
        values = {name: row.values[f"model_{name}"] for name in adapter.columns}
        if values[declared.name] is None:
            continue
        name = text_of(row, key) or ""
        keys.add(name)
        everywhere[values[declared.name]] += 1
        if (human := left.pop(name, None)) is not None:
            answer = declared.parse(values[declared.name])
            by_key[name] = () if answer is None else answer
            numbers = [float(values[column]) for column in adapter.columns[1:]]
            found.append((adapter.confidence(values), human, by_key[name], numbers))
    found.sort(key=lambda item: item[0])
    return Judged(
        declared,
        labels=[human for _, human, _, _ in found],
        answers=[answer for _, _, answer, _ in found],
        confidences=[sure for sure, _, _, _ in found],
        probabilities=np.array([numbers for _, _, _, numbers in found]) if declared.classifies else None,
        everywhere=dict(everywhere.most_common()),
        missing=len(left),
        by_key=by_key,
        repeated=everywhere.total() - len(keys),
    )


def record_of(judged: Judged, source: Path, seed: int) -> RunRecord:
    """The answers scored against people's, as a run record."""
    declared = judged.declared
    counts = (
        class_counts(judged.labels, declared.labels)
        if declared.classifies
        else class_counts([min(len(label), 1) for label in judged.labels], PRESENCE)
    )
    return (ScoredSet if declared.classifies else ScoredGroups)(
        task=declared.title,
        question=declared.question,
        limits=LIMITS,
        data=source.name,
        split="posts with human labels",
        names=declared.labels or PRESENCE,
        labels=judged.labels,
        fingerprint=fingerprint([label, answer] for label, answer in zip(judged.labels, judged.answers, strict=True)),
        class_counts={"human labels": counts},
        reports=[],
        policy={},
        miniature=False,
    ).record("model", judged.answers, module=MODULE, seed=seed)


def findings_of(
    one: Judged,
    adapter: Adapter,
    record: RunRecord,
    said: dict[str, Label],
    elsewhere: list[Finding],
    annotated: Path,
    arguments: TrustArguments,
) -> list[Finding]:
    """What people's labels show besides the scores, and what is known of the adapter from elsewhere."""
    shared, key = {**about(record), "seed": arguments.seed}, arguments.key or arguments.text_column
    found = certainty_findings(
        one.declared,
        one.labels,
        one.answers,
        one.confidences,
        probabilities=one.probabilities,
        temperature=adapter.description.temperature,
        **shared,
    )
    agreement = agreement_with_people(
        one.declared, read_opinions(arguments.human_labels, key, one.declared), one.by_key, **shared
    )
    if agreement:
        found.append(agreement)
    if one.repeated:
        log(f"{one.repeated:,} rows repeat an earlier one's {key!r}: no estimate of shares is made")
    else:
        answers = read_annotated(annotated, one.declared, key=key)
        where = {name: value for name, value in about(record).items() if name != "data"}
        found.append(prevalence_finding(answers, said, source=record.data["name"], **where))
    return [*found, *(finding for finding in elsewhere if finding.name in ELSEWHERE)]


def main() -> None:
    arguments = parse(
        TrustArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} posts.csv --human_labels labels.csv --adapter output/miniature_sbic/offensiveYN",
    )
    source, folder = Path(arguments.posts[0]), arguments.output_dir
    key = arguments.key or arguments.text_column
    quiet_libraries()
    from sbic_llama.annotation.parts import digest_of
    from sbic_llama.model.annotator import read_adapters

    # All that can be refused is, before a model is loaded.
    adapters = read_adapters(arguments.adapter)
    elsewhere = {one.name: read_findings(one.folder / KEPT) for one in adapters}
    said = {one.name: read_human_labels(arguments.human_labels, key, one.feature) for one in adapters}
    for name, labels in said.items():
        if len(labels) < MIN_HUMAN_LABELS:
            raise UserError(
                f"{len(labels)} posts with a label of {name}",
                file=arguments.human_labels,
                expected=f"at least {MIN_HUMAN_LABELS}",
            )
    found = survey(source, arguments.text_column, strict=False)
    if key not in found.columns:
        raise UserError(f"missing column {key!r}", file=source, expected=f"it among {shown(found.columns, 200)}")

    annotated = folder / "annotated.parquet"
    identity = folder / "annotated.json"
    made_of = {"posts": found.digest, "adapters": {one.name: digest_of(one) for one in adapters}}
    made_of |= {"quantisation": arguments.quantization, "text_column": arguments.text_column}
    if annotated.exists() and not parts_of(annotated).is_dir():
        if not identity.is_file() or json.loads(identity.read_text(encoding="utf-8")) != made_of:
            raise UserError("it holds the annotation of something else", file=folder, fix="choose another --output_dir")
        log(f"annotated already: {annotated}")
    else:
        with atomic_write(identity) as part:
            part.write_text(json.dumps(made_of, indent=1), encoding="utf-8")
        words = {"posts": arguments.posts, "adapter": arguments.adapter, "output": str(annotated)}
        shared = {name: getattr(arguments, name) for name in ("text_column", "quantization", "batch_size")}
        annotate(AnnotateArguments(**words, **shared), source, annotated)

    judged = [judge(one, annotated, said[one.name], key=key) for one in adapters]
    for one in judged:
        if len(one.labels) < MIN_HUMAN_LABELS:
            raise UserError(
                f"{len(one.labels)} of the posts with a label of {one.declared.name} are in the posts' file",
                file=arguments.human_labels,
                expected=f"at least {MIN_HUMAN_LABELS}",
                fix=f"check the key column {key!r}, which both files must share",
            )
    records = [record_of(one, source, arguments.seed) for one in judged]
    found_besides = [
        findings_of(one, adapter, record, said[adapter.name], elsewhere[adapter.name], annotated, arguments)
        for one, adapter, record in zip(judged, adapters, records, strict=True)
    ]
    review = folder / "review.csv"
    proposed = write_review(
        annotated,
        adapters,
        said,
        review,
        key=key,
        text_column=arguments.text_column,
        share=arguments.review_share,
        rows=found.rows,
    )
    path = folder / "trust.html"
    with atomic_write(path) as part:
        part.write_text(
            render(
                list(zip(judged, records, found_besides, strict=True)),
                adapters,
                found.rows,
                found.problems,
                source,
                proposed,
                arguments,
                command_line(MODULE),
            ),
            encoding="utf-8",
        )
    for one, record in zip(judged, records, strict=True):
        metric = scores(record)[0]
        print(
            f"{one.declared.title}: {heading(metric)} {with_interval(record, metric)} on {len(one.labels):,} labelled posts"
        )
    log(f"page: {path}; {proposed:,} rows for a person: {review}")


def write_review(
    annotated: Path,
    adapters: Sequence[Adapter],
    said: dict[str, dict[str, Label]],
    path: Path,
    *,
    key: str,
    text_column: str,
    share: float,
    rows: int,
) -> int:
    """Writes the least certain rows that nobody has labelled yet, the least certain first. Returns how many.

    ``share`` is of all ``rows`` of the file.
    """

    def waiting() -> Iterator[tuple[float, int, dict[str, Any]]]:
        for row in read_rows(annotated):
            if all((text_of(row, key) or "") in labels for labels in said.values()):
                continue
            sure = [
                adapter.confidence({name: row.values[f"model_{name}"] for name in adapter.columns})
                for adapter in adapters
                if row.values[f"model_{adapter.name}"] is not None
            ]
            if (text_of(row, text_column) or "").strip():  # else there is nothing that a person could label
                yield min(sure, default=0.0), row.number, row.values

    chosen = heapq.nsmallest(max(1, round(share * rows)), waiting(), key=lambda item: item[:2])
    columns = list(chosen[0][2]) if chosen else [key]
    place, certainty = (_free(name, columns) for name in ("model_row", "model_confidence"))
    with row_writer(path, [place, certainty, *columns]) as write:
        for sure, number, values in chosen:
            write({place: number, certainty: round(sure, 6), **values})
    return len(chosen)


def _free(name: str, columns: Sequence[str]) -> str:
    """The name, or one like it that no column has."""
    while name in columns:
        name += "_"
    return name


def render(
    judged: Sequence[tuple[Judged, RunRecord, list[Finding]]],
    adapters: Sequence[Adapter],
    rows: int,
    problems: int,
    source: Path,
    proposed: int,
    arguments: TrustArguments,
    command: str,
) -> str:
    """The page as text."""
    features = []
    for one, record, besides in judged:
        headline = scores(record)[0]
        commonest = Counter(one.labels).most_common(1)[0][1] / len(one.labels)
        features.append(
            {
                "record": record,
                "declared": one.declared,
                "headline": headline,
                "metric": record.metrics[headline],
                "commonest": commonest,
                "scores": scores(record),
                "per_label": record.labels if one.declared.classifies else (),
                "confusion": pictures.confusion_heatmap(record),
                "shares": pictures.class_shares({"human labels": record.data["class_counts"]["human labels"]}),
                "findings": [on_page(finding) for finding in besides],
                "everywhere": list(one.everywhere.items())[:12],
                "kinds": len(one.everywhere),
                "annotated": sum(one.everywhere.values()),
                "missing": one.missing,
            }
        )
    return page(
        Path(__file__).parent / "evaluation" / "templates" / "trust.html.jinja",
        title=f"How good are the labels on {source.name}?",
        source=source.name,
        rows=rows,
        problems=problems,
        features=features,
        heading=heading,
        limits=LIMITS,
        proposed=proposed,
        share=arguments.review_share,
        command=command,
        trained_on=sorted({one.description.corpus for one in adapters}),
        miniature=any(one.description.of_miniature for one in adapters),
        commit=git_commit(),
        versions=versions(),
    )


if __name__ == "__main__":
    run(main)
