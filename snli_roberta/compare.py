"""The whole study of full fine-tuning against LoRA: ``python -m snli_roberta.compare --config recipes/study.yaml``.

It tunes the learning rate of each method on validation pairs, trains each with several seeds, scores the test split once,
and reports the differences, the costs, and whether LoRA is non-inferior.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np

from common.cli.arguments import parse
from common.cli.console import log, quiet_libraries, stage
from common.cli.errors import UserError, counted, run
from common.models.loading import base_path, commit_of
from common.results import finding as findings
from common.results import rendering
from common.results.finding import Finding
from common.results.record import RunRecord, training_costs
from common.results.rendering import table_lines, write_report
from common.results.scoring import ScoredSet, read_evaluation
from common.stats.paired import over_seeds
from common.tables.report import fingerprint
from snli_roberta.data.corpus import LABELS, SAMPLING, Pair, Split, pair_id, pairs_fingerprint
from snli_roberta.model import classifier
from snli_roberta.model.evaluation import load_sets, record_name, score_baselines, score_model
from snli_roberta.study import runs as study_runs
from snli_roberta.study.findings import Arm, disagreements, findings_of
from snli_roberta.study.runs import Run, Study, StudyArguments
from snli_roberta.training.arguments import TITLES, Method

MODULE = "snli_roberta.compare"
SEED = 0  # of the baselines, the untrained head and the bootstrap


def compare(arguments: StudyArguments) -> tuple[list[RunRecord], list[Finding]]:
    """Make the missing runs, score them, and compare the methods.

    Returns:
        The baselines' records and one for each method, and the findings; both empty after an estimate or trials only.

    Raises:
        UserError: Bad data, an unknown model, or a run that failed.
        SystemExit: A signal stopped a run; the same command continues it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(
            "the study was launched as several processes, but starts its trainings itself, one after the other",
            fix=f"start it as python -m {MODULE}, with CUDA_VISIBLE_DEVICES=0 on a machine with several GPUs",
        )
    quiet_libraries()
    study, pairs, scored, test = study_of(arguments)
    for method in TITLES:
        study_runs.check_free(arguments.output_dir / method)
    study_runs.announce(study)
    if arguments.estimate_only:
        return [], []
    finals = make_runs(study)
    if arguments.trials_only:
        return [], []

    scored.policy["scored in"] = "fp32"
    output_dir = arguments.output_dir / "records"
    trained = finals["full"][0]
    baselines = score_baselines(
        scored, pairs, test, (trained.folder, trained.facts()), module=MODULE, output_dir=output_dir, seed=SEED
    )
    arms: list[Arm] = []
    records = list(baselines)
    for method, runs in finals.items():
        arm = Arm(method, runs, np.stack([_answers(run, scored, test, baselines) for run in runs]))
        arms.append(arm)
        with stage(f"{TITLES[method]} over {counted(len(runs), 'seed')}"):
            records.append(_record(arm, scored))
        records[-1].write(output_dir / record_name(len(records), TITLES[method]))
    both = (arms[0], arms[1])
    with stage("comparing"):
        made = findings_of(study, both, (records[-2], records[-1]), scored, seed=SEED)
    _keep(study, both, made)
    table = arguments.output_dir / "disagreements.csv"
    log(f"{disagreements(both, test, table):,} pairs on which the methods' seeds differ: {table}")
    return records, made


def study_of(arguments: StudyArguments) -> tuple[Study, list[Pair], ScoredSet, Split]:
    """Return the study, its training pairs, the set to score, and the test split."""
    pairs, scored, test = load_sets(arguments, {key: getattr(arguments, key) for key in SAMPLING})
    (dev,) = arguments.load("dev")
    name = arguments.model_name_or_path
    # All runs start from the base's present commit, even if its branch moves before the last of them.
    arguments = replace(arguments, model_revision=commit_of(base_path(name), arguments.model_revision))
    base = study_runs.base_identity(name, arguments.model_revision)
    data = fingerprint([pairs_fingerprint(pairs), dev.fingerprint()])
    return Study(arguments, data, base), pairs, scored, test


