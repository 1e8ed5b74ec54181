"""Score trained classifiers and baselines on SNLI's test split: ``python -m snli_roberta.evaluate``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cli.arguments import MAX_SEED, option, parse
from common.cli.console import log, quiet_libraries
from common.cli.errors import UserError, run
from common.cli.extras import require
from common.models.loading import check_place
from common.results.finding import FOLDER, read_findings
from common.results.record import RunRecord
from common.results.rendering import table_lines, write_report
from common.runtime.processes import is_first, join
from snli_roberta.model import classifier, evaluation
from snli_roberta.training.arguments import CorpusArguments

MODULE = "snli_roberta.evaluate"


@dataclass(kw_only=True)
class EvaluateArguments(CorpusArguments):
    """Score trained classifiers on SNLI's test split, next to majority, TF-IDF and untrained-head baselines."""

    model: tuple[str, ...] = option(help="folders or Hub IDs of trained models or adapters, scored on the same pairs")
    revision: tuple[str, ...] = option((), "their branches, tags or commits on the Hub, one per model")
    title: tuple[str, ...] = option(("trained",), "names of the models in tables, one per model")
    output_dir: Path = option(Path("output/snli_evaluation"), "folder for the run records")
    report: Path | None = option(None, "also write an HTML page to this file", writes=(".html", ".htm"))
    seed: int = option(0, "seed of the baselines, the untrained head and the bootstrap", minimum=0, maximum=MAX_SEED)

    def __post_init__(self) -> None:
        CorpusArguments.__post_init__(self)
        if len(set(self.title)) != len(self.model):
            raise UserError(f"{len(self.model)} models", key="title", expected="as many different titles")
        if self.revision and len(self.revision) != len(self.model):
            raise UserError(f"{len(self.model)} models", key="revision", expected="one for each of them, or none")
        for name, revision in self.places():
            check_place(name, revision)

    def places(self) -> list[tuple[str, str | None]]:
        return list(zip(self.model, self.revision or (None,) * len(self.model), strict=True))


def score(arguments: EvaluateArguments) -> list[RunRecord]:
    """Score the baselines and the models; empty on further processes, which share the first one's work.

    Raises:
        UserError: A model cannot be loaded, models differ in training pairs or base, or the corpus is not theirs.
    """
    quiet_libraries()  # before other imports of these libraries
    processes = join()
    # Check everything before the first baseline is fitted.
    models = {title: classifier.load(*place) for title, place in zip(arguments.title, arguments.places(), strict=True)}
    trained = evaluation.check_comparable(models)
    facts = trained[1] if trained else None
    pairs, scored, test = evaluation.load_sets(arguments, evaluation.sampling_of(facts) if facts else None)
    if facts:
        evaluation.require_training_pairs(pairs, facts, arguments)
    if not processes.first:
        for model in models.values():
            evaluation.split_probabilities(model, test, processes)
        return []
    scored.policy["scored in"] = "fp32"
    shared: dict[str, Any] = {"module": MODULE, "seed": arguments.seed}
    baselines = evaluation.score_baselines(scored, pairs, test, trained, output_dir=arguments.output_dir, **shared)
    records = list(baselines)
    for title, model in models.items():
        path = arguments.output_dir / evaluation.record_name(len(records) + 1, title)
        records.append(
            evaluation.score_model(model, title, scored, test, baselines, path=path, processes=processes, **shared)
        )
    return records


def main() -> None:
    arguments = parse(
        EvaluateArguments,
        prog=f"python -m {MODULE}",
        examples=f"""  python -m {MODULE} --model output/miniature_lora --title LoRA
  python -m {MODULE} --model output/miniature_full output/miniature_lora --title "full fine-tuning" LoRA""",
    )
    if arguments.report:
        require("plots")
    records = score(arguments)
    if not is_first():
        return
    log(f"records: {arguments.output_dir}")
    if arguments.report:
        write_report(records, arguments.report, "SNLI", read_findings(arguments.output_dir / FOLDER))
    print("\n".join(table_lines(records)))


if __name__ == "__main__":
    run(main, several=True)
