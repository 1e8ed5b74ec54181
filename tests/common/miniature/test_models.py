from __future__ import annotations

import json

import pytest

from common.miniature.pretrain import FACTS_FILE, MODELS, text_fingerprint


@pytest.mark.parametrize("name", ["llama", "roberta"])
def test_the_shipped_model_was_trained_on_todays_text(name):
    facts = json.loads((MODELS / f"tiny_{name}" / FACTS_FILE).read_text())
    assert facts["text_fingerprint"] == text_fingerprint(name), (
        f"the text changed: rebuild with python -m common.miniature.pretrain --model {name}"
    )


def test_the_tokenizers_behave_as_the_real_ones():
    from transformers import AutoTokenizer

    llama = AutoTokenizer.from_pretrained(MODELS / "tiny_llama")
    assert (llama.unk_token_id, llama.bos_token_id, llama.eos_token_id, llama.pad_token) == (0, 1, 2, "<unk>")
    assert llama("hi").input_ids[0] == llama.bos_token_id
    assert llama.eos_token_id in llama("hi </s> there").input_ids
    assert llama.eos_token_id not in llama("hi </s> there", split_special_tokens=True).input_ids
    labels = [llama(text).input_ids for text in ("Not biased", "Not offensive", "Maybe offensive", "Offensive")]
    assert all(len(ids) > 1 for ids in labels)
    assert labels[0][:1] == labels[1][:1], "labels that share a first token are what scoring must handle"
    roberta = AutoTokenizer.from_pretrained(MODELS / "tiny_roberta")
    assert (roberta.bos_token_id, roberta.pad_token_id, roberta.eos_token_id) == (0, 1, 2)
    ids = roberta("A dog is wet.", "A pet is dry.").input_ids
    assert (ids[0], ids.count(2), ids[-1]) == (0, 3, 2)  # <s> premise </s></s> hypothesis </s>
    for tokenizer in (llama, roberta):
        text = "Żółć 🙂 \u200b עברית\nand so on"
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids).strip() == text


@pytest.mark.parametrize("name", ["tiny_llama", "tiny_roberta"])
def test_weights_are_fp32(name):
    from safetensors import safe_open

    # transformers loads in the saved precision: half-precision weights would train in half precision.
    with safe_open(MODELS / name / "model.safetensors", "pt") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F32"}  # noqa: SIM118
