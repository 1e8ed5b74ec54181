"""Read a table of one's own with people's labels, and divide its texts into train, dev and test."""

from __future__ import annotations

import difflib
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.cli.errors import UserError, counted, shown
from common.stats.votes import folded
from common.tables.label_exports import ANNOTATOR, is_export, label_columns, read_label_rows
from common.tables.reading import Row, read_rows, text_of
from common.tables.report import DataReport
from sbic_llama.data.codebook import Codebook, missing_words, names_of
from sbic_llama.data.corpus import Split, SplitName, clean, is_blank, normalized
from sbic_llama.data.features import feature_of
from sbic_llama.data.groups import NONE, split_groups
from sbic_llama.data.near_duplicates import clusters

SPLITS: tuple[SplitName, ...] = ("train", "dev", "test")
SHARES = {"train": 0.7, "dev": 0.15, "test": 0.15}
FEWEST = 10  # items of a label: with fewer, a split has one or none
REPEATS = "rows that repeat a person's label, counted once"
WORDS = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "validation": "dev",
    "valid": "dev",
    "val": "dev",
    "test": "test",
}


@dataclass(frozen=True)
class Vote:
    """One person's label of a text."""

    worker: str
    label: Any  # index of a label, or a sorted tuple of names


@dataclass(frozen=True)
class Item:
    """A text with its labels, which features read as they read a post of SBIC."""

    text: str  # cleaned
    label: Any  # of all votes, see `Codebook.combine`; None where nobody labeled it
    annotations: tuple[Vote, ...] = ()
    group: str = ""
    split: SplitName | None = None  # as the table has it

    def as_seen_by(self, vote: Vote) -> Item:
        """Return the item as if this were its only vote."""
        return replace(self, annotations=(vote,), label=vote.label)

    def content(self) -> list[Any]:
        """Return what a model is trained on or scored by, for a fingerprint."""
        return [self.text, self.label]


def load_table(path: Path, codebook: Codebook) -> tuple[DataReport, dict[SplitName, Split]]:
    """Read a table and divide its texts; see :func:`read_items` and :func:`divide`.

    Returns:
        What was read of the table, and the splits.
    """
    items, report = read_items(path, codebook)
    parts = divide(items, codebook, path, report)
    _check_splits(parts, codebook, path)
    return report, {name: as_split(name, parts[name], codebook, f"{path.name} {name}") for name in SPLITS}


def as_split(name: SplitName, items: list[Item], codebook: Codebook, title: str) -> Split:
    """Return items as a split whose report, of that title, counts their labels."""
    report = DataReport(title, read=len(items), kept=len(items))
    for index, label in enumerate(codebook.labels):
        report.notes[label] = sum(_has(item, index, label) for item in items)
    return Split(name, items, report)


def read_items(path: Path, codebook: Codebook, *, whole: bool = True) -> tuple[list[Item], DataReport]:
    """Read a table with a row per label, or per item, into items in the order of their first rows.

    Only the ``whole`` of the labels needs some of each.

    Raises:
        UserError: A label that the codebook lacks, an item with two texts or groups, two labels of one person for an item, a
            class with fewer than :data:`FEWEST` items, or no labels at all.
    """
    codebook = _as_exported(codebook, path)
    columns, report = codebook.columns, DataReport(path.name)
    wanted = [*columns.texts.columns, columns.label, columns.annotator, columns.item, columns.group, columns.split]
    first: dict[tuple[str, ...], Row] = {}
    votes: dict[tuple[str, ...], dict[str, Any]] = {}
    unknown: Counter[str] = Counter()
    first_unknown: Row | None = None
    spelled = 0
    reader = _Labels(codebook)
    for row in _rows(path, [name for name in wanted if name is not None], columns.label):
        report.read += 1
        text = _text(row, codebook)
        if text is None:
            report.drop(row, "no text")
            continue
        cell = text_of(row, columns.label)
        if cell is None or not folded(cell) or folded(cell) in reader.missing:
            report.drop(row, "no label")
            continue
        if strange := reader.unknown(cell):
            unknown.update(strange)
            first_unknown = first_unknown or row
            continue
        label = reader.read(cell)
        spelled += reader.differs(cell, label)
        key = _key(row, text, codebook)
        _check_same(first.setdefault(key, row), row, codebook)
        _add_vote(votes.setdefault(key, {}), row, label, codebook, report)
    if unknown and first_unknown is not None:
        raise reader.error(first_unknown, unknown, columns.label)
    if spelled:
        report.notes["labels written with other case or spaces"] = spelled
    items = [_item(row, votes[key], codebook) for key, row in first.items()]
    report.kept = report.read - sum(report.dropped.values())
    report.notes["texts"] = len(items)
    if whole:
        _check_counts(items, codebook, path)
    _note_people(items, codebook, report)
    return items, report


