"""What of a pair becomes tokens: all that the tokenizer gives, cut as the tokenizer cuts, without its cost."""

from __future__ import annotations

import time
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AddedToken, AutoTokenizer, CanineTokenizer

from common.models import encoder
from common.models.encoding import CHUNK, encode
from common.models.prompt import added_ids, mark_added
from tests.snli_roberta.model.tiny_bases import ARCHITECTURES

KINDS = {}
for _name, (_tokenizer, *_) in ARCHITECTURES.items():
    KINDS.setdefault(_tokenizer, _name)


def words(count: int) -> str:
    return " ".join(["A", "dog", "is", "wet-ish", "naïve", "😂"][i % 6] for i in range(count))


@pytest.mark.parametrize("name", KINDS.values())
def test_the_tokens_that_survive_are_those_that_the_tokenizer_leaves(name, tiny_base):
    tokenizer = encoder.load_tokenizer(str(tiny_base(name)))
    sides = ("right", "left") if name == "bert" else ("right",)
    counts = (1, 7, 30, 31, 60)
    for side, first, second, length in product(sides, counts, counts, (8, 9, 41)):
        tokenizer.truncation_side = side
        pair = words(first), words(second)
        (row,), cut = encode(tokenizer, [pair], length)
        whole = tokenizer(*pair)
        expected = tokenizer(*pair, truncation="longest_first", max_length=length)
        assert {**row, "attention_mask": [1] * len(row["input_ids"])} == dict(expected)
        assert cut == (len(whole.input_ids) > length)


@pytest.fixture(scope="module")
def tokenizers(tiny_base):
    return [encoder.load_tokenizer(str(tiny_base(name))) for name in ("bert", "deberta_v3", "roberta")]


@pytest.mark.properties
@given(first=st.text(min_size=1, max_size=300), second=st.text(min_size=1, max_size=300), length=st.integers(8, 60))
def test_any_text_is_cut_as_the_tokenizer_cuts_it(first, second, length, tokenizers):
    for tokenizer in tokenizers:
        (row,), _ = encode(tokenizer, [(first, second)], length)
        options = {"truncation": "longest_first", "max_length": length, "split_special_tokens": True}
        expected = tokenizer(first, second, **options)
        assert row["input_ids"] == expected.input_ids


@pytest.mark.parametrize("longer", ["premise", "hypothesis"])
def test_only_the_longer_sentence_is_cut(longer, tiny_base):
    tokenizer = encoder.load_tokenizer(str(tiny_base("bert")))
    texts = {"premise": "A dog is wet.", "hypothesis": "A dog is dry.", longer: words(300)}
    (row,), cut = encode(tokenizer, [tuple(texts.values())], 40)
    parts = {name: tokenizer(text, add_special_tokens=False).input_ids for name, text in texts.items()}
    other = "hypothesis" if longer == "premise" else "premise"
    parts[longer] = parts[longer][: 40 - 3 - len(parts[other])]
    separator = [tokenizer.sep_token_id]
    assert row["input_ids"] == [tokenizer.cls_token_id, *parts["premise"], *separator, *parts["hypothesis"], *separator]
    assert row["token_type_ids"] == [0] * (len(parts["premise"]) + 2) + [1] * (len(parts["hypothesis"]) + 1)
    assert cut == 1


@pytest.mark.parametrize("name", KINDS.values())
def test_added_tokens_in_a_sentence_are_text(name, tiny_base):
    """Special or not, whole or cut: the control tokens of a pair are those around its sentences."""
    tokenizer = AutoTokenizer.from_pretrained(str(tiny_base(name)))
    tokenizer.add_tokens([AddedToken("<tool>", special=False), AddedToken("<user>", rstrip=True, normalized=False)])
    mark_added(tokenizer)
    added = added_ids(tokenizer)
    tokens = [token.content for i, token in tokenizer.added_tokens_decoder.items() if i in added]
    assert len(tokens) >= 6
    (plain,), _ = encode(tokenizer, [("a", "b")], 64)
    assert plain["input_ids"] == tokenizer("a", "b").input_ids
    around = [i for i in plain["input_ids"] if i in added]
    for text in (*tokens, " ".join(tokens), "".join(tokens).upper(), "x" + tokens[-1] * 40):
        for pair in ((text, "b"), ("a", text), (text, text)):
            (row,), _ = encode(tokenizer, [pair], 64)
            assert [i for i in row["input_ids"] if i in added] == around
            assert {len(values) for values in row.values()} <= set(range(65))


@pytest.mark.parametrize("name", KINDS.values())
def test_a_single_text_is_encoded_and_cut_as_the_tokenizer_does(name, tiny_base):
    tokenizer = encoder.load_tokenizer(str(tiny_base(name)))
    rows, cut = encode(tokenizer, [(words(9),), (words(90),), ("</s> [SEP]",)], 41)
    assert [rows[i]["input_ids"] for i in (0, 1)] == [
        tokenizer(words(count), truncation=True, max_length=41).input_ids for count in (9, 90)
    ]
    assert (cut, len(rows[1]["input_ids"])) == (1, 41)
    around = [i for i in rows[0]["input_ids"] if i in added_ids(tokenizer)]
    assert [i for i in rows[2]["input_ids"] if i in added_ids(tokenizer)] == around


def test_a_tokenizer_of_pure_python_keeps_the_same_rules():
    tokenizer = CanineTokenizer()  # a token is a code point, and special tokens are private ones
    pair = "A \ue000 dog\ue001", "is " * 40
    (row,), cut = encode(tokenizer, [pair], 32)
    expected = tokenizer("A _ dog_", "is " * 40, truncation="longest_first", max_length=32).input_ids
    assert row["input_ids"] == expected
    assert (cut, row["input_ids"].count(tokenizer.sep_token_id)) == (1, 2)
    (row,), cut = encode(tokenizer, [("is " * 40,)], 32)
    assert (row["input_ids"], cut) == (tokenizer("is " * 40, truncation=True, max_length=32).input_ids, 1)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_items_keep_their_tokens_and_their_place_among_many(name, tiny_base):
    """Many items are tokenized in chunks and kept in flat arrays; each has the tokens that it has alone."""
    tokenizer = encoder.load_tokenizer(str(tiny_base(name)))
    kinds = [(words(1 + i % 9), words(1 + i % 40)) for i in range(360)]
    alone = [encode(tokenizer, [pair], 32) for pair in kinds]
    items = [kinds[i % 360] for i in range(2 * CHUNK + 100)]
    rows, cut = encode(tokenizer, items, 32)
    assert list(rows) == [alone[i % 360][0][0] for i in range(len(items))]
    assert cut == sum(alone[i % 360][1] for i in range(len(items))) > 0
    assert list(rows.lengths) == [len(row["input_ids"]) for row in rows]
    assert rows.largest == max(max(row["input_ids"]) for row in rows)
    assert rows[-1] == rows[len(rows) - 1]


def test_long_texts_are_cut_in_little_time(tiny_base):
    """The tokenizer itself takes a minute and 11 GB for this pair."""
    tokenizer = encoder.load_tokenizer(str(tiny_base("bert")))
    text = words(16_000)
    start = time.monotonic()
    (row,), cut = encode(tokenizer, [(text, text)], 128)
    assert time.monotonic() - start < 3
    assert (len(row["input_ids"]), cut) == (128, 1)
    few = words(300), words(300)
    assert row == encode(tokenizer, [few], 128)[0][0]
