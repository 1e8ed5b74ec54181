"""Scores a trained adapter on SBIC's test split, once, beside the controls: ``python -m sbic_llama.evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.cli.arguments import MAX_SEED, option, parse
from common.cli.console import log, quiet_libraries, stage
from common.cli.errors import UserError, run
from common.models.loading import check_place, hub_commit, local_folder
from common.results import finding as findings
from common.results.scoring import keep
from common.results.finding import Finding, about, read_finding
from common.results.record import RunRecord
from common.results.rendering import lines, table_lines
from common.results.record import training_costs, training_facts
from common.runtime import hardware
from common.runtime.processes import Processes, is_first, join
from common.tables.writing import write_rows
from sbic_llama.baselines import score_controls, test_set
from sbic_llama.data.corpus import Post, Split, labeled, post_id
from sbic_llama.data.features import OFFENSIVE_YN, Answers, Feature, Label, confidence
from sbic_llama.data.hatecheck import Case, read_cases
from sbic_llama.data.md_agreement import Item, read_items
from sbic_llama.evaluation.hatecheck_finding import hatecheck_finding
from sbic_llama.evaluation.label_policies import label_policy_finding
from sbic_llama.evaluation.other_corpora import md_agreement_findings
from sbic_llama.evaluation.with_people import agreement_with_people, annotators_opinions, certainty_findings
from sbic_llama.training.arguments import CorpusArguments

MODULE = "sbic_llama.evaluate"


@dataclass(kw_only=True)
class EvaluateArguments(CorpusArguments):
    """Scores an adapter on SBIC's test split beside majority, TF-IDF and its base model without the adapter."""

    adapter: str = option(help="folder or Hub id of the adapter; its annotator.json says for which feature")
    revision: str | None = option(None, "its branch, tag or commit on the Hub")
    title: str = option("QLoRA", "name of the adapter in tables")
    untouched_base: bool = option(True, "score the base model without the adapter too, which takes as long again")
    batch_size: int = option(32, "posts a forward pass", minimum=1)
    md_agreement: Path | None = option(
        None, "file of MD-Agreement (MD-Agreement_dev.json), to score an offensiveYN adapter on another corpus too"
    )
    hatecheck: Path | None = option(
        None, "HateCheck's test_suite_cases.csv, to see how far the answers can stand for hateful or not"
    )
    output_dir: Path = option(Path("output/sbic_evaluation"), "folder for the run records")
    seed: int = option(0, "seed of the controls and of the bootstrap", minimum=0, maximum=MAX_SEED)

    def __post_init__(self) -> None:
        CorpusArguments.__post_init__(self)
        check_place(self.adapter, self.revision)


def score_rows(declared: Feature, posts: Sequence[Post], annotated: Answers) -> list[dict[str, Any]]:
    """What a model said of each post, without the posts: an id made of the text, the label, the answer, the numbers."""
    return [
        {
            "id": post_id(post),
            "label": declared.target(post),
            "answer": declared.answer(answer),
            **{name: round(number, 6) for name, number in numbers.items()},
        }
        for post, answer, numbers in zip(posts, annotated.labels, annotated.details, strict=True)
    ]


def score_adapter(arguments: EvaluateArguments) -> tuple[list[RunRecord], list[Finding]]:
    """Scores the controls, the untouched base and the adapter, and writes their records, the adapter's answers, and findings.

    Further processes of a launch help the first one to the answers, and return nothing.

    Raises:
        UserError: An adapter that can't be loaded, or bad data.
    """
    quiet_libraries()
    from sbic_llama.model.adapter import load_adapter, precision_for, read_description
    from sbic_llama.model.answering import answer

    # All that can be refused is, before a base model is loaded and the first control fitted.
    folder = local_folder(arguments.adapter, arguments.revision)
    description = read_description(folder, arguments.adapter)
    arguments.require_training_corpus(description.corpus, arguments.adapter)
    items, cases = other_items(arguments, description.feature)
    facts = training_facts(folder)
    splits = arguments.load()
    hardware.choose_device()
    processes = join()
    precision = precision_for(description)
    log(f"{hardware.device_type()}, {precision.value} ({precision.reason})")
    model, tokenizer, _ = load_adapter(arguments.adapter, arguments.revision, precision=precision.value)
    declared = description.resolve_feature()
    scored = test_set(declared, splits, arguments)
    scored.policy["scored in"] = precision.value
    if description.aggregation != arguments.aggregation:
        scored.policy["aggregation of the adapter's training labels"] = description.aggregation
    posts = labeled(splits["test"], declared.label_of)
    stem = f"sbic-{declared.slug}"
    texts = [post.text for post in posts]
    shape = {"max_post_tokens": description.max_post_tokens, "batch_size": arguments.batch_size, "progress": True}
    common = {"module": MODULE, "seed": arguments.seed}

    def read(texts: Sequence[str]) -> Answers:
        return answers_together(processes, texts, lambda part: answer(model, tokenizer, declared, part, **shape))

    if not processes.first:
        if arguments.untouched_base:
            with model.disable_adapter():
                read(texts)
        shape["temperature"] = description.temperature
        for several in (texts, [item.text for item in items], [case.text for case in cases]):
            if several:
                read(several)
        return [], []
    records = score_controls(
        declared, splits, scored, module=MODULE, output_dir=arguments.output_dir, seed=arguments.seed
    )
    answers: list[Answers] = []

    def predict() -> list[Label]:
        answers.append(read(texts))
        return answers[-1].labels

    if arguments.untouched_base:
        with model.disable_adapter():
            path = arguments.output_dir / f"{stem}-3-base.json"
            records.append(scored.measure("untouched base", predict, path=path, **common))
    shape["temperature"] = description.temperature
    costs = training_costs(facts) if facts else {}
    own_stem = findings.stem(stem, arguments.title)
    path = arguments.output_dir / f"{findings.stem(f'{stem}-4', arguments.title)}.json"
    records.append(scored.measure(arguments.title, predict, path=path, **common, **costs))
    rows = score_rows(declared, posts, answers[-1])
    write_rows(path.with_suffix(".csv"), rows)
    own = folder if hub_commit(folder) is None else None
    if own:
        keep(own, records[-1], records[:-1], rows)  # what is published with the adapter lies in its own folder
    found = findings_of(
        declared, posts, answers[-1], records[-1], temperature=description.temperature, seed=arguments.seed
    )
    found += on_other_corpora(
        arguments, declared, lambda texts: read(texts).labels, items, cases, splits["train"], records[-1]
    )
    for stale in (arguments.output_dir / findings.FOLDER).glob(f"{own_stem}-*.json"):
        if read_finding(stale).model == arguments.title:
            stale.unlink()  # of an earlier evaluation under this title, and maybe of another adapter
    for finding in found:
        findings.leave(finding, arguments.output_dir, own_stem, own)
    return records, found


