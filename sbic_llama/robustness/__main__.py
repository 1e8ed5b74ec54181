"""How easily an adapter's answers are changed: ``python -m sbic_llama.robustness``.

By prompt injection, obfuscation, harmless edits and the name of another group; and how it does on HateCheck's functional tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from sbic_llama.baselines import test_set
from sbic_llama.data import hatecheck
from sbic_llama.data.corpus import labeled
from sbic_llama.data.features import Answers
from sbic_llama.data.hatecheck import Case
from sbic_llama.evaluation.hatecheck_finding import hatecheck_finding
from sbic_llama.robustness.flips import ask
from sbic_llama.robustness.group_swaps import FAMILIES, INVENTED, Lexicon
from sbic_llama.robustness.outcomes import LIMITS, robustness_parts
from sbic_llama.robustness.trials import prepare
from sbic_llama.training.arguments import CorpusArguments

MODULE = "sbic_llama.robustness"


@dataclass(kw_only=True)
class RobustnessArguments(CorpusArguments):
    """Measures how easily an adapter's answers to SBIC's test posts are changed, and scores it on HateCheck."""

    adapter: str = option(help="folder or Hub id of the adapter; its annotator.json says for which feature")
    revision: str | None = option(None, "its branch, tag or commit on the Hub")
    title: str = option("QLoRA", "name of the adapter in tables")
    hatecheck: Path | None = option(None, "HateCheck's test_suite_cases.csv; on the miniature, its own")
    posts: int = option(200, "posts to draw, and as many for each family of group names; 0 for all", minimum=0)
    batch_size: int = option(32, "posts a forward pass", minimum=1)
    output_dir: Path = option(Path("output/sbic_evaluation"), "folder of the run records; goes into its findings/")
    seed: int = option(0, "seed of the draws, of the edits and of the bootstrap", minimum=0, maximum=MAX_SEED)

    def __post_init__(self) -> None:
        CorpusArguments.__post_init__(self)
        check_place(self.adapter, self.revision)

    def cases(self) -> list[Case]:
        """HateCheck's cases; none where no file was given for a real corpus.

        Raises:
            UserError: See :func:`sbic_llama.data.hatecheck.read_cases`.
        """
        if self.hatecheck is None and not self.on_miniature:
            log("no --hatecheck: its functional tests are left out")
            return []
        return hatecheck.read_cases(self.hatecheck or corpus_folder(self, "hatecheck") / hatecheck.FILE_NAME)


def check(arguments: RobustnessArguments) -> list[Finding]:
    """Tries everything on an adapter, and writes what was found beside the run records and into the adapter's folder.

    Returns:
        The finding "robustness" and, where there are test cases, the finding "hatecheck".

    Raises:
        UserError: An adapter that can't be loaded, or bad data.
    """
    quiet_libraries()
    from sbic_llama.model.adapter import load_adapter, precision_for, read_description
    from sbic_llama.model.answering import answer

    # All that can be refused is, before a base model is loaded.
    folder = local_folder(arguments.adapter, arguments.revision)
    description = read_description(folder, arguments.adapter)
    arguments.require_training_corpus(description.corpus, arguments.adapter)
    declared = description.resolve_feature()
    cases = arguments.cases()
    splits = arguments.load()
    scored = test_set(declared, splits, arguments)
    posts = [post.text for post in labeled(splits["test"], declared.label_of)]
    lexicon = Lexicon(INVENTED if arguments.on_miniature else FAMILIES)
    trials = prepare(declared, posts, lexicon, cases, most=arguments.posts or None, seed=arguments.seed)

    hardware.choose_device()
    precision = precision_for(description)
    log(f"{hardware.device_type()}, {precision.value} ({precision.reason})")
    model, tokenizer, _ = load_adapter(arguments.adapter, arguments.revision, precision=precision.value)
    cut = 0

    def answering(texts: Sequence[str]) -> Answers:
        nonlocal cut
        answers = answer(
            model,
            tokenizer,
            declared,
            texts,
            max_post_tokens=description.max_post_tokens,
            batch_size=arguments.batch_size,
            progress=True,
            temperature=description.temperature,
        )
        cut += answers.cut
        return answers

    with stage(f"{len(set(trials.texts())):,} texts made of {len(trials.posts):,} posts and {len(cases):,} test cases"):
        said = ask(answering, declared, trials.texts())
    if cut:
        log(f"{cut:,} texts were longer than the adapter reads, and cut")
    shared: dict[str, Any] = {
        "task": scored.task,
        "model": arguments.title,
        "command": command_line(MODULE),
        "facts": {"seed": arguments.seed, "posts": len(trials.posts), "texts": len(said), "cut": cut}
        | {"scored in": precision.value},
    }
    with stage("measuring"):
        summary, parts = robustness_parts(declared, trials, said, arguments.seed)
        found = [
            Finding(
                name="robustness",
                title="How easily its answers are changed",
                summary=[f"{len(trials.posts):,} test posts, and what was made of them.", *summary],
                parts=parts,
                limits=LIMITS,
                data={"name": scored.data, "split": scored.split, "fingerprint": fingerprint(trials.posts)},
                miniature=scored.miniature,
                **shared,
            )
        ]
        if cases:
            labels = [said[case.text].label for case in cases]
            found.append(
                hatecheck_finding(declared, cases, labels, seed=arguments.seed, miniature=scored.miniature, **shared)
            )
    own = None if hub_commit(folder) is not None else folder
    for finding in found:
        findings.leave(finding, arguments.output_dir, findings.stem(f"sbic-{declared.slug}", arguments.title), own)
    return found


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
