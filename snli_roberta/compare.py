"""The whole study of full fine-tuning against LoRA: ``python -m snli_roberta.compare --config recipes/study.yaml``.

Tunes the learning rate of each method on validation, trains each with several seeds, scores the test split once, and says how they
differ, what they cost, and whether LoRA is no worse.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np

from common.cli.arguments import parse
from common.cli.console import log, quiet_libraries, stage
from common.cli.errors import UserError, run
from common.models.loading import base_path, commit_of
from common.results import finding as findings
from common.results import rendering
from common.results.evaluation import read_evaluation
from common.results.finding import Finding
from common.results.record import RunRecord
from common.results.rendering import table_lines, write_report
from common.results.scoring import ScoredSet
from common.results.training_record import training_costs
from common.stats.paired import over_seeds
from common.tables.report import fingerprint
from snli_roberta.baselines import load_sets
from snli_roberta.data.corpus import LABELS, SAMPLING, Pair, Split, pair_id, pairs_fingerprint
from snli_roberta.evaluate import record_name, score_baselines, score_model
from snli_roberta.study.findings import Arm, disagreements, findings_of
from snli_roberta.study.runs import (
    TITLES,
    Run,
    Study,
    StudyArguments,
    announce,
    base_identity,
    check_free,
    hand_over,
    train,
)

MODULE = "snli_roberta.compare"
SEED = 0  # of the controls, the untrained head and the bootstrap


def compare(arguments: StudyArguments) -> tuple[list[RunRecord], list[Finding]]:
    """Makes the runs that are not there, scores them, and compares the methods.

    Returns:
        The controls' records and one of each method, and what was found.

    Raises:
        UserError: Bad data, an unknown model, or a run that failed.
        SystemExit: A signal stopped a run; the same command continues it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "the study starts its trainings itself, one after the other, and was started as several processes",
            fix=f"start it as python -m {MODULE}, with CUDA_VISIBLE_DEVICES=0 where there are several GPUs",
        )
    quiet_libraries()
    study, pairs, scored, test = study_of(arguments)
    for method in TITLES:
        check_free(arguments.output_dir / method)
    announce(study)
    if arguments.estimate_only:
        return [], []
    # In turns: a study that is stopped has seen as much of both.
    trials = {method: study.trials(method) for method in TITLES}
    train([one for both in zip(*trials.values(), strict=True) for one in both])
    if arguments.trials_only:
        for one in (one for runs in trials.values() for one in runs):
            accuracy = one.validation_accuracy()
            log(f"{one.title}: {'diverged' if accuracy is None else f'validation accuracy {accuracy:.4f}'}", always=True)
        return [], []
    finals = {method: study.finals(method) for method in TITLES}
    while not all(one.finished for runs in finals.values() for one in runs):
        for method, runs in finals.items():
            log(f"{TITLES[method]}: learning rate {runs[0].arguments.learning_rate:g} by validation accuracy")
        train([one for both in zip(*finals.values(), strict=True) for one in both])
        finals = {method: study.finals(method) for method in TITLES}  # others, if the seeds' mean fell behind

    scored.policy["scored in"] = "fp32"
    facts = finals["full"][0].facts()
    output_dir = arguments.output_dir / "records"
    baselines = score_baselines(scored, pairs, test, facts, module=MODULE, output_dir=output_dir, seed=SEED)
    arms: list[Arm] = []
    records = list(baselines)
    for method, runs in finals.items():
        arm = Arm(method, runs, np.stack([_answers(run, scored, test, baselines) for run in runs]))
        arms.append(arm)
        with stage(f"{TITLES[method]} over {len(runs)} seeds"):
            records.append(_record(arm, scored))
        records[-1].write(output_dir / record_name(len(records), TITLES[method]))
    with stage("comparing"):
        found = findings_of(study, (arms[0], arms[1]), (records[-2], records[-1]), scored, seed=SEED)
    for finding in found:
        findings.leave(finding, output_dir, "snli-study", None)
        for arm in arms:  # their cards show it too
            for one in arm.runs:
                finding.write(one.folder / findings.KEPT / f"{finding.name}.json")
    for arm in arms:
        hand_over(arm.runs[0], arguments.output_dir / arm.method, [f"{finding.name}.json" for finding in found])
    apart = arguments.output_dir / "disagreements.csv"
    log(f"{disagreements((arms[0], arms[1]), test, apart):,} pairs on which the methods' seeds differ: {apart}")
    return records, found


