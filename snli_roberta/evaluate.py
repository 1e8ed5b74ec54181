"""Scores trained classifiers on SNLI's test split, once each, beside the controls: ``python -m snli_roberta.evaluate``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli.arguments import MAX_SEED, option, parse
from common.cli.console import log, quiet_libraries
from common.cli.errors import UserError, run
from common.models.loading import base_path, check_place
from common.results.evaluation import keep
from common.results.finding import FOLDER, read_findings
from common.results.record import RunRecord
from common.results.rendering import table_lines, write_report
from common.results.scoring import ScoredSet
from common.results.training_record import training_costs
from common.runtime import hardware
from common.runtime.processes import ALONE, Processes, is_first, join
from snli_roberta.baselines import load_sets, predictors
from snli_roberta.data.corpus import LABELS, SAMPLING, Pair, Split, pair_id, pairs_fingerprint
from snli_roberta.training.arguments import CorpusArguments

if TYPE_CHECKING:
    import numpy as np

    from snli_roberta.model.classifier import Classifier

MODULE = "snli_roberta.evaluate"


@dataclass(kw_only=True)
class EvaluateArguments(CorpusArguments):
    """Scores trained classifiers on SNLI's test split beside majority, TF-IDF and untrained-head controls."""

    model: tuple[str, ...] = option(
        help="folder or Hub id of a trained model or adapter; of several, on the same pairs"
    )
    revision: tuple[str, ...] = option((), "its branch, tag or commit on the Hub; of several, one each")
    title: tuple[str, ...] = option(("trained",), "name of the model in tables; of several, one each")
    output_dir: Path = option(Path("output/snli_evaluation"), "folder for the run records")
    report: Path | None = option(None, "HTML page to write as well")
    seed: int = option(0, "seed of the controls, the untrained head and the bootstrap", minimum=0, maximum=MAX_SEED)

    def __post_init__(self) -> None:
        CorpusArguments.__post_init__(self)
        if len(set(self.title)) != len(self.model):
            raise UserError(f"{len(self.model)} models", key="title", expected="as many different titles")
        if self.revision and len(self.revision) != len(self.model):
            raise UserError(f"{len(self.model)} models", key="revision", expected="one for each of them, or none")
        for name, revision in zip(self.model, self.revision or (None,) * len(self.model), strict=True):
            check_place(name, revision)


def score_rows(pairs: Sequence[Pair], probabilities: np.ndarray) -> list[dict[str, Any]]:
    """What a model said of each pair, without the sentences: an id made of them, the label, the answer, the probabilities."""
    return [
        {"id": pair_id(pair), "label": LABELS[pair.label], "answer": LABELS[max(range(len(row)), key=row.__getitem__)]}
        | {f"probability_{label}": round(p, 6) for label, p in zip(LABELS, row, strict=True)}
        for pair, row in zip(pairs, probabilities.tolist(), strict=True)
    ]


def sampling_of(facts: dict[str, Any]) -> dict[str, Any]:
    """The settings that chose a model's training pairs."""
    return {key: facts["settings"][key] for key in SAMPLING}


def check_trained_alike(models: Mapping[str, Classifier]) -> dict[str, Any] | None:
    """What the trainings of models, by title, have left (any one of them); None where they left nothing.

    Raises:
        UserError: They were trained on different pairs or bases.
    """
    known = {title: model.facts for title, model in models.items() if model.facts}
    first = next(iter(known.values()), None)
    for title, facts in known.items():
        if facts["data"]["fingerprint"] != first["data"]["fingerprint"]:
            raise UserError(
                f"{title!r} was trained on other pairs than the first", fix="compare runs on the same pairs"
            )
        if (base := facts["settings"]["model_name_or_path"]) != first["settings"]["model_name_or_path"]:
            raise UserError(f"{title!r} started from another base than the first: {base}")
    return first


def require_training_pairs(pairs: list[Pair], facts: dict[str, Any], corpus: CorpusArguments) -> None:
    """Refuses a corpus that gives other training pairs than those that a model was trained on, of which ``facts`` know.

    Raises:
        UserError: It does.
    """
    if pairs_fingerprint(pairs) != facts["data"]["fingerprint"]:
        raise UserError(
            "the model was trained on other pairs than this corpus gives",
            file=corpus.data_dir or corpus.dataset_name,
            fix="give the data_dir or dataset_name that it was trained on",
        )


