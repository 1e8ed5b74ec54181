"""Try a classifier on pairs that were made to mislead it: ``python -m snli_roberta.adversarial``.

On HANS, Breaking NLI and a suite of our own; or, with ``--interactive``, on pairs that you type.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.cli.arguments import MAX_SEED, option, parse
from common.cli.console import log, quiet_libraries, stage
from common.cli.errors import UserError, counted, plain, run
from common.models.loading import check_place, local_folder
from common.results import finding as findings
from common.results import rendering
from common.results.finding import Finding
from common.results.record import training_facts
from common.results.scoring import command_line
from common.runtime.project import miniature_corpora
from common.tables.writing import write_rows
from snli_roberta.adversarial import challenge_sets as sets
from snli_roberta.adversarial.scenes import Scene, Sentences, everyday_scenes, invented_scenes
from snli_roberta.adversarial.suite import EDITS, Trial, edited, outcomes, suite_finding, table, trials
from snli_roberta.data.corpus import LABELS, Pair
from snli_roberta.model import classifier
from snli_roberta.model.classifier import Classifier
from snli_roberta.model.evaluation import TASK

MODULE = "snli_roberta.adversarial"
BLOCK, DASH = "█", "-"
WIDEST, NARROWEST = 60, 10  # characters of a bar
NAME = max(map(len, LABELS))


@dataclass(kw_only=True)
class AdversarialArguments:
    """Try a trained classifier on HANS, Breaking NLI and adversarial pairs of our own; or on pairs that you type."""

    model: str = option(help="folder or Hub ID of the trained model or adapter")
    revision: str | None = option(None, "its branch, tag or commit on the Hub")
    hans: Path | None = option(None, f"HANS's {sets.HANS_FILE}; a model of the miniature gets the miniature's")
    breaking_nli: Path | None = option(
        None, f"Breaking NLI's {sets.BREAKING_FILE}; a model of the miniature gets the miniature's"
    )
    title: str = option("trained", "name of the model in tables")
    output_dir: Path = option(Path("output/snli_evaluation"), "folder of the run records; findings/ is written there")
    seed: int = option(0, "seed of the typos, the shuffling and the bootstrap", minimum=0, maximum=MAX_SEED)
    interactive: bool = option(False, "ask for pairs at a prompt instead")

    def __post_init__(self) -> None:
        check_place(self.model, self.revision)
        if self.interactive and (self.hans or self.breaking_nli):
            raise UserError("a file and --interactive were given", key="interactive", fix="give only one of them")


def check(arguments: AdversarialArguments) -> list[Finding]:
    """Try a model on everything; write the findings, and a table of the suite's pairs with their answers.

    Returns:
        The findings "hans" and "breaking-nli", if there are files, and "adversarial".

    Raises:
        UserError: A model that cannot be loaded, or a bad file.
    """
    # Check everything before the model is loaded.
    facts = training_facts(local_folder(arguments.model, arguments.revision))
    settings = {} if facts is None else facts["settings"]
    of_miniature = facts is not None and settings["data_dir"] is None and settings["dataset_name"] is None
    hans_path = _file(arguments.hans, "hans", sets.HANS_FILE, of_miniature)
    breaking_path = _file(arguments.breaking_nli, "breaking_nli", sets.BREAKING_FILE, of_miniature)
    hans = sets.read_hans(hans_path) if hans_path else []
    breaking = sets.read_breaking_nli(breaking_path) if breaking_path else []
    scenes = invented_scenes() if of_miniature else everyday_scenes()

    quiet_libraries()  # before other imports of these libraries
    model = classifier.load(arguments.model, arguments.revision)
    about: dict[str, Any] = {
        "task": TASK,
        "model": arguments.title,
        "miniature": of_miniature,
        "command": command_line(MODULE),
        "facts": {"seed": arguments.seed, "max_length": model.max_length},
        "seed": arguments.seed,
    }

    def answered(name: str, items: Sequence[Any], finding: Callable[..., Finding]) -> list[Finding]:
        if not items:
            return []
        with stage(f"{name}: {counted(len(items), 'pair')}"):
            return [finding(items, model.probabilities([item.pair for item in items], progress=True), **about)]

    made = answered("HANS", hans, sets.hans_finding)
    made += answered("Breaking NLI", breaking, sets.breaking_nli_finding)
    tried = trials(scenes, arguments.seed)
    answers = _answers(model, scenes, tried)
    data = "scenes of the SNLI miniature" if of_miniature else "everyday scenes of our own"
    made.append(suite_finding(scenes, tried, answers, data=data, **about))
    stem = findings.stem("snli", arguments.title)
    path = arguments.output_dir / f"{stem}-adversarial.csv"
    write_rows(path, table(outcomes(tried, answers), answers))
    for finding in made:
        findings.leave(finding, arguments.output_dir, stem, model.own_folder)
    log(f"all pairs of the suite with their answers, failures first: {path}")
    return made


def _file(given: Path | None, name: str, file_name: str, of_miniature: bool) -> Path | None:
    """Return the given file or, for a model of the miniature, the miniature's."""
    if given is None and not of_miniature:
        log(f"{name} is skipped: no --{name}")
        return None
    return given or miniature_corpora() / name / file_name


