"""Do a model and people agree as people do among themselves, and may the model take a person's place?

``python -m common.agreement --annotations FILE --predictions FILE``: Krippendorff's alpha, Cohen's kappa and the Alternative
Annotator Test, from any table of ``item, annotator, label`` and a model's ``item, label``.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cli.arguments import MAX_SEED, option, parse
from common.cli.console import log
from common.cli.errors import UserError, run, shown
from common.results.finding import Finding, Listing, Measures, Part, interval
from common.results.rendering import lines
from common.results.scoring import command_line
from common.runtime.project import is_miniature
from common.stats import agreement
from common.stats.agreement import (
    DIFFERENCE,
    EVERYWHERE,
    PEOPLE,
    Annotations,
    AnnotationTable,
    Coded,
    Coefficient,
    Predictions,
    PredictionTable,
    Scale,
    ScaleName,
    Similarity,
    by_item,
    load_similarity,
    read_annotations,
    read_predictions,
)
from common.stats.alt_test import EPSILON, FEWEST, AltTest, alt_test, mean_advantage
from common.stats.metrics import Measure, mean
from common.tables.report import fingerprint

__all__ = ["AltTest", "agreement_finding", "alt_test"]  # what other code calls

MODULE = "common.agreement"
NAME, TITLE = "agreement", "Agreement with people"
MOST_DRAWN = 15  # annotators in the picture
MOST_NAMED = 8  # annotators in a sentence
LIMITS = (
    "Whether the people are right: agreement with them is all that is measured. Passing the test means that the model could stand "
    "in for one of these annotators on items like these, at the ε that was granted; not that it could stand in for all of them, "
    "that its errors fall evenly on the groups that items are about, or that it is right where people disagree for good reasons. "
    "Not passing can mean too few items: an annotator of some dozens is hard to win over, for another person too. A model that "
    "gives the commonest answer can agree with each person more than people do with each other. Items that one person labelled, "
    "and annotators with few items, are no part of the test. With few items and many ties its p-values come out too small. With "
    "two annotators there are no others who agree: each is the measure of the other."
)


@dataclass(kw_only=True)
class AgreementArguments:
    """Says whether a model agrees with people as people do among themselves: Krippendorff's alpha and Cohen's kappa with 95 %
    intervals, and the Alternative Annotator Test (Calderon, Reichart and Dror 2025).

    Tables are .csv, .tsv, .jsonl (also .gz) or .parquet. Annotations have a row a label: item, annotator, label; predictions a row
    an item: item, label.
    """

    annotations: Path = option(help="table of people's labels: item, annotator, label")
    predictions: Path = option(help="table of the model's labels: item, label")
    item_column: str = option("item", "column of the items' names, in both tables")
    annotator_column: str = option("annotator", "column of the annotators' names")
    label_column: str = option("label", "column of people's labels")
    prediction_column: str | None = option(None, "column of the model's labels (default: as --label_column)")
    scale: ScaleName = option("nominal", "what labels are: names, ranks (ordinal) or numbers (real)")
    order: tuple[str, ...] = option((), "the labels of an ordinal scale from low to high, where they are no numbers")
    similarity: str | None = option(None, "path/to/file.py:function, of two labels, 0 to 1, in place of equal or not")
    epsilon: float = option(
        EPSILON,
        "what the model is allowed for being cheaper: .1 against crowd workers, .15 skilled, .2 experts",
        minimum=0,
        maximum=1,
    )
    min_items: int = option(FEWEST, "items that an annotator must share with others and the model", minimum=1)
    task: str | None = option(None, "what was asked, as it heads the results (default: the label column)")
    model: str = option("model", "whose predictions these are, as it heads the results")
    output: Path | None = option(None, "JSON file for the full result")
    seed: int = option(0, "seed of the bootstrap", minimum=0, maximum=MAX_SEED)


def agreement_finding(
    annotations: Annotations | Iterable[tuple[Hashable, Hashable, Any]],
    predictions: Predictions,
    *,
    task: str,
    model: str,
    data: dict[str, str],
    epsilon: float = EPSILON,
    scale: ScaleName = "nominal",
    order: Sequence[Hashable] = (),
    similarity: Similarity | None = None,
    min_items: int = FEWEST,
    seed: int = 0,
    miniature: bool = False,
    command: str = "",
    notes: Sequence[str] = (),
) -> Finding:
    """How a model and people agree, beside how people agree among themselves.

    The two are compared on the same items: those that the model and at least two people labelled. Intervals are of items drawn with
    replacement. The order of rows is nothing to any number.

    Args:
        annotations: Item → annotator → label, or (item, annotator, label) in any order.
        predictions: Item → the model's label.
        task: What was asked, as it heads the records' table.
        model: Whose predictions these are.
        data: ``{"name", "split", "fingerprint"}`` of the items.
        epsilon: As for :func:`alt_test`, as are ``scale``, ``order``, ``similarity`` and ``min_items``.
        seed: Seed of the bootstrap.
        miniature: Whether the data is the embedded miniature.
        command: The command that finds it again.
        notes: Sentences about the tables, to stand beside those about the items.

    Raises:
        ValueError: As of :func:`alt_test`.
        UserError: Nothing that both somebody and the model labelled, or no label in common.
    """
    annotations = by_item(annotations)
    known = Scale(scale, tuple(order), similarity)
    coded = agreement.code(annotations, predictions, known)
    _check_common(annotations, predictions, coded)
    tested = alt_test(
        annotations,
        predictions,
        epsilon=epsilon,
        scale=scale,
        order=order,
        similarity=similarity,
        min_items=min_items,
    )
    summary, parts = _coefficients(coded, seed)
    of_test, advantages = _advantages(tested, seed)
    summary = [*summary, *of_test, _counts(annotations, predictions, coded), *notes]
    measured = {part.title: part.rows for part in parts if isinstance(part, Measures)}
    packages = {name: importlib.metadata.version(name) for name in ("krippendorff", "scipy")}
    return Finding(
        NAME,
        TITLE,
        task,
        model,
        summary,
        [*parts, *advantages],
        LIMITS,
        data,
        facts={
            "alternative_annotator_test": {
                field.name: _plain(getattr(tested, field.name))
                for field in dataclasses.fields(tested)
                if field.name != "differences"
            },
            "coefficients": measured,
            **known.describe(),
            "seed": seed,
            "packages": packages,
        },
        miniature=miniature,
        command=command,
    )


def _plain(value: Any) -> Any:
    return [dataclasses.asdict(one) for one in value] if isinstance(value, list) else value


def _check_common(annotations: Annotations, predictions: Predictions, coded: Coded) -> None:
    """Refuses tables that can only be of different things, where every number would be there and wrong."""
    if not coded.items:
        examples = [shown(next(iter(known), None)) for known in (annotations, predictions)]
        raise UserError(
            f"no item has both a label of a person and a prediction (items are called {examples[0]} and {examples[1]})",
            fix="check the item columns",
        )
    said = {label for labels in coded.people for label in labels}
    if coded.scale == Scale() and not said & set(coded.model):
        examples = [shown(coded.values[min(codes)]) for codes in (said, coded.model)]
        raise UserError(
            f"the model never gives a label that people give (they say {examples[0]}, it says {examples[1]})",
            fix="check the label columns",
        )


def _coefficients(coded: Coded, seed: int) -> tuple[list[str], list[Part]]:
    """Alpha and kappa in sentences and tables."""
    if not agreement.has_coefficients(coded):
        return [
            f"Alpha and kappa are left out: the model and people give {len(coded.values):,} different labels, and the "
            f"similarity of each two is asked for {agreement.MOST_LABELS:,} at most."
        ], []
    weighted = coded.scale.name == "ordinal" or coded.scale.similarity is not None
    scale = _scale_words(coded.scale)
    kinds: list[tuple[str, str, Coefficient]] = [("Krippendorff's alpha", "alpha", agreement.alpha)]
    if coded.scale.name != "real":
        kinds.append(("Cohen's kappa, weighted" if weighted else "Cohen's kappa", "kappa", agreement.kappa))
    summary: list[str] = []
    parts: list[Part] = []
    for title, name, coefficient in kinds:
        rows = agreement.compared(coded, coefficient, seed)
        if rows:
            parts.append(Measures(title, "agreement of", name, rows))
        # The same labels have other coefficients on another scale.
        summary.append(f"{title} ({scale}) {_words(rows)}.")
    return summary, parts


def _scale_words(scale: Scale) -> str:
    """A scale as sentences name it."""
    named = scale.describe()["similarity"]
    return f"by the similarity {named}" if named else f"{scale.name} scale"


def _words(rows: dict[str, Measure]) -> str:
    """A coefficient's rows as the rest of a sentence."""
    if PEOPLE not in rows:
        said = "; ".join(f"{name}, {interval(row)}" for name, row in rows.items())
        return f"{said or 'has no value'}; of people among themselves it has no value"
    said = "; ".join(f"{name}, {interval(row)}" for name, row in rows.items() if name not in (EVERYWHERE, DIFFERENCE))
    said = f"on {rows[PEOPLE]['n']:,} items that at least two people labelled: {said}"
    if DIFFERENCE not in rows:
        return said
    low, high = rows[DIFFERENCE]["ci95"]
    verdict = "no difference between the two is shown"
    if rows[DIFFERENCE]["n"] < FEWEST:
        verdict = "too few items to tell"
    elif high < 0 or low > 0:
        verdict = f"the model agrees with people {'less' if high < 0 else 'more'} than they do among themselves"
    return f"{said}; difference {interval(rows[DIFFERENCE])}: {verdict}"


