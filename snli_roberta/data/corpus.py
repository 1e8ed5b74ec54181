"""SNLI 1.0: premise/hypothesis pairs from the official JSONL files or from the Hub's ``stanfordnlp/snli``."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from common.cli.errors import UserError, shown
from common.tables.reading import Row, read_hub_rows, read_rows
from common.tables.report import DataReport, fingerprint

LABELS = ("entailment", "neutral", "contradiction")
NO_GOLD = "-"
NO_LABEL = -1  # of a pair without a gold label, as the Hub has it
SplitName = Literal["train", "dev", "test"]
HUB_SPLITS = {"train": "train", "dev": "validation", "test": "test"}


@dataclass(frozen=True)
class Pair:
    """One item. ``label`` indexes :data:`LABELS`, or is :data:`NO_LABEL`; ``annotator_labels`` are names, empty where the source
    has none."""

    premise: str
    hypothesis: str
    label: int
    annotator_labels: tuple[str, ...] = ()
    id: str = ""


@dataclass(frozen=True)
class Split:
    """The labelled pairs of a split, and what was dropped on the way.

    ``without_gold`` are the pairs on which no three annotators agreed. They are no part of what is trained or scored on.
    """

    name: str
    pairs: list[Pair]
    report: DataReport
    without_gold: list[Pair] = field(default_factory=list)

    @property
    def labels(self) -> list[int]:
        return [pair.label for pair in self.pairs]

    def fingerprint(self) -> str:
        return pairs_fingerprint(self.pairs)


def pairs_fingerprint(pairs: Iterable[Pair]) -> str:
    """What tells one set of labelled pairs from another."""
    return fingerprint([pair.premise, pair.hypothesis, pair.label] for pair in pairs)


def load_split(
    split: SplitName, *, data_dir: Path | None = None, dataset_name: str | None = None, revision: str | None = None
) -> Split:
    """Loads one split from a folder of official files (``snli_1.0_dev.jsonl``) or, without ``data_dir``, from the Hub.

    Pairs without a gold label (``-`` in the files, −1 on the Hub: no three annotators agreed) and pairs with an empty
    sentence are dropped and counted.

    Raises:
        UserError: A file, column or value that is not SNLI's, with its line.
    """
    report = DataReport(f"SNLI {split}")
    loaded = Split(split, [], report)
    if data_dir is not None:
        columns = ("gold_label", "sentence1", "sentence2")
        _from_official(read_rows(Path(data_dir) / f"snli_1.0_{split}.jsonl", columns), loaded)
    else:
        columns = ("label", "premise", "hypothesis")
        name = dataset_name or "stanfordnlp/snli"
        _from_hub(read_hub_rows(name, HUB_SPLITS[split], columns, revision=revision), loaded)
    for label, name in enumerate(LABELS):
        report.notes[name] = sum(pair.label == label for pair in loaded.pairs)
    return loaded


def _from_official(rows: Iterable[Row], loaded: Split) -> None:
    for row in rows:
        gold, annotators = row.values["gold_label"], row.values.get("annotator_labels") or []
        if gold not in (*LABELS, NO_GOLD):
            raise row.error(f"{shown(gold)} is no label", "gold_label", expected=f"{', '.join(LABELS)} or {NO_GOLD}")
        if not isinstance(annotators, list) or not all(label in (*LABELS, "") for label in annotators):
            raise row.error(
                f"{shown(annotators)} are no labels", "annotator_labels", expected=f"a list of {', '.join(LABELS)}"
            )
        _keep(
            row, loaded, row.values["sentence1"], row.values["sentence2"], NO_LABEL if gold == NO_GOLD else LABELS.index(gold),
            ("sentence1", "sentence2"), tuple(label for label in annotators if label), str(row.values.get("pairID") or ""),
        )  # fmt: skip


def _from_hub(rows: Iterable[Row], loaded: Split) -> None:
    for row in rows:
        label = row.values["label"]
        if label not in (NO_LABEL, 0, 1, 2) or isinstance(label, bool):
            raise row.error(f"{shown(label)} is no label", "label", expected="0, 1, 2, or -1 for none")
        _keep(
            row, loaded, row.values["premise"], row.values["hypothesis"], label, ("premise", "hypothesis"),
        )  # fmt: skip


def _keep(
    row: Row, loaded: Split, premise: object, hypothesis: object, label: int,
    columns: tuple[str, str], annotators: tuple[str, ...] = (), id: str = "",
) -> None:  # fmt: skip
    """Checks a row's sentences, then appends its pair or counts why not."""
    for column, sentence in zip(columns, (premise, hypothesis), strict=True):
        if not isinstance(sentence, str):
            raise row.error(f"{shown(sentence)} is no sentence", column, expected="text")
    report = loaded.report
    report.read += 1
    pair = Pair(premise.strip(), hypothesis.strip(), label, annotators, id)
    whole = bool(pair.premise and pair.hypothesis)
    if label == NO_LABEL:
        report.drop(row, "no gold label")
        if whole:
            loaded.without_gold.append(pair)
    elif not whole:
        report.drop(row, "empty sentence")
    else:
        report.kept += 1
        loaded.pairs.append(pair)


SAMPLING = ("balance_classes", "train_fraction", "sample_seed")  # the arguments that choose the sample


def training_sample(pairs: list[Pair], *, balance_classes: bool, train_fraction: float, sample_seed: int) -> list[Pair]:
    """The training pairs that a run uses, of those that were loaded.

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
    """As many pairs of each class as the rarest has, drawn without replacement, in their original order."""
    smallest = min(sum(pair.label == label for pair in pairs) for label in range(len(LABELS)))
    return _draw(pairs, [smallest] * len(LABELS), seed)


def stratified(pairs: list[Pair], fraction: float, seed: int) -> list[Pair]:
    """``round(fraction * n)`` pairs whose class counts are as near to proportional as whole rows can be.

    Each class gets the whole part of its share; the rows left over go to the largest remainders (Hamilton's method).
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


def pair_id(pair: Pair) -> str:
    """What stands for a pair where its sentences need not be shown."""
    return fingerprint([pair.premise, pair.hypothesis])