def _answers(model: Classifier, scenes: Sequence[Scene], tried: Sequence[Trial]) -> dict[Sentences, np.ndarray]:
    """Return probabilities of the scenes' plain pairs and of the trials, each distinct pair once."""
    pairs = [*(pair for scene in scenes for pair in scene.plain.values()), *(trial.pair for trial in tried)]
    pairs = list(dict.fromkeys(pairs))
    with stage(f"the suite: {counted(len(pairs), 'pair')}"):
        probabilities = model.probabilities([Pair(*pair, label=-1) for pair in pairs], progress=True)
    return dict(zip(pairs, probabilities, strict=True))


def converse(model: Classifier, seed: int = 0) -> None:
    """Ask for a premise and a hypothesis and show the answer, until the premise is empty or the input ends.

    What is typed or pasted reaches the model and the terminal without control characters.
    """
    for stream in (sys.stdin, sys.stdout):  # a byte that the other side cannot decode is no reason to stop
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    print("Type a premise and a hypothesis; an empty premise ends.")
    with contextlib.suppress(EOFError):
        while premise := plain(input("premise:    ")):
            if hypothesis := plain(input("hypothesis: ")):
                print("\n".join(answer_lines(model, (premise, hypothesis), seed)))
            else:
                print("no hypothesis: skipped")
            print()
        return
    print()  # ends the line of the prompt


def answer_lines(model: Classifier, pair: Sentences, seed: int = 0) -> list[str]:
    """Return the answer to a pair as lines for a terminal, then the answers to the pair as :data:`EDITS` change it."""
    changed = {rule: other for rule in EDITS if (other := edited(rule, pair, seed=seed)) != pair}
    pairs = [pair, *changed.values()]
    probabilities = dict(zip(pairs, model.probabilities([Pair(*p, label=-1) for p in pairs]), strict=True))
    answers = {p: LABELS[int(row.argmax())] for p, row in probabilities.items()}
    lines = [*bars(probabilities[pair]), f"answer: {answers[pair]}"]
    for rule, other in changed.items():
        now = answers[other]
        unscored = "same" if now == answers[pair] else "other"
        verdict = {True: "right", False: "wrong", None: unscored}[rule.passed(now, answers[pair])]
        expected = f"expected: {rule.expected}" if rule.scored else "no answer is wrong"
        lines.append(f"  {rule.name:22} {now:{NAME}} {probabilities[other].max():6.1%}  {verdict}, {expected}")
    return lines


def bars(probabilities: np.ndarray) -> list[str]:
    """Show three probabilities as bars as wide as the terminal; in ASCII if it has no block characters."""
    width = min(WIDEST, max(NARROWEST, shutil.get_terminal_size((80, 24)).columns - NAME - 10))
    block = BLOCK
    try:
        block.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        block = DASH
    return [
        f"{name:{NAME}} {p:6.1%} {block * round(float(p) * width)}".rstrip()
        for name, p in zip(LABELS, probabilities, strict=True)
    ]


def main() -> None:
    arguments = parse(
        AdversarialArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} --model output/miniature_lora --title LoRA\n"
        f"  python -m {MODULE} --model output/miniature_lora --interactive",
    )
    if arguments.interactive:
        quiet_libraries()
        converse(classifier.load(arguments.model, arguments.revision), arguments.seed)
        return
    rendering.show(check(arguments))
    log(f"findings: {arguments.output_dir / findings.FOLDER}")


if __name__ == "__main__":
    run(main)
