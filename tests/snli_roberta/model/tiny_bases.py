"""Tiny random base models of many architectures, with tokenizers trained on a few sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as hf

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
RELATIVE = {
    "max_position_embeddings": 512,
    "type_vocab_size": 0,
    "relative_attention": True,
    "pos_att_type": ["c2p", "p2c"],
    "position_biased_input": False,
}
BART = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2}
BART |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "decoder_start_token_id": 2}
V3 = {"position_buckets": 32, "norm_rel_ebd": "layer_norm", "share_att_key": True}
DISTILBERT = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
ARCHITECTURES: dict[str, tuple[Any, Any, dict[str, Any]]] = {  # tokenizer, configuration, and its arguments
    "bert": (hf.BertTokenizer, hf.BertConfig, {**SIZE, "max_position_embeddings": 512}),
    "electra": (hf.BertTokenizer, hf.ElectraConfig, {**SIZE, "embedding_size": 32, "max_position_embeddings": 512}),
    "distilbert": (hf.DistilBertTokenizer, hf.DistilBertConfig, {**DISTILBERT, "max_position_embeddings": 512}),
    "roberta": (hf.RobertaTokenizer, hf.RobertaConfig, {**SIZE, "max_position_embeddings": 514, "type_vocab_size": 1}),
    "xlm_roberta": (
        hf.XLMRobertaTokenizer,
        hf.XLMRobertaConfig,
        {**SIZE, "max_position_embeddings": 514, "type_vocab_size": 1},
    ),
    "deberta": (hf.DebertaTokenizer, hf.DebertaConfig, {**SIZE, **RELATIVE}),
    "deberta_v3": (hf.DebertaV2Tokenizer, hf.DebertaV2Config, {**SIZE, **RELATIVE, **V3}),
    "modernbert": (
        hf.RobertaTokenizer,
        hf.ModernBertConfig,
        {**SIZE, "max_position_embeddings": 1024, "local_attention": 16},
    ),
    "albert": (hf.AlbertTokenizer, hf.AlbertConfig, {**SIZE, "embedding_size": 16, "max_position_embeddings": 512}),
    "mpnet": (hf.MPNetTokenizer, hf.MPNetConfig, {**SIZE, "max_position_embeddings": 514}),
    "bart": (hf.RobertaTokenizer, hf.BartConfig, {**BART, "max_position_embeddings": 512}),
    "llama": (hf.RobertaTokenizer, hf.LlamaConfig, {**SIZE, "max_position_embeddings": 512}),  # without its pad id
}


def make(folder: Path, name: str, texts: Sequence[str], **changes: Any) -> Path:
    """Make a base of an architecture; ``changes`` are to its configuration. Answers differ from pair to pair."""
    tokenizer_class, config_class, arguments = ARCHITECTURES[name]
    tokenizer = tokenizer_class().train_new_from_iterator(texts, 400)
    tokenizer.model_max_length = 512
    ids = {f"{token}_token_id": getattr(tokenizer, f"{token}_token_id") for token in ("pad", "bos", "eos")}
    if name == "llama":
        ids["pad_token_id"] = None
    torch.manual_seed(0)
    spread = {"init_std" if name == "bart" else "initializer_range": 0.2}  # of a new head, too
    config = config_class(vocab_size=len(tokenizer), **{**ids, **spread, **arguments, **changes})
    kind = {"llama": hf.AutoModelForCausalLM, "bart": hf.AutoModel}.get(name, hf.AutoModelForMaskedLM)
    model = kind.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