def make_runs(study: Study) -> dict[Method, list[Run]]:
    """Make the missing runs; return those of each method's chosen rate, or the trials if no more are requested."""
    # Alternately, so that an interrupted study has seen as much of both methods.
    trials = {method: study.trials(method) for method in TITLES}
    study_runs.train([run for both in zip(*trials.values(), strict=True) for run in both])
    if study.arguments.trials_only:
        for trial in (trial for runs in trials.values() for trial in runs):
            accuracy = trial.validation_accuracy()
            shown = "diverged" if accuracy is None else f"validation accuracy {accuracy:.4f}"
            log(f"{trial.title}: {shown}", always=True)
        return trials
    finals = {method: study.finals(method) for method in TITLES}
    while not all(run.finished for runs in finals.values() for run in runs):
        for method, runs in finals.items():
            log(f"{TITLES[method]}: learning rate {runs[0].arguments.learning_rate:g} by validation accuracy")
        study_runs.train([run for both in zip(*finals.values(), strict=True) for run in both])
        finals = {method: study.finals(method) for method in TITLES}  # others, if the mean over seeds fell behind
    return finals


def _answers(run: Run, scored: ScoredSet, test: Split, baselines: list[RunRecord]) -> np.ndarray:
    """Return the class that a run's model gives each test pair, shape (n,); scores the model unless that is done."""
    kept = read_evaluation(run.folder)
    if kept is None or kept.record.data["fingerprint"] != scored.fingerprint:
        model, path = classifier.load(str(run.folder)), run.folder / "records" / "record.json"
        score_model(model, run.title, scored, test, baselines, module=MODULE, path=path, seed=SEED)
        kept = read_evaluation(run.folder)
        assert kept is not None
    answers = {row["id"]: row["answer"] for row in kept.scores}
    return np.array([LABELS.index(answers[pair_id(pair)]) for pair in test.pairs])


def _record(arm: Arm, scored: ScoredSet) -> RunRecord:
    """Make a method's record: means over its seeds, the largest memory, the confusion of all seeds together."""
    costs = [training_costs(run.facts()) for run in arm.runs]
    first: dict[str, Any] = costs[0]
    seconds = [cost["seconds"] for cost in costs]
    memory = {kind: max(cost["peak_memory_bytes"][kind] for cost in costs) for kind in first["peak_memory_bytes"]}
    settings = {k: v for k, v in first["settings"].items() if k not in ("seed", "best")}
    first |= {
        "settings": settings | {"seeds": [run.arguments.seed for run in arm.runs]},
        "seconds": None if None in seconds else float(np.mean(seconds)),
        "peak_memory_bytes": memory,
    }
    record = scored.record(TITLES[arm.method], arm.answers[0].tolist(), module=MODULE, seed=SEED, **first)
    record.metrics = over_seeds(scored.labels, arm.answers, scored.names, seed=SEED)
    record.confusion = np.sum([scored.confusion(answers.tolist()) for answers in arm.answers], axis=0).tolist()
    return record


def _keep(study: Study, arms: tuple[Arm, Arm], made: list[Finding]) -> None:
    """Write the findings next to the records and into the models' folders, and hand over the models to use."""
    output_dir = study.arguments.output_dir
    for finding in made:
        findings.leave(finding, output_dir / "records", "snli-study", None)
        for folder in (trained.folder for arm in arms for trained in arm.runs):  # their cards show it too
            finding.write(folder / findings.KEPT / f"{finding.name}.json")
    for arm in arms:
        study_runs.hand_over(arm.runs[0], output_dir / arm.method, [f"{finding.name}.json" for finding in made])


def main() -> None:
    arguments = parse(
        StudyArguments,
        prog=f"python -m {MODULE}",
        examples=f"""  python -m {MODULE} --config snli_roberta/recipes/miniature_study.yaml
  python -m {MODULE} --config snli_roberta/recipes/study.yaml --estimate_only""",
    )
    records, made = compare(arguments)
    if not records:
        return
    log(f"records and findings: {arguments.output_dir / 'records'}")
    log(f"models: {arguments.output_dir / 'full'} and {arguments.output_dir / 'lora'}")
    if arguments.report:
        write_report(records, arguments.report, "Full fine-tuning or LoRA?", made)
    print("\n".join(table_lines(records)))
    print()
    rendering.show(made)


if __name__ == "__main__":
    run(main)