def score_baselines(
    scored: ScoredSet,
    pairs: list[Pair],
    test: Split,
    facts: dict[str, Any] | None,
    *,
    module: str,
    output_dir: Path,
    seed: int,
) -> list[RunRecord]:
    """The records of the controls and, where ``facts`` of a training name its base, of that encoder with an untrained head."""
    from transformers import set_seed

    from snli_roberta.model import encoder

    records: list[RunRecord] = []

    def measure(title: str, predict: Callable[[], Any]) -> None:
        path = output_dir / record_name(len(records) + 1, title)
        records.append(scored.measure(title, predict, module=module, seed=seed, path=path))

    for title, predict in predictors(pairs, test, seed).items():
        measure(title, predict)
    if facts:
        base, revision = base_path(facts["base"]["name"]), facts["base"]["commit"]
        set_seed(seed)
        untrained = encoder.load_base(base, revision)[0].to(hardware.device_type())
        tokenizer = encoder.load_tokenizer(base, revision)
        length = facts["settings"]["max_length"]
        logits = partial(encoder.predict_logits, untrained, tokenizer, test.pairs, max_length=length)
        measure("untrained head", lambda: logits().argmax(-1))
    return records


def probabilities_together(model: Classifier, test: Split, processes: Processes = ALONE) -> np.ndarray:
    """A model's probabilities of the test pairs, shape (n, 3); the processes of a launch have a part of them each."""
    import numpy as np

    return np.array(processes.divided(test.pairs, lambda pairs: model.probabilities(pairs, progress=True)))


def score_model(
    model: Classifier,
    title: str,
    scored: ScoredSet,
    test: Split,
    baselines: list[RunRecord],
    *,
    module: str,
    path: Path,
    seed: int,
    processes: Processes = ALONE,
) -> RunRecord:
    """A model's record; where it lies in a folder of ours, that and its answers are kept there too."""
    found: list[np.ndarray] = []

    def predict() -> np.ndarray:
        found.append(probabilities_together(model, test, processes))
        return found[0].argmax(-1)

    costs = training_costs(model.facts) if model.facts else {}
    record = scored.measure(title, predict, module=module, seed=seed, path=path, **costs)
    if model.own_folder is not None:
        keep(model.own_folder, record, baselines, score_rows(test.pairs, found[0]))
    return record


def record_name(number: int, title: str) -> str:
    """The name of a record's file: a row of the table, and whose it is."""
    return f"snli-{number}-{re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')}.json"


def score(arguments: EvaluateArguments) -> list[RunRecord]:
    """Scores the controls and the models on the test split; empty on further processes, which help the first one to.

    Raises:
        UserError: A model that can't be loaded, models that were trained on different pairs or bases, or another corpus than
            theirs.
    """
    quiet_libraries()  # before the first of them is imported
    from snli_roberta.model import classifier

    processes = join()
    # All that can be refused is, before the first control is fitted.
    revisions = arguments.revision or (None,) * len(arguments.model)
    named = zip(arguments.title, arguments.model, revisions, strict=True)
    models = {title: classifier.load(name, revision) for title, name, revision in named}
    facts = check_trained_alike(models)
    pairs, scored, test = load_sets(arguments, sampling_of(facts) if facts else None)
    if facts:
        require_training_pairs(pairs, facts, arguments)
    if not processes.first:
        for model in models.values():
            probabilities_together(model, test, processes)
        return []
    scored.policy["scored in"] = "fp32"
    shared: dict[str, Any] = {"module": MODULE, "seed": arguments.seed}
    baselines = score_baselines(scored, pairs, test, facts, output_dir=arguments.output_dir, **shared)
    records = list(baselines)
    for title, model in models.items():
        path = arguments.output_dir / record_name(len(records) + 1, title)
        records.append(score_model(model, title, scored, test, baselines, path=path, processes=processes, **shared))
    return records


def main() -> None:
    arguments = parse(
        EvaluateArguments,
        prog=f"python -m {MODULE}",
        examples=f"""  python -m {MODULE} --model output/miniature_lora --title LoRA
  python -m {MODULE} --model output/miniature_full output/miniature_lora --title "full fine-tuning" LoRA""",
    )
    records = score(arguments)
    if not is_first():
        return
    print("\n".join(table_lines(records)))
    log(f"records: {arguments.output_dir}")
    if arguments.report:
        write_report(records, arguments.report, "SNLI", read_findings(arguments.output_dir / FOLDER))


if __name__ == "__main__":
    run(main, several=True)
