"""An untouched base, asked behind examples: which examples, where they stand, and what is scored."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from common.cli.arguments import parse
from common.cli.errors import UserError
from common.models.prompt import BETWEEN, HEAD, TAIL
from common.models.quantization import load_tokenizer
from sbic_llama import baselines
from sbic_llama.data.corpus import Post, Split, load_splits
from sbic_llama.data.features import FEATURES, OFFENSIVE_POLICIES
from sbic_llama.evaluation import few_shot, scores
from sbic_llama.evaluation.few_shot import Base, BaseArguments, draw_examples, score_base
from sbic_llama.evaluation.scores import test_set as scored_set
from sbic_llama.model import answering
from sbic_llama.model.exactness import load_base
from sbic_llama.model.scoring import label_probabilities, score_plainly
from sbic_llama.training.arguments import MINIATURE_BASE, CorpusArguments
from tests.bases import CHATML, build

BINARY = OFFENSIVE_POLICIES["above_half"]


@pytest.fixture(scope="module")
def splits(miniature) -> dict[str, Split]:
    loaded = load_splits(data_dir=miniature / "SBIC.v2")
    return {name: replace(split, posts=split.posts[: 8 if name == "test" else 80]) for name, split in loaded.items()}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Base:
    """A random base with attention windows of 96 tokens, which the examples exceed, and a chat template."""
    path = build(tmp_path_factory.mktemp("base") / "gemma3", "gemma3", CHATML)
    tokenizer = load_tokenizer(path)
    return Base("my/base", None, load_base(path, None, tokenizer, precision="fp32").eval(), tokenizer, "fp32", "auto")


def post(text: str, offensive: float = 1.0, groups: tuple[str, ...] = ()) -> Post:
    return Post(text, "s", bool(groups), offensive, groups)


def test_examples_are_short_balanced_and_the_same_for_the_same_seed(tokenizer):
    posts = [post(f"post {i}", i % 10 == 0, ("florbs",) * (i % 10 == 1)) for i in range(200)]
    posts += [post(f"{i} " + "long " * 60) for i in range(99)] + [post("a </s> b", i % 2) for i in range(99)]
    eight = draw_examples(BINARY, posts, tokenizer, 8, 0)
    assert eight == draw_examples(BINARY, posts, tokenizer, 8, 0)
    assert eight[:4] == draw_examples(BINARY, posts, tokenizer, 4, 0), "fewer examples are the first of more"
    assert eight != draw_examples(BINARY, posts, tokenizer, 8, 1)
    assert Counter(map(BINARY.target, eight)) == {"Offensive": 4, "Not offensive": 4}
    assert len({each.text for each in eight}) == 8
    assert all(len(each.text) <= few_shot.LONGEST and "</s>" not in each.text for each in eight)
    assert len({tuple(map(BINARY.target, draw_examples(BINARY, posts, tokenizer, 8, seed))) for seed in range(9)}) > 2
    groups = draw_examples(FEATURES["targetMinority"], posts, tokenizer, 8, 0)
    assert Counter(map(FEATURES["targetMinority"].target, groups)) == {"none": 4, "florbs": 4}
    assert draw_examples(BINARY, posts, tokenizer, 0, 0) == []
    with pytest.raises(UserError, match=r"--shots: the train split has 200 posts.*; expected at most 200"):
        draw_examples(BINARY, posts, tokenizer, 201, 0)


@pytest.mark.parametrize("prompt", ["chat", "study"])
def test_labels_are_scored_behind_the_examples(prompt, base, splits, tmp_path):
    base, arguments = replace(base, prompt=prompt), BaseArguments(base="my/base", shots=(4, 0))
    scored = scored_set(BINARY, splits, CorpusArguments())
    records = score_base(base, arguments, BINARY, splits, scored, module="m", output_dir=tmp_path, seed=3)
    chat = ", chat template" if prompt == "chat" else ""
    assert [record.title for record in records] == [f"untouched base{chat}", f"untouched base{chat}, 4 examples"]
    assert [record.policy["examples"] for record in records] == [0, 4]
    assert {(record.policy["prompt"], record.policy["base model"]) for record in records} == {(prompt, "my/base")}
    stem = f"sbic-{BINARY.slug}-3-base" + ("-chat" if chat else "")  # rows of one template do not replace the other's
    assert sorted(path.name for path in tmp_path.glob("*.json")) == [f"{stem}-0004.json", f"{stem}.json"]
    chosen = [each for each in splits["train"].posts if each.offensive is not None]
    examples = draw_examples(BINARY, chosen, base.tokenizer, 4, 3)
    texts = {each.text for each in splits["test"].posts}
    assert not texts & {each.text for each in examples}
    rows = (tmp_path / f"{stem}-0004.csv").read_text().splitlines()[1:]
    for each, row in zip([each for each in splits["test"].posts if each.offensive is not None], rows, strict=True):
        turns = [(f"{BINARY.instruction}{BETWEEN}{example.text}", BINARY.target(example)) for example in examples]
        asked = f"{BINARY.instruction}{BETWEEN}{each.text}"
        if prompt == "chat":
            turned = [
                {"role": role, "content": text}
                for turn in turns
                for role, text in zip(("user", "assistant"), turn, strict=True)
            ]
            turned.append({"role": "user", "content": asked})
            ids, end = (
                base.tokenizer.apply_chat_template(turned, add_generation_prompt=True, return_dict=False),
                "<|im_end|>",
            )
        else:
            text = "".join(f"{turn}{TAIL}{answer}\n\n### Instruction:\n" for turn, answer in turns) + asked + TAIL
            ids, end = base.tokenizer(HEAD.partition("{}")[0] + text).input_ids, "<eos>"
        assert len(ids) > 200
        end = base.tokenizer.convert_tokens_to_ids(end)
        labels = [[*base.tokenizer(label, add_special_tokens=False).input_ids, end] for label in BINARY.labels]
        with torch.inference_mode():
            expected = label_probabilities(np.array([score_plainly(base.model, ids, labels)]))[0]
        assert [float(value) for value in row.split(",")[-2:]] == pytest.approx(expected, abs=2e-5)


def test_groups_are_generated_behind_examples(base, splits, tmp_path, monkeypatch):
    monkeypatch.setattr(answering, "generate", partial(answering.generate, max_new_tokens=3))
    measure = {"set_f1": {"value": 0.0, "n": 8, "ci95": [0.0, 0.0]}}
    monkeypatch.setattr(scores, "evaluate_groups", lambda *_, **__: measure)  # its bootstrap takes seconds
    feature = FEATURES["targetMinority"]
    scored = scored_set(feature, splits, CorpusArguments())
    arguments = BaseArguments(base="my/base", shots=(2,))
    (record,) = score_base(base, arguments, feature, splits, scored, module="m", output_dir=tmp_path, seed=0)
    assert record.title == "untouched base, chat template, 2 examples"


def test_examples_beyond_the_context_are_refused(base, splits, tmp_path):
    scored, arguments = scored_set(BINARY, splits, CorpusArguments()), BaseArguments(base="my/base", shots=(30,))
    with pytest.raises(UserError, match=r"^--shots: behind 30 examples, a post .*context of 1024. Use fewer"):
        score_base(base, arguments, BINARY, splits, scored, module="m", output_dir=tmp_path, seed=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--shots", "4"], "--shots: it has no effect without --base"),
        (["--prompt", "study"], "--prompt: it has no effect without --base"),
        (["--base", MINIATURE_BASE, "--shots", "4", "4"], "--shots: the same number twice"),
        (["--base", MINIATURE_BASE, "--shots", "-1"], "at least 0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(words, problem):
    with pytest.raises(UserError) as error:
        parse(baselines.BaselineArguments, words)
    assert problem in str(error.value)


def test_the_command_scores_a_base_behind_the_other_baselines(tmp_path, monkeypatch):
    asked = []

    def score(base, arguments, feature, splits, scored, **shared):
        asked.append((base.name, base.tokenizer.eos_token, arguments.shots, feature.name))
        return []

    monkeypatch.setattr(baselines, "score_base", score)
    monkeypatch.setattr(baselines, "table_lines", lambda records: [])
    monkeypatch.setattr(baselines, "score_baselines", lambda *_, **__: asked.append("baselines") or [])
    words = ["--base", MINIATURE_BASE, "--shots", "2", "--feature", "intentYN", "--output_dir", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["baselines", *words])
    baselines.main()
    assert asked == ["baselines", (MINIATURE_BASE, "</s>", (2,), "intentYN")]
