"""An untrained base as an annotator: a codebook's question is put to it as it is, behind the codebook's examples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from common.cli.errors import UserError, shown
from common.models.loading import base_path, commit_of
from common.models.prompt import BETWEEN, PromptChoice, added_ids, template_for
from common.models.quantization import load_tokenizer
from common.stats.votes import folded
from sbic_llama.data.codebook import Codebook
from sbic_llama.data.features import feature_of
from sbic_llama.data.groups import joined_groups, split_groups
from sbic_llama.model.annotator import Adapter
from sbic_llama.model.description import UNTRAINED, AnnotatorFile
from sbic_llama.training.arguments import MAX_POST_TOKENS


def untrained(codebook: Codebook, base: str, revision: str | None = None, prompt: PromptChoice = "auto") -> Adapter:
    """Return what asks a base model a codebook's question without an adapter, for :class:`sbic_llama.Annotator`.

    Raises:
        UserError: An unknown base, or an example that its prompts cannot hold.
    """
    name = base_path(base)
    commit = commit_of(name, revision)
    tokenizer = load_tokenizer(name, commit)
    feature = feature_of(codebook)
    labels, added = {folded(label): label for label in codebook.labels}, added_ids(tokenizer)
    turns = []
    for example, text in zip(codebook.examples, codebook.example_texts(), strict=True):
        if not added.isdisjoint(tokenizer(text, add_special_tokens=False).input_ids):
            problem = f"the example {shown(text)} holds a control token of {base}"
            raise UserError(problem, key="examples", fix="change that example in the codebook")
        answer = joined_groups(split_groups(example.label)) if codebook.text else labels[folded(example.label)]
        turns.append((f"{feature.instruction}{BETWEEN}{text}", answer))
    feature = replace(feature, template=template_for(tokenizer, prompt, base, turns))
    description = AnnotatorFile(
        feature=feature.name,
        labels=feature.labels,
        instruction=feature.instruction,
        prompt_hash=feature.prompt_hash(),
        label_policy="levels",
        label_policy_text=feature.policy,
        corpus=UNTRAINED,
        aggregation="",
        wording="ours",
        max_post_tokens=MAX_POST_TOKENS,
        base_model=str(Path(base).resolve()) if Path(base).is_dir() else base,
        base_revision=commit,
        prompt=feature.template,
        codebook=codebook,
    )
    return Adapter(feature.name, None, description, feature)