def _text(row: Row, codebook: Codebook) -> str | None:
    """Return a row's text, cleaned; None if there is none, or if one of several is missing."""
    texts = codebook.columns.texts
    cells = {column: text_of(row, column) or "" for column in texts.columns}
    return None if any(map(is_blank, cells.values())) else clean(texts.read(cells))


def _as_exported(codebook: Codebook, path: Path) -> Codebook:
    """Return a codebook whose columns of labels and people are those of a labeling tool's export, if the file is one.

    A table in JSON Lines whose labels are lists looks like one, and may have the codebook's own column of people.
    """
    if not path.exists() or not (path.is_dir() or is_export(path)):
        return codebook
    columns = replace(codebook.columns, label=codebook.name)
    given = () if path.is_dir() else label_columns(path)
    if ANNOTATOR in given or columns.annotator not in given:
        columns = replace(columns, annotator=ANNOTATOR)
    return replace(codebook, columns=columns)


def _rows(path: Path, columns: Sequence[str], label: str) -> Iterator[Row]:
    try:
        if path.is_dir() or is_export(path):
            rows = read_label_rows(path, label, [name for name in columns if name not in (label, ANNOTATOR)])
            yield from (replace(row, values={ANNOTATOR: None} | row.values) for row in rows)
            return
        yield from read_rows(path, columns)
    except UserError as error:
        if error.problem.startswith("missing column"):
            error.fix = "write the names of the table's columns under `columns` in the codebook"
        raise


def _key(row: Row, text: str, codebook: Codebook) -> tuple[str, ...]:
    """Return what tells items apart: the id or, without ids, the text with its group and split."""
    columns = codebook.columns
    if columns.item is None:  # two authors may write the same: that is two texts
        others = (columns.group, columns.split)
        return (normalized(text), *(text_of(row, column) or "" for column in others if column))
    key = text_of(row, columns.item)
    if key is None:
        raise row.error("empty", columns.item, expected="the id of the text", fix="fill it in, or drop the column")
    return (key,)


def _add_vote(given: dict[str, Any], row: Row, label: Any, codebook: Codebook, report: DataReport) -> None:
    """Add a row's label to those of its item; lists of one person are united."""
    columns, lists = codebook.columns, codebook.text or codebook.multi_label
    who = (text_of(row, columns.annotator) if columns.annotator else None) or f"row {row.number}"
    if codebook.multi_label and columns.annotator is None and given:
        fix = "put its labels into one cell, or name the column of annotators under columns.annotator in the codebook"
        raise row.error("a further row of an item, and nothing says whose", columns.label, expected="one row", fix=fix)
    if who in given:
        if given[who] != label and not lists:
            problem = f"{shown(who)} labeled the same item as {shown(feature_of(codebook).answer(given[who]))} before"
            fix = "correct one of the two rows"
            raise row.error(problem, columns.label, expected="one label of a person for each item", fix=fix)
        if codebook.multi_label and bool(given[who]) != bool(label):
            problem = f"{shown(who)} gave the same item both labels and {NONE}"
            raise row.error(problem, columns.label, expected="labels or none", fix="correct one of the two rows")
        if not codebook.multi_label or given[who] == label:
            report.notes[REPEATS] = report.notes.get(REPEATS, 0) + 1
        label = tuple(sorted({*given[who], *label})) if lists else label
    given[who] = label


def _note_people(items: Sequence[Item], codebook: Codebook, report: DataReport) -> None:
    """Note how many people labeled, and whether their agreement can be measured."""
    people = {vote.worker for item in items for vote in item.annotations}
    if not codebook.columns.annotator and any(len(item.annotations) > 1 for item in items):
        report.notes["rows, each taken for another person's label: the codebook names no annotator column"] = (
            report.read
        )
    if codebook.columns.annotator:
        alone = " (a single one: agreement between people can't be measured)" if len(people) == 1 else ""
        report.notes[f"annotators{alone}"] = len(people)
    if ties := sum(codebook.ties([vote.label for vote in item.annotations]) for item in items):
        report.notes["texts with equally many of two labels: the first in the codebook counts"] = ties
    shared = sum(len(item.annotations) > 1 for item in items)
    none = "" if shared or len(people) == 1 else ": agreement between people can't be measured"
    report.notes[f"texts with labels of several people{none}"] = shared


