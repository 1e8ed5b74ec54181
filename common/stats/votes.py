"""Read people's votes and a model's labels from tables, with one rule for spellings, missing votes and repeated rows."""

from __future__ import annotations

import functools
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli.console import log
from common.cli.errors import UserError, counted, file_name, shown
from common.tables.label_exports import is_export, read_label_rows
from common.tables.reading import Row, read_rows, text_of

if TYPE_CHECKING:
    from common.stats.scale import Scale

# How programs and people write that there is no vote, unless it is one of the labels.
MISSING = frozenset(("na", "n/a", "#n/a", "<na>", "nan", "null", "none"))
ANNOTATOR = "annotator"  # usual name of the column of people
LOGGED = 500_000  # rows between two lines that say how many were read
MOST_LISTED = 8  # labels and spellings in a sentence


@functools.lru_cache(maxsize=4096)  # a table repeats its labels
def folded(label: str) -> str:
    """Return what tells labels apart: neither case nor spaces, invisible characters or how Unicode composes a letter."""
    visible = "".join(c for c in unicodedata.normalize("NFC", label) if unicodedata.category(c) != "Cf")
    return " ".join(visible.casefold().split())


@dataclass
class Votes:
    """The votes in a file, each person's on an item once."""

    path: Path
    named: bool = True  # whether the file says who voted; otherwise every row is another person's
    labels: dict[str, dict[str, Any]] = field(default_factory=dict)  # item → annotator → label
    rows: int = 0
    missing: Counter[str] = field(default_factory=Counter)  # cells without a vote, as written; "" where empty
    repeated: int = 0  # rows that repeat a person's earlier one, which count once
    # Label → how it is written → rows.
    spellings: dict[Any, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    remarks: list[str] = field(default_factory=list)  # of who reads them

    @property
    def is_odd(self) -> bool:
        """Whether rows were read otherwise than their author may expect; empty cells are usual."""
        return bool(self.repeated or any(self.missing) or any(len(each) > 1 for each in self.spellings.values()))

    def notes(self) -> list[str]:
        """Describe what was skipped, counted once or taken for one label; nothing if every row is a vote."""
        named = any(self.missing)
        written = _listed({name or "empty": count for name, count in self.missing.items() if name or named})
        skipped = {
            f"without a label{f' ({written})' if written else ''}, skipped": self.missing.total(),
            "repeating an earlier row, counted once": self.repeated,
        }
        words = [f"{count:,} {what}" for what, count in skipped.items() if count]
        notes = [f"Of {counted(self.rows, 'row')} in {self.path.name}: {'; '.join(words)}."] if words else []
        merged = [_listed(each) for each in self.spellings.values() if len(each) > 1]
        notes += [f"Spellings of one label in {self.path.name}: {'; '.join(merged)}."] if merged else []
        return notes + self.remarks

    def counts(self) -> Counter[Any]:
        """Return how many votes each label has."""
        return Counter(label for votes in self.labels.values() for label in votes.values())


def _listed(counts: dict[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    listed = [f"{printed(name)} {count:,}" for name, count in ordered[:MOST_LISTED]]
    return ", ".join([*listed, *([f"{len(ordered) - MOST_LISTED:,} more"] if len(ordered) > MOST_LISTED else [])])


def printed(label: Any) -> str:
    """Format a label for a sentence: whole numbers without .0, long texts cut."""
    text = str(label).removesuffix(".0") if isinstance(label, float) else str(label)
    return text if len(text) <= 40 else f"{text[:40]}…"


def read_votes(
    path: Path,
    *,
    item: str,
    label: str,
    annotator: str | None = None,
    anonymous: bool = False,
    read: Callable[[str], Any] = folded,
    known: Collection[str] = (),
    problem: str = "unknown label {}",
    expected: str = "a label",
    unite: Callable[[Any, Any], Any] | None = None,
    rows: Callable[[], Iterable[Row]] | None = None,
) -> Votes:
    """Read a table with one vote per row.

    Args:
        path: The file.
        item: Column that names what is labeled; ``label`` is that of the labels.
        annotator: Column that names the person; None where there is none.
        anonymous: Without it, whether every row is another person's; otherwise all rows are by one model.
        read: Returns a cell's label; raises ValueError or KeyError for a text that is not one.
        known: Labels that are labels even where they look like a missing vote, as "none".
        problem: What is wrong with such a text, which replaces ``{}``; ``expected`` says what should be there.
        unite: Combines two rows of one person where both hold (lists); returns None where they contradict each other.
        rows: Reads the file's rows, if otherwise than :func:`read_rows`.

    Raises:
        UserError: No rows, a cell that is not a label, an empty item or annotator, or two contradicting votes of one person.
    """
    votes, labels = Votes(path, annotator is not None), {folded(each) for each in known}
    read_file = rows or functools.partial(read_rows, path, [name for name in (item, annotator, label) if name])
    names_of = functools.partial(_names, item=item, annotator=annotator, anonymous=anonymous)
    for row in read_file():
        votes.rows += 1
        if votes.rows % LOGGED == 0:
            log(f"{file_name(path)}: {votes.rows:,} rows")
        text = text_of(row, label)
        if not _is_vote(text, labels):
            votes.missing[text or ""] += 1
            continue
        try:
            value = read(text)
        except (KeyError, ValueError):
            raise row.error(problem.format(shown(text)), label, expected=expected) from None
        name, who = names_of(row)
        given = votes.labels.setdefault(name, {})
        votes.spellings[value][text] += 1
        if who in given:
            votes.repeated += given[who] == value
            value = unite(given[who], value) if unite else value if given[who] == value else None
            if value is None:
                # Reading the file again costs less memory than keeping every vote's place.
                before = (each for each in read_file() if _is_vote(text_of(each, label), labels))
                earlier = next(each for each in before if names_of(each) == (name, who))
                raise _contradiction(row, earlier, label, name, who if annotator else "")
        given[who] = value
    if not votes.rows:
        raise UserError("no rows", file=path, expected="at least one below the header")
    return votes


def _is_vote(text: str | None, labels: Collection[str]) -> bool:
    name = folded(text or "")
    return bool(name) and (name not in MISSING or name in labels)


def _names(row: Row, *, item: str, annotator: str | None, anonymous: bool) -> tuple[str, str]:
    """Return the names of a row's item and person."""
    who = str(row.number if anonymous else "")
    if annotator:
        column = annotator if annotator in row.values else ANNOTATOR  # where exports and folders name people
        fix = "remove the column" if anonymous else "give a folder with a file for each person"
        who = _name(row, column, f"fill it in, or {fix}")
    return _name(row, item, "fill it in, or leave the row's label empty"), sys.intern(who)


def _contradiction(row: Row, earlier: Row, column: str, item: str, annotator: str) -> UserError:
    place = f"line {earlier.line}" if earlier.line is not None else f"row {earlier.number}"
    by, each = (f" by annotator {shown(annotator)}", "item and annotator") if annotator else ("", "item")
    now, before = shown(text_of(row, column)), shown(text_of(earlier, column))
    problem = f"item {shown(item)}{by} is labeled {now} here and {before} in an earlier row ({place})"
    return row.error(problem, column, expected=f"one label per {each}", fix="keep the row that is right")


def _name(row: Row, column: str, fix: str) -> str:
    if column not in row.values:  # of a record: rows of a table have it
        raise row.error("missing", column, expected="a name or number", fix=fix)
    name = text_of(row, column)
    if name is None:
        raise row.error("empty", column, expected="a name or number", fix=fix)
    return name


def read_tables(
    annotations: Path, predictions: Path, scale: Scale, *, item: str, annotator: str, label: str, prediction: str
) -> tuple[Votes, Votes, list[str]]:
    """Read people's votes and a model's labels, each label in its most frequent spelling, with notes on both files.

    People's are a table, an export of a labeling tool or a folder with a file for each person (:func:`read_label_rows`). Without an
    order of labels, a word for a missing vote that both files use is a label.
    """
    places = {folded(str(each)): each for each in scale.order}
    if len(places) < len(scale.order):
        raise UserError("labels that differ only in case or spaces", key="--order", expected="different labels")
    needed = (item,) if annotations.is_dir() or is_export(annotations) else (item, annotator)
    read = places.__getitem__ if places else scale.read
    settings = {
        "read": (lambda text: read(folded(text) if places else text)) if scale.is_number else folded,
        "problem": "label {} is not on this scale",
        "expected": scale.expected,
    }

    def both(known: Collection[str]) -> tuple[Votes, Votes]:
        rows = functools.partial(read_label_rows, annotations, label, needed)
        people = read_votes(
            annotations, item=item, annotator=annotator, label=label, rows=rows, known=known, **settings
        )
        return people, read_votes(predictions, item=item, label=prediction, known=known, **settings)

    people, model = both(tuple(map(str, scale.order)))
    shared = set()
    if not scale.is_number:
        shared = {folded(text) for text in people.missing} & {folded(text) for text in model.missing} & MISSING
    if shared:
        people, model = both(shared)
    if not scale.is_number:
        _rename(people, model)
    listed = (people, model) if scale.name != "real" else ()
    notes = [f"Labels in {votes.path.name}: {_listed(votes.counts())}." for votes in listed if votes.labels]
    notes += [f"{shown(word)} is in both files, so it counts as a label." for word in sorted(shared)]
    unmatched = [name for name in people.labels if name not in model.labels]
    if 2 * len(unmatched) > len(people.labels):
        notes.append(
            f"Most items match no prediction: {examples(people.labels, annotations, model.labels, predictions)}."
        )
    return people, model, [*notes, *people.notes(), *model.notes()]


def _rename(people: Votes, model: Votes) -> None:
    """Give the labels in both tables their most frequent spelling among people, or else of the model."""
    names = {
        label: min(spelled, key=lambda text: (-spelled[text], text))
        for label, spelled in (model.spellings | people.spellings).items()
    }
    for votes in (people, model):
        for given in votes.labels.values():
            given.update({who: names[label] for who, label in given.items()})


def examples(ours: Iterable[str], path: Path, theirs: Iterable[str], other: Path) -> str:
    """Name an id of each file that the other lacks: they may be written differently, as 1 and 1.0."""
    ours, theirs = dict.fromkeys(ours), dict.fromkeys(theirs)
    first, second = (
        next((name for name in each if name not in rest), next(iter(each), None))
        for each, rest in ((ours, theirs), (theirs, ours))
    )
    return f"compare {shown(first)} in {path.name} with {shown(second)} in {other.name}"
