"""Findings of the study: how the methods differ in accuracy and cost, and which pairs each gets right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.cli.options import METHODS, Method
from common.results.finding import Finding, Listing, Measures, Points, about, worded
from common.results.record import RunRecord
from common.results.rendering import CLASS_SCORES, cost_cells, heading, with_interval
from common.results.scoring import ScoredSet
from common.stats.metrics import Measure
from common.stats.paired import MARGIN, McNemar, difference, mcnemar, verdict
from common.tables.writing import write_rows
from common.training.trials import Run
from snli_roberta.data.corpus import LABELS, Split
from snli_roberta.study.runs import Study

# In simulations of a true difference at the margin, one seed gives a wrong verdict in up to a fifth of studies.
FEWEST_SEEDS = 3
BOTH = "full fine-tuning and LoRA"
TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Arm:
    """A method with its finished runs."""

    method: Method
    runs: list[Run]  # one per seed
    answers: np.ndarray  # class that each run gives each test pair, shape (seeds, n)

    @property
    def title(self) -> str:
        return METHODS[self.method]


Arms = tuple[Arm, Arm]  # full fine-tuning, LoRA
Records = tuple[RunRecord, RunRecord]  # theirs


def findings_of(study: Study, arms: Arms, records: Records, scored: ScoredSet, *, seed: int) -> list[Finding]:
    """Return the findings "comparison" and "tuning"."""
    return [_comparison(arms, records, scored, seed), _tuning(study, arms, records[0], np.array(scored.labels))]


def _comparison(arms: Arms, records: Records, scored: ScoredSet, seed: int) -> Finding:
    labels = np.array(scored.labels)
    full, lora = (arm.answers == labels for arm in arms)
    gap = difference(full, lora, seed=seed)
    tests = [mcnemar(*both) for both in zip(full, lora, strict=True)]
    decided = verdict(gap) if len(tests) >= FEWEST_SEEDS else None
    words = worded(
        TEMPLATES / "comparison.jinja",
        gap=gap,
        verdict=decided,
        margin=MARGIN,
        fewest_seeds=FEWEST_SEEDS,
        accuracies={arm.title: with_interval(rec, "accuracy") for arm, rec in zip(arms, records, strict=True)},
        tests=tests,
        costs=_cost_ratios(*records),
    )
    return Finding(
        name="comparison",
        **words,
        parts=[
            _by_label(gap, full, lora, labels, seed),
            Listing(
                "Scores: mean over the seeds, and standard deviation between them",
                ["score", *(f"{arm.title}{what}" for arm in arms for what in ("", ", sd"))],
                [
                    [heading(metric), *(cell for rec in records for cell in _mean_and_sd(rec, metric))]
                    for metric in CLASS_SCORES
                ],
            ),
            Listing(
                "Cost of a run",
                ["method", *cost_cells(records[0])],
                [[arm.title, *cost_cells(rec).values()] for arm, rec in zip(arms, records, strict=True)],
            ),
            _right_by_seed(arms[0], tests),
            _different_answers(arms, labels),
            _curves(arms),
            *_against_cost(arms, (full, lora)),
        ],
        facts={
            "margin": MARGIN,
            "difference": gap,
            "verdict": decided,
            "learning_rates": {arm.title: arm.runs[0].arguments.learning_rate for arm in arms},
            "sources": ["McNemar 1947", "Sellam et al. 2022"],
        },
        **about(records[1]) | {"model": BOTH},
    )


def _cost_ratios(full: RunRecord, lora: RunRecord) -> dict[str, float | None]:
    """Divide LoRA's costs by those of full fine-tuning; an interrupted run has no time."""
    memory = [record.peak_memory_bytes.get("device", record.peak_memory_bytes["host"]) for record in (full, lora)]
    return {
        "trained": lora.parameters["trainable"] / full.parameters["trainable"],
        "seconds": lora.seconds / full.seconds if full.seconds and lora.seconds else None,
        "memory": memory[1] / memory[0],
        "storage": lora.storage_bytes / full.storage_bytes,
    }


def _by_label(gap: Measure, full: np.ndarray, lora: np.ndarray, labels: np.ndarray, seed: int) -> Measures:
    rows = {
        f"gold label {name}": difference(full[:, labels == index], lora[:, labels == index], seed=seed)
        for index, name in enumerate(LABELS)
        if (labels == index).any()
    }
    return Measures(
        "LoRA minus full fine-tuning, by gold label",
        "pairs",
        "difference of accuracy",
        {"all": gap} | rows,
        -MARGIN,
        "non-inferior if above",
        differences=True,
    )


def _right_by_seed(arm: Arm, tests: Sequence[McNemar]) -> Listing:
    seeds = [run.arguments.seed for run in arm.runs]
    return Listing(
        "Test pairs that each gets right, by seed",
        ["seed", "both", "only full fine-tuning", "only LoRA", "neither", "McNemar's exact p"],
        [[str(s), t.both, t.only_first, t.only_second, t.neither, t.p] for s, t in zip(seeds, tests, strict=True)],
    )


def _mean_and_sd(record: RunRecord, metric: str) -> list[float | None]:
    measure = record.metrics[metric]
    return [round(measure["value"], 4), None if measure["sd"] is None else round(measure["sd"], 4)]


