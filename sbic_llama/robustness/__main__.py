"""Measure how easily an adapter's answers are changed: ``python -m sbic_llama.robustness``.

It tries prompt injections, obfuscations, harmless edits and the names of other groups, and HateCheck's functional tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cli.arguments import option, parse
from common.cli.console import log, quiet_libraries, stage, warn
from common.cli.errors import counted, run
from common.results import finding as findings
from common.results import rendering
from common.results.finding import Finding
from common.results.record import training_facts
from common.results.scoring import command_line
from common.runtime import hardware
from common.runtime.project import corpus_folder
from common.tables.report import fingerprint
from sbic_llama.data import hatecheck
from sbic_llama.data.corpus import labeled
from sbic_llama.data.hatecheck import Case
from sbic_llama.evaluation.other_corpora import hatecheck_finding
from sbic_llama.evaluation.scores import AdapterArguments, require_training_table, test_set
from sbic_llama.robustness.group_swaps import FAMILIES, INVENTED, Lexicon
from sbic_llama.robustness.trials import ask, prepare, robustness_finding

MODULE = "sbic_llama.robustness"


@dataclass(kw_only=True)
class RobustnessArguments(AdapterArguments):
    """Measures how easily an adapter's answers to SBIC's test posts are changed, and scores it on HateCheck."""

    hatecheck: Path | None = option(None, "HateCheck's test_suite_cases.csv; the miniature has its own")
    posts: int = option(200, "posts to draw, and as many per family of group names; 0 for all", minimum=0)

    def cases(self) -> list[Case]:
        """Read HateCheck's cases; none for a real corpus without a file of them."""
        if self.hatecheck is None and not self.on_miniature:
            log("HateCheck is skipped: no --hatecheck was given")
            return []
        return hatecheck.read_cases(self.hatecheck or corpus_folder(self, "hatecheck") / hatecheck.FILE_NAME)


def check(arguments: RobustnessArguments) -> list[Finding]:
    """Try everything on an adapter; write the findings next to the run records and into the adapter's folder.

    Returns:
        The finding "robustness" and, given test cases, the finding "hatecheck".
    """
    quiet_libraries()
    # Whatever can be rejected is rejected before a base model is loaded.
    folder, description = arguments.describe()
    feature = description.resolve_feature()
    cases = arguments.cases()
    splits = arguments.load(description.codebook)
    require_training_table(arguments, feature, splits, training_facts(folder))
    scored = test_set(feature, splits, arguments)
    posts = [post.text for post in labeled(splits["test"], feature.label_of)]
    lexicon = Lexicon(INVENTED if arguments.is_invented else FAMILIES)
    trials = prepare(feature, posts, lexicon, cases, most=arguments.posts or None, seed=arguments.seed)
    hardware.choose_device()
    read, precision = arguments.load_reader(description)
    count = len(set(trials.texts()))
    with stage(
        f"{counted(count, 'text')} made from {counted(len(trials.posts), 'post')} and {counted(len(cases), 'test case')}"
    ):
        replies, cut = ask(read, feature, trials.texts())
    if cut:
        warn(f"truncated, as longer than the adapter reads: {counted(cut, 'text')}")
    shared: dict[str, Any] = {
        "task": scored.task,
        "model": arguments.title,
        "command": command_line(MODULE),
        "miniature": scored.miniature,
        "facts": {"seed": arguments.seed, "posts": len(trials.posts), "texts": len(replies), "cut": cut}
        | {"scored in": precision},
        "seed": arguments.seed,
    }
    with stage("measuring"):
        data = {"name": scored.data, "split": scored.split, "fingerprint": fingerprint(trials.posts)}
        result = [robustness_finding(feature, trials, replies, data=data, **shared)]
        if cases:
            result.append(hatecheck_finding(feature, cases, [replies[case.text].label for case in cases], **shared))
    arguments.leave(result, feature, folder)
    return result


def main() -> None:
    arguments = parse(
        RobustnessArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} --adapter output/miniature_sbic/offensiveYN",
    )
    rendering.show(check(arguments))
    log(f"findings: {arguments.output_dir / findings.FOLDER}")


if __name__ == "__main__":
    run(main)
