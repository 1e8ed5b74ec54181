"""SBIC v2: posts with what their annotators said, from per-annotator CSVs, official aggregates, or the Hub's Parquet files."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from common.cli.errors import UserError, shown
from common.runtime import files
from common.tables.reading import Row, read_hub_rows, read_rows
from common.tables.report import DataReport, fingerprint

SplitName = Literal["train", "dev", "test"]
View = Literal["annotators", "aggregated"]
Repeats = Literal["drop", "keep"]

FILE_NAMES = {"train": "trn", "dev": "dev", "test": "tst"}
HUB_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
HUB_DATASET = "allenai/social_bias_frames"
HUB_REVISION = "refs/convert/parquet"  # the dataset itself is a script, which nothing runs any more
MOST_ESCAPED = 10  # times that a post may have been escaped; some of the corpus were twice
LEVELS = (0.0, 0.5, 1.0)  # offensiveYN: no, maybe, yes
INTENT = "intentYN"  # read where it is: files in the corpus's format may lack it
INTENT_LEVELS = (0.0, 0.33, 0.66, 1.0)  # no, probably not, probably, yes

ANNOTATOR_COLUMNS = ("post", "offensiveYN", "targetMinority", "targetStereotype", "dataSource", "WorkerId", "HITId")
AGGREGATED_COLUMNS = ("post", "offensiveYN", "targetMinority", "targetStereotype", "dataSource", "hasBiasedImplication")


@dataclass(frozen=True)
class Annotation:
    """What one worker said of a post: the levels of offence and of its intent (None: blank), and whether a stereotype was given."""

    worker: str
    offensive: float | None
    biased: bool
    intended: float | None = None


@dataclass(frozen=True)
class Post:
    """A post and its annotations put together.

    Attributes:
        text: The post as :func:`clean` gives it.
        source: Where it was written, as ``t/founta``.
        biased: Whether any annotator gave a stereotype. (The aggregates' ``hasBiasedImplication`` is the opposite.)
        offensive: Mean level over annotations, 0 to 1; None where all are blank.
        groups: The distinct targeted groups as written, sorted.
        annotations: One a worker; empty for aggregates.
        intended: Mean level of the intent to offend, 0 to 1; None where all are blank.
    """

    text: str
    source: str
    biased: bool
    offensive: float | None
    groups: tuple[str, ...]
    annotations: tuple[Annotation, ...] = ()
    intended: float | None = None

    def as_seen_by(self, annotation: Annotation) -> Post:
        """The post as if this were its only annotation; groups stay, for they are known of posts only."""
        said = {"biased": annotation.biased, "offensive": annotation.offensive, "intended": annotation.intended}
        return replace(self, annotations=(annotation,), **said)


@dataclass(frozen=True)
class Split:
    """The posts of a split, and what was dropped on the way."""

    name: str
    posts: list[Post]
    report: DataReport

    def fingerprint(self) -> str:
        return fingerprint([post.text, post.biased, post.offensive, post.groups, post.intended] for post in self.posts)


def load_splits(
    *,
    data_dir: Path | None = None,
    dataset_name: str | None = None,
    revision: str | None = None,
    view: View = "annotators",
    repeats: Repeats = "drop",
) -> dict[SplitName, Split]:
    """Loads train, dev and test, and drops from train, then from dev, the posts that a later split holds too.

    Args:
        data_dir: Folder of ``SBIC.v2.{trn,dev,tst}.csv`` or of the ``agg`` files; without it the Hub dataset is read.
        dataset_name: Hub dataset, per annotator; :data:`HUB_DATASET` by default.
        revision: Its revision; by default the main branch, of :data:`HUB_DATASET` the Parquet conversion.
        view: ``annotators`` or ``aggregated``, the two kinds of official files.
        repeats: A worker who names several groups has a row for each. ``drop`` counts that worker once; ``keep`` counts every
            row, as the official aggregates do.

    Raises:
        UserError: A file, column or value that is not SBIC's, with its line.
    """
    splits: dict[SplitName, Split] = {}
    seen: set[str] = set()
    for split in ("test", "dev", "train"):
        report = DataReport(f"SBIC {split}")
        if data_dir is None:
            name = dataset_name or HUB_DATASET
            at = revision or (HUB_REVISION if name == HUB_DATASET else None)
            rows = read_hub_rows(name, HUB_SPLITS[split], ANNOTATOR_COLUMNS, revision=at)
            located = _from_annotators(rows, report, repeats)
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
    """The posts of a split that have a label.

    Raises:
        UserError: There is none.
    """
    posts = [post for post in split.posts if label_of(post) is not None]
    if not posts:
        raise UserError(f"the {split.name} split has no post with a label", expected="annotated posts")
    return posts


def clean(post: str) -> str:
    """A post as a reader sees it, on one line: HTML entities decoded, every line break and run of spaces one space.

    Words stay apart and nothing that carries meaning goes: mentions, links, punctuation, quotes and emoji stay. What is clean
    already stays as it is.
    """
    # Halves of surrogate pairs no tokenizer takes, numbers of thousands of digits Python does not.
    text = re.sub(r"[\ud800-\udfff]|&#[0-9]{1000,};?", "\ufffd", post)
    for _ in range(MOST_ESCAPED):
        if (decoded := html.unescape(text)) == text:
            break
        text = decoded
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text).split())


def normalized(post: str) -> str:
    """Text by which two posts count as the same post."""
    return clean(post).casefold()


def nearest_level(mean: float) -> float:
    """The level of :data:`LEVELS` nearest to a mean; 0.25 and 0.75 go to 0.5 ("maybe")."""
    return min(LEVELS, key=lambda level: (abs(level - mean), abs(level - 0.5)))


def _from_annotators(rows: Iterable[Row], report: DataReport, repeats: Repeats) -> list[tuple[Row, Post]]:
    """Groups per-annotator rows by post, as the official aggregation does."""
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
            if key not in workers or repeats == "keep":
                levels.append((level, intended))
                blank += level is None
            repeated += key in workers
            known = workers.get(key)
            workers[key] = Annotation(key[1], level, biased or (known is not None and known.biased), intended)
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
        stereotypes, groups = (
            _text_list(row, column, values[column]) for column in ("targetStereotype", "targetMinority")
        )
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


def _mean(given: list[float | None]) -> float | None:
    known = [one for one in given if one is not None]
    return sum(known) / len(known) if known else None


def _check_polarity(row: Row, flag: str, stereotypes: list[str]) -> None:
    """Official files have 1 where *no* stereotype was given. A file that says otherwise would train the opposite."""
    number = _number(row, "hasBiasedImplication", flag, among=(0.0, 1.0))
    if number != float(not stereotypes):
        raise row.error(
            f"{shown(flag)} with {len(stereotypes)} stereotypes",
            "hasBiasedImplication",
            expected="1 where targetStereotype is empty and 0 where it is not, as in the official files",
            fix="use the official files, or invert the column",
        )


def _text(row: Row, column: str) -> str:
    value = row.values[column]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, (str, int, float)):
        raise row.error(f"{shown(value)} is no text", column, expected="text")
    return str(value)


def _number(row: Row, column: str, text: str, among: tuple[float, ...] = ()) -> float | None:
    if not text.strip():
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if (number not in among) if among else not 0 <= number <= 1:
        wanted = ", ".join(f"{level:g}" for level in among) if among else "a number from 0 to 1"
        raise row.error(f"{shown(text)} does not fit", column, expected=f"{wanted}, or nothing")
    return number


def _text_list(row: Row, column: str, text: str) -> list[str]:
    wrong: UserError = row.error(f"{shown(text)} is no list", column, expected='a JSON list of texts, as ["a", "b"]')
    try:
        values = files.loads(text)
    except ValueError:
        raise wrong from None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise wrong
    return values


def post_id(post: Post) -> str:
    """What stands for a post where its text must not."""
    return fingerprint([post.text])


# Invented groups → the names that annotators write for them.
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
