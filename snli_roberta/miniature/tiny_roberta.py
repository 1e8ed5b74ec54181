"""The tiny RoBERTa: its tokenizer, its text, and its pre-training as a masked language model.

It reads premises, each followed by a remark with an opening word that fits ("Indeed", "Perhaps", "Hardly"), so it learns
to compare two sentences. It has no classifier and knows nothing of the labels that fine-tuning teaches.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import RobertaConfig, RobertaForMaskedLM, RobertaTokenizer

from common.miniature.pretrain import fit
from snli_roberta.miniature import snli

STEPS, BATCH, LEARNING_RATE = 3000, 128, 1e-3
DOCUMENTS = 60_000
VOCABULARY = 800
NOISE = 0.02  # share of the other tokens that are masked too
documents = snli.discourse  # what it is pre-trained on


def build_tokenizer(seed: int) -> RobertaTokenizer:
    """A byte-level BPE of RoBERTa's own kind, trained on the documents."""
    from tokenizers import ByteLevelBPETokenizer

    texts = [
        text
        for first, opener, remark in snli.discourse(seed, 4000)
        for text in (first, f"{opener}, {remark}", f" {remark}")
    ]
    texts += [
        text for first, _, remark in snli.discourse(seed + 1, 2000) for text in (first, remark[0].upper() + remark[1:])
    ]
    texts += [f" {word}" for word in snli.VAGUE] * 20
    learner = ByteLevelBPETokenizer()
    reserved = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    learner.train_from_iterator(
        texts, vocab_size=VOCABULARY, min_frequency=2, special_tokens=reserved, show_progress=False
    )
    import json

    model = json.loads(learner._tokenizer.to_str())["model"]
    return RobertaTokenizer(
        vocab=model["vocab"], merges=[tuple(merge) for merge in model["merges"]], model_max_length=512
    )


def build_model(tokenizer: RobertaTokenizer) -> RobertaForMaskedLM:
    return RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=514,
            type_vocab_size=1,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            # The usual 0.02 is for widths near 768; at this width attention starts too flat to learn from.
            initializer_range=0.08,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def pretrain(seed: int) -> tuple[RobertaForMaskedLM, RobertaTokenizer, dict[str, float]]:
    """Builds tokenizer and model, and trains the model to fill in an opening word or a fact, one a document."""
    tokenizer = build_tokenizer(seed)
    model = build_model(tokenizer)
    bos, eos, mask, pad = (getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "mask", "pad"))

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    def encode(document: tuple[str, str, str]) -> tuple[list[int], range, range]:
        """Tokens, and where in them the opening word and the fact (the remark's last word) stand."""
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
                chosen |= {
                    i
                    for i, token in enumerate(tokens)
                    if token > mask and i not in word and i not in fact and rng.random() < NOISE
                }
                inputs.append(torch.tensor([mask if i in chosen else token for i, token in enumerate(tokens)]))
                labels.append(torch.tensor([token if i in chosen else -100 for i, token in enumerate(tokens)]))
            padded = pad_sequence(inputs, batch_first=True, padding_value=pad)
            yield {
                "input_ids": padded,
                "attention_mask": (padded != pad).long(),
                "labels": pad_sequence(labels, batch_first=True, padding_value=-100),
            }

    return model, tokenizer, fit(model, batches(), steps=STEPS, learning_rate=LEARNING_RATE)
