"""Read people's votes and a model's labels from tables, with one rule for spellings, missing votes and repeated rows."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli.errors import UserError, counted, shown
from common.tables.label_exports import is_export, read_label_rows
from common.tables.reading import Row, read_rows, text_of

if TYPE_CHECKING:
    from common.stats.agreement import Scale

# How programs and people write that there is no vote, unless it is one of the labels.
MISSING = frozenset(("na", "n/a", "#n/a", "<na>", "nan", "null", "none"))
ANNOTATOR = "annotator"  # usual name of the column of people
MOST_LISTED = 8  # labels and spellings in a sentence


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
    spellings: dict[Any, Counter[str]] = field(default_factory=dict)  # label → how it is written → rows
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
    rows: Iterable[Row] | None = None,
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

        rows: The rows of the file, if they were read otherwise than by :func:`read_rows`.

    Raises:
        UserError: No rows, a cell that is not a label, an empty item or annotator, or two contradicting votes of one person.
    """
    votes, first = Votes(path, annotator is not None), {}
    labels = {folded(each) for each in known}
    for row in read_rows(path, [name for name in (item, annotator, label) if name]) if rows is None else rows:
        votes.rows += 1
        text = text_of(row, label)
        if text is None or not folded(text) or (folded(text) in MISSING and folded(text) not in labels):
            votes.missing[text or ""] += 1
            continue
        try:
            value = read(text)
        except (KeyError, ValueError):
            raise row.error(problem.format(shown(text)), label, expected=expected) from None
        who = str(row.number if anonymous else "")
        if annotator:
            who = _name(row, annotator, f"fill it in{', or remove the column' if anonymous else ''}")
        names = (_name(row, item, "fill it in, or leave the row's label empty"), who)
        given = votes.labels.setdefault(names[0], {})
        votes.spellings.setdefault(value, Counter())[text] += 1
        if names in first:
            votes.repeated += given[names[1]] == value
            value = unite(given[names[1]], value) if unite else value if given[names[1]] == value else None
            if value is None:
                raise _contradiction(row, label, names, text, *first[names])
        given[names[1]] = value
        first.setdefault(names, (text, f"line {row.line}" if row.line is not None else f"row {row.number}"))
    if not votes.rows:
        raise UserError("no rows", file=path, expected="at least one below the header")
    return votes


def _contradiction(row: Row, column: str, names: tuple[str, str], text: str, before: str, place: str) -> UserError:
    item, annotator = names
    by, each = (f" by annotator {shown(annotator)}", "item and annotator") if annotator else ("", "item")
    problem = f"item {shown(item)}{by} is labeled {shown(text)} here and {shown(before)} in an earlier row ({place})"
    return row.error(problem, column, expected=f"one label per {each}", fix="keep the row that is right")


def _name(row: Row, column: str, fix: str) -> str:
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

    def of_people() -> Iterable[Row]:
        return read_label_rows(annotations, label, needed)

    shared = set()
    if not scale.is_number:
        shared = _missing_words(of_people(), label) & _missing_words(read_rows(predictions, (prediction,)), prediction)
    read = places.__getitem__ if places else scale.read
    settings = {
        "read": (lambda text: read(folded(text) if places else text)) if scale.is_number else folded,
        "known": (*map(str, scale.order), *shared),
        "problem": "label {} is not on this scale",
        "expected": scale.expected,
    }
    people = read_votes(annotations, item=item, annotator=annotator, label=label, rows=of_people(), **settings)
    model = read_votes(predictions, item=item, label=prediction, **settings)
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


def _missing_words(rows: Iterable[Row], column: str) -> set[str]:
    return MISSING & {folded(text) for row in rows if (text := text_of(row, column))}


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