class _Labels:
    """Reads labels as a table writes them."""

    def __init__(self, codebook: Codebook):
        self._codebook = codebook
        self._places = {folded(label): index for index, label in enumerate(codebook.labels)}
        if codebook.multi_label:
            names = {label: name for name, label in names_of(codebook.labels).items()}
            self._places = {names[label]: index for index, label in enumerate(codebook.labels)}
        self._labels = list(codebook.labels)
        self.missing = missing_words(codebook)

    def unknown(self, cell: str) -> list[str]:
        """Return the labels of a cell that the codebook lacks."""
        if self._codebook.multi_label:
            return [name for name in split_groups(cell) if name not in self._places]
        return [] if self._codebook.text or folded(cell) in self._places else [cell]

    def read(self, cell: str) -> Any:
        if self._codebook.multi_label:
            return tuple(sorted(self._labels[self._places[name]] for name in split_groups(cell)))
        return split_groups(cell) if self._codebook.text else self._places[folded(cell)]

    def differs(self, cell: str, label: Any) -> bool:
        return isinstance(label, int) and cell != self._labels[label]

    def error(self, row: Row, unknown: Counter[str], column: str) -> UserError:
        listed = []
        for cell, count in unknown.most_common(5):
            close = difflib.get_close_matches(folded(cell), list(self._places), n=1)
            nearest = f", nearest is {self._labels[self._places[close[0]]]!r}" if close else ""
            listed.append(f"{shown(cell, 40)} {count:,}{nearest}")
        more = f"; {len(unknown) - 5:,} more" if len(unknown) > 5 else ""
        problem = f"the codebook lacks {counted(len(unknown), 'label')} of the table ({'; '.join(listed)}{more})"
        fix = "correct the table, or add the labels to the codebook"
        return row.error(problem, column, expected=", ".join(self._labels), fix=fix)


def _check_same(earlier: Row, row: Row, codebook: Codebook) -> None:
    """Check that the rows of an item have one text, one group and one split."""
    columns = codebook.columns
    texts = [(column, normalized) for column in columns.texts.columns]
    for column, read in (*texts, (columns.group, clean), (columns.split, clean)):
        if column and read(text_of(row, column) or "") != read(text_of(earlier, column) or ""):
            before = f"line {earlier.line}" if earlier.line is not None else f"row {earlier.number}"
            problem = f"another value than in an earlier row of this item ({before})"
            raise row.error(problem, column, expected="the same in all rows of an item", fix="check the ids of items")


def _item(row: Row, votes: dict[str, Any], codebook: Codebook) -> Item:
    columns, split = codebook.columns, None
    if columns.split:
        word = text_of(row, columns.split) or ""
        split = WORDS.get(word.casefold())
        if split is None:
            raise row.error(f"unknown split {shown(word)}", columns.split, expected="train, dev or test")
    group = (text_of(row, columns.group) if columns.group else None) or ""
    given = tuple(Vote(who, label) for who, label in votes.items())
    text = _text(row, codebook) or ""
    return Item(text, codebook.combine([vote.label for vote in given]), given, group, split)


def _check_counts(items: Sequence[Item], codebook: Codebook, path: Path) -> None:
    column = codebook.columns.label
    if not items:
        raise UserError("no labels", file=path, column=column, expected="texts with labels")
    counts = {label: sum(_has(item, i, label) for item in items) for i, label in enumerate(codebook.labels)}
    few = [f"{count} of {shown(label)}" for label, count in counts.items() if count < FEWEST]
    if few:
        more = f" and {len(few) - 5:,} more labels" if len(few) > 5 else ""
        problem = f"too few items with labels: {', '.join(few[:5])}{more}"
        fix = "label more texts, or remove the label from the codebook"
        raise UserError(problem, file=path, column=column, expected=f"at least {FEWEST} of each label", fix=fix)
    if codebook.text and len(items) < 3 * FEWEST:
        problem = counted(len(items), "item")
        raise UserError(problem, file=path, column=column, expected=f"at least {3 * FEWEST} with labels")


def _check_splits(parts: dict[SplitName, list[Item]], codebook: Codebook, path: Path) -> None:
    """Check that every split has items of every label."""
    for name, items in parts.items():
        if not items:
            fix = "use a finer group column, or name the splits"
            raise UserError(f"the split {name} has no text", file=path, expected="some", fix=fix)
        for index, label in enumerate(codebook.labels):
            if not any(_has(item, index, label) for item in items):
                column = codebook.columns.split
                fix = "name the splits otherwise" if column else "label more texts, or use a finer group column"
                problem = f"the split {name} has no item of {shown(label)}"
                raise UserError(problem, file=path, column=column, expected="some of each label", fix=fix)


