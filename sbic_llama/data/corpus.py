"""Load SBIC v2: posts and their annotations, from per-annotator CSVs, official aggregates or Hub Parquet files."""

from __future__ import annotations

import html
import math
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from common.cli.errors import UserError, shown
from common.runtime import files
from common.tables.reading import Row, read_rows
from common.tables.report import DataReport, fingerprint

SplitName = Literal["train", "dev", "test"]
View = Literal["annotators", "aggregated"]
Repeats = Literal["drop", "keep"]

FILE_NAMES = {"train": "trn", "dev": "dev", "test": "tst"}
HUB_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
HUB_DATASET = "allenai/social_bias_frames"
HUB_REVISION = "refs/convert/parquet"  # the dataset's main branch is a loading script, which is no longer supported
# Fillers and selectors, which Unicode counts among letters, symbols and marks.
SHAPELESS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0" + "".join(map(chr, range(0xFE00, 0xFE10))))
MAX_UNESCAPES = 10  # some posts of the corpus are HTML-escaped twice
LEVELS = (0.0, 0.5, 1.0)  # offensiveYN: no, maybe, yes
INTENT = "intentYN"  # optional: files in the corpus's format may lack it
INTENT_LEVELS = (0.0, 0.33, 0.66, 1.0)  # no, probably not, probably, yes

ANNOTATOR_COLUMNS = ("post", "offensiveYN", "targetMinority", "targetStereotype", "dataSource", "WorkerId", "HITId")
AGGREGATED_COLUMNS = ("post", "offensiveYN", "targetMinority", "targetStereotype", "dataSource", "hasBiasedImplication")

# The miniature's invented groups, each with the names that its annotators write.
INVENTED_GROUPS = {
    "florbs": ("florbs", "florb folk"),
    "drevins": ("drevins", "drevin folk"),
    "quillans": ("quillans", "quillan folk"),
    "marrowites": ("marrowites", "marrowite folk"),
    "tessels": ("tessels", "tessel folk"),
    "ombrians": ("ombrians", "ombrian folk"),
    "zanthi": ("zanthi", "zanthi folk"),
    "veelish": ("veelish", "veelish folk"),
}


@dataclass(frozen=True)
class Annotation:
    """One worker's annotation of a post."""

    worker: str
    offensive: float | None  # a level of LEVELS; None where left blank
    biased: bool  # whether the worker gave a stereotype
    intended: float | None = None  # a level of INTENT_LEVELS; None where left blank


@dataclass(frozen=True)
class Post:
    """A post with its annotations aggregated."""

    text: str  # cleaned, see `clean`
    source: str  # where it was written, such as t/founta
    biased: bool  # whether any annotator gave a stereotype; the aggregates' hasBiasedImplication is the opposite
    offensive: float | None  # mean level, 0 to 1; None where all annotations are blank
    groups: tuple[str, ...]  # distinct targeted groups as written, sorted
    annotations: tuple[Annotation, ...] = ()  # one per worker; empty for aggregates
    intended: float | None = None  # mean level of the intent to offend, 0 to 1; None where all are blank

    def content(self) -> list[Any]:
        """Return what a model is trained on or scored by, for a fingerprint."""
        return [self.text, self.biased, self.offensive, self.groups, self.intended]

    def as_seen_by(self, annotation: Annotation) -> Post:
        """Return the post as if this were its only annotation; groups stay, as they are known per post only."""
        names = {field.name for field in fields(annotation)} - {"worker"}
        return replace(self, annotations=(annotation,), **{name: getattr(annotation, name) for name in names})


@dataclass(frozen=True)
class Split:
    """The posts of a split and a report of what was dropped."""

    name: str
    posts: list[Post]
    report: DataReport

    def fingerprint(self) -> str:
        return fingerprint(post.content() for post in self.posts)


