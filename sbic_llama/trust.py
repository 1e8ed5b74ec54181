"""Say how far to trust a model's labels of your file: ``python -m sbic_llama.trust posts.csv --human_labels labels.csv …``.

The command annotates the file, compares the answers with the labels that people gave to some of its posts, and writes an HTML page.
"""

from __future__ import annotations

import dataclasses
import filecmp
import itertools
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from common.cli.arguments import MAX_SEED, option, parse
from common.cli.console import log, quiet_libraries, warn
from common.cli.errors import UserError, counted, printable, run, shown
from common.cli.extras import require
from common.results.finding import FOLDER, KEPT, leave, read_findings
from common.results.scoring import command_line
from common.runtime.files import atomic_write
from common.stats.guarantee import Guarantee
from common.stats.votes import Votes, examples
from common.tables.encodings import named_encoding
from common.tables.reading import read_rows, text_of
from sbic_llama.annotation.arguments import AnnotatorArguments
from sbic_llama.annotation.input import Survey, survey
from sbic_llama.annotation.run import AnnotateArguments, annotate, parts_of
from sbic_llama.data.label_files import (
    MIN_HUMAN_LABELS,
    PREFIX,
    PROBABILITY,
    labels_of,
    read_draw,
    read_human_votes,
    warn_unmatched,
)
from sbic_llama.evaluation.trust_page import ELSEWHERE, Assessment, assess, judge, record_of, render, write_review

if TYPE_CHECKING:
    from sbic_llama.model.annotator import Adapter

MODULE = "sbic_llama.trust"


@dataclass(kw_only=True)
class TrustArguments(AnnotatorArguments):
    """Says on one page how far a model's labels of a file of posts can be trusted, given human labels of some of the posts.

    The file of human labels has the key column of the posts and, for each adapter, a column with the name of its feature that holds
    label texts (or groups, separated by commas, or none). Several people may label a post, one row each: the most frequent label
    counts, and with a column "annotator" their agreement is measured too and repeated rows of one person count once.
    """

    posts: tuple[str, ...] = option(
        (), "file of posts (.csv, .tsv, .jsonl, .parquet, .xlsx, .sav, .dta; text also .gz)", positional=True
    )
    human_labels: Path = option(help="file of the human labels of some of them, a few hundred drawn at random")
    key: str | None = option(None, "column in both files that identifies a post (default: the text column)")
    prefix: str = option(PREFIX, "prefix of the annotation's columns")
    review_share: float = option(0.1, "share of the file to propose for review by people", above=0, maximum=0.99)
    target_accuracy: float | None = option(
        None, "propose so many rows for review that the others are right this often, with a guarantee", above=0, below=1
    )
    guarantee_by: tuple[str, ...] = option((), "columns: a guarantee for each of their values by itself")
    confidence: float = option(0.95, "probability with which that guarantee holds", minimum=0.5, below=1)
    quantization: Literal["nf4", "int8", "none"] = option("nf4", "how the base model's weights are stored")
    batch_size: int = option(32, "posts per forward pass at most", minimum=1)
    output_dir: Path = option(Path("output/trust"), "folder for the page, the annotated file and the rows for review")
    seed: int = option(0, "seed of the bootstrap", minimum=0, maximum=MAX_SEED)

    def __post_init__(self) -> None:
        if len(self.posts) != 1:
            raise UserError(f"{len(self.posts)} files were given", expected="one file of posts")
        from common.hub.table_download import local_table

        self.posts, self.human_labels = (str(local_table(Path(self.posts[0]))),), local_table(self.human_labels)
        if not Path(self.posts[0]).is_file():
            raise UserError("no such file", file=self.posts[0], fix="check the path")
        if not self.human_labels.exists():
            raise UserError("no such file", file=self.human_labels, fix="check the path")
        if self.guarantee_by and self.target_accuracy is None:
            raise UserError("it is about a guarantee", key="--guarantee_by", fix="add --target_accuracy 0.95")
        AnnotatorArguments.__post_init__(self)

    @property
    def key_column(self) -> str:
        if self.key is None and len(columns := self.texts.columns) > 1:
            problem = f"a post is in {len(columns)} columns"
            raise UserError(problem, key="--key", expected="a column in both files that identifies a post")
        return self.key or self.texts.columns[0]


