"""HANS and Breaking NLI: read the published sets, and report a classifier's answers to them as findings.

HANS (McCoy, Pavlick and Linzen 2019) misleads by hypotheses that repeat words of the premise. A model may have learned a
heuristic instead of reading: entailed is what is made of the premise's words (``lexical_overlap``), what occurs in it in one
piece (``subsequence``), or what is a clause of it (``constituent``). It has two labels; neutral and contradiction both
count as "non-entailment", as in the paper.
Breaking NLI (Glockner, Shwartz and Goldberg 2018) has pairs that differ in one word, which a dictionary would tell apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from common.cli.errors import UserError, counted, shown
from common.results.finding import Finding, Listing, Measures, Part, worded
from common.stats import metrics
from common.stats.metrics import Measure, evaluate
from common.tables.reading import Row, read_rows
from common.tables.report import fingerprint
from snli_roberta.adversarial.scenes import is_invented
from snli_roberta.data.corpus import LABELS, Pair

TEMPLATES = Path(__file__).parent / "templates"
WORST = 10  # mistakes listed in a finding
HANS_FILE, HANS_PAIRS = "heuristics_evaluation_set.txt", 30_000  # pairs of the whole set
HANS_COLUMNS = ("gold_label", "sentence1", "sentence2", "pairID", "heuristic", "subcase", "template")
HANS_LABELS = ("entailment", "non-entailment")
HEURISTICS = ("lexical_overlap", "subsequence", "constituent")
BREAKING_FILE, BREAKING_PAIRS = "dataset.jsonl", 8193
BREAKING_COLUMNS = ("sentence1", "sentence2", "gold_label", "category", "pairID")
Item = TypeVar("Item", "HansItem", "BreakingItem")


@dataclass(frozen=True)
class HansItem:
    """A pair of HANS."""

    pair: Pair  # without a label of SNLI's
    label: int  # index into HANS_LABELS
    heuristic: str
    subcase: str  # the construction, such as "ln_passive"; may be empty


@dataclass(frozen=True)
class BreakingItem:
    """A pair of Breaking NLI."""

    pair: Pair
    category: str  # kind of the replaced word, such as "colors"


def read_hans(path: Path) -> list[HansItem]:
    """Read ``heuristics_evaluation_set.txt``; a wrong value is refused with its line."""
    items: list[HansItem] = []
    seen: set[str] = set()
    for row in read_rows(path, HANS_COLUMNS, suffix=".tsv"):
        values = {column: row.values[column].strip() for column in HANS_COLUMNS}
        premise, hypothesis, number = (_text(row, column) for column in ("sentence1", "sentence2", "pairID"))
        for column, known in {"gold_label": HANS_LABELS, "heuristic": HEURISTICS}.items():
            if values[column] not in known:
                raise row.error(f"unknown value {shown(values[column])}", column, expected=", ".join(known))
        if number in seen:
            raise row.error(f"pair {shown(number)} occurs twice", "pairID", expected="one row per pair")
        seen.add(number)
        label = HANS_LABELS.index(values["gold_label"])
        items.append(HansItem(Pair(premise, hypothesis, -1, id=number), label, values["heuristic"], values["subcase"]))
    return _some(items, path)


def read_breaking_nli(path: Path) -> list[BreakingItem]:
    """Read ``dataset.jsonl``; a wrong value is refused with its line."""
    items: list[BreakingItem] = []
    seen: dict[tuple[str, str, str], int | None] = {}
    for row in read_rows(path, BREAKING_COLUMNS, suffix=".jsonl"):
        premise, hypothesis, category = (_text(row, column) for column in ("sentence1", "sentence2", "category"))
        if (label := row.values["gold_label"]) not in LABELS:
            raise row.error(f"unknown value {shown(label)}", "gold_label", expected=", ".join(LABELS))
        number = row.values["pairID"]
        if isinstance(number, bool) or not isinstance(number, (int, str)) or not str(number).strip():
            raise row.error(f"not an ID: {shown(number)}", "pairID", expected="an integer")
        key = (str(number), premise, hypothesis)
        if key in seen:
            raise row.error(f"same pair as in line {seen[key]}", expected="one row per pair")
        seen[key] = row.line
        items.append(BreakingItem(Pair(premise, hypothesis, LABELS.index(label), id=str(number)), category))
    return _some(items, path)


def _text(row: Row, column: str) -> str:
    value = row.values[column]
    if not isinstance(value, str) or not value.strip():
        problem = "empty" if isinstance(value, str) else f"not text: {shown(value)}"
        raise row.error(problem, column, expected="text")
    return value.strip()


def _some(items: list[Item], path: Path) -> list[Item]:
    if not items:
        raise UserError("no pairs", file=path, expected="one row per pair")
    return items


def is_miniature(items: Sequence[HansItem | BreakingItem]) -> bool:
    """Return whether the pairs follow the miniature's grammar."""
    return all(is_invented(item.pair.premise) for item in items)