def answers_together(processes: Processes, texts: Sequence[str], read: Callable[[list[str]], Answers]) -> Answers:
    """Answers to all texts, of which the processes of a launch read a part each."""

    def rows(part: list[str]) -> list[tuple[Label, dict[str, float], int]]:
        found = read(part)
        cut = [found.cut, *[0] * (len(part) - 1)]  # only their sum is known
        return list(zip(found.labels, found.details, cut, strict=True))

    labels, details, cut = zip(*processes.divided(texts, rows), strict=True)
    return Answers(list(labels), list(details), sum(cut))


def other_items(arguments: EvaluateArguments, feature: str) -> tuple[list[Item], list[Case]]:
    """What was asked for of MD-Agreement and HateCheck.

    Raises:
        UserError: A bad file, or MD-Agreement for a feature that it has no labels of.
    """
    if arguments.md_agreement and feature != OFFENSIVE_YN.name:
        raise UserError(
            f"MD-Agreement has labels for {OFFENSIVE_YN.name} only",
            key="--md_agreement",
            expected=f"an adapter for {OFFENSIVE_YN.name}",
        )
    return (
        read_items(arguments.md_agreement) if arguments.md_agreement else [],
        read_cases(arguments.hatecheck) if arguments.hatecheck else [],
    )


def on_other_corpora(
    arguments: EvaluateArguments,
    declared: Feature,
    read: Callable[[Sequence[str]], list[Label]],
    items: Sequence[Item],
    cases: Sequence[Case],
    train: Split,
    record: RunRecord,
) -> list[Finding]:
    """How the adapter does on what :func:`other_items` read; ``read`` gives its answers to texts."""
    found: list[Finding] = []
    shared = {**about(record), "seed": arguments.seed}
    if items and arguments.md_agreement:
        with stage("MD-Agreement"):
            answers = read([item.text for item in items])
            found += md_agreement_findings(items, answers, declared, train, arguments.md_agreement, **shared)
    if cases:
        with stage("HateCheck"):
            del shared["data"]
            found.append(hatecheck_finding(declared, cases, read([case.text for case in cases]), **shared))
    return found


def findings_of(
    declared: Feature, posts: Sequence[Post], answers: Answers, record: RunRecord, *, temperature: float, seed: int
) -> list[Finding]:
    """What the adapter's answers to the test posts say besides the scores."""
    shared = {"seed": seed, **about(record)}
    with stage("certainty, label policies and agreement"):
        labels = [declared.label_of(post) for post in posts]
        found = certainty_findings(
            declared,
            labels,
            answers.labels,
            [confidence(declared, details) for details in answers.details],
            probabilities=np.array([list(details.values()) for details in answers.details])
            if declared.classifies
            else None,
            temperature=temperature,
            **shared,
        )
        if declared.classifies:
            found.append(label_policy_finding(declared, posts, answers.labels, **shared))
        said = {str(number): label for number, label in enumerate(answers.labels)}
        agreement = agreement_with_people(declared, annotators_opinions(declared, posts), said, **shared)
        if agreement:
            found.append(agreement)
    return found


def main() -> None:
    arguments = parse(
        EvaluateArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} --adapter output/miniature_sbic/offensiveYN",
    )
    records, found = score_adapter(arguments)
    if not is_first():
        return
    print("\n".join(table_lines(records)))
    for finding in found:
        print("\n" + "\n".join(lines(finding, numbers=False)))
    log(f"records: {arguments.output_dir}")


if __name__ == "__main__":
    run(main, several=True)