def read_all_votes(arguments: TrustArguments, adapters: list[Adapter]) -> dict[str, Votes]:
    """Return feature → people's votes."""
    path, key = arguments.human_labels, arguments.key_column
    if arguments.target_accuracy is not None and any(read_draw(path, key, each.feature) for each in adapters):
        problem = "the labeled posts were drawn with unequal probabilities, which the guarantee does not allow"
        fix = "leave out --target_accuracy, or label a simple draw"
        raise UserError(problem, file=path, column=PROBABILITY, fix=fix)
    votes = {each.name: read_human_votes(path, key, each.feature) for each in adapters}
    for name, of_feature in votes.items():
        if (count := len(of_feature.labels)) < MIN_HUMAN_LABELS:
            raise UserError(
                f"only {counted(count, 'post')} {'has' if count == 1 else 'have'} a label of {name}",
                file=path,
                expected=f"at least {MIN_HUMAN_LABELS}",
                fix="label more posts, drawn at random from the file",
            )
    return votes


def annotate_once(arguments: TrustArguments, adapters: list[Adapter], posts: Survey) -> Path:
    """Annotate the posts into the output folder, unless an earlier run has; return the annotated file."""
    from sbic_llama.annotation.parts import digest_of

    folder = arguments.output_dir
    annotated, identity = folder / "annotated.parquet", folder / "annotated.json"
    made_of = {"posts": posts.digest, "adapters": {each.name: digest_of(each) for each in adapters}}
    made_of |= {"quantisation": arguments.quantization, "text_column": arguments.texts.place}  # as earlier versions
    made_of |= {"prefix": arguments.prefix} if arguments.prefix != PREFIX else {}
    made_of |= {"encoding": encoding} if (encoding := named_encoding()) else {}
    if annotated.exists() and not parts_of(annotated).is_dir():
        if not identity.is_file() or json.loads(identity.read_text(encoding="utf-8")) != made_of:
            problem = "it holds an annotation of other posts, or by other adapters or settings"
            raise UserError(problem, file=folder, fix="choose another --output_dir")
        log(f"already annotated: {annotated}")
        return annotated
    with atomic_write(identity) as part:
        part.write_text(json.dumps(made_of, indent=1), encoding="utf-8")
    words = {"posts": arguments.posts, "output": str(annotated)}
    names = [field.name for field in dataclasses.fields(AnnotatorArguments)]
    names += ["prefix", "quantization", "batch_size"]
    shared = {name: getattr(arguments, name) for name in names}
    annotate(AnnotateArguments(**words, **shared), posts.path, annotated)
    return annotated


def require_matches(arguments: TrustArguments, name: str, matches: int, votes: Votes, keys: Iterable[str]) -> None:
    """Check that enough of the posts with human labels of a feature are in the file of posts."""
    if matches < MIN_HUMAN_LABELS:
        ids = examples(votes.labels, votes.path, keys, Path(arguments.posts[0]))
        raise UserError(
            f"only {matches} of the posts with a label of {name} are in the file of posts",
            file=arguments.human_labels,
            expected=f"at least {MIN_HUMAN_LABELS}",
            fix=f"check the key column {arguments.key_column!r}, which must match in both files: {ids}",
        )


def assess_adapter(arguments: TrustArguments, adapter: Adapter, annotated: Path, votes: Votes) -> Assessment:
    """Compare an adapter's answers with people's labels."""
    key, seed, source = arguments.key_column, arguments.seed, Path(arguments.posts[0])
    labels, columns = labels_of(votes, adapter.feature), {"key": key, "prefix": arguments.prefix}
    columns["drawn"] = read_draw(arguments.human_labels, key, adapter.feature) or None
    judged = judge(adapter, annotated, labels, **columns, by=arguments.guarantee_by, texts=arguments.texts)
    if judged.trained:
        problem = (
            f"{adapter.name} was trained on {judged.trained:,} of the {len(judged.labels):,} posts with human labels"
        )
        warn(f"{problem}, so the numbers are better than for new posts; label posts that it has not seen")
    require_matches(arguments, adapter.name, len(judged.labels), votes, judged.keys)
    warn_unmatched(votes, labels, judged.keys, source)
    if judged.repeated:
        repeat = "repeats" if judged.repeated == 1 else "repeat"
        warn(f"{counted(judged.repeated, 'row')} {repeat} the {key!r} of an earlier row: shares are not estimated")
    record = record_of(judged, source, MODULE, seed, miniature=adapter.description.of_miniature)
    temperature = adapter.description.temperature
    assessed = assess(judged, record, annotated, votes, **columns, temperature=temperature, seed=seed)
    if arguments.target_accuracy is not None:
        wanted = (arguments.target_accuracy, arguments.confidence)
        of_answers = ("",) if adapter.feature.classifies and len(judged.everywhere) > 1 else ()
        by = {column: judged.guarantees_by(column, *wanted) for column in (*of_answers, *arguments.guarantee_by)}
        assessed = dataclasses.replace(assessed, guarantee=judged.guarantee(*wanted), guarantees=by)
    if adapter.folder is not None:
        assessed.findings.extend(known for known in read_findings(adapter.folder / KEPT) if known.name in ELSEWHERE)
    return assessed


