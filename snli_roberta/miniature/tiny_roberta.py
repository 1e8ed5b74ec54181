"""The tiny RoBERTa: its tokenizer, its text, and its pretraining as a masked language model.

It reads premises, each followed by a remark with a fitting opening word ("Indeed", "Perhaps", "Hardly"), and so learns to
compare two sentences. It has no classifier and has not seen the labels that fine-tuning teaches.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import RobertaConfig, RobertaForMaskedLM, RobertaTokenizer

from common.miniature.pretrain import fit
from snli_roberta.miniature import snli

STEPS, BATCH, LEARNING_RATE = 3000, 128, 1e-3
DOCUMENTS, VOCABULARY = 60_000, 800
NOISE = 0.02  # fraction of the other tokens that are masked too
documents = snli.discourse  # the pretraining text


def build_tokenizer(seed: int) -> RobertaTokenizer:
    """Train a byte-level BPE, as RoBERTa has it, on the documents."""
    from tokenizers import ByteLevelBPETokenizer

    texts: list[str] = []
    for first, opener, remark in snli.discourse(seed, 4000):
        texts += (first, f"{opener}, {remark}", f" {remark}")
    for first, _, remark in snli.discourse(seed + 1, 2000):
        texts += (first, remark[0].upper() + remark[1:])
    texts += [f" {word}" for word in snli.VAGUE] * 20
    learner = ByteLevelBPETokenizer()
    reserved = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    settings = {"vocab_size": VOCABULARY, "min_frequency": 2, "special_tokens": reserved}
    learner.train_from_iterator(texts, **settings, show_progress=False)
    model = json.loads(learner._tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    return RobertaTokenizer(vocab=model["vocab"], merges=merges, model_max_length=512)


def build_model(tokenizer: RobertaTokenizer) -> RobertaForMaskedLM:
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=514,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        # The usual 0.02 is for widths near 768; at this width attention would start too flat to learn from.
        initializer_range=0.08,
        **tokens,
    )
    return RobertaForMaskedLM(config)


def pretrain(seed: int) -> tuple[RobertaForMaskedLM, RobertaTokenizer, dict[str, float]]:
    """Build tokenizer and model, and train the model to fill in an opening word or a fact, one per document."""
    tokenizer = build_tokenizer(seed)
    model = build_model(tokenizer)
    bos, eos, mask, pad = (getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "mask", "pad"))

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    def encode(document: tuple[str, str, str]) -> tuple[list[int], range, range]:
        """Return tokens, and the places of the opening word and of the fact (the remark's last word)."""
        first, opener, remark = document
        front, word = [bos, *ids(first), eos, eos], ids(opener)
        before, fact = ids(f", {remark.rsplit(' ', 1)[0]}"), ids(f" {remark.rsplit(' ', 1)[1][:-1]}")
        tokens = [*front, *word, *before, *fact, *ids("."), eos]
        start = len(front) + len(word) + len(before)
        return tokens, range(len(front), len(front) + len(word)), range(start, start + len(fact))

    encoded = [encode(document) for document in snli.discourse(seed, DOCUMENTS)]
    rng = random.Random(seed)

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        while True:
            inputs, labels = [], []
            for tokens, word, fact in rng.sample(encoded, BATCH):
                chosen = set(rng.choice((word, fact)))
                others = [i for i, token in enumerate(tokens) if token > mask and i not in word and i not in fact]
                chosen |= {i for i in others if rng.random() < NOISE}
                inputs.append(torch.tensor([mask if i in chosen else token for i, token in enumerate(tokens)]))
                labels.append(torch.tensor([token if i in chosen else -100 for i, token in enumerate(tokens)]))
            padded = pad_sequence(inputs, batch_first=True, padding_value=pad)
            yield {
                "input_ids": padded,
                "attention_mask": (padded != pad).long(),
                "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
            }

    return model, tokenizer, fit(model, batches(), steps=STEPS, learning_rate=LEARNING_RATE)
