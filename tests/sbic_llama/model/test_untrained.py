"""Test that a base answers a codebook's question without training, as a plain forward pass over its prompt does."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.cli.errors import UserError
from common.miniature.pretrain import MODELS
from common.models.prompt import answer_ids
from sbic_llama import Annotator
from sbic_llama.annotate import annotate
from sbic_llama.annotation.parts import digest_of
from sbic_llama.annotation.run import AnnotateArguments
from sbic_llama.data.codebook import Codebook, Example
from sbic_llama.data.encoding import encode
from sbic_llama.data.features import feature_of
from sbic_llama.model.scoring import base_of
from sbic_llama.model.untrained import untrained

BASE = "miniature/tiny_llama"
TEXTS = ["The florbs are loud again.", "A quiet day by the river.", "Nobody likes that road!"]
BOOK = Codebook(
    "loud", "Is it loud?", "Decide whether the text is about noise.", {"Loud": "noise, shouts", "Quiet": ""},
    examples=(Example("They shout all night.", "loud "), Example("Not a sound.", "Quiet")),
)  # fmt: skip
YAML = """name: loud
question: Is it loud?
instruction: Decide whether the text is about noise.
labels: {Loud: "noise, shouts", Quiet: ""}
"""


def test_probabilities_are_those_of_a_plain_pass_over_the_whole_prompt():
    asked = untrained(BOOK, BASE, prompt="study")
    annotator = Annotator(asked, quantization="none")
    rows = list(annotator.annotate(TEXTS))
    assert list(rows[0]) == ["loud", "loud_probability_Loud", "loud_probability_Quiet"]
    tokenizer, model = annotator._tokenizer, base_of(annotator._model)
    for text, row in zip(TEXTS, rows, strict=True):
        (prompt,) = encode(tokenizer, asked.feature, [text], max_post_tokens=384).prompts
        prompt_text = tokenizer.decode(prompt)
        assert "They shout all night." in prompt_text, "examples come first"
        assert "- Loud: noise, shouts\n- Quiet" in prompt_text
        scores = []
        for answer in answer_ids(tokenizer, feature_of(BOOK).labels, asked.feature.template):
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *answer]])).logits[0].float().log_softmax(-1)
            scores.append(sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(answer)))
        expected = torch.tensor(scores).softmax(0)
        assert row["loud_probability_Loud"] == pytest.approx(float(expected[0]), abs=1e-4)


def test_it_stands_beside_adapters_without_touching_their_answers(trained_adapters):
    folder = trained_adapters / "offensiveYN"
    alone = list(Annotator(folder).annotate(TEXTS))
    for order in ([folder, untrained(BOOK, BASE)], [untrained(BOOK, BASE), folder]):
        rows = list(Annotator(*order).annotate(TEXTS))
        assert [{name: row[name] for name in alone[0]} for row in rows] == alone
    plain = list(Annotator(untrained(BOOK, BASE)).annotate(TEXTS))
    assert rows[0]["loud_probability_Loud"] == pytest.approx(plain[0]["loud_probability_Loud"], abs=1e-5)


def test_an_example_that_imitates_a_control_token_is_refused():
    book = replace(BOOK, examples=(Example("the end </s> and on", "Quiet"),))
    with pytest.raises(UserError, match="key 'examples': the example 'the end </s> and on' holds a control token"):
        untrained(book, BASE)


def test_another_codebook_does_not_continue_what_one_began():
    books = [
        BOOK,
        replace(BOOK, instruction="Is it?"),
        replace(BOOK, examples=()),
        replace(BOOK, labels={"Loud": "", "Quiet": ""}),
    ]
    assert len({digest_of(untrained(book, BASE, prompt="study")) for book in books}) == len(books)


def test_other_weights_in_the_bases_folder_do_not_continue_what_it_began(tmp_path):
    base = shutil.copytree(MODELS / "tiny_llama", tmp_path / "base")
    asked = untrained(BOOK, str(base), prompt="study")
    before = digest_of(asked)
    assert digest_of(asked) == before
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"] += 1
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    assert digest_of(asked) != before


def test_annotate_takes_a_codebook_and_a_base(tmp_path):
    posts, book, output = tmp_path / "posts.csv", tmp_path / "codebook.yaml", tmp_path / "out.csv"
    posts.write_text("text\n" + "\n".join(TEXTS) + "\n")  # the codebook's column of texts
    book.write_text(YAML)
    arguments = {"posts": (str(posts),), "output": str(output), "codebook": book}
    annotate(AnnotateArguments(**arguments, model=BASE), posts, output)
    (*rows,) = csv.DictReader(output.open())
    assert {row["model_loud"] for row in rows} <= {"Loud", "Quiet"}
    with pytest.raises(UserError, match=r"key 'codebook': no base model\. Add --model"):
        AnnotateArguments(**arguments)
    with pytest.raises(UserError, match="key 'model': it has no effect without --codebook"):
        AnnotateArguments(posts=(str(posts),), output=str(output), model=BASE, adapter=("x",))
    with pytest.raises(UserError, match="--adapter: nothing to annotate with"):
        AnnotateArguments(posts=(str(posts),), output=str(output))
    with pytest.raises(UserError, match="key 'review_share': a base without an adapter has no thresholds for review"):
        AnnotateArguments(**arguments, model=BASE, review_share=0.1)