def keep_records(assessed: list[Assessment], folder: Path) -> None:
    """Write what the page shows as records and findings, which sbic_llama.methods and common.report read."""
    for each in assessed:
        stem = f"trust-{each.judged.feature.name}"
        for stale in (folder / FOLDER).glob(f"{stem}-*.json"):  # an earlier run may have had other labels
            stale.unlink()
        each.record.write(folder / f"{stem}.json")
        for finding in each.findings:
            if finding.name not in ELSEWHERE:
                leave(finding, folder, stem, None)


def keep_review(made: Path, folder: Path) -> Path:
    """Move new rows for review to review.csv, or to the next free number: people may have written into earlier files."""
    for number in itertools.count(1):
        path = folder / ("review.csv" if number == 1 else f"review-{number}.csv")
        if not path.exists() or filecmp.cmp(made, path, shallow=False):
            made.replace(path)
            return path


def _threshold(found: Guarantee) -> float:
    return math.inf if found.threshold is None else found.threshold


def main() -> None:
    arguments = parse(
        TrustArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} posts.csv --human_labels labels.csv --adapter output/miniature_sbic/offensiveYN",
    )
    require("plots")
    source, folder, key = Path(arguments.posts[0]), arguments.output_dir, arguments.key_column
    quiet_libraries()
    from sbic_llama.model.annotator import read_adapters

    # Whatever can be rejected is rejected before a model is loaded.
    adapters = read_adapters(arguments.annotators(), arguments.expected_shares())
    if not all(adapter.feature.branches for adapter in adapters):
        require("texts")
    for adapter in adapters:
        if adapter.folder is not None:
            read_findings(adapter.folder / KEPT)
    votes = read_all_votes(arguments, adapters)
    posts = survey(source, arguments.texts, strict=False)
    for column in (key, *arguments.guarantee_by):
        if column not in posts.columns:
            expected = f"it among {shown(posts.columns, 200)}"
            raise UserError(f"missing column {column!r}", file=source, expected=expected)
    cells = (text_of(row, key) for row in read_rows(source, lenient=True) if key in row.values)
    keys = dict.fromkeys(cell for cell in cells if cell is not None)
    for name, of_feature in votes.items():
        require_matches(arguments, name, len(of_feature.labels.keys() & keys.keys()), of_feature, keys)
    annotated = annotate_once(arguments, adapters, posts)
    assessed = [assess_adapter(arguments, adapter, annotated, votes[adapter.name]) for adapter in adapters]
    thresholds = {each.judged.feature.name: _threshold(each.guarantee) for each in assessed if each.guarantee}
    count = max(1, round(arguments.review_share * posts.rows))
    labels = {name: of_feature.labels for name, of_feature in votes.items()}
    review = {
        "key": key,
        "prefix": arguments.prefix,
        "texts": arguments.texts,
        "count": count,
        "thresholds": thresholds,
    }
    proposed = write_review(annotated, adapters, labels, folder / ".review.csv", **review)
    path = keep_review(folder / ".review.csv", folder)
    values = {"rows": posts.rows, "problems": posts.problems, "proposed": proposed, "share": arguments.review_share}
    values["review"] = path.name
    with atomic_write(folder / "trust.html") as part:
        part.write_text(render(assessed, adapters, source, command=command_line(MODULE), **values), encoding="utf-8")
    keep_records(assessed, folder / "records")
    kept = "" if path.name == "review.csv" else " (what people may have written into earlier ones is kept)"
    log(f"page: {folder / 'trust.html'}; {counted(proposed, 'row')} for review: {path}{kept}")
    for each in assessed:
        print(printable(f"{each.judged.feature.title}: {each.use}. {each.why}"))
        if each.guarantee:
            print(printable(each.guaranteed()))


if __name__ == "__main__":
    run(main)
