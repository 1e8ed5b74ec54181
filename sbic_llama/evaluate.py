"""Score a trained adapter once on SBIC's test split, next to the baselines: ``python -m sbic_llama.evaluate``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.cli.arguments import option, parse
from common.cli.console import log, quiet_libraries, stage, warn
from common.cli.errors import UserError, run
from common.models.loading import hub_commit
from common.results import finding as findings
from common.results.checks import comparison_finding
from common.results.finding import Finding, about, read_finding
from common.results.record import RunRecord, training_costs, training_facts
from common.results.rendering import lines, table_lines
from common.results.scoring import keep
from common.runtime import hardware
from common.runtime.processes import is_first, join
from common.tables.writing import write_rows
from sbic_llama.data.corpus import Post, Split, labeled
from sbic_llama.data.features import OFFENSIVE_YN, Answers, Feature, Label, confidence, only_answer
from sbic_llama.data.hatecheck import Case, read_cases
from sbic_llama.data.md_agreement import Item, read_items
from sbic_llama.evaluation import with_people
from sbic_llama.evaluation.other_corpora import hatecheck_finding, md_agreement_findings
from sbic_llama.evaluation.rounds import read_rounds, rounds_finding
from sbic_llama.evaluation.scores import (
    AdapterArguments,
    Read,
    baseline_path,
    encoder_records,
    read_answers,
    require_training_table,
    score_baselines,
    score_rows,
    test_set,
)

MODULE = "sbic_llama.evaluate"
Others = tuple[list[Item], list[Case]]  # MD-Agreement's and HateCheck's


@dataclass(kw_only=True)
class EvaluateArguments(AdapterArguments):
    """Scores an adapter on SBIC's test split, next to the majority label, TF-IDF and the base model without the adapter."""

    earlier: tuple[Path, ...] = option(
        (), "folders of evaluated adapters of earlier rounds of labels, in their order, to compare with"
    )
    untouched_base: bool = option(True, "also score the base model without the adapter, which takes as long again")
    md_agreement: Path | None = option(
        None, "MD-Agreement file (MD-Agreement_dev.json), to score an offensiveYN adapter on another corpus as well"
    )
    hatecheck: Path | None = option(
        None, "HateCheck's test_suite_cases.csv, to see how far the answers can stand in for hateful or not"
    )


def score_adapter(arguments: EvaluateArguments) -> tuple[list[RunRecord], list[Finding]]:
    """Score the baselines, the untouched base and the adapter; write records, the adapter's answers, and findings.

    Further processes of a launch help the first one compute the answers and return nothing.
    """
    quiet_libraries()
    # Whatever can be rejected is rejected before a base model is loaded and the first baseline is fitted.
    folder, description = arguments.describe()
    items, cases = read_other_corpora(arguments, description.feature)
    facts = training_facts(folder)
    splits = arguments.load(description.codebook)
    feature = description.resolve_feature()
    require_training_table(arguments, feature, splits, facts)
    posts, scored = labeled(splits["test"], feature.label_of), test_set(feature, splits, arguments)
    earlier = read_rounds(arguments.earlier, feature, posts, scored.fingerprint)
    hardware.choose_device()
    processes = join()
    read, precision = arguments.load_reader(description, processes)
    texts = [post.text for post in posts]
    if not processes.first:
        if arguments.untouched_base:
            read(texts, base=True)
        for more in (texts, [item.text for item in items], [case.text for case in cases]):
            if more:
                read(more)
        return [], []
    scored.policy["scored in"] = precision
    if description.aggregation != arguments.aggregation:
        scored.policy["aggregation of the adapter's training labels"] = description.aggregation
    shared = {"module": MODULE, "seed": arguments.seed}
    records = score_baselines(feature, splits, scored, output_dir=arguments.output_dir, **shared)
    encoders = encoder_records(arguments.output_dir, feature, scored)
    records += encoders.values()
    if arguments.untouched_base:
        path = arguments.output_dir / f"{feature.stem}-3-base.json"
        records.append(scored.measure("untouched base", lambda: read(texts, base=True).labels, path=path, **shared))
    answers: list[Answers] = []

    def predict() -> list[Label]:
        answers.append(read(texts))
        return answers[0].labels

    path = arguments.output_dir / f"{arguments.stem(feature, '-4')}.json"
    costs = training_costs(facts) if facts else {}
    records.append(scored.measure(arguments.title, predict, path=path, **shared, **costs))
    if one := only_answer(feature, Counter(answers[0].labels)):
        warn(one)
    rows = score_rows(feature, posts, answers[0])
    write_rows(path.with_suffix(".csv"), rows)
    if hub_commit(folder) is None:
        keep(folder, records[-1], records[:-1], rows)  # published together with the adapter
    result = findings_of(feature, posts, answers[0], records[-1], description.temperature, arguments.seed)
    if feature.classifies:
        result.insert(0, compare(arguments, feature, posts, answers[0], records[-1], encoders))
    given = (folder, feature, posts, answers[0].labels, records[-1])
    result += [rounds_finding(earlier, *given, seed=arguments.seed)] if earlier else []
    result += on_other_corpora(arguments, feature, read, (items, cases), splits["train"], records[-1])
    drop_stale(arguments, feature)
    arguments.leave(result, feature, folder)
    return records, result


