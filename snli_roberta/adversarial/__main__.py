"""How a classifier fares on pairs that were made to mislead it: ``python -m snli_roberta.adversarial``.

On HANS, on Breaking NLI, and on a suite of our own; or, with ``--interactive``, on what somebody types.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli.arguments import MAX_SEED, option, parse
from common.cli.console import log, quiet_libraries, stage
from common.cli.errors import UserError, run
from common.models.loading import check_place, local_folder
from common.results import finding as findings
from common.results import rendering
from common.results.finding import Finding
from common.results.scoring import command_line
from common.results.record import training_facts
from common.tables.writing import write_rows
from snli_roberta.adversarial import breaking_nli, hans
from snli_roberta.adversarial.suite import everyday, invented
from snli_roberta.adversarial.suite.everyday import Scene, Sentences
from snli_roberta.adversarial.suite.outcomes import outcomes, rows, suite_finding
from snli_roberta.adversarial.suite.rules import Trial, trials
from snli_roberta.baselines import TASK
from snli_roberta.data.corpus import Pair

if TYPE_CHECKING:
    import numpy as np

    from snli_roberta.model.classifier import Classifier

MODULE = "snli_roberta.adversarial"


@dataclass(kw_only=True)
class AdversarialArguments:
    """Tries a trained classifier on HANS, on Breaking NLI and on adversarial pairs of our own; or on pairs that you type."""

    model: str = option(help="folder or Hub id of the trained model or adapter")
    revision: str | None = option(None, "its branch, tag or commit on the Hub")
    hans: Path | None = option(None, f"HANS's {hans.FILE_NAME}; for a model of the miniature, the miniature's")
    breaking_nli: Path | None = option(
        None, f"Breaking NLI's {breaking_nli.FILE_NAME}; for a model of the miniature, the miniature's"
    )
    title: str = option("trained", "name of the model in tables")
    output_dir: Path = option(Path("output/snli_evaluation"), "folder of the run records; goes into its findings/")
    seed: int = option(0, "seed of the typos, the disorder and the bootstrap", minimum=0, maximum=MAX_SEED)
    interactive: bool = option(False, "ask for pairs at a prompt instead")

    def __post_init__(self) -> None:
        check_place(self.model, self.revision)
        if self.interactive and (self.hans or self.breaking_nli):
            raise UserError("a file and --interactive", key="interactive", fix="give one of them")


def check(arguments: AdversarialArguments) -> list[Finding]:
    """Tries a model on everything, and writes what was found beside the run records and into the model's folder; the suite's
    pairs with their answers also go into ``<model>-adversarial.csv``.

    Returns:
        The findings "hans" and "breaking-nli", as far as there are files of them, and "adversarial".

    Raises:
        UserError: A model that can't be loaded, or a bad file.
    """
    # All that can be refused is, before the model is loaded.
    folder = local_folder(arguments.model, arguments.revision)
    of_miniature = trained_on_miniature(training_facts(folder))
    hans_path = _file(arguments.hans, "hans", hans.FILE_NAME, of_miniature)
    breaking_path = _file(arguments.breaking_nli, "breaking_nli", breaking_nli.FILE_NAME, of_miniature)
    cases = hans.read_cases(hans_path) if hans_path else []
    items = breaking_nli.read_items(breaking_path) if breaking_path else []
    scenes = invented.scenes() if of_miniature else everyday.scenes()

    quiet_libraries()  # before the first of them is imported
    from snli_roberta.model import classifier

    model = classifier.load(arguments.model, arguments.revision)
    about: dict[str, Any] = {
        "task": TASK,
        "model": arguments.title,
        "miniature": of_miniature,
        "command": command_line(MODULE),
        "facts": {"seed": arguments.seed, "max_length": model.max_length},
    }
    stem = findings.stem("snli", arguments.title)
    found = []
    if cases:
        with stage(f"HANS: {len(cases):,} pairs"):
            probabilities = model.probabilities([case.pair for case in cases], progress=True)
            found.append(hans.hans_finding(cases, probabilities, seed=arguments.seed, **about))
    if items:
        with stage(f"Breaking NLI: {len(items):,} pairs"):
            probabilities = model.probabilities([item.pair for item in items], progress=True)
            found.append(breaking_nli.breaking_nli_finding(items, probabilities, seed=arguments.seed, **about))
    made = trials(scenes, arguments.seed)
    said = _said(model, scenes, made)
    data = "scenes of the SNLI miniature" if of_miniature else "everyday scenes of our own"
    found.append(suite_finding(scenes, made, said, seed=arguments.seed, data=data, **about))
    table = arguments.output_dir / f"{stem}-adversarial.csv"
    write_rows(table, rows(outcomes(made, said), said))
    for finding in found:
        findings.leave(finding, arguments.output_dir, stem, model.own_folder)
    log(f"all pairs of the suite with their answers, failures first: {table}")
    return found


def trained_on_miniature(facts: dict[str, Any] | None) -> bool:
    """Whether a model's training says that it knows the miniature's sentences and no others."""
    return facts is not None and facts["settings"]["data_dir"] is None and facts["settings"]["dataset_name"] is None


def _file(given: Path | None, name: str, file_name: str, of_miniature: bool) -> Path | None:
    """The file to read: the one given or, for a model of the miniature, the miniature's."""
    if given is not None:
        return given
    if not of_miniature:
        log(f"no --{name}: it is left out")
        return None
    from common.runtime.project import miniature_corpora

    return miniature_corpora() / name / file_name


def _said(model: Classifier, scenes: Sequence[Scene], made: Sequence[Trial]) -> dict[Sentences, np.ndarray]:
    """The probabilities of the scenes' plain pairs and of the trials', each distinct pair asked once."""
    pairs = list(dict.fromkeys([*(pair for scene in scenes for pair in scene.plain.values()), *(t.pair for t in made)]))
    with stage(f"the suite: {len(pairs):,} pairs"):
        probabilities = model.probabilities([Pair(*pair, label=-1) for pair in pairs], progress=True)
    return dict(zip(pairs, probabilities, strict=True))


def main() -> None:
    arguments = parse(
        AdversarialArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} --model output/miniature_lora --title LoRA\n"
        f"  python -m {MODULE} --model output/miniature_lora --interactive",
    )
    if arguments.interactive:
        quiet_libraries()
        from snli_roberta.adversarial.interactive import converse
        from snli_roberta.model import classifier

        converse(classifier.load(arguments.model, arguments.revision), arguments.seed)
        return
    rendering.show(check(arguments))
    log(f"findings: {arguments.output_dir / findings.FOLDER}")


if __name__ == "__main__":
    run(main)