def load_splits(
    *,
    data_dir: Path | None = None,
    dataset_name: str | None = None,
    revision: str | None = None,
    view: View = "annotators",
    repeats: Repeats = "drop",
) -> dict[SplitName, Split]:
    """Load train, dev and test without overlap: a post in several splits stays in the last of them only.

    Args:
        data_dir: Folder with ``SBIC.v2.{trn,dev,tst}.csv`` or the ``agg`` files. Without it, read from the Hub.
        dataset_name: Per-annotator Hub dataset; :data:`HUB_DATASET` by default.
        revision: Its revision; defaults to the main branch, or to the Parquet conversion for :data:`HUB_DATASET`.
        view: Which of the two kinds of official files to read: ``annotators`` or ``aggregated``.
        repeats: A worker who names several groups has a row for each. ``drop`` counts such a worker once; ``keep`` counts
            every row, as the official aggregates do.
    """
    splits: dict[SplitName, Split] = {}
    seen: set[str] = set()
    for split in ("test", "dev", "train"):
        report = DataReport(f"SBIC {split}")
        if data_dir is None:
            name = dataset_name or HUB_DATASET
            at = revision or (HUB_REVISION if name == HUB_DATASET else None)
            from common.hub.table_download import HubSplit, download_table

            table = download_table(str(HubSplit(name, at, split=HUB_SPLITS[split])))
            located = _from_annotators(read_rows(table.path, ANNOTATOR_COLUMNS), report, repeats)
        elif view == "annotators":
            rows = read_rows(Path(data_dir) / f"SBIC.v2.{FILE_NAMES[split]}.csv", ANNOTATOR_COLUMNS)
            located = _from_annotators(rows, report, repeats)
        else:
            rows = read_rows(Path(data_dir) / f"SBIC.v2.agg.{FILE_NAMES[split]}.csv", AGGREGATED_COLUMNS)
            located = _from_aggregated(rows, report)
        posts = []
        for row, post in located:
            if not post.text:
                report.drop(row, "empty post")
            elif normalized(post.text) in seen:
                report.drop(row, "the post is in this or another split already")
            else:
                seen.add(normalized(post.text))
                posts.append(post)
        report.kept = len(posts)
        report.notes["posts with a biased implication"] = sum(post.biased for post in posts)
        report.notes["posts with a targeted group"] = sum(bool(post.groups) for post in posts)
        splits[split] = Split(split, posts, report)
    return {split: splits[split] for split in ("train", "dev", "test")}


def labeled(split: Split, label_of: Callable[[Post], Any]) -> list[Post]:
    """Return the posts of a split that have a label.

    Raises:
        UserError: No post has one.
    """
    posts = [post for post in split.posts if label_of(post) is not None]
    if not posts:
        raise UserError(f"the {split.name} split has no post with a label", expected="annotated posts")
    return posts


def clean(post: str) -> str:
    """Return a post on one line as a reader sees it: HTML entities decoded, white space collapsed.

    Mentions, links, punctuation, quotes and emoji are kept. Cleaning a cleaned post changes nothing.
    """
    # Tokenizers reject halves of surrogate pairs, and Python rejects numbers of thousands of digits.
    text = re.sub(r"[\ud800-\udfff]|&#[0-9]{1000,};?", "\ufffd", post)
    for _ in range(MAX_UNESCAPES):
        if (decoded := html.unescape(text)) == text:
            break
        text = decoded
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text).split())


def is_blank(post: str) -> bool:
    """Return whether a reader sees nothing: only white space and characters without a shape, such as zero-width ones."""
    start = post[:100]  # which suffices for nearly all: cleaning megabytes takes a while
    return ("&" in start or _shapeless(start)) and _shapeless(clean(post))