def drop_stale(arguments: EvaluateArguments, feature: Feature) -> None:
    """Remove the findings of an earlier evaluation under this title, maybe of another adapter."""
    for stale in (arguments.output_dir / findings.FOLDER).glob(f"{arguments.stem(feature)}-*.json"):
        if read_finding(stale).model == arguments.title:
            stale.unlink()


def compare(
    arguments: EvaluateArguments,
    feature: Feature,
    posts: Sequence[Post],
    answers: Answers,
    record: RunRecord,
    encoders: dict[Path, RunRecord],
) -> Finding:
    """Compare the adapter's answers post by post with those of TF-IDF and of fine-tuned encoders."""
    paths = {"TF-IDF": baseline_path(arguments.output_dir, feature, 2)}
    paths |= {encoder.title: path for path, encoder in encoders.items()}
    others = {title: read_answers(path, feature, posts) for title, path in paths.items()}
    labels = [feature.label_of(post) for post in posts]
    return comparison_finding(labels, answers.labels, others, seed=arguments.seed, **about(record))


def read_other_corpora(arguments: EvaluateArguments, feature: str) -> Others:
    """Read MD-Agreement and HateCheck if the arguments name them."""
    if arguments.md_agreement and feature != OFFENSIVE_YN.name:
        raise UserError(
            f"MD-Agreement has labels for {OFFENSIVE_YN.name} only, and this adapter answers {feature}",
            key="--md_agreement",
            expected=f"an adapter for {OFFENSIVE_YN.name}",
        )
    items = read_items(arguments.md_agreement) if arguments.md_agreement else []
    return items, read_cases(arguments.hatecheck) if arguments.hatecheck else []


def on_other_corpora(
    arguments: EvaluateArguments, feature: Feature, read: Read, others: Others, train: Split, record: RunRecord
) -> list[Finding]:
    """Return what the adapter's answers on the other corpora show."""
    items, cases = others
    result: list[Finding] = []
    shared = {**about(record), "seed": arguments.seed}
    if items and arguments.md_agreement:
        with stage("MD-Agreement"):
            answers = read([item.text for item in items]).labels
            result += md_agreement_findings(items, answers, feature, train, arguments.md_agreement, **shared)
    if cases:
        del shared["data"]
        with stage("HateCheck"):
            answers = read([case.text for case in cases]).labels
            result.append(hatecheck_finding(feature, cases, answers, **shared))
    return result


def findings_of(
    feature: Feature, posts: Sequence[Post], answers: Answers, record: RunRecord, temperature: float, seed: int
) -> list[Finding]:
    """Return what the adapter's answers to the test posts show besides the scores."""
    shared: dict[str, Any] = {"seed": seed, **about(record)}
    with stage("certainty, label policies and agreement"):
        result = with_people.certainty_findings(
            feature,
            [feature.label_of(post) for post in posts],
            answers.labels,
            [confidence(feature, details) for details in answers.details],
            probabilities=np.array([list(row.values()) for row in answers.details]) if feature.classifies else None,
            temperature=temperature,
            **shared,
        )
        # Where a table has one label for each text, there is no other policy or subset.
        if feature.classifies and (feature.codebook is None or any(len(post.annotations) > 1 for post in posts)):
            result.append(with_people.label_policy_finding(feature, posts, answers.labels, **shared))
        by_number = {str(number): label for number, label in enumerate(answers.labels)}
        opinions = with_people.annotators_opinions(feature, posts)
        agreement = with_people.agreement_with_people(feature, opinions, by_number, **shared)
    return [*result, agreement] if agreement else result


def main() -> None:
    arguments = parse(
        EvaluateArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} --adapter output/miniature_sbic/offensiveYN",
    )
    records, result = score_adapter(arguments)
    if not is_first():
        return
    print("\n".join(table_lines(records)))
    for finding in result:
        print("\n" + "\n".join(lines(finding, numbers=False)))
    log(f"records: {arguments.output_dir}")


if __name__ == "__main__":
    run(main, several=True)
