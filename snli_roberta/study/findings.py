"""What the study found: how the two methods differ in accuracy, cost, and in the pairs that they get right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.results.finding import Finding, Listing, Measures, Part, Points, about
from common.results.record import RunRecord
from common.results.rendering import cost_cells, heading, with_interval
from common.results.scoring import ScoredSet
from common.stats.metrics import Measure
from common.stats.paired import MARGIN, difference, mcnemar, verdict
from common.tables.writing import write_rows
from snli_roberta.data.corpus import LABELS, Split
from snli_roberta.study.runs import TITLES, Run, Study
from snli_roberta.training.arguments import Method

METRICS = (
    *("accuracy", "balanced_accuracy", "precision/weighted", "recall/weighted", "f1/weighted"),
    *("precision/macro", "recall/macro", "f1/macro"),
)
FEWEST_SEEDS = (
    3  # in simulations of a true difference at the margin, 1 seed gives a wrong verdict in up to a fifth of studies
)
BOTH = "full fine-tuning and LoRA"
LIMITS = (
    "Another base model, corpus, schedule or LoRA setting: the rates were tuned for each method, what an adapter is was not. The "
    "interval resamples test pairs and seeds, and few seeds understate how much they matter. Seconds and memory are this machine's."
)
TUNING_LIMITS = (
    "What a rate between those that were tried would give, or one beyond them. A rate at which the first seed did badly got no "
    "other seed, so equally good rates may stand in another order."
)


@dataclass(frozen=True)
class Arm:
    """One method with its runs.

    Attributes:
        method: full or lora.
        runs: A finished run a seed.
        answers: The class that each gives each test pair, shape (seeds, n).
    """

    method: Method
    runs: list[Run]
    answers: np.ndarray

    @property
    def title(self) -> str:
        return TITLES[self.method]


def findings_of(
    study: Study, arms: tuple[Arm, Arm], records: tuple[RunRecord, RunRecord], scored: ScoredSet, *, seed: int
) -> list[Finding]:
    """The findings "comparison" and "tuning".

    Args:
        study: The study, all its runs made.
        arms: Full fine-tuning, then LoRA.
        records: Their records.
        scored: The test set.
        seed: Seed of the bootstrap.
    """
    return [_comparison(arms, records, scored, seed), _tuning(study, arms, records[0], np.array(scored.labels))]


def _comparison(arms: tuple[Arm, Arm], records: tuple[RunRecord, RunRecord], scored: ScoredSet, seed: int) -> Finding:
    labels = np.array(scored.labels)
    full, lora = (arm.answers == labels for arm in arms)
    gap = difference(full, lora, seed=seed)
    by_label = {
        f"gold label {name}": difference(full[:, labels == index], lora[:, labels == index], seed=seed)
        for index, name in enumerate(LABELS)
        if (labels == index).any()
    }
    tests = [mcnemar(one, other) for one, other in zip(full, lora, strict=True)]
    seeds = [run.arguments.seed for run in arms[0].runs]
    accuracies = " and ".join(
        f"{arm.title} {with_interval(record, 'accuracy')}" for arm, record in zip(arms, records, strict=True)
    )
    over = f"Over {len(seeds)} seeds" if len(seeds) > 1 else "With one seed"
    ps = ", ".join(f"{test.p:.3f}" if test.p >= 0.001 else "< .001" for test in tests)
    summary = [
        f"{over}, accuracy on {len(labels):,} pairs: {accuracies}.",
        f"LoRA minus full fine-tuning: {_points(gap)}. {_verdict(gap, len(seeds))}",
        f"Of the same pair of seeds, {_range([t.only_first for t in tests])} pairs only the fully fine-tuned model gets right and "
        f"{_range([t.only_second for t in tests])} only the adapter; p of McNemar's exact test by seed: {ps}.",
        _costs(records),
    ]
    parts: list[Part] = [
        Measures(
            "LoRA minus full fine-tuning, by gold label",
            "pairs",
            "difference of accuracy",
            {"all": gap} | by_label,
            -MARGIN,
            "non-inferior if above",
            differences=True,
        ),
        Listing(
            "Scores: mean over the seeds, and standard deviation between them",
            ["score", *(f"{arm.title}{what}" for arm in arms for what in ("", ", sd"))],
            [
                [heading(metric), *(cell for record in records for cell in _mean_and_sd(record, metric))]
                for metric in METRICS
            ],
        ),
        Listing(
            "Cost of a run",
            ["method", *cost_cells(records[0])],
            [[arm.title, *cost_cells(record).values()] for arm, record in zip(arms, records, strict=True)],
        ),
        Listing(
            "Test pairs that each gets right, by seed",
            ["seed", "both", "only full fine-tuning", "only LoRA", "neither", "McNemar's exact p"],
            [[str(s), t.both, t.only_first, t.only_second, t.neither, t.p] for s, t in zip(seeds, tests, strict=True)],
        ),
        _answers_apart(arms, labels),
        Points(
            "Learning curves of the chosen rates",
            "step",
            "validation accuracy",
            {
                f"{arm.title}, seed {run.arguments.seed}": [
                    [entry["step"], entry["eval_accuracy"]] for entry in run.facts()["log"] if "eval_accuracy" in entry
                ]
                for arm in arms
                for run in arm.runs
            },
            joined=True,
        ),
        *_against_cost(arms, (full, lora)),
    ]
    return Finding(
        name="comparison",
        title="Full fine-tuning or LoRA?",
        summary=summary,
        parts=parts,
        limits=LIMITS,
        facts={
            "margin": MARGIN,
            "difference": gap,
            "verdict": verdict(gap) if len(seeds) >= FEWEST_SEEDS else None,
            "learning_rates": {arm.title: arm.runs[0].arguments.learning_rate for arm in arms},
            "sources": ["McNemar 1947", "Sellam et al. 2022"],
        },
        **about(records[1]) | {"model": BOTH},
    )


def _points(gap: Measure) -> str:
    value, (low, high) = 100 * gap["value"], (100 * end for end in gap["ci95"])
    return f"{value:+.2f} points (95 % interval [{low:+.2f}, {high:+.2f}])"


def _verdict(gap: Measure, seeds: int) -> str:
    if seeds < FEWEST_SEEDS:
        return f"That is of these models, not of the methods, which want {FEWEST_SEEDS} seeds or more for a verdict."
    margin = f"{100 * MARGIN:g} points"
    return {
        "non-inferior": f"LoRA is no worse, by a margin of {margin}: the whole interval lies above -{margin}.",
        "inferior": f"LoRA is worse by more than {margin}: the whole interval lies below -{margin}.",
        "undecided": f"That does not settle whether LoRA is worse by {margin} or more.",
    }[verdict(gap)]


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _costs(records: tuple[RunRecord, RunRecord]) -> str:
    full, lora = records
    trained = lora.parameters["trainable"] / full.parameters["trainable"]
    memory = [record.peak_memory_bytes.get("device", record.peak_memory_bytes["host"]) for record in records]
    time = (
        f" {lora.seconds / full.seconds:.2f} times the training time," if full.seconds and lora.seconds else ""
    )  # a run that was interrupted has none
    return (
        f"LoRA trains {trained:.1%} of the parameters and takes{time} {memory[1] / memory[0]:.2f} times the peak memory and "
        f"{lora.storage_bytes / full.storage_bytes:.3f} times the storage."
    )


def _mean_and_sd(record: RunRecord, metric: str) -> list[float | None]:
    found = record.metrics[metric]
    return [round(found["value"], 4), None if found["sd"] is None else round(found["sd"], 4)]


def _answers_apart(arms: tuple[Arm, Arm], labels: np.ndarray) -> Listing:
    """Which other answers the methods give to the same pair, as the mean number of pairs over the seeds."""
    counts: Counter[tuple[int, int, int]] = Counter()
    for one, other in zip(arms[0].answers, arms[1].answers, strict=True):
        counts.update((int(label), int(a), int(b)) for label, a, b in zip(labels, one, other, strict=True) if a != b)
    return Listing(
        "Where the two disagree: pairs, mean over the seeds",
        ["gold label", *(f"{arm.title} says" for arm in arms), "pairs"],
        [
            [*(LABELS[index] for index in key), round(count / len(arms[0].runs), 1)]
            for key, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        ],
    )


def _against_cost(arms: tuple[Arm, Arm], right: Sequence[np.ndarray]) -> list[Points]:
    """Accuracy of every run against what it cost; seconds are left out where a run was interrupted."""
    facts = [[run.facts() for run in arm.runs] for arm in arms]
    costs = {
        "megabytes stored": [[one["storage_bytes"] / 1e6 for one in known] for known in facts],
    }
    if not any(one["continued"] for known in facts for one in known):
        costs = {"seconds of training": [[one["seconds"] for one in known] for known in facts]} | costs
    return [
        Points(
            f"Accuracy against {name}",
            name,
            "test accuracy",
            {
                arm.title: [[x, float(seed.mean())] for x, seed in zip(xs, of_arm, strict=True)]
                for arm, xs, of_arm in zip(arms, found, right, strict=True)
            },
        )
        for name, found in costs.items()
    ]


def _tuning(study: Study, arms: tuple[Arm, Arm], record: RunRecord, labels: np.ndarray) -> Finding:
    rows, summary = [], []
    for arm in arms:
        chosen = arm.runs[0].arguments.learning_rate
        tested = {run.folder: float((a == labels).mean()) for run, a in zip(arm.runs, arm.answers, strict=True)}
        trials = study.trials(arm.method)
        for run in study.made_runs(arm.method):
            named = [arm.title, f"{run.arguments.learning_rate:g}", str(run.arguments.seed)]
            accuracy = run.validation_accuracy()
            if accuracy is None:
                rows.append([*named, "diverged", None, None, None])
                continue
            facts = run.facts()
            seconds = None if facts["continued"] else round(facts["seconds"])
            rows.append([*named, round(accuracy, 4), tested.get(run.folder), facts["best"]["step"], seconds])
        rates = sorted(study.arguments.rates(arm.method))
        had = Counter(run.arguments.learning_rate for run in study.made_runs(arm.method))
        means = {rate: study.mean_accuracy(arm.method, rate) for rate in study.arguments.rates(arm.method)}
        tried = ", ".join(
            f"{rate:g} ({'diverged' if mean is None else f'{mean:.4f}'}"
            + (f" over {had[rate]} seeds)" if had[rate] > 1 else ")")
            for rate, mean in means.items()
        )
        edge = len(rates) > 1 and chosen in (rates[0], rates[-1])
        summary.append(
            f"{arm.title}: {chosen:g} of {tried} by mean validation accuracy"
            + ("; it lies at the edge of what was tried, and a better one may lie beyond." if edge else ".")
        )
    others = len(study.others())
    looked = (
        f"The study's folder holds {others:,} more runs, of other settings, that were scored on test pairs too: who chooses "
        "settings by those scores has used the test split up."
        if others
        else "The test pairs had no part in the choice."
    )
    return Finding(
        name="tuning",
        title="Which learning rates were tried?",
        summary=[f"Trials for each method: {len(trials)}, with seed {study.arguments.seeds[0]}.", *summary, looked],
        parts=[
            Listing(
                "Every run",
                ["method", "learning rate", "seed", "validation accuracy", "test accuracy", "best step", "seconds"],
                rows,
            )
        ],
        limits=TUNING_LIMITS,
        facts={"settings": {k: v for k, v in record.settings.items() if k != "learning_rate"}},
        **about(record) | {"model": BOTH},
    )


def disagreements(arms: tuple[Arm, Arm], test: Split, path: Path) -> int:
    """Writes the pairs on which the methods' seeds differ in how often they are right, the most uneven first.

    Returns:
        How many there are.
    """
    labels = np.array(test.labels)
    right = [(arm.answers == labels).sum(0) for arm in arms]
    rows: list[dict[str, Any]] = []
    apart = np.abs(right[0] / len(arms[0].runs) - right[1] / len(arms[1].runs))
    for place in sorted(np.flatnonzero(apart), key=lambda i: (-apart[i], i)):
        pair = test.pairs[place]
        row = {"id": pair.id, "premise": pair.premise, "hypothesis": pair.hypothesis, "gold_label": LABELS[pair.label]}
        for arm, count in zip(arms, right, strict=True):
            row[f"{arm.method}_answers"] = " ".join(LABELS[answer] for answer in arm.answers[:, place])
            row[f"{arm.method}_right"] = f"{count[place]} of {len(arm.runs)}"
        rows.append(row)
    named = [f"{arm.method}_{what}" for arm in arms for what in ("answers", "right")]
    write_rows(path, rows, ["id", "premise", "hypothesis", "gold_label", *named])
    return len(rows)