def hans_finding(items: Sequence[HansItem], probabilities: np.ndarray, *, seed: int, **about: Any) -> Finding:
    """Report answers to HANS, given probabilities of shape (n, 3) and further fields of the finding."""
    answers = two_labels(probabilities)
    always, scores = hans_scores(items, [0] * len(items), seed), hans_scores(items, answers, seed)
    by_heuristic = {
        f"{heuristic}, {label}": hans_scores([items[i] for i in chosen], [answers[i] for i in chosen], seed)["accuracy"]
        for heuristic in HEURISTICS
        for number, label in enumerate(HANS_LABELS)
        if (chosen := [i for i, item in enumerate(items) if (item.heuristic, item.label) == (heuristic, number)])
    }
    parts: list[Part] = [
        Measures(
            "HANS: all pairs",
            "score",
            "score",
            {name.replace("_", " ") if "accuracy" in name else f"accuracy, {name}": m for name, m in scores.items()},
            reference=always["accuracy"]["value"],
            reference_name='accuracy of "entailment" always',
        ),
        Measures("HANS: accuracy by heuristic and label", "heuristic, label", "accuracy", by_heuristic),
    ]
    for number, label in enumerate(HANS_LABELS):
        chosen = [i for i, item in enumerate(items) if item.label == number and item.subcase]
        if rows := _accuracy_by([items[i].subcase for i in chosen], [answers[i] == number for i in chosen], seed):
            parts.append(Measures(f"HANS: accuracy by subcase, {label}", "subcase", "accuracy", rows))
    entailed = probabilities[:, LABELS.index("entailment")]
    confidence = np.where(np.array(answers) == 0, entailed, 1 - entailed)
    cells = [(HANS_LABELS[item.label], HANS_LABELS[answer]) for item, answer in zip(items, answers, strict=True)]
    parts += _mistakes("HANS", "heuristic", [item.heuristic for item in items], items, cells, confidence)
    words = worded(
        TEMPLATES / "hans.jinja",
        pairs=len(items),
        whole=HANS_PAIRS,
        part=len(items) < HANS_PAIRS and not is_miniature(items),
        always=always,
        scores=scores,
        misled={name.split(",")[0]: m for name, m in by_heuristic.items() if name.endswith(", non-entailment")},
    )
    rows = ([item.pair.id, item.pair.premise, item.pair.hypothesis, item.label] for item in items)
    return _finding("hans", "HANS", words, parts, fingerprint(rows), is_miniature(items), about)


def two_labels(probabilities: np.ndarray) -> list[int]:
    """Turn probabilities, shape (n, 3), into indices into :data:`HANS_LABELS`: all but entailment is non-entailment."""
    return [int(answer != LABELS.index("entailment")) for answer in probabilities.argmax(1)]


def hans_scores(items: Sequence[HansItem], answers: Sequence[int], seed: int = 0) -> dict[str, Measure]:
    """Return accuracy, balanced accuracy (if both labels occur), and accuracy on the pairs of each label."""
    scores = evaluate([item.label for item in items], answers, HANS_LABELS, seed=seed)
    by_label = {name: scores[f"recall/{name}"] for name in HANS_LABELS if scores[f"recall/{name}"]["n"]}
    names = ["accuracy", *(["balanced_accuracy"] if len(by_label) == len(HANS_LABELS) else [])]
    return {name: scores[name] for name in names} | by_label