def _has(item: Item, index: int, label: str) -> bool:
    """Return whether an item has a label of the codebook."""
    return label in item.label if isinstance(item.label, tuple) else item.label == index


def divide(items: Sequence[Item], codebook: Codebook, path: Path, report: DataReport) -> dict[SplitName, list[Item]]:
    """Divide items into train, dev and test: as the table has it, or by a draw stratified by label.

    Items of one group, and near duplicates, stay together in a draw. Where the table names the splits, an item whose near
    duplicate is in a later split is dropped from the earlier one.
    """
    together = clusters([item.text for item in items], [item.group for item in items])
    largest = Counter(together).most_common(1)[0][1]
    report.notes["texts that stay together with others (equal group, or near duplicates)"] = int(
        sum(count for count in Counter(together).values() if count > 1)
    )
    if codebook.columns.split:
        parts = _as_given(items, together, path, report)
        report.notes["texts"] = sum(map(len, parts.values()))
        return parts
    if largest > 0.5 * len(items):
        problem = f"{largest:,} of {counted(len(items), 'text')} belong together, by their group or as near duplicates"
        raise UserError(
            problem, file=path, expected="at most a half", fix="use a finer group column, or name the splits"
        )
    split_of = _drawn(items, together, codebook)
    return {name: [i for i, part in zip(items, together, strict=True) if split_of[part] == name] for name in SPLITS}


def _strata(items: Sequence[Item], codebook: Codebook) -> list[int]:
    """Return what the draw is stratified by: the label; of several, the rarest; of names, whether there are any."""
    if not codebook.multi_label:
        return [item.label if isinstance(item.label, int) else int(bool(item.label)) for item in items]
    counts = Counter(label for item in items for label in item.label)
    by_rarity = sorted(codebook.labels, key=lambda label: counts[label])
    return [min(map(by_rarity.index, item.label), default=len(by_rarity)) for item in items]


def _drawn(items: Sequence[Item], together: Sequence[int], codebook: Codebook) -> dict[int, SplitName]:
    """Draw a split for each set of items that stay together, so that each split has its share of each label.

    Rare labels go first, large sets before small ones, and each set to the split that lacks most of its label (Sechidis et al.
    2011). A hash of the texts is the draw: the order of the rows does not matter, nor does the version of a library.
    """
    strata = _strata(items, codebook)
    members: dict[int, list[int]] = defaultdict(list)
    for index, part in enumerate(together):
        members[part].append(index)
    order = {part: (-len(each), min(_draw(items[index].text) for index in each)) for part, each in members.items()}
    totals = Counter(strata)
    lacking = {name: {label: share * total for label, total in totals.items()} for name, share in SHARES.items()}
    split_of: dict[int, SplitName] = {}
    for label in sorted(totals, key=lambda label: (totals[label], label)):
        having = {together[index] for index, stratum in enumerate(strata) if stratum == label} - set(split_of)
        for part in sorted(having, key=order.__getitem__):
            name = max(SPLITS, key=lambda name: (lacking[name][label], sum(lacking[name].values())))
            split_of[part] = name
            for index in members[part]:
                lacking[name][strata[index]] -= 1
    return split_of


def _draw(text: str) -> bytes:
    return hashlib.sha256(normalized(text).encode()).digest()


def _as_given(
    items: Sequence[Item], together: Sequence[int], path: Path, report: DataReport
) -> dict[SplitName, list[Item]]:
    parts: dict[SplitName, list[Item]] = {name: [] for name in SPLITS}
    later: set[int] = set()
    for name in reversed(SPLITS):
        here = [index for index, item in enumerate(items) if item.split == name]
        kept = [index for index in here if together[index] not in later]
        if len(kept) < len(here):
            report.dropped[f"{name}: its group or a near duplicate is in a later split"] = len(here) - len(kept)
            report.first_dropped[f"{name}: its group or a near duplicate is in a later split"] = path.name
        later |= {together[index] for index in here}
        parts[name] = [items[index] for index in kept]
        if not parts[name]:
            left = ", when those with a near duplicate or their group in a later split are dropped" if here else ""
            fix = "name texts for it, or remove the column from the codebook's columns for a draw"
            raise UserError(f"no texts of the split {name}{left}", file=path, expected="train, dev and test", fix=fix)
    return parts
