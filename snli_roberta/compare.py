"""The whole study of full fine-tuning against LoRA: ``python -m snli_roberta.compare --config recipes/study.yaml``.

It tunes the learning rate of each method on validation pairs, trains each with several seeds, scores the test split once,
and reports the differences, the costs, and whether LoRA is non-inferior.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

from common.cli.arguments import parse
from common.cli.console import log, quiet_libraries, stage
from common.cli.errors import UserError, counted, run
from common.cli.extras import require
from common.cli.options import METHODS, Method
from common.models.loading import base_identity, base_path, commit_of
from common.results import finding as findings
from common.results import rendering
from common.results.finding import Finding
from common.results.record import RunRecord
from common.results.rendering import table_lines, write_report
from common.results.scoring import ScoredSet
from common.tables.report import fingerprint
from common.training.trials import Run, make_finals, make_trials, record_of
from snli_roberta.data.corpus import SAMPLING, Pair, Split, pair_id, pairs_fingerprint
from snli_roberta.model import classifier
from snli_roberta.model.evaluation import load_sets, record_name, score_baselines, score_model
from snli_roberta.study import runs as study_runs
from snli_roberta.study.findings import Arm, disagreements, findings_of
from snli_roberta.study.runs import Study, StudyArguments

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
    for method in METHODS:
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
        with stage(f"{METHODS[method]} over {counted(len(runs), 'seed')}"):
            shared = {"module": MODULE, "seed": SEED}
            records.append(record_of(METHODS[method], runs, arm.answers, scored, **shared))
        records[-1].write(output_dir / record_name(len(records), METHODS[method]))
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
    base = base_identity(name, arguments.model_revision)
    data = fingerprint([pairs_fingerprint(pairs), dev.fingerprint()])
    rates = {method: arguments.rates(method) for method in METHODS}
    shared = {"rates": rates, "seeds": arguments.seeds, "score": "validation accuracy"}
    return Study(arguments=arguments, data=data, base=base, **shared), pairs, scored, test


def make_runs(study: Study) -> dict[Method, list[Run]]:
    """Make the missing runs; return those of each method's chosen rate, or the trials if no more are requested."""
    from snli_roberta.training.run import train

    trials = make_trials(study, train)
    if not study.arguments.trials_only:
        return make_finals(study, train)
    for trial in (trial for runs in trials.values() for trial in runs):
        accuracy = trial.validation_score()
        shown = "diverged" if accuracy is None else f"validation accuracy {accuracy:.4f}"
        log(f"{trial.title}: {shown}", always=True)
    return trials


def _answers(run: Run, scored: ScoredSet, test: Split, baselines: list[RunRecord]) -> np.ndarray:
    """Return the class that a run's model gives each test pair, shape (n,); scores the model unless that is done."""
    ids = [pair_id(pair) for pair in test.pairs]
    answers = run.answers(scored, ids)
    if answers is None:
        model, path = classifier.load(str(run.folder)), run.folder / "records" / "record.json"
        score_model(model, run.title, scored, test, baselines, module=MODULE, path=path, seed=SEED)
        answers = run.answers(scored, ids)
        assert answers is not None
    return answers


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
    if arguments.report:
        require("plots")
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
