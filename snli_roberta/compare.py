"""Baseline, full fine-tuning and LoRA side by side: ``python -m snli_roberta.compare --full DIR --lora DIR``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.arguments import MAX_SEED, option, parse
from common.errors import run
from common.report import table_lines, write_report
from common.stages import say
from snli_roberta.arguments import CorpusArguments
from snli_roberta.evaluate import Trained, score_models

MODULE = "snli_roberta.compare"


@dataclass(kw_only=True)
class CompareArguments(CorpusArguments):
    """Scores a fully fine-tuned model and a LoRA adapter, trained on the same pairs, beside the controls; with their costs."""

    full: str = option(help="folder or Hub id of the fully fine-tuned model")
    full_revision: str | None = option(None, "its branch, tag or commit on the Hub")
    lora: str = option(help="folder or Hub id of the LoRA adapter")
    lora_revision: str | None = option(None, "its branch, tag or commit on the Hub")
    output_dir: Path = option(Path("output/snli_comparison"), "folder for the run records")
    report: Path | None = option(None, "HTML page to write as well")
    seed: int = option(0, "seed of the controls, the untrained head and the bootstrap", minimum=0, maximum=MAX_SEED)


def main() -> None:
    arguments = parse(
        CompareArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} --full output/miniature_full --lora output/miniature_lora --report output/snli.html",
    )
    records = score_models(
        {
            "full fine-tuning": Trained(arguments.full, arguments.full_revision, "full"),
            "LoRA": Trained(arguments.lora, arguments.lora_revision, "adapter"),
        },
        corpus=arguments,
        module=MODULE,
        output_dir=arguments.output_dir,
        seed=arguments.seed,
    )
    print("\n".join(table_lines(records)))
    say(f"records: {arguments.output_dir}")
    if arguments.report:
        write_report(records, arguments.report, "Full fine-tuning or LoRA?")


if __name__ == "__main__":
    run(main)
