"""What publishing an adapter needs to know of this project: its card, the code on it, and the posts that were scored."""

from __future__ import annotations

import json
from pathlib import Path

from common.cli.options import CorpusOptions
from common.hub import card
from common.hub.card import Dataset, Trained
from common.models.prompt import TAIL
from sbic_llama.data.corpus import HUB_DATASET, labeled, post_id
from sbic_llama.data.features import TARGET_MINORITY
from sbic_llama.model import description as annotator_file
from sbic_llama.model.answering import MAX_NEW_TOKENS
from sbic_llama.model.description import ANNOTATOR_FILE
from sbic_llama.training.arguments import CorpusArguments

FILES = ("adapter_model.safetensors", "adapter_config.json", ANNOTATOR_FILE)  # without which it is no annotator
EVALUATE = "python -m sbic_llama.evaluate --adapter"
_TEMPLATES = Path(__file__).parent / "card"


def snippet(trained: Trained, repo_id: str) -> str:
    """Code that loads the adapter from the Hub and annotates a post, with nothing of this project."""
    annotator = annotator_file.read(trained.folder / ANNOTATOR_FILE)
    declared = annotator.resolve_feature()
    prompt = f"{declared.opening}{{post}}{TAIL}"
    return card.code(
        _TEMPLATES / ("labels.py.jinja" if declared.classifies else "groups.py.jinja"),
        repo_id=repo_id,
        prompt_lines=[json.dumps(line, ensure_ascii=False) for line in prompt.splitlines(keepends=True)],
        labels=list(declared.labels),
        temperature=annotator.temperature,
        max_new_tokens=MAX_NEW_TOKENS,
    )


def render(trained: Trained, repo_id: str) -> dict[str, bytes]:
    """The card's files by path.

    Raises:
        UserError: A value is missing, or the adapter is of another version of this project.
    """
    annotator = annotator_file.read(trained.folder / ANNOTATOR_FILE)
    declared = annotator.resolve_feature()
    data = trained.facts["data"]
    report = data["report"]
    on_hub = annotator.corpus == "SBIC v2"
    dropped = "".join(f", {count:,} dropped ({reason})" for reason, count in report["dropped"].items())
    labels = ", ".join(f"{name} {count:,}" for name, count in data.get("labels", {}).items())
    return card.render(
        trained,
        _TEMPLATES / "adapter.md.jinja",
        repo_id=repo_id,
        title=f"{annotator.base_model.rpartition('/')[2]} for {declared.title} (SBIC)",
        library="peft",
        relation="adapter",
        pipeline_tag="text-generation",
        tags=["lora", "qlora", "trl", "sft", "social-bias-inference-corpus", "annotation", declared.name],
        dataset=Dataset(
            HUB_DATASET if on_hub else None,
            annotator.corpus,
            declared.name,
            "text-generation" if declared.name == TARGET_MINORITY.name else "text-classification",
        ),
        snippet=snippet(trained, repo_id),
        corpus_licence="CC BY 4.0" if on_hub else "made by this project's program",
        method="QLoRA: LoRA on the base model in 4 bits (NF4)",
        data_line=f"{report['read']:,} rows were read{dropped}; {data['used']:,} posts were used for training"
        f"{f' ({labels})' if labels else ''}, {data['cut_to_max_post_tokens']:,} of them cut.",
        annotator=annotator,
        question=declared.question,
        attacked=trained.evaluation is not None
        and any(one.name == "robustness" for one in trained.evaluation.findings),
        labels=declared.labels,
    )


def inputs(trained: Trained, corpus: CorpusOptions) -> dict[str, tuple[str, ...]]:
    """The test posts by the ids that the evaluation gave them: what the snippet's ``annotate`` takes."""
    settings = trained.facts["settings"]
    arguments = CorpusArguments(
        data_dir=corpus.data_dir,
        dataset_name=corpus.dataset_name,
        dataset_revision=corpus.dataset_revision,
        view=settings["view"],
        repeats=settings["repeats"],
    )
    declared = annotator_file.read(trained.folder / ANNOTATOR_FILE).resolve_feature()
    return {post_id(post): (post.text,) for post in labeled(arguments.load()["test"], declared.label_of)}
