"""What publishing a classifier needs to know of this project: its card, the code on it, and the pairs that were scored."""

from __future__ import annotations

from pathlib import Path

from common.cli.errors import UserError, shown
from common.cli.options import CorpusOptions
from common.hub import card
from common.hub.card import Dataset, Trained
from common.results.training_record import TRAINING_FILE
from snli_roberta.data.corpus import LABELS, pair_id
from snli_roberta.training.arguments import CorpusArguments

FILES = ("config.json",)  # without which it names no labels
EVALUATE = "python -m snli_roberta.evaluate --model"
HUB_DATASET = "stanfordnlp/snli"
_TEMPLATES = Path(__file__).parent / "card"


def snippet(trained: Trained, repo_id: str) -> str:
    """Code that loads the model from the Hub and labels a pair, with nothing of this project."""
    length = trained.facts["settings"]["max_length"]
    if type(length) is not int:  # it becomes part of a code, and may come from anybody's repository
        raise UserError(f"max_length is {shown(length)}", file=trained.folder / TRAINING_FILE, expected="a number")
    return card.code(
        _TEMPLATES / f"{trained.facts['kind']}.py.jinja",
        repo_id=repo_id,
        labels=list(LABELS),
        max_length=length,
    )


def render(trained: Trained, repo_id: str) -> dict[str, bytes]:
    """The card's files by path.

    Raises:
        UserError: A value is missing.
    """
    facts = trained.facts
    data, settings = facts["data"], facts["settings"]
    adapter = facts["kind"] == "adapter"
    on_hub = settings["data_dir"] is not None or settings["dataset_name"] is not None
    dropped = "".join(f", {count:,} dropped ({reason})" for reason, count in data["report"]["dropped"].items())
    used = ", ".join(f"{name} {count:,}" for name, count in data["used"].items())
    method = "LoRA" if adapter else "full fine-tuning"
    return card.render(
        trained,
        _TEMPLATES / f"{facts['kind']}.md.jinja",
        repo_id=repo_id,
        title=f"{facts['base']['name'].rpartition('/')[2]} for SNLI, {method}",
        library="peft" if adapter else "transformers",
        relation="adapter" if adapter else "finetune",
        pipeline_tag="text-classification",
        tags=["natural-language-inference", "snli", *(["lora"] if adapter else [])],
        dataset=Dataset(HUB_DATASET if on_hub else None, "SNLI 1.0" if on_hub else "the SNLI miniature", "snli"),
        snippet=snippet(trained, repo_id),
        corpus_licence="CC BY-SA 4.0" if on_hub else "made by this project's program",
        method=method,
        data_line=f"{data['report']['read']:,} rows were read{dropped}; {sum(data['used'].values()):,} pairs were used for "
        f"training ({used}), {data['cut_to_max_length']:,} of them cut.",
        max_length=settings["max_length"],
    )


def inputs(trained: Trained, corpus: CorpusOptions) -> dict[str, tuple[str, ...]]:
    """The test pairs by the ids that the evaluation gave them: what the snippet's ``annotate`` takes."""
    arguments = CorpusArguments(
        data_dir=corpus.data_dir, dataset_name=corpus.dataset_name, dataset_revision=corpus.dataset_revision
    )
    (test,) = arguments.load("test")
    return {pair_id(pair): (pair.premise, pair.hypothesis) for pair in test.pairs}
