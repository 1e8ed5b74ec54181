"""What of a pair becomes tokens: all that the tokenizer gives, cut as the tokenizer cuts, without its cost."""

from __future__ import annotations

import time
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snli_roberta.data.corpus import Pair
from snli_roberta.model import encoder
from snli_roberta.model.encoding import encode
from tests.snli_roberta.model.tiny_bases import ARCHITECTURES

KINDS = {}
for _name, (_tokenizer, *_) in ARCHITECTURES.items():
    KINDS.setdefault(_tokenizer, _name)


def words(count: int) -> str:
    return " ".join(["A", "dog", "is", "wet-ish", "naïve", "</s>"][i % 6] for i in range(count))


@pytest.mark.parametrize("name", KINDS.values())
def test_the_tokens_that_survive_are_those_that_the_tokenizer_leaves(name, tiny_base):
    tokenizer = encoder.load_tokenizer(str(tiny_base(name)))
    sides = ("right", "left") if name == "bert" else ("right",)
    counts = (1, 7, 30, 31, 60)
    for side, first, second, length in product(sides, counts, counts, (8, 9, 41)):
        tokenizer.truncation_side = side
        pair = Pair(words(first), words(second), label=-1)
        (row,), cut = encode(tokenizer, [pair], length)
        whole = tokenizer(pair.premise, pair.hypothesis)
        expected = tokenizer(pair.premise, pair.hypothesis, truncation="longest_first", max_length=length)
        assert {**row, "attention_mask": [1] * len(row["input_ids"])} == dict(expected)
        assert cut == (len(whole.input_ids) > length)


@pytest.fixture(scope="module")
def tokenizers(tiny_base):
    return [encoder.load_tokenizer(str(tiny_base(name))) for name in ("bert", "deberta_v3", "roberta")]


@pytest.mark.properties
@given(first=st.text(min_size=1, max_size=300), second=st.text(min_size=1, max_size=300), length=st.integers(8, 60))
def test_any_text_is_cut_as_the_tokenizer_cuts_it(first, second, length, tokenizers):
    for tokenizer in tokenizers:
        (row,), _ = encode(tokenizer, [Pair(first, second, label=-1)], length)
        expected = tokenizer(first, second, truncation="longest_first", max_length=length)
        assert row["input_ids"] == expected.input_ids


def test_long_texts_are_cut_in_little_time(tiny_base):
    """The tokenizer itself takes a minute and 11 GB for this pair."""
    tokenizer = encoder.load_tokenizer(str(tiny_base("bert")))
    text = words(16_000)
    start = time.monotonic()
    (row,), cut = encode(tokenizer, [Pair(text, text, label=-1)], 128)
    assert time.monotonic() - start < 3
    assert (len(row["input_ids"]), cut) == (128, 1)
    few = Pair(words(300), words(300), label=-1)
    assert row == encode(tokenizer, [few], 128)[0][0]
