"""Test that posts, annotators' labels and generated answers are never more than text."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.miniature.pretrain import MODELS
from common.models.prompt import bos_ids
from common.models.quantization import load_tokenizer
from sbic_llama.data.corpus import Post, clean
from sbic_llama.data.encoding import encode
from sbic_llama.data.features import FEATURES, OFFENSIVE_POLICIES, STUDY_WORDING
from sbic_llama.data.groups import normalized_groups, set_f1, split_groups
from tests.rubbish import NASTY, SURROGATES, texts

pytestmark = pytest.mark.properties
DECLARED = [*FEATURES.values(), *OFFENSIVE_POLICIES.values(), STUDY_WORDING]
ESCAPED = (
    "&amp;" * 3 + "lt;",
    "&amp;amp;amp;#44;",
    "&#38;#38;#38;lt;",
    "&amp;#x26;amp;gt;",
    "&ampamp;lt",
    "&#" + "9" * 5000 + ";",
)
any_text = st.one_of(texts, st.text(st.characters()), st.sampled_from((*SURROGATES, *ESCAPED)))


@pytest.fixture(scope="module", params=["tiny_llama", "llama2"])
def tokenizer(request):
    if request.param == "tiny_llama":
        return load_tokenizer(str(MODELS / "tiny_llama"))
    return load_tokenizer(str(request.getfixturevalue("real_data") / "tokenizers" / "llama2"))


@given(text=any_text)
@example(text="&amp;amp;amp;#44;")
@example(text="&#" + "9" * 5000 + ";")
@example(text="\ud83d")
def test_what_is_clean_stays_as_it_is(text):
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert cleaned == " ".join(cleaned.split())
    cleaned.encode()


@given(posts=st.lists(any_text, min_size=1, max_size=3))
@example(posts=["\ud83d"])
@example(posts=list(NASTY))
def test_a_post_is_text_and_nothing_but_its_own(tokenizer, posts):
    """A prompt is the text, complete, with no special token but BOS."""
    feature = FEATURES["offensiveYN"]
    cleaned = [clean(post) for post in posts]
    encoded = encode(tokenizer, feature, cleaned, max_post_tokens=100_000)
    for post, ids in zip(cleaned, encoded.prompts, strict=True):
        start = bos_ids(tokenizer)
        assert ids[: len(start)] == start
        assert not set(ids[len(start) :]) & set(tokenizer.all_special_ids)
        # The tokenizer's sign for a space can't be told from one.
        assert tokenizer.decode(ids[len(start) :]).lstrip(" ") == feature.prompt(post).replace("\u2581", " ")


@pytest.mark.parametrize("declared", DECLARED, ids=lambda one: f"{one.name} {one.labels}")
@given(
    text=any_text,
    groups=st.lists(any_text, max_size=3),
    mean=st.one_of(st.none(), st.floats(0, 1)),
    biased=st.booleans(),
)
def test_what_is_learnt_is_read_as_its_label_and_anything_is_read(declared, text, groups, mean, biased):
    post = Post(text=clean(text), source="s", biased=biased, offensive=mean, groups=tuple(groups))
    label = declared.label_of(post)
    target = declared.target(post)
    assert (target is None) == (label is None)
    if target is not None:
        assert declared.parse(target) == label
    result = declared.parse(text)
    if declared.classifies:
        assert result is None or declared.labels[result] == text.strip()
    else:
        assert result == declared.parse(declared.answer(result)), "groups of any text are groups again"


@given(one=any_text, other=any_text)
def test_groups_of_any_text_are_a_set(one, other):
    groups, others = split_groups(one), split_groups(other)
    assert list(groups) == sorted(set(groups))
    assert normalized_groups([*groups, *others]) == tuple(sorted({*groups, *others}))
    assert 0 <= set_f1(groups, others) <= 1
    assert set_f1(groups, groups) == 1
