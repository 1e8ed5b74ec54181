"""Added tokens in a text that somebody else wrote are text, whatever family the tokenizer is of."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from common.models.loading import load_tokenizer
from common.models.prompt import added_ids, plain_ids, token_places

LETTERS = [*"abcdefghijklmnopqrstuvwxyz<>/|[]._", "▁", "##a"]
CONTROL = ["<unk>", "<s>", "</s>", "<pad>"]
OTHERS = (
    AddedToken("<tool>", special=False, normalized=True),
    AddedToken("<|user|>", special=False, lstrip=True, rstrip=True),
    AddedToken("[ent]", special=False, single_word=True),
    AddedToken("  ", special=False),
)
VOCABULARY = {token: i for i, token in enumerate([*CONTROL, *LETTERS, "<tool>"])}


def byte_level() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(
        models.BPE({token: i for i, token in enumerate([*CONTROL, *alphabet])}, [], ignore_merges=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(VOCABULARY, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def word_level() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def unigram() -> Tokenizer:
    tokenizer = Tokenizer(
        models.Unigram([(token, 0.0 if i < 4 else -3.0) for token, i in VOCABULARY.items()], unk_id=0)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


@pytest.fixture(params=[byte_level, word_piece, word_level, unigram], ids=lambda build: build.__name__)
def tokenizer(request, tmp_path):
    names = dict(zip(("unk_token", "bos_token", "eos_token", "pad_token"), CONTROL, strict=True))
    built = PreTrainedTokenizerFast(tokenizer_object=request.param(), **names)
    built.add_tokens(list(OTHERS))
    built.save_pretrained(tmp_path)
    return load_tokenizer(str(tmp_path))


def variants(token: str) -> list[str]:
    wide = "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in token)
    hidden = f"{token[0]}\u00ad{token[1:]}"  # BERT's normalizer removes it
    return [token, f"a {token} b", f"a{token}b", token * 2, f"a {token.upper()} b", f"a {wide} b", f"a {hidden} b"]


def test_a_text_has_no_added_token(tokenizer):
    added = added_ids(tokenizer)
    assert {tokenizer.convert_ids_to_tokens(i) for i in added} == {*CONTROL[1:], "<tool>", "<|user|>", "[ent]"}
    for token in [*CONTROL, *map(str, OTHERS[:3])]:
        texts = variants(token)
        for text, ids in zip(texts, plain_ids(tokenizer, texts), strict=True):
            assert not added & set(ids), text
            assert len(token_places(tokenizer, text)) == len(ids)


def test_text_without_added_tokens_keeps_its_tokens(tokenizer):
    for text in ("a b c", "naïve 😂 a", "a  b", "a\n\nb ", "<t o ol> </ s>", ""):
        assert plain_ids(tokenizer, [text]) == [tokenizer(text, add_special_tokens=False).input_ids]


def test_an_added_token_takes_no_white_space_along(tokenizer):
    """Otherwise a post's last word would swallow the line break before the answer."""
    if tokenizer.backend_tokenizer.model.__class__.__name__ == "BPE":
        assert tokenizer.decode(plain_ids(tokenizer, ["a\n<|user|>\n\nb"])[0]) == "a\n<|user|>\n\nb"


def test_the_tokenizer_is_saved_with_its_marks(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "again")
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path / "again")
    text = "a <tool> </s> <|user|> b"
    assert plain_ids(again, [text]) == plain_ids(tokenizer, [text])
    tokens = {token.content: token for token in again.added_tokens_decoder.values()}
    assert (tokens["<|user|>"].special, tokens["<|user|>"].lstrip, tokens["  "].special) == (True, True, False)
