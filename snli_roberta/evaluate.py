"""Scores trained classifiers on SNLI's test split, once each, beside the controls: ``python -m snli_roberta.evaluate``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from common import hardware
from common.arguments import MAX_SEED, option, parse
from common.data_report import fingerprint
from common.errors import UserError, run
from common.evaluation import keep
from common.loading import base_path, hub_commit, local_folder
from common.records import RunRecord
from common.report import table_lines
from common.stages import quiet_libraries, say
from common.training_file import training_costs, training_facts
from snli_roberta.arguments import DEFAULT_LENGTH, CorpusArguments
from snli_roberta.controls import load_sets, predictors
from snli_roberta.corpus import LABELS, Pair

if TYPE_CHECKING:
    import numpy as np

MODULE = "snli_roberta.evaluate"


@dataclass(kw_only=True)
class EvaluateArguments(CorpusArguments):
    """Scores a trained classifier on SNLI's test split beside majority, TF-IDF and untrained-head controls."""

    model: str = option(help="folder or Hub id of the trained model or adapter")
    revision: str | None = option(None, "its branch, tag or commit on the Hub")
    title: str = option("trained", "name of the model in tables")
    output_dir: Path = option(Path("output/snli_evaluation"), "folder for the run records")
    seed: int = option(0, "seed of the controls, the untrained head and the bootstrap", minimum=0, maximum=MAX_SEED)


@dataclass(frozen=True)
class Trained:
    """A trained model as a command names it: folder or Hub id, and revision; ``kind`` is what it must be, if anything."""

    name: str
    revision: str | None = None
    kind: Literal["full", "adapter"] | None = None


def score_rows(pairs: Sequence[Pair], logits: np.ndarray) -> list[dict[str, Any]]:
    """What a model said of each pair, without the sentences: an id made of them, the label, the answer, the probabilities."""
    import torch

    return [
        {"id": pair_id(pair), "label": LABELS[pair.label], "answer": LABELS[max(range(len(row)), key=row.__getitem__)]}
        | {f"probability_{label}": round(p, 6) for label, p in zip(LABELS, row, strict=True)}
        for pair, row in zip(pairs, torch.tensor(logits).softmax(-1).tolist(), strict=True)
    ]


def pair_id(pair: Pair) -> str:
    """What stands for a pair where its sentences need not be shown."""
    return fingerprint([pair.premise, pair.hypothesis])


def score_models(
    models: dict[str, Trained],
    *,
    corpus: CorpusArguments,
    module: str,
    output_dir: Path,
    seed: int,
) -> list[RunRecord]:
    """Scores the controls, the untrained head and each of ``models`` (by title) on the test split; what it finds of a model in a
    folder is kept there too.

    Raises:
        UserError: A model that can't be loaded, or models that were trained on different pairs or bases.
    """
    quiet_libraries()  # before the first of them is imported
    from transformers import set_seed

    from snli_roberta import model as classifier

    # All that can be refused is, before the first control is fitted.
    folders = {title: local_folder(model.name, model.revision) for title, model in models.items()}
    for title, model in models.items():
        kind = "adapter" if (folders[title] / classifier.ADAPTER_CONFIG).is_file() else "full"
        if model.kind not in (None, kind):
            words = {"full": "a fully fine-tuned model", "adapter": "a LoRA adapter"}
            raise UserError(f"it is {words[kind]}", file=model.name, expected=words[model.kind])
    loaded = {title: classifier.load_trained(model.name, model.revision) for title, model in models.items()}
    facts = {title: training_facts(folder) for title, folder in folders.items()}
    known = next((one for one in facts.values() if one), None)
    for title, one in facts.items():
        if one and one["data"]["fingerprint"] != known["data"]["fingerprint"]:
            raise UserError(
                f"{title!r} was trained on other pairs than the first", fix="compare runs on the same pairs"
            )
        if one and (base := one["settings"]["model_name_or_path"]) != known["settings"]["model_name_or_path"]:
            raise UserError(f"{title!r} started from another base than the first: {base}")
    pairs, scored, test = load_sets(corpus, known)
    scored.policy["scored in"] = "fp32"
    records = []

    def measure(title: str, predict: Callable[[], Any], **more: Any) -> None:
        name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
        path = output_dir / f"snli-{len(records) + 1}-{name}.json"
        records.append(scored.measure(title, predict, module=module, seed=seed, path=path, **more))

    for title, predict in predictors(pairs, test, seed).items():
        measure(title, predict)
    if known:
        base, revision = base_path(known["base"]["name"]), known["base"]["commit"]
        length = known["settings"]["max_length"]
        set_seed(seed)
        untrained = classifier.load_base(base, revision)[0].to(hardware.device_type())
        tokenizer = classifier.load_tokenizer(base, revision)
        predict = partial(classifier.predict_logits, untrained, tokenizer, test.pairs, max_length=length)
        measure("untrained head", lambda: predict().argmax(-1))
    baselines = list(records)
    for title, (model, tokenizer) in loaded.items():
        length, costs = DEFAULT_LENGTH, {}
        if facts[title]:
            length = facts[title]["settings"]["max_length"]
            costs = training_costs(facts[title])
        answers: list[np.ndarray] = []

        def predict(
            model: Any = model, tokenizer: Any = tokenizer, length: int = length, answers: list = answers
        ) -> Any:
            answers.append(classifier.predict_logits(model, tokenizer, test.pairs, max_length=length, progress=True))
            return answers[-1].argmax(-1)

        measure(title, predict, **costs)
        if hub_commit(folders[title]) is None:
            keep(folders[title], records[-1], baselines, score_rows(test.pairs, answers[-1]))
    return records


def main() -> None:
    arguments = parse(
        EvaluateArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} --model output/miniature_lora --title LoRA",
    )
    records = score_models(
        {arguments.title: Trained(arguments.model, arguments.revision)},
        corpus=arguments,
        module=MODULE,
        output_dir=arguments.output_dir,
        seed=arguments.seed,
    )
    print("\n".join(table_lines(records)))
    say(f"records: {arguments.output_dir}")


if __name__ == "__main__":
    run(main)
