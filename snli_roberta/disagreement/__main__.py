"""How far to trust a classifier where people disagree: ``python -m snli_roberta.disagreement --model DIR_OR_HUB_ID``.

By how many of five annotators agreed; on pairs without a gold label; and its probabilities against the labels of five or
a hundred people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.cli.arguments import MAX_SEED, option, parse
from common.cli.console import log, quiet_libraries, stage
from common.cli.errors import UserError, counted, run
from common.models.loading import check_place, local_folder
from common.results import finding as findings
from common.results import rendering
from common.results.finding import Finding
from common.results.scoring import command_line
from common.runtime.project import corpus_folder
from common.tables.report import fingerprint
from common.tables.writing import write_rows
from snli_roberta.data import chaosnli
from snli_roberta.data.chaosnli import Item, contained_in
from snli_roberta.data.corpus import Pair, Split, training_sample
from snli_roberta.disagreement.findings import annotators_finding, chaosnli_finding
from snli_roberta.disagreement.people import COLUMNS, ValidationTemperature, table
from snli_roberta.model import classifier
from snli_roberta.model.evaluation import require_training_pairs, sampling_of, task_of
from snli_roberta.training.arguments import CorpusArguments

MODULE = "snli_roberta.disagreement"


@dataclass(kw_only=True)
class DisagreementArguments(CorpusArguments):
    """Measure how far to trust a classifier on test pairs, and on ChaosNLI's, by how much people disagree about them."""

    model: str = option(help="folder or Hub ID of the trained model or adapter")
    revision: str | None = option(None, "its branch, tag or commit on the Hub")
    chaosnli: Path | None = option(
        None, "chaosNLI_snli.jsonl, with a hundred labels per pair; the miniature has its own"
    )
    title: str = option("trained", "name of the model in tables")
    output_dir: Path = option(
        Path("output/snli_evaluation"),
        "folder of the run records; findings/ and a table of all pairs are written there",
    )
    seed: int = option(0, "seed of the bootstrap", minimum=0, maximum=MAX_SEED)

    def __post_init__(self) -> None:
        CorpusArguments.__post_init__(self)
        check_place(self.model, self.revision)

    @property
    def table(self) -> Path:
        """Where the table of all pairs goes; tables of two models in one folder have different names."""
        return self.output_dir / f"{findings.stem('snli', self.title)}-disagreement.csv"

    def items(self) -> list[Item]:
        """Read ChaosNLI; empty without a file for a real corpus."""
        if self.chaosnli is None and not self.on_miniature:
            log("ChaosNLI is skipped: no --chaosnli")
            return []
        return chaosnli.read_items(self.chaosnli or corpus_folder(self, "chaosnli") / chaosnli.FILE_NAME)


def check(arguments: DisagreementArguments) -> list[Finding]:
    """Score validation, test and ChaosNLI's pairs, and write the findings and a table of all pairs.

    Returns:
        The finding "disagreement" and, with ChaosNLI, the finding "chaosnli".

    Raises:
        UserError: A model that cannot be loaded or was trained on another corpus, or bad data.
    """
    # Check everything before a model is loaded.
    facts = classifier.model_facts(local_folder(arguments.model, arguments.revision))
    items = arguments.items()
    train, dev, test = arguments.load("train", "dev", "test")
    if facts:
        sampled = training_sample(train.pairs, **sampling_of(facts))
        require_training_pairs(sampled, facts, arguments)
    splits = {"train": train.pairs, "dev": dev.pairs, "test": [*test.pairs, *test.without_gold]}
    items, standing = without_training(items, splits)
    quiet_libraries()  # before other imports of these libraries
    model = classifier.load(arguments.model, arguments.revision)
    pairs = {"validation": dev.pairs, "test": test.pairs, "no gold": test.without_gold}
    pairs["ChaosNLI"] = [item.pair for item in items]
    with stage(f"scoring {counted(sum(map(len, pairs.values())), 'pair')}"):
        probabilities = _probabilities(model, pairs)
    temperature = ValidationTemperature(dev.pairs, probabilities["validation"])
    shared: dict[str, Any] = {
        "task": task_of(arguments),
        "model": arguments.title,
        "miniature": arguments.on_miniature,
        "command": command_line(MODULE),
        "seed": arguments.seed,
    }
    with stage("measuring"):
        labeled, unlabeled = (
            (probabilities[name], temperature.apply(pairs[name], probabilities[name])) for name in ("test", "no gold")
        )
        data = data_of(test, arguments.on_miniature)
        finding, judged = annotators_finding(test, labeled, unlabeled, temperature, data=data, **shared)
        made, rows = [finding], table(judged, "SNLI test")
        if items:
            finding, judged = chaosnli_finding(
                items, probabilities["ChaosNLI"], temperature, standing=standing, **shared
            )
            made.append(finding)
            rows += table(judged, "ChaosNLI")
    for finding in made:
        findings.leave(finding, arguments.output_dir, findings.stem("snli", arguments.title), model.own_folder)
    write_rows(arguments.table, rows, COLUMNS)
    return made


def without_training(items: Sequence[Item], splits: dict[str, Sequence[Pair]]) -> tuple[list[Item], dict[str, int]]:
    """Return the items that are not in the training split, and how many of all items are in each split."""
    pairs = [item.pair for item in items]
    places = {name: contained_in(pairs, split) for name, split in splits.items()}
    kept = [item for item, trained in zip(items, places["train"], strict=True) if not trained]
    if items and not kept:
        problem = "every item is in the training split"
        raise UserError(problem, key="--chaosnli", expected="pairs that are new to the model")
    return kept, {name: sum(place) for name, place in places.items()}


def data_of(test: Split, invented: bool) -> dict[str, str]:
    """Describe the test pairs with their annotators' labels, including those without a gold label."""
    pairs = [*test.pairs, *test.without_gold]
    rows = ([pair.premise, pair.hypothesis, pair.label, pair.annotator_labels] for pair in pairs)
    name = "the SNLI miniature" if invented else "SNLI 1.0"
    return {"name": name, "split": "test, also without a gold label", "fingerprint": fingerprint(rows)}


def _probabilities(model: Any, groups: dict[str, list[Pair]]) -> dict[str, np.ndarray]:
    """Return the model's probabilities of each group of pairs, computed together."""
    together = model.probabilities([pair for pairs in groups.values() for pair in pairs], progress=True)
    ends = np.cumsum([len(pairs) for pairs in groups.values()])[:-1]
    return dict(zip(groups, np.split(together, ends), strict=True))


def main() -> None:
    arguments = parse(
        DisagreementArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} --model output/miniature_lora --title LoRA",
    )
    rendering.show(check(arguments))
    log(f"findings: {arguments.output_dir / findings.FOLDER}; all pairs: {arguments.table}")


if __name__ == "__main__":
    run(main)
