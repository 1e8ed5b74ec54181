"""Bases of many architectures: trained, loaded and answering as plain Transformers does with all that the tokenizer gives."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from common.hub.card import read_trained
from snli_roberta import publication
from snli_roberta.data.corpus import LABELS, Pair, load_split
from snli_roberta.model import classifier
from snli_roberta.training.arguments import TrainArguments
from snli_roberta.training.run import train
from tests.snli_roberta.model.tiny_bases import ARCHITECTURES

CORE = ("bert", "deberta_v3", "bart", "llama")
MATRIX = [pytest.param(name, marks=[] if name in CORE else pytest.mark.slow) for name in ARCHITECTURES]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def plain_probabilities(folder: Path, pairs: list[Pair]) -> np.ndarray:
    """Return what the code on the model's card answers: plain Transformers (and PEFT), one pair at a time."""
    code = publication.snippet(read_trained(folder), "user/name")
    code = re.sub(
        r'^model_id, revision = "[^"]+", "main"', f'model_id, revision = "{folder}", "main"', code, flags=re.M
    )
    card: dict = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code, card)
    answers = [card["annotate"](pair.premise, pair.hypothesis) for pair in pairs]
    return np.array([[answer[label] for label in LABELS] for answer in answers])


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", MATRIX)
def test_answers_are_those_of_plain_transformers(name, method, tiny_base, small_snli, tmp_path, record_property):
    train(
        TrainArguments(
            output_dir=tmp_path / "run",
            method=method,
            model_name_or_path=str(tiny_base(name)),
            data_dir=small_snli,
            learning_rate=1e-3,
            max_steps=2,
            evaluations=1,
        )
    )
    pairs = load_split("test", data_dir=small_snli).pairs
    pairs.append(Pair("A dog is wet and old. " * 60, "A pet is dry.", label=-1))  # truncated
    pairs.append(
        Pair("A dog </s> is [SEP] wet <s>", "[MASK] [CLS] A pet is <mask> dry.", label=-1)
    )  # text, not control tokens
    ours = classifier.load(str(tmp_path / "run")).probabilities(pairs)
    plain = plain_probabilities(tmp_path / "run", pairs)
    record_property("difference", float(np.abs(ours - plain).max()))
    assert np.ptp(plain, axis=0).max() > 0.01, "all answers are the same"
    np.testing.assert_allclose(ours, plain, rtol=0, atol=1e-6)
