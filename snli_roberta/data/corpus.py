"""SNLI 1.0: premise/hypothesis pairs from the official files or the Hub's ``stanfordnlp/snli``; other datasets of pairs."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from common.cli.errors import UserError, shown
from common.stats.votes import folded
from common.tables.reading import Row, read_rows
from common.tables.report import DataReport, fingerprint

LABELS = ("entailment", "neutral", "contradiction")
NO_GOLD, NO_LABEL = "-", -1  # a pair without a gold label, in the files and on the Hub
SplitName = Literal["train", "dev", "test"]
HUB_DATASET = "stanfordnlp/snli"
HUB_COLUMNS = ("premise", "hypothesis", "label")
HUB_SPLITS = ("train", "validation", "test")
NAMES: tuple[SplitName, ...] = ("train", "dev", "test")
SAMPLING = ("balance_classes", "train_fraction", "sample_seed")  # arguments of `training_sample`


@dataclass(frozen=True)
class Pair:
    """A premise and a hypothesis with their label."""

    premise: str
    hypothesis: str
    label: int  # index into LABELS, or NO_LABEL
    annotator_labels: tuple[str, ...] = ()  # names; empty if the source has none
    id: str = ""

    @property
    def texts(self) -> tuple[str, str]:
        return self.premise, self.hypothesis


@dataclass(frozen=True)
class Split:
    """The labeled pairs of a split, and a report of what was dropped."""

    name: str
    pairs: list[Pair]
    report: DataReport
    # Pairs on which no three annotators agreed; neither trained nor scored on.
    without_gold: list[Pair] = field(default_factory=list)

    @property
    def labels(self) -> list[int]:
        return [pair.label for pair in self.pairs]

    def fingerprint(self) -> str:
        return pairs_fingerprint(self.pairs)


def pair_id(pair: Pair) -> str:
    """Return an ID that stands for a pair wherever its sentences need not be shown."""
    return fingerprint([pair.premise, pair.hypothesis])


def pairs_fingerprint(pairs: Iterable[Pair]) -> str:
    return fingerprint([pair.premise, pair.hypothesis, pair.label] for pair in pairs)


def load_split(
    split: SplitName,
    *,
    data_dir: Path | None = None,
    dataset_name: str | None = None,
    revision: str | None = None,
    columns: Sequence[str] = HUB_COLUMNS,
    splits: Sequence[str] = HUB_SPLITS,
) -> Split:
    """Load a split from a folder of official files (``snli_1.0_dev.jsonl``), or from the Hub without ``data_dir``.

    ``columns`` are those of the premise, the hypothesis and the label on the Hub; ``splits``, those for training, validation and
    test there, ``subset/split`` for one of a subset.

    Pairs without a gold label (``-`` in the files, -1 on the Hub) and pairs with an empty sentence are dropped and counted.

    Raises:
        UserError: A file, column or value is not SNLI's; the message names the line.
    """
    name = dataset_name or HUB_DATASET
    report = DataReport(f"{'SNLI' if name == HUB_DATASET else name} {split}")
    loaded = Split(split, [], report)
    if data_dir is not None:
        official = ("gold_label", "sentence1", "sentence2")
        _from_official(read_rows(Path(data_dir) / f"snli_1.0_{split}.jsonl", official), loaded)
    else:
        from common.hub.table_download import HubSplit, download_table

        subset, _, hub_split = splits[NAMES.index(split)].rpartition("/")
        table = download_table(str(HubSplit(name, revision, subset or None, hub_split)))
        _from_hub(_rows(table.path, columns), loaded, columns)
    for label, name in enumerate(LABELS):
        report.notes[name] = sum(pair.label == label for pair in loaded.pairs)
    return loaded


def _from_official(rows: Iterable[Row], loaded: Split) -> None:
    for row in rows:
        gold, annotators = row.values["gold_label"], row.values.get("annotator_labels") or []
        if gold not in (*LABELS, NO_GOLD):
            raise row.error(f"unknown label {shown(gold)}", "gold_label", expected=f"{', '.join(LABELS)} or {NO_GOLD}")
        if not isinstance(annotators, list) or not all(label in (*LABELS, "") for label in annotators):
            raise row.error(
                f"not labels: {shown(annotators)}", "annotator_labels", expected=f"a list of {', '.join(LABELS)}"
            )
        sentences = {name: row.values[name] for name in ("sentence1", "sentence2")}
        labels = tuple(label for label in annotators if label)
        _keep(row, loaded, sentences, NO_LABEL if gold == NO_GOLD else LABELS.index(gold), labels)


def _rows(path: Path, columns: Sequence[str]) -> Iterable[Row]:
    try:
        yield from read_rows(path, columns)
    except UserError as error:
        if error.problem.startswith("missing column"):
            error.fix = "name those of the premise, the hypothesis and the label with --dataset_columns"
        raise


def _from_hub(rows: Iterable[Row], loaded: Split, columns: Sequence[str]) -> None:
    *sentences, column = columns
    for row in rows:
        label = _hub_label(row.values[column])
        if label is None:
            expected = f"{', '.join(LABELS)}; 0, 1, 2 for these; or -1 for none"
            raise row.error(f"unknown label {shown(row.values[column])}", column, expected=expected)
        _keep(row, loaded, {name: row.values[name] for name in sentences}, label)


def _hub_label(value: Any) -> int | None:
    """Return the label of a dataset's value, by its name or number; None for any other value."""
    if value is None or value in ("", NO_GOLD):
        return NO_LABEL
    if isinstance(value, str):
        name = folded(value)
        return LABELS.index(name) if name in LABELS else {"0": 0, "1": 1, "2": 2, "-1": NO_LABEL}.get(name)
    return int(value) if value in (NO_LABEL, 0, 1, 2) and not isinstance(value, bool) else None


