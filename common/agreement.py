"""Does a model agree with people as much as people agree with each other, and could it replace one of them?

``python -m common.agreement --annotations FILE --predictions FILE``: Krippendorff's alpha, Cohen's kappa and the Alternative
Annotator Test, from any table of ``item, annotator, label`` and a model's ``item, label``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.cli.arguments import MAX_SEED, option, parse
from common.cli.console import log
from common.cli.errors import counted, run
from common.results.checks import agreement_finding
from common.results.rendering import lines
from common.results.scoring import command_line
from common.runtime.project import is_miniature
from common.stats.alt_test import EPSILON, FEWEST
from common.stats.metrics import RESAMPLES
from common.stats.scale import Scale, ScaleName, load_similarity
from common.stats.votes import read_tables
from common.tables.report import fingerprint

MODULE = "common.agreement"


@dataclass(kw_only=True)
class AgreementArguments:
    """Measure whether a model agrees with people as much as they agree with each other: Krippendorff's alpha and Cohen's kappa with
    95 % intervals, and the Alternative Annotator Test (Calderon, Reichart and Dror 2025).

    Annotations have a label per row: item, annotator, label. They are a table, an export of a labeling tool, or a folder with one
    file per person. Predictions have an item per row: item, label. Tables are .csv, .tsv, .jsonl (also .gz), .parquet, .xlsx, .sav
    or .dta. Labels that differ only in case or spaces are one label. NA, NaN, null, None and empty cells are missing votes, unless
    the label is in --order or in both tables.
    """

    annotations: Path = option(
        help="people's labels (item, annotator, label): a table, an export, or a folder with one file for each person"
    )
    predictions: Path = option(help="table of the model's labels: item, label")
    item_column: str = option("item", "column of item names, in both tables")
    annotator_column: str = option("annotator", "column of annotator names")
    label_column: str = option("label", "column of people's labels")
    prediction_column: str | None = option(None, "column of the model's labels (default: the --label_column)")
    scale: ScaleName = option("nominal", "how labels compare: as names, as ranks (ordinal) or as numbers (real)")
    order: tuple[str, ...] = option((), "labels of an ordinal scale from low to high, unless they are numbers")
    similarity: str | None = option(None, "path/to/file.py:function of two labels, 0 to 1, instead of equal or not")
    epsilon: float = option(
        EPSILON,
        "allowance for the model's lower cost: .1 against crowd workers, .15 skilled annotators, .2 experts",
        minimum=0,
        maximum=1,
    )
    min_items: int = option(FEWEST, "items that an annotator must share with others and the model", minimum=1)
    task: str | None = option(None, "what was annotated, as a heading (default: the label column)")
    model: str = option("model", "name of the model, as a heading")
    output: Path | None = option(None, "JSON file for the full result", writes=(".json",))
    resamples: int = option(RESAMPLES, "bootstrap draws behind each interval", minimum=100)
    seed: int = option(0, "seed of the bootstrap", minimum=0, maximum=MAX_SEED)


def main() -> None:
    arguments = parse(
        AgreementArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} --annotations human_labels.csv --predictions annotated.csv --item_column id \\\n"
        "    --label_column offensiveYN --prediction_column model_offensiveYN --output output/agreement.json",
    )
    similarity = load_similarity(arguments.similarity) if arguments.similarity else None
    scale = Scale(arguments.scale, arguments.order, similarity)
    label = arguments.label_column
    people, model, notes = read_tables(
        arguments.annotations,
        arguments.predictions,
        scale,
        item=arguments.item_column,
        annotator=arguments.annotator_column,
        label=label,
        prediction=arguments.prediction_column or label,
    )
    predictions = {name: next(iter(labels.values())) for name, labels in model.labels.items()}
    used = (
        [name, annotator, text, predictions[name]]
        for name, labels in sorted(people.labels.items())
        if name in predictions
        for annotator, text in sorted(labels.items())
    )
    log(f"comparing {counted(len(people.labels), 'labeled item')} with {counted(len(predictions), 'prediction')} …")
    finding = agreement_finding(
        people.labels,
        predictions,
        task=arguments.task or label,
        model=arguments.model,
        data={"name": arguments.annotations.name, "split": "items with a prediction", "fingerprint": fingerprint(used)},
        epsilon=arguments.epsilon,
        scale=arguments.scale,
        order=arguments.order,
        similarity=similarity,
        min_items=arguments.min_items,
        seed=arguments.seed,
        resamples=arguments.resamples,
        miniature=is_miniature(arguments.annotations),
        command=command_line(MODULE),
        notes=notes,
    )
    if arguments.output:
        finding.write(arguments.output)
        log(f"full result: {arguments.output}")
    print("\n".join(lines(finding)))


if __name__ == "__main__":
    run(main)
