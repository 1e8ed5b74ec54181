"""Scores trained classifiers on SNLI's test split, once each, beside the controls: ``python -m snli_roberta.evaluate``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from common import hardware
from common.arguments import MAX_SEED, option, parse
from common.errors import UserError, run
from common.records import RunRecord
from common.report import table_lines
from common.stages import quiet_libraries, say
from common.training_file import training_costs, training_facts
from snli_roberta.arguments import DEFAULT_LENGTH, CorpusArguments, base_name
from snli_roberta.controls import load_sets, predictors

MODULE = "snli_roberta.evaluate"


@dataclass(kw_only=True)
class EvaluateArguments(CorpusArguments):
    """Scores a trained classifier on SNLI's test split beside majority, TF-IDF and untrained-head controls."""

    model: str = option(help="folder or Hub id of the trained model or adapter")
    title: str = option("trained", "name of the model in tables")
    output_dir: Path = option(Path("output/snli_evaluation"), "folder for the run records")
    seed: int = option(0, "seed of the controls, the untrained head and the bootstrap", minimum=0, maximum=MAX_SEED)


def score_models(
    models: dict[str, str],
    *,
    corpus: CorpusArguments,
    module: str,
    output_dir: Path,
    seed: int,
) -> list[RunRecord]:
    """Scores the controls, the untrained head and each of ``models`` (title → folder or id) on the test split.

    Raises:
        UserError: A model that can't be loaded, or models that were trained on different pairs or bases.
    """
    from transformers import set_seed

    from snli_roberta import model as classifier

    quiet_libraries()

    # All that can be refused is, before the first control is fitted.
    loaded = {title: classifier.load_trained(name) for title, name in models.items()}
    facts = {title: training_facts(model) for title, model in models.items()}
    known = next((one for one in facts.values() if one), None)
    for title, one in facts.items():
        if one and one["data"]["fingerprint"] != known["data"]["fingerprint"]:
            raise UserError(
                f"{title!r} was trained on other pairs than the first", fix="compare runs on the same pairs"
            )
        if one and (base := one["settings"]["model_name_or_path"]) != known["settings"]["model_name_or_path"]:
            raise UserError(f"{title!r} started from another base than the first: {base}")
    pairs, scored, test = load_sets(corpus, known)
    records = []

    def keep(title: str, predict: Callable[[], Any], **more: Any) -> None:
        name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
        path = output_dir / f"snli-{len(records) + 1}-{name}.json"
        records.append(scored.measure(title, predict, module=module, seed=seed, path=path, **more))

    for title, predict in predictors(pairs, test, seed).items():
        keep(title, predict)
    if known:
        base, revision = base_name(known["settings"]["model_name_or_path"]), known["settings"]["model_revision"]
        length = known["settings"]["max_length"]
        set_seed(seed)
        untrained = classifier.load_base(base, revision)[0].to(hardware.device_type())
        tokenizer = classifier.load_tokenizer(base, revision)
        predict = partial(classifier.predict_logits, untrained, tokenizer, test.pairs, max_length=length)
        keep("untrained head", lambda: predict().argmax(-1))
    for title, (model, tokenizer) in loaded.items():
        length, costs = DEFAULT_LENGTH, {}
        if facts[title]:
            length = facts[title]["settings"]["max_length"]
            costs = training_costs(facts[title], base_name(facts[title]["settings"]["model_name_or_path"]))
        predict = partial(classifier.predict_logits, model, tokenizer, test.pairs, max_length=length, progress=True)
        keep(title, lambda predict=predict: predict().argmax(-1), **costs)
    return records


def main() -> None:
    arguments = parse(
        EvaluateArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} --model output/miniature_lora --title LoRA",
    )
    records = score_models(
        {arguments.title: arguments.model},
        corpus=arguments,
        module=MODULE,
        output_dir=arguments.output_dir,
        seed=arguments.seed,
    )
    print("\n".join(table_lines(records)))
    say(f"records: {arguments.output_dir}")


if __name__ == "__main__":
    run(main)