def _different_answers(arms: Arms, labels: np.ndarray) -> Listing:
    """Count pairs by gold label and the methods' different answers, as a mean over the seeds."""
    counts: Counter[tuple[int, int, int]] = Counter()
    for full, lora in zip(arms[0].answers, arms[1].answers, strict=True):
        counts.update((int(label), int(a), int(b)) for label, a, b in zip(labels, full, lora, strict=True) if a != b)
    return Listing(
        "Where the two disagree: pairs, mean over the seeds",
        ["gold label", *(f"{arm.title} says" for arm in arms), "pairs"],
        [
            [*(LABELS[index] for index in key), round(count / len(arms[0].runs), 1)]
            for key, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        ],
    )


def _curves(arms: Arms) -> Points:
    series = {
        f"{arm.title}, seed {run.arguments.seed}": [
            [entry["step"], entry["eval_accuracy"]] for entry in run.facts()["log"] if "eval_accuracy" in entry
        ]
        for arm in arms
        for run in arm.runs
    }
    return Points("Learning curves of the chosen rates", "step", "validation accuracy", series, joined=True)


def _against_cost(arms: Arms, right: Sequence[np.ndarray]) -> list[Points]:
    """Plot accuracy of every run against its cost; without seconds if a run was interrupted."""
    facts = [[run.facts() for run in arm.runs] for arm in arms]
    costs = {"megabytes stored": [[run["storage_bytes"] / 1e6 for run in runs] for runs in facts]}
    if not any(run["continued"] for runs in facts for run in runs):
        costs = {"seconds of training": [[run["seconds"] for run in runs] for runs in facts]} | costs
    points = []
    for name, by_arm in costs.items():
        series = {
            arm.title: [[x, float(seed.mean())] for x, seed in zip(xs, of_arm, strict=True)]
            for arm, xs, of_arm in zip(arms, by_arm, right, strict=True)
        }
        points.append(Points(f"Accuracy against {name}", name, "test accuracy", series))
    return points


def _tuning(study: Study, arms: Arms, record: RunRecord, labels: np.ndarray) -> Finding:
    rows: list[list[Any]] = []
    tried = []
    for arm in arms:
        rows += _run_rows(study, arm, labels)
        rates = study.rates[arm.method]
        runs = Counter(run.arguments.learning_rate for run in study.finished_runs(arm.method))
        chosen = arm.runs[0].arguments.learning_rate
        tried.append(
            {
                "title": arm.title,
                "chosen": chosen,
                "rates": {rate: {"mean": study.mean_score(arm.method, rate), "runs": runs[rate]} for rate in rates},
                "at_edge": len(rates) > 1 and chosen in (min(rates), max(rates)),
            }
        )
    columns = ["method", "learning rate", "seed", "validation accuracy", "test accuracy", "best step", "seconds"]
    words = worded(
        TEMPLATES / "tuning.jinja",
        arms=tried,
        trials=len(study.arguments.full_learning_rates),
        seed=study.seeds[0],
        others=len(study.others()),
    )
    return Finding(
        name="tuning",
        **words,
        parts=[Listing("Every run", columns, rows)],
        facts={"settings": {k: v for k, v in record.settings.items() if k != "learning_rate"}},
        **about(record) | {"model": BOTH},
    )


def _run_rows(study: Study, arm: Arm, labels: np.ndarray) -> list[list[Any]]:
    tested = {run.folder: float((a == labels).mean()) for run, a in zip(arm.runs, arm.answers, strict=True)}
    rows: list[list[Any]] = []
    for run in study.finished_runs(arm.method):
        row = [arm.title, f"{run.arguments.learning_rate:g}", str(run.arguments.seed)]
        accuracy = run.validation_score()
        if accuracy is None:
            rows.append([*row, "diverged", None, None, None])
            continue
        facts = run.facts()
        seconds = None if facts["continued"] else round(facts["seconds"])
        rows.append([*row, round(accuracy, 4), tested.get(run.folder), facts["best"]["step"], seconds])
    return rows


def disagreements(arms: Arms, test: Split, path: Path) -> int:
    """Write the pairs on which the methods differ in how many seeds are right, the largest difference first; count them."""
    labels = np.array(test.labels)
    right = [(arm.answers == labels).sum(0) for arm in arms]
    rows: list[dict[str, Any]] = []
    gaps = np.abs(right[0] / len(arms[0].runs) - right[1] / len(arms[1].runs))
    for place in sorted(np.flatnonzero(gaps), key=lambda i: (-gaps[i], i)):
        pair = test.pairs[place]
        row = {"id": pair.id, "premise": pair.premise, "hypothesis": pair.hypothesis, "gold_label": LABELS[pair.label]}
        for arm, count in zip(arms, right, strict=True):
            row[f"{arm.method}_answers"] = " ".join(LABELS[answer] for answer in arm.answers[:, place])
            row[f"{arm.method}_right"] = f"{count[place]} of {len(arm.runs)}"
        rows.append(row)
    columns = [f"{arm.method}_{what}" for arm in arms for what in ("answers", "right")]
    write_rows(path, rows, ["id", "premise", "hypothesis", "gold_label", *columns])
    return len(rows)