def _advantages(tested: AltTest, seed: int) -> tuple[list[str], list[Part]]:
    """The Alternative Annotator Test in sentences and tables."""
    if not tested.annotators:
        most = max(tested.left_out.values(), default=0)
        return [
            f"Alternative Annotator Test: no annotator has {tested.min_items:,} items that another person and the model labelled "
            f"too (the most is {most:,}), so it says nothing."
        ], []
    count, wins = len(tested.annotators), sum(one.wins for one in tested.annotators)
    summary = [
        f"Alternative Annotator Test at ε = {tested.epsilon:g}: {'passed' if tested.passed else 'not passed'}. The model wins over "
        f"{wins:,} of {count:,} annotators: ω = {tested.omega:.3f} (.5 or more passes).",
        f"ρ = {interval(mean_advantage(tested, seed))}: the share of an annotator's items on which the model agrees with the other "
        "people at least as well as the annotator does, on average over annotators.",
    ]
    if tested.left_out:
        named = [f"{name} ({n:,})" for name, n in tested.left_out.items()]
        more = len(named) - MOST_NAMED
        summary.append(
            f"Annotators with fewer than {tested.min_items:,} items to compare are left out, {len(named):,} of "
            f"{len(named) + count:,}: "
            + ", ".join(named[:MOST_NAMED])
            + (f" and {more:,} more, whom the result's file names." if more > 0 else ".")
        )
    advantage = Measures(
        "How much more often an annotator agrees better with the others than the model does"
        + (f" (the {MOST_DRAWN} with most items)" if count > MOST_DRAWN else ""),
        "annotator",
        "share of items",
        {one.name: mean(list(tested.differences[one.name].values()), seed) for one in tested.annotators[:MOST_DRAWN]},
        reference=tested.epsilon,
        reference_name="ε, below which the model wins",
    )
    columns = ["annotator", "items", "model as good or better", "person as good or better", "p", "test", "model wins"]
    rows = [
        [one.name, one.n, one.rho_model, one.rho_person, one.p_value, one.test, one.wins] for one in tested.annotators
    ]
    return summary, [advantage, Listing("Alternative Annotator Test by annotator", columns, rows)]


