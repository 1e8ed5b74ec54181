"""How far to trust a classifier where people disagree: ``python -m snli_roberta.disagreement --model DIR_OR_HUB_ID``.

By how many of five annotators agreed; where no gold label exists; and its probabilities against what five or a hundred people said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.cli.arguments import MAX_SEED, option, parse
from common.cli.console import log, quiet_libraries, stage
from common.cli.errors import UserError, run
from common.models.loading import check_place, local_folder
from common.results import finding as findings
from common.results import rendering
from common.results.finding import Finding
from common.results.scoring import command_line
from common.runtime.project import corpus_folder
from common.tables.writing import write_rows
from snli_roberta.baselines import TASK
from snli_roberta.data.corpus import Pair, training_sample
from snli_roberta.disagreement import chaosnli, disputed
from snli_roberta.disagreement.chaosnli import Item
from snli_roberta.disagreement.finding import annotators_finding, chaosnli_finding, data_of
from snli_roberta.disagreement.validation_temperature import ValidationTemperature
from snli_roberta.evaluate import require_training_pairs, sampling_of
from snli_roberta.model.facts import model_facts
from snli_roberta.training.arguments import CorpusArguments

MODULE = "snli_roberta.disagreement"


@dataclass(kw_only=True)
class DisagreementArguments(CorpusArguments):
    """Measures how far to trust a classifier on SNLI's test pairs, and on ChaosNLI's, by how much people disagree on them."""

    model: str = option(help="folder or Hub id of the trained model or adapter")
    revision: str | None = option(None, "its branch, tag or commit on the Hub")
    chaosnli: Path | None = option(None, "chaosNLI_snli.jsonl, a hundred labels a pair; on the miniature, its own")
    title: str = option("trained", "name of the model in tables")
    output_dir: Path = option(
        Path("output/snli_evaluation"),
        "folder of the run records; goes into its findings/, and a table of all pairs beside them",
    )
    seed: int = option(0, "seed of the bootstrap", minimum=0, maximum=MAX_SEED)

    def __post_init__(self) -> None:
        CorpusArguments.__post_init__(self)
        check_place(self.model, self.revision)

    def items(self) -> list[Item]:
        """ChaosNLI's items; none where no file was given for a real corpus.

        Raises:
            UserError: See :func:`snli_roberta.disagreement.chaosnli.read_items`.
        """
        if self.chaosnli is None and not self.on_miniature:
            log("no --chaosnli: what a hundred people said is left out")
            return []
        return chaosnli.read_items(self.chaosnli or corpus_folder(self, "chaosnli") / chaosnli.FILE_NAME)


def check(arguments: DisagreementArguments) -> list[Finding]:
    """Asks the model about validation, test and ChaosNLI's pairs, and writes what was found beside the run records, into the
    model's folder, and as a table of all pairs.

    Returns:
        The finding "disagreement" and, where there are items, the finding "chaosnli".

    Raises:
        UserError: A model that can't be loaded or was trained on another corpus, or bad data.
    """
    # All that can be refused is, before a model is loaded.
    facts = model_facts(local_folder(arguments.model, arguments.revision))
    items = arguments.items()
    train, dev, test = arguments.load("train", "dev", "test")
    if facts:
        sampled = training_sample(train.pairs, **sampling_of(facts))
        require_training_pairs(sampled, facts, arguments)
    items, standing = without_training(
        items, train.pairs, {"dev": dev.pairs, "test": [*test.pairs, *test.without_gold]}
    )
    if not test.pairs:
        raise UserError("no test pair has a gold label", file=arguments.data_dir or arguments.dataset_name)
    quiet_libraries()  # before the first of them is imported
    from snli_roberta.model import classifier

    model = classifier.load(arguments.model, arguments.revision)
    asked = {"validation": dev.pairs, "test": test.pairs, "no gold": test.without_gold}
    asked["ChaosNLI"] = [item.pair for item in items]
    with stage(f"asking about {sum(map(len, asked.values())):,} pairs"):
        said = _probabilities(model, asked)
    temperature = ValidationTemperature(dev.pairs, said["validation"])
    shared: dict[str, Any] = {
        "task": TASK,
        "model": arguments.title,
        "miniature": arguments.on_miniature,
        "command": command_line(MODULE),
        "seed": arguments.seed,
    }
    with stage("measuring"):
        labelled, unlabelled = (
            (said[name], temperature.apply(asked[name], said[name])) for name in ("test", "no gold")
        )
        finding, judged = annotators_finding(
            test, labelled, unlabelled, temperature, data=data_of(test, arguments.on_miniature), **shared
        )
        found, rows = [finding], disputed.rows(judged, "SNLI test")
        if items:
            finding, judged = chaosnli_finding(items, said["ChaosNLI"], temperature, standing=standing, **shared)
            found.append(finding)
            rows += disputed.rows(judged, "ChaosNLI")
    stem = findings.stem("snli", arguments.title)
    for finding in found:
        findings.leave(finding, arguments.output_dir, stem, model.own_folder)
    write_rows(table_path(arguments), rows, disputed.TABLE)
    return found


def without_training(
    items: Sequence[Item], train: Sequence[Pair], others: dict[str, Sequence[Pair]]
) -> tuple[list[Item], dict[str, int]]:
    """The items that do not stand in the training split, and how many of all stand in each split.

    Raises:
        UserError: All of them stand in the training split.
    """
    pairs = [item.pair for item in items]
    trained = chaosnli.standing_in(pairs, train)
    standing = {"train": sum(trained)} | {
        name: sum(chaosnli.standing_in(pairs, found)) for name, found in others.items()
    }
    kept = [item for item, known in zip(items, trained, strict=True) if not known]
    if items and not kept:
        raise UserError(
            "every item stands in the training split", key="--chaosnli", expected="pairs that are new to the model"
        )
    return kept, standing


def table_path(arguments: DisagreementArguments) -> Path:
    """Where the table of all pairs goes: two models' tables in one folder stay apart."""
    return arguments.output_dir / f"{findings.stem('snli', arguments.title)}-disagreement.csv"


def _probabilities(model: Any, asked: dict[str, list[Pair]]) -> dict[str, np.ndarray]:
    """The model's probabilities of each group of pairs, asked all at once."""
    found = model.probabilities([pair for pairs in asked.values() for pair in pairs], progress=True)
    ends = np.cumsum([len(pairs) for pairs in asked.values()])[:-1]
    return dict(zip(asked, np.split(found, ends), strict=True))


def main() -> None:
    arguments = parse(
        DisagreementArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} --model output/miniature_lora --title LoRA",
    )
    rendering.show(check(arguments))
    log(f"findings: {arguments.output_dir / findings.FOLDER}; all pairs: {table_path(arguments)}")


if __name__ == "__main__":
    run(main)
