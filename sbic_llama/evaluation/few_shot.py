"""An untouched base as a baseline: labels scored behind no examples, or behind a few posts of the train split."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.cli.arguments import given, option
from common.cli.console import log
from common.cli.errors import UserError, counted
from common.models.loading import base_path, check_place, commit_of, width_of
from common.models.prompt import BETWEEN, PromptChoice, added_ids, template_for
from common.results.record import RunRecord
from common.results.scoring import ScoredSet
from common.runtime import hardware
from common.tables.writing import write_rows
from sbic_llama.data.corpus import Post, labeled
from sbic_llama.data.features import Answers, Feature
from sbic_llama.evaluation.scores import Splits, score_rows
from sbic_llama.training.arguments import MAX_POST_TOKENS

LONGEST = 200  # characters of a post that serves as an example
BATCH = 32  # posts per forward pass


@dataclass(kw_only=True)
class BaseArguments:
    """Which base model to score without training, and how it is asked."""

    base: str | None = option(None, "also score this base model as it is, a folder or Hub id")
    base_revision: str | None = option(None, "its branch, tag or commit on the Hub")
    shots: tuple[int, ...] = option(
        (0, 8), "score it behind this many examples from the train split", minimum=0, maximum=1000
    )
    prompt: PromptChoice = option(
        "auto", "template of its prompts: the base's own for chats, or the study's (auto: chat if it has one)"
    )

    def __post_init__(self) -> None:
        if not given(self, BaseArguments, "base"):
            return
        check_place(base_path(self.base), self.base_revision)
        if len(set(self.shots)) != len(self.shots):
            raise UserError("the same number twice", key="shots", expected="different numbers")


@dataclass(frozen=True)
class Base:
    """A base model that is loaded, and how it is asked."""

    name: str
    commit: str | None
    model: Any
    tokenizer: Any
    precision: str
    prompt: PromptChoice

    def ask(self, feature: Feature, examples: Sequence[tuple[str, str]]) -> Feature:
        """Return the feature in the template that this base is prompted through, behind examples."""
        return replace(feature, template=template_for(self.tokenizer, self.prompt, self.name, examples))


def load(arguments: BaseArguments) -> Base:
    """Load the base in 4 bits, as a training would."""
    from common.models.quantization import load_tokenizer
    from sbic_llama.model.exactness import load_base

    name = base_path(str(arguments.base))
    commit = commit_of(name, arguments.base_revision)
    hardware.choose_device()
    precision = hardware.choose_precision(width=width_of(name, commit))
    log(f"{hardware.device_type()}, {precision.value} ({precision.reason})")
    tokenizer = load_tokenizer(name, commit)
    template_for(tokenizer, arguments.prompt, name)  # what cannot be used is refused before the weights are loaded
    model = load_base(name, commit, tokenizer, precision=precision.value).eval()
    return Base(str(arguments.base), commit, model, tokenizer, precision.value, arguments.prompt)


def draw_examples(feature: Feature, posts: Sequence[Post], tokenizer: Any, count: int, seed: int) -> list[Post]:
    """Draw short posts with equally many of each label, in mixed order; fewer are the first of more.

    A post that imitates a control token of the base is left out, because the turns of a chat are rendered as one text.
    """
    kinds: dict[Any, list[Post]] = {}
    for post in posts:
        if 0 < len(post.text) <= LONGEST:
            label = feature.label_of(post)
            kinds.setdefault(label if feature.classifies else bool(label), []).append(post)
    draw, added = random.Random(f"{feature.title} {seed}"), added_ids(tokenizer)
    queues = [iter(draw.sample(kinds[kind], len(kinds[kind]))) for kind in sorted(kinds)]
    chosen: list[Post] = []
    while len(chosen) < count and queues:
        draw.shuffle(queues)
        for queue in list(queues):
            text = (
                post for post in queue if added.isdisjoint(tokenizer(post.text, add_special_tokens=False).input_ids)
            )
            post = next(text, None)
            if post is None:
                queues.remove(queue)
            else:
                chosen.append(post)
    if len(chosen) < count:
        problem = f"the train split has {counted(len(chosen), 'post')} of at most {LONGEST} characters with a label"
        raise UserError(problem, key="--shots", expected=f"at most {len(chosen)}")
    return chosen[:count]


def score_base(
    base: Base,
    arguments: BaseArguments,
    feature: Feature,
    splits: Splits,
    scored: ScoredSet,
    *,
    module: str,
    output_dir: Path,
    seed: int,
) -> list[RunRecord]:
    """Score a base on a feature's test split behind each number of examples; write records and answers."""
    from sbic_llama.model.answering import answer

    train, test = (labeled(splits[name], feature.label_of) for name in ("train", "test"))
    records = []
    for shots in sorted(arguments.shots):
        if shots and feature.choices:
            log(f"{feature.title}: no examples are shown, because each label is asked about by itself")
            continue
        examples = draw_examples(feature, train, base.tokenizer, shots, seed)
        turns = [(f"{feature.instruction}{BETWEEN}{post.text}", str(feature.target(post))) for post in examples]
        asked = base.ask(feature, turns)
        policy = {"base model": base.name, "commit": base.commit, "scored in": base.precision, "weights": "NF4"}
        policy |= {"prompt": asked.template.name, "examples": shots}
        answers: list[Answers] = []

        def predict(asked: Feature = asked, answers: list[Answers] = answers) -> list[Any]:
            texts, limits = [post.text for post in test], {"max_post_tokens": MAX_POST_TOKENS, "batch_size": BATCH}
            answers.append(answer(base.model, base.tokenizer, asked, texts, progress=True, **limits))
            return answers[0].labels

        chat = asked.template.name == "chat"  # beside the study's template, not in its place
        parts = ("untouched base", *["chat template"] * chat, *[counted(shots, "example")] * bool(shots))
        numbered = (f"{feature.stem}-3-base", *["chat"] * chat, *[f"{shots:04}"] * bool(shots))
        title, path = ", ".join(parts), output_dir / f"{'-'.join(numbered)}.json"
        try:
            measured = replace(scored, policy=scored.policy | policy)
            records.append(measured.measure(title, predict, module=module, seed=seed, path=path))
        except UserError as error:
            if error.key != "max_post_tokens" or not shots:
                raise
            problem = f"behind {counted(shots, 'example')}, {error.problem}"
            raise UserError(problem, key="--shots", fix="use fewer examples") from error
        write_rows(path.with_suffix(".csv"), score_rows(feature, test, answers[0]))
    return records