def _counts(annotations: Annotations, predictions: Predictions, coded: Coded) -> str:
    """What was there and what was not, in sentences."""
    labelled = {item: said for item, said in annotations.items() if said}
    labels, people = sum(map(len, labelled.values())), {name for said in labelled.values() for name in said}
    several = sum(len(said) > 1 for said in coded.people)
    text = (
        f"{labels:,} labels of {len(people):,} people on {len(labelled):,} items; {len(coded.items):,} of the items have a "
        f"prediction, {several:,} of these labels of two people or more."
    )
    for count, words in (
        (len(labelled) - len(coded.items), "Items with labels and no prediction"),
        (len(predictions) - len(coded.items), "Predictions of other items"),
    ):
        text += f" {words}: {count:,}." if count else ""
    if coded.scale == Scale():
        known = {label for said in coded.people for label in said}
        unknown = sum(label not in known for label in coded.model)
        text += f" Answers of the model with a label that none of these people gives: {unknown:,}." if unknown else ""
    return text


def _notes(path: Path, table: AnnotationTable | PredictionTable) -> list[str]:
    """What was skipped of a file, if anything was."""
    skipped = [(table.blank, "skipped as they have no label"), (table.repeated, "counted once as they repeat one")]
    words = [f"{what}: {count:,}" for count, what in skipped if count]
    return [f"Of {table.rows:,} rows in {path.name}, {'; '.join(words)}."] if words else []


def main() -> None:
    arguments = parse(
        AgreementArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} --annotations human_labels.csv --predictions annotated.csv --item_column id \\\n"
        "    --label_column offensiveYN --prediction_column model_offensiveYN --output output/agreement.json",
    )
    similarity = load_similarity(arguments.similarity) if arguments.similarity else None
    scale = Scale(arguments.scale, arguments.order, similarity)
    people = read_annotations(
        arguments.annotations,
        scale,
        item=arguments.item_column,
        annotator=arguments.annotator_column,
        label=arguments.label_column,
    )
    model = read_predictions(
        arguments.predictions,
        scale,
        item=arguments.item_column,
        label=arguments.prediction_column or arguments.label_column,
    )
    used = sorted(
        [item, who, label, model.labels[item]]
        for item, said in people.labels.items()
        for who, label in said.items()
        if item in model.labels
    )
    finding = agreement_finding(
        people.labels,
        model.labels,
        task=arguments.task or arguments.label_column,
        model=arguments.model,
        data={"name": arguments.annotations.name, "split": "items with a prediction", "fingerprint": fingerprint(used)},
        epsilon=arguments.epsilon,
        scale=arguments.scale,
        order=arguments.order,
        similarity=similarity,
        min_items=arguments.min_items,
        seed=arguments.seed,
        miniature=is_miniature(arguments.annotations),
        command=command_line(MODULE),
        notes=[*_notes(arguments.annotations, people), *_notes(arguments.predictions, model)],
    )
    print("\n".join(lines(finding)))
    if arguments.output:
        finding.write(arguments.output)
        log(f"full result: {arguments.output}")


if __name__ == "__main__":
    run(main)