def _keep(row: Row, loaded: Split, sentences: dict[str, object], label: int, annotators: tuple[str, ...] = ()) -> None:
    """Check a row's sentences, then keep its pair or count why it was dropped."""
    for column, sentence in sentences.items():
        if not isinstance(sentence, str):
            raise row.error(f"not a sentence: {shown(sentence)}", column, expected="text")
    report = loaded.report
    report.read += 1
    premise, hypothesis = (str(sentence).strip() for sentence in sentences.values())
    pair = Pair(premise, hypothesis, label, annotators, str(row.values.get("pairID") or ""))
    if label == NO_LABEL:
        report.drop(row, "no gold label")
        if premise and hypothesis:
            loaded.without_gold.append(pair)
    elif not (premise and hypothesis):
        report.drop(row, "empty sentence")
    else:
        report.kept += 1
        loaded.pairs.append(pair)


def training_sample(pairs: list[Pair], *, balance_classes: bool, train_fraction: float, sample_seed: int) -> list[Pair]:
    """Return the pairs that a run trains on.

    Raises:
        UserError: A class would have no pair.
    """
    drawn = stratified(balanced(pairs, sample_seed) if balance_classes else pairs, train_fraction, sample_seed)
    absent = [name for label, name in enumerate(LABELS) if not any(pair.label == label for pair in drawn)]
    if absent:
        raise UserError(
            f"no training pair of {', '.join(absent)}", expected="some of each class", fix="use more training pairs"
        )
    return drawn


def balanced(pairs: list[Pair], seed: int) -> list[Pair]:
    """Cut each class to the size of the rarest, drawn without replacement; the order is kept."""
    smallest = min(sum(pair.label == label for pair in pairs) for label in range(len(LABELS)))
    return _draw(pairs, [smallest] * len(LABELS), seed)


def stratified(pairs: list[Pair], fraction: float, seed: int) -> list[Pair]:
    """Draw ``round(fraction * n)`` pairs with class counts as near to proportional as whole rows allow.

    Each class gets the integer part of its share; remaining rows go to the largest remainders (Hamilton's method).
    """
    shares = [fraction * sum(pair.label == label for pair in pairs) for label in range(len(LABELS))]
    counts = [int(share) for share in shares]
    left = round(fraction * len(pairs)) - sum(counts)
    for label in sorted(range(len(LABELS)), key=lambda label: counts[label] - shares[label])[:left]:
        counts[label] += 1
    return _draw(pairs, counts, seed)


def _draw(pairs: list[Pair], counts: list[int], seed: int) -> list[Pair]:
    rng = random.Random(f"sample {seed}")
    chosen: set[int] = set()
    for label, count in enumerate(counts):
        chosen.update(rng.sample([i for i, pair in enumerate(pairs) if pair.label == label], count))
    return [pair for i, pair in enumerate(pairs) if i in chosen]