def study_of(arguments: StudyArguments) -> tuple[Study, list[Pair], ScoredSet, Split]:
    """The study of these arguments, its training pairs, the set that is scored, and the test split.

    Raises:
        UserError: Bad data, or no such base model.
    """
    pairs, scored, test = load_sets(arguments, {key: getattr(arguments, key) for key in SAMPLING})
    (dev,) = arguments.load("dev")
    name = arguments.model_name_or_path
    # All runs start from the commit that is now the base's, though its branch may move on before the last of them.
    arguments = replace(arguments, model_revision=commit_of(base_path(name), arguments.model_revision))
    base = base_identity(name, arguments.model_revision)
    data = fingerprint([pairs_fingerprint(pairs), dev.fingerprint()])
    return Study(arguments, data, base), pairs, scored, test


def _answers(run: Run, scored: ScoredSet, test: Split, baselines: list[RunRecord]) -> np.ndarray:
    """The class that a run's model gives each test pair, shape (n,); scored unless that was done before."""
    kept = read_evaluation(run.folder)
    if kept is None or kept.record.data["fingerprint"] != scored.fingerprint:
        from snli_roberta.model import classifier

        path = run.folder / "records" / "record.json"
        score_model(
            classifier.load(str(run.folder)), run.title, scored, test, baselines, module=MODULE, path=path, seed=SEED
        )
        kept = read_evaluation(run.folder)
        assert kept is not None
    answers = {row["id"]: row["answer"] for row in kept.scores}
    return np.array([LABELS.index(answers[pair_id(pair)]) for pair in test.pairs])


def _record(arm: Arm, scored: ScoredSet) -> RunRecord:
    """A method's record: means over its seeds, the largest memory, counts of all seeds together."""
    costs = [training_costs(run.facts()) for run in arm.runs]
    first: dict[str, Any] = costs[0]
    seconds = [cost["seconds"] for cost in costs]
    memory = {kind: max(cost["peak_memory_bytes"][kind] for cost in costs) for kind in first["peak_memory_bytes"]}
    settings = {k: v for k, v in first["settings"].items() if k not in ("seed", "best")}
    record = scored.record(
        TITLES[arm.method],
        arm.answers[0].tolist(),
        module=MODULE,
        seed=SEED,
        **first
        | {
            "settings": settings | {"seeds": [run.arguments.seed for run in arm.runs]},
            "seconds": None if None in seconds else float(np.mean(seconds)),
            "peak_memory_bytes": memory,
        },
    )
    record.metrics = over_seeds(scored.labels, arm.answers, scored.names, seed=SEED)
    record.confusion = np.sum([scored.confusion(answers.tolist()) for answers in arm.answers], axis=0).tolist()
    return record


def main() -> None:
    arguments = parse(
        StudyArguments,
        prog=f"python -m {MODULE}",
        examples=f"""  python -m {MODULE} --config snli_roberta/recipes/miniature_study.yaml
  python -m {MODULE} --config snli_roberta/recipes/study.yaml --estimate_only""",
    )
    records, found = compare(arguments)
    if not records:
        return
    print("\n".join(table_lines(records)))
    print()
    rendering.show(found)
    log(f"records and findings: {arguments.output_dir / 'records'}")
    log(f"models: {arguments.output_dir / 'full'} and {arguments.output_dir / 'lora'}")
    if arguments.report:
        write_report(records, arguments.report, "Full fine-tuning or LoRA?", found)


if __name__ == "__main__":
    run(main)
