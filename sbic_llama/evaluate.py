"""Score a trained adapter once on SBIC's test split, next to the baselines: ``python -m sbic_llama.evaluate``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from common.cli.arguments import MAX_SEED, option, parse
from common.cli.console import log, quiet_libraries, stage
from common.cli.errors import UserError, run
from common.models.loading import check_place, hub_commit, local_folder
from common.results import finding as findings
from common.results.finding import Finding, about, read_finding
from common.results.record import RunRecord, training_costs, training_facts
from common.results.rendering import lines, table_lines
from common.results.scoring import keep
from common.runtime import hardware
from common.runtime.processes import Processes, is_first, join
from common.tables.writing import write_rows
from sbic_llama.data.corpus import Post, Split, labeled
from sbic_llama.data.features import OFFENSIVE_YN, Answers, Feature, Label, confidence
from sbic_llama.data.hatecheck import Case, read_cases
from sbic_llama.data.md_agreement import Item, read_items
from sbic_llama.evaluation.other_corpora import hatecheck_finding, md_agreement_findings
from sbic_llama.evaluation.scores import score_baselines, score_rows, test_set
from sbic_llama.evaluation.with_people import (
    agreement_with_people,
    annotators_opinions,
    certainty_findings,
    label_policy_finding,
)
from sbic_llama.training.arguments import CorpusArguments

if TYPE_CHECKING:
    from sbic_llama.model.description import AnnotatorFile

MODULE = "sbic_llama.evaluate"
Read = Callable[..., Answers]  # texts → an adapter's answers; with base=True, those of its base model


@dataclass(kw_only=True)
class EvaluateArguments(CorpusArguments):
    """Scores an adapter on SBIC's test split, next to the majority label, TF-IDF and the base model without the adapter."""

    adapter: str = option(help="folder or Hub id of the adapter; its annotator.json names the feature")
    revision: str | None = option(None, "its branch, tag or commit on the Hub")
    title: str = option("QLoRA", "name of the adapter in tables")
    untouched_base: bool = option(True, "also score the base model without the adapter, which takes as long again")
    batch_size: int = option(32, "posts per forward pass", minimum=1)
    md_agreement: Path | None = option(
        None, "MD-Agreement file (MD-Agreement_dev.json), to score an offensiveYN adapter on another corpus as well"
    )
    hatecheck: Path | None = option(
        None, "HateCheck's test_suite_cases.csv, to see how far the answers can stand in for hateful or not"
    )
    output_dir: Path = option(Path("output/sbic_evaluation"), "folder for the run records")
    seed: int = option(0, "seed of the baselines and of the bootstrap", minimum=0, maximum=MAX_SEED)

    def __post_init__(self) -> None:
        CorpusArguments.__post_init__(self)
        check_place(self.adapter, self.revision)


@dataclass(frozen=True)
class OtherCorpora:
    """What was requested besides SBIC."""

    items: list[Item]
    cases: list[Case]

    def texts(self) -> list[list[str]]:
        both = [item.text for item in self.items], [case.text for case in self.cases]
        return [texts for texts in both if texts]


def score_adapter(arguments: EvaluateArguments) -> tuple[list[RunRecord], list[Finding]]:
    """Score the baselines, the untouched base and the adapter; write records, the adapter's answers, and findings.

    Further processes of a launch help the first one compute the answers and return nothing.
    """
    quiet_libraries()
    from sbic_llama.model.adapter import read_description

    # Whatever can be rejected is rejected before a base model is loaded and the first baseline is fitted.
    folder = local_folder(arguments.adapter, arguments.revision)
    description = read_description(folder, arguments.adapter)
    arguments.require_training_corpus(description.corpus, arguments.adapter)
    others = read_other_corpora(arguments, description.feature)
    facts = training_facts(folder)
    splits = arguments.load()
    feature = description.resolve_feature()
    hardware.choose_device()
    processes = join()
    read, precision = load_reader(arguments, description, processes)
    posts = labeled(splits["test"], feature.label_of)
    texts = [post.text for post in posts]
    if not processes.first:
        if arguments.untouched_base:
            read(texts, base=True)
        for more in (texts, *others.texts()):
            read(more)
        return [], []
    scored = test_set(feature, splits, arguments)
    scored.policy["scored in"] = precision
    if description.aggregation != arguments.aggregation:
        scored.policy["aggregation of the adapter's training labels"] = description.aggregation
    shared = {"module": MODULE, "seed": arguments.seed}
    records = score_baselines(feature, splits, scored, output_dir=arguments.output_dir, **shared)
    if arguments.untouched_base:
        path = arguments.output_dir / f"sbic-{feature.slug}-3-base.json"
        records.append(scored.measure("untouched base", lambda: read(texts, base=True).labels, path=path, **shared))
    answers: list[Answers] = []

    def predict() -> list[Label]:
        answers.append(read(texts))
        return answers[0].labels

    stem = findings.stem(f"sbic-{feature.slug}-4", arguments.title)
    path = arguments.output_dir / f"{stem}.json"
    costs = training_costs(facts) if facts else {}
    records.append(scored.measure(arguments.title, predict, path=path, **shared, **costs))
    rows = score_rows(feature, posts, answers[0])
    write_rows(path.with_suffix(".csv"), rows)
    own = folder if hub_commit(folder) is None else None
    if own:
        keep(own, records[-1], records[:-1], rows)  # published together with the adapter
    result = findings_of(feature, posts, answers[0], records[-1], description.temperature, arguments.seed)
    result += on_other_corpora(arguments, feature, read, others, splits["train"], records[-1])
    write_findings(result, arguments, feature, own)
    return records, result