def breaking_nli_finding(
    items: Sequence[BreakingItem], probabilities: np.ndarray, *, seed: int, **about: Any
) -> Finding:
    """Report answers to Breaking NLI; see :func:`hans_finding`."""
    labels, answers = [item.pair.label for item in items], probabilities.argmax(1).tolist()
    scores = evaluate(labels, answers, LABELS, seed=seed)
    gold, given = Counter(labels), Counter(answers)
    by_label = {name: scores[f"recall/{name}"] for number, name in enumerate(LABELS) if gold[number]}
    right = [answer == label for answer, label in zip(answers, labels, strict=True)]
    measured = _accuracy_by([item.category for item in items], right, seed)
    categories = {name: measured[name] for name in sorted(measured, key=lambda name: (-measured[name]["n"], name))}
    most_common, preferred = (max(range(len(LABELS)), key=counts.__getitem__) for counts in (gold, given))
    words = worded(
        TEMPLATES / "breaking_nli.jinja",
        pairs=len(items),
        whole=BREAKING_PAIRS,
        part=len(items) < BREAKING_PAIRS and not is_miniature(items),
        accuracy=scores["accuracy"],
        balanced=scores["balanced_accuracy"],
        labels=len(by_label),
        most_common={"label": LABELS[most_common], "share": gold[most_common] / len(items)},
        preferred={
            "label": LABELS[preferred],
            "answers": metrics.share([answer == preferred for answer in answers], seed),
            "share": gold[preferred] / len(items),
        },
        hardest={
            name: categories[name]["value"] for name in sorted(categories, key=lambda n: categories[n]["value"])[:3]
        },
    )
    counts = [[name, *(n[i] for i in range(len(LABELS)))] for name, n in (("labels", gold), ("answers", given))]
    parts: list[Part] = [
        Measures(
            "Breaking NLI: accuracy by category",
            "category",
            "accuracy",
            categories,
            reference=scores["accuracy"]["value"],
            reference_name="all pairs",
        ),
        Measures("Breaking NLI: accuracy by label", "label", "accuracy", by_label),
        Listing("Breaking NLI: labels and answers", ["", *LABELS], counts),
    ]
    cells = [(LABELS[label], LABELS[answer]) for label, answer in zip(labels, answers, strict=True)]
    kinds = [item.category for item in items]
    parts += _mistakes("Breaking NLI", "category", kinds, items, cells, probabilities.max(1))
    rows = ([item.pair.id, item.pair.premise, item.pair.hypothesis, item.pair.label] for item in items)
    return _finding("breaking-nli", "Breaking NLI", words, parts, fingerprint(rows), is_miniature(items), about)


def _accuracy_by(kinds: Sequence[str], right: Sequence[bool], seed: int) -> dict[str, Measure]:
    """Measure the share of right answers for each kind of pair, in order of appearance."""
    values: dict[str, list[bool]] = {}
    for kind, passed in zip(kinds, right, strict=True):
        values.setdefault(kind, []).append(passed)
    return {kind: metrics.share(passed, seed) for kind, passed in values.items()}


def _mistakes(
    name: str,
    column: str,
    kinds: Sequence[str],
    items: Sequence[HansItem | BreakingItem],
    cells: Sequence[tuple[str, str]],
    confidence: np.ndarray,
) -> list[Part]:
    """List the most confident mistakes; cells are label and answer of each item."""
    wrong = sorted((i for i, (label, answer) in enumerate(cells) if label != answer), key=lambda i: -confidence[i])
    rows = [[items[i].pair.id, kinds[i], *cells[i], round(float(confidence[i]), 4)] for i in wrong[:WORST]]
    title = f"{name}: the surest of {counted(len(wrong), 'mistake')}"
    return [Listing(title, ["pair", column, "label", "answer", "probability"], rows)] if rows else []


def _finding(
    name: str, data: str, words: dict[str, Any], parts: list[Part], digest: str, invented: bool, about: dict[str, Any]
) -> Finding:
    source = {"name": f"the {data} miniature" if invented else data, "split": "evaluation", "fingerprint": digest}
    miniature = about["miniature"] or invented
    return Finding(name=name, **words, parts=parts, data=source, **{**about, "miniature": miniature})
