"""Measure how easily an adapter's answers are changed: ``python -m sbic_llama.robustness``.

It tries prompt injections, obfuscations, harmless edits and the names of other groups, and HateCheck's functional tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli.arguments import MAX_SEED, option, parse
from common.cli.console import log, quiet_libraries, stage
from common.cli.errors import run
from common.models.loading import check_place, hub_commit, local_folder
from common.results import finding as findings
from common.results import rendering
from common.results.finding import Finding
from common.results.scoring import command_line
from common.runtime import hardware
from common.runtime.project import corpus_folder
from common.tables.report import fingerprint
from sbic_llama.data import hatecheck
from sbic_llama.data.corpus import labeled
from sbic_llama.data.features import Answers
from sbic_llama.data.hatecheck import Case
from sbic_llama.evaluation.other_corpora import hatecheck_finding
from sbic_llama.evaluation.scores import test_set
from sbic_llama.robustness.group_swaps import FAMILIES, INVENTED, Lexicon, Reply
from sbic_llama.robustness.trials import Trials, ask, prepare, robustness_finding
from sbic_llama.training.arguments import CorpusArguments

if TYPE_CHECKING:
    from sbic_llama.model.description import AnnotatorFile

MODULE = "sbic_llama.robustness"


@dataclass(kw_only=True)
class RobustnessArguments(CorpusArguments):
    """Measures how easily an adapter's answers to SBIC's test posts are changed, and scores it on HateCheck."""

    adapter: str = option(help="folder or Hub id of the adapter; its annotator.json names the feature")
    revision: str | None = option(None, "its branch, tag or commit on the Hub")
    title: str = option("QLoRA", "name of the adapter in tables")
    hatecheck: Path | None = option(None, "HateCheck's test_suite_cases.csv; the miniature has its own")
    posts: int = option(200, "posts to draw, and as many per family of group names; 0 for all", minimum=0)
    batch_size: int = option(32, "posts per forward pass", minimum=1)
    output_dir: Path = option(
        Path("output/sbic_evaluation"), "folder of the run records; findings go into its findings/"
    )
    seed: int = option(0, "seed of the draws, of the edits and of the bootstrap", minimum=0, maximum=MAX_SEED)

    def __post_init__(self) -> None:
        CorpusArguments.__post_init__(self)
        check_place(self.adapter, self.revision)

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
    from sbic_llama.model.adapter import read_description

    # Whatever can be rejected is rejected before a base model is loaded.
    folder = local_folder(arguments.adapter, arguments.revision)
    description = read_description(folder, arguments.adapter)
    arguments.require_training_corpus(description.corpus, arguments.adapter)
    feature = description.resolve_feature()
    cases = arguments.cases()
    splits = arguments.load()
    scored = test_set(feature, splits, arguments)
    posts = [post.text for post in labeled(splits["test"], feature.label_of)]
    lexicon = Lexicon(INVENTED if arguments.on_miniature else FAMILIES)
    trials = prepare(feature, posts, lexicon, cases, most=arguments.posts or None, seed=arguments.seed)
    replies, facts = reply(arguments, description, trials)
    shared: dict[str, Any] = {
        "task": scored.task,
        "model": arguments.title,
        "command": command_line(MODULE),
        "miniature": scored.miniature,
        "facts": {"seed": arguments.seed, "posts": len(trials.posts), "texts": len(replies), **facts},
        "seed": arguments.seed,
    }
    with stage("measuring"):
        data = {"name": scored.data, "split": scored.split, "fingerprint": fingerprint(trials.posts)}
        result = [robustness_finding(feature, trials, replies, data=data, **shared)]
        if cases:
            result.append(hatecheck_finding(feature, cases, [replies[case.text].label for case in cases], **shared))
    own = None if hub_commit(folder) is not None else folder
    for finding in result:
        findings.leave(finding, arguments.output_dir, findings.stem(f"sbic-{feature.slug}", arguments.title), own)
    return result


def reply(
    arguments: RobustnessArguments, description: AnnotatorFile, trials: Trials
) -> tuple[dict[str, Reply], dict[str, Any]]:
    """Load the adapter and ask it about all texts; return its replies, and facts about how."""
    from sbic_llama.model.adapter import load_adapter, precision_for
    from sbic_llama.model.answering import answer

    hardware.choose_device()
    precision = precision_for(description)
    log(f"{hardware.device_type()}, {precision.value} ({precision.reason})")
    model, tokenizer, _ = load_adapter(arguments.adapter, arguments.revision, precision=precision.value)
    feature = description.resolve_feature()
    cut = 0

    def read(texts: Sequence[str]) -> Answers:
        nonlocal cut
        options = {"max_post_tokens": description.max_post_tokens, "batch_size": arguments.batch_size}
        answers = answer(
            model, tokenizer, feature, texts, progress=True, temperature=description.temperature, **options
        )
        cut += answers.cut
        return answers

    count = len(set(trials.texts()))
    with stage(f"{count:,} texts made from {len(trials.posts):,} posts and {len(trials.cases):,} test cases"):
        replies = ask(read, feature, trials.texts())
    if cut:
        log(f"{cut:,} texts were longer than the adapter reads and were truncated")
    return replies, {"cut": cut, "scored in": precision.value}


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