def load_reader(arguments: EvaluateArguments, description: AnnotatorFile, processes: Processes) -> tuple[Read, str]:
    """Load the adapter; return what answers texts with it, and the precision."""
    from sbic_llama.model.adapter import load_adapter, precision_for
    from sbic_llama.model.answering import answer

    precision = precision_for(description)
    log(f"{hardware.device_type()}, {precision.value} ({precision.reason})")
    model, tokenizer, _ = load_adapter(arguments.adapter, arguments.revision, precision=precision.value)
    feature = description.resolve_feature()
    options = {"max_post_tokens": description.max_post_tokens, "batch_size": arguments.batch_size, "progress": True}

    def read(texts: Sequence[str], *, base: bool = False) -> Answers:
        temperature = 1.0 if base else description.temperature
        with model.disable_adapter() if base else contextlib.nullcontext():
            return answers_together(
                processes,
                texts,
                lambda part: answer(model, tokenizer, feature, part, temperature=temperature, **options),
            )

    return read, precision.value


def write_findings(result: Sequence[Finding], arguments: EvaluateArguments, feature: Feature, own: Path | None) -> None:
    """Write findings next to the records and into the adapter's own folder; remove those of an earlier evaluation."""
    stem = findings.stem(f"sbic-{feature.slug}", arguments.title)
    for path in (arguments.output_dir / findings.FOLDER).glob(f"{stem}-*.json"):
        if read_finding(path).model == arguments.title:
            path.unlink()  # maybe about another adapter of this title
    for finding in result:
        findings.leave(finding, arguments.output_dir, stem, own)


def answers_together(processes: Processes, texts: Sequence[str], read: Callable[[list[str]], Answers]) -> Answers:
    """Return the answers to all texts, which the processes of a launch divide among themselves."""

    def rows(part: list[str]) -> list[tuple[Label, dict[str, float], int]]:
        answers = read(part)
        cut = [answers.cut, *[0] * (len(part) - 1)]  # only their sum is known
        return list(zip(answers.labels, answers.details, cut, strict=True))

    labels, details, cut = zip(*processes.divided(texts, rows), strict=True)
    return Answers(list(labels), list(details), sum(cut))


def read_other_corpora(arguments: EvaluateArguments, feature: str) -> OtherCorpora:
    """Read MD-Agreement and HateCheck if the arguments name them."""
    if arguments.md_agreement and feature != OFFENSIVE_YN.name:
        raise UserError(
            f"MD-Agreement has labels for {OFFENSIVE_YN.name} only, and this adapter answers {feature}",
            key="--md_agreement",
            expected=f"an adapter for {OFFENSIVE_YN.name}",
        )
    return OtherCorpora(
        read_items(arguments.md_agreement) if arguments.md_agreement else [],
        read_cases(arguments.hatecheck) if arguments.hatecheck else [],
    )


def on_other_corpora(
    arguments: EvaluateArguments, feature: Feature, read: Read, others: OtherCorpora, train: Split, record: RunRecord
) -> list[Finding]:
    """Return what the adapter's answers on the other corpora show."""
    result: list[Finding] = []
    shared = {**about(record), "seed": arguments.seed}
    if others.items and arguments.md_agreement:
        with stage("MD-Agreement"):
            answers = read([item.text for item in others.items]).labels
            result += md_agreement_findings(others.items, answers, feature, train, arguments.md_agreement, **shared)
    if others.cases:
        with stage("HateCheck"):
            del shared["data"]
            answers = read([case.text for case in others.cases]).labels
            result.append(hatecheck_finding(feature, others.cases, answers, **shared))
    return result


def findings_of(
    feature: Feature, posts: Sequence[Post], answers: Answers, record: RunRecord, temperature: float, seed: int
) -> list[Finding]:
    """Return what the adapter's answers to the test posts show besides the scores."""
    shared: dict[str, Any] = {"seed": seed, **about(record)}
    with stage("certainty, label policies and agreement"):
        result = certainty_findings(
            feature,
            [feature.label_of(post) for post in posts],
            answers.labels,
            [confidence(feature, details) for details in answers.details],
            probabilities=np.array([list(row.values()) for row in answers.details]) if feature.classifies else None,
            temperature=temperature,
            **shared,
        )
        if feature.classifies:
            result.append(label_policy_finding(feature, posts, answers.labels, **shared))
        by_number = {str(number): label for number, label in enumerate(answers.labels)}
        agreement = agreement_with_people(feature, annotators_opinions(feature, posts), by_number, **shared)
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