def _shapeless(text: str) -> bool:
    return all(c in SHAPELESS or unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zs", "Zl", "Zp") for c in text)


def normalized(post: str) -> str:
    """Return the text by which duplicate posts are recognized."""
    return clean(post).casefold()


def post_id(post: Post) -> str:
    """Return an id for a post whose text must not be shown."""
    return fingerprint([post.text])


def nearest_level(mean: float) -> float:
    """Return the level of :data:`LEVELS` nearest to a mean; 0.25 and 0.75 go to 0.5 ("maybe")."""
    return min(LEVELS, key=lambda level: (abs(level - mean), abs(level - 0.5)))


def _from_annotators(rows: Iterable[Row], report: DataReport, repeats: Repeats) -> list[tuple[Row, Post]]:
    """Group per-annotator rows by post, as the official aggregation does."""
    by_post: dict[str, list[tuple[Row, dict[str, str]]]] = {}
    for row in rows:
        report.read += 1
        values = {column: _text(row, column) for column in ANNOTATOR_COLUMNS}
        by_post.setdefault(values["post"], []).append((row, values))
    located, repeated, blank = [], 0, 0
    for text, group in by_post.items():
        levels: list[tuple[float | None, float | None]] = []
        workers: dict[tuple[str, str], Annotation] = {}
        for row, values in group:
            level = _number(row, "offensiveYN", values["offensiveYN"], among=LEVELS)
            intended = _intended(row, among=INTENT_LEVELS)
            key = (values["HITId"], values["WorkerId"])
            biased = bool(values["targetStereotype"].strip())
            repeated += key in workers
            if repeats == "keep":
                levels.append((level, intended))
            if key in workers:  # what a row leaves blank, another of the worker's may have
                known = workers[key]
                level = level if known.offensive is None else known.offensive
                intended = intended if known.intended is None else known.intended
                biased = biased or known.biased
            workers[key] = Annotation(key[1], level, biased, intended)
        if repeats == "drop":
            levels = [(annotation.offensive, annotation.intended) for annotation in workers.values()]
        blank += sum(level is None for level, _ in levels)
        post = Post(
            text=clean(text),
            source=group[0][1]["dataSource"],
            biased=any(annotation.biased for annotation in workers.values()),
            offensive=_mean([offensive for offensive, _ in levels]),
            groups=tuple(sorted({values["targetMinority"].strip() for _, values in group} - {""})),
            annotations=tuple(workers.values()),
            intended=_mean([intended for _, intended in levels]),
        )
        located.append((group[0][0], post))
    report.notes[f"(HIT, worker) repeats, {'counted once' if repeats == 'drop' else 'all counted'}"] = repeated
    report.notes["annotations with a blank offensiveYN"] = blank
    return located


def _from_aggregated(rows: Iterable[Row], report: DataReport) -> list[tuple[Row, Post]]:
    located = []
    for row in rows:
        report.read += 1
        values = {column: _text(row, column) for column in AGGREGATED_COLUMNS}
        stereotypes, groups = (_text_list(row, name, values[name]) for name in ("targetStereotype", "targetMinority"))
        _check_polarity(row, values["hasBiasedImplication"], stereotypes)
        post = Post(
            text=clean(values["post"]),
            source=values["dataSource"],
            biased=bool(stereotypes),
            offensive=_number(row, "offensiveYN", values["offensiveYN"]),
            groups=tuple(sorted(group.strip() for group in groups if group.strip())),
            intended=_intended(row),
        )
        located.append((row, post))
    return located


def _intended(row: Row, among: tuple[float, ...] = ()) -> float | None:
    return _number(row, INTENT, _text(row, INTENT), among) if INTENT in row.values else None


def _mean(levels: list[float | None]) -> float | None:
    known = [level for level in levels if level is not None]
    return sum(known) / len(known) if known else None


def _check_polarity(row: Row, flag: str, stereotypes: list[str]) -> None:
    """Check that 1 stands where *no* stereotype was given, as in the official files.

    A file of the other polarity would train the opposite label.
    """
    number = _number(row, "hasBiasedImplication", flag, among=(0.0, 1.0))
    if number != float(not stereotypes):
        raise row.error(
            f"{shown(flag)} with {len(stereotypes)} stereotypes",
            "hasBiasedImplication",
            expected="1 where targetStereotype is empty and 0 elsewhere, as in the official files",
            fix="use the official files, or invert the column",
        )


def _text(row: Row, column: str) -> str:
    value = row.values[column]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, (str, int, float)):
        raise row.error(f"{shown(value)} is not text", column, expected="text")
    return str(value)


def _number(row: Row, column: str, text: str, among: tuple[float, ...] = ()) -> float | None:
    if not text.strip():
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if (number not in among) if among else not 0 <= number <= 1:
        valid = ", ".join(f"{level:g}" for level in among) if among else "a number from 0 to 1"
        raise row.error(f"invalid value {shown(text)}", column, expected=f"{valid}, or nothing")
    return number


def _text_list(row: Row, column: str, text: str) -> list[str]:
    try:
        values = files.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise row.error(f"{shown(text)} is not a list", column, expected='a JSON list of strings, such as ["a", "b"]')
    return values
