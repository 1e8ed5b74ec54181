"""The tiny Llama: its tokenizer, its text and its pre-training.

It is trained on threads of posts and replies, and on the usual instruction template with tasks other than the product's. So it
understands posts and can copy, but has not seen the labels that fine-tuning teaches.
"""

from __future__ import annotations

import json
import random
import string
from collections.abc import Iterator

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

from common.miniature.pretrain import fit
from common.models.prompt import HEAD, TAIL, bos_ids, plain_ids
from sbic_llama.miniature import sbic

STEPS, BATCH, LEARNING_RATE = 3000, 32, 1.5e-3
DOCUMENTS = 30_000
VOCABULARY = 900

# Words that it must be able to generate: LoRA leaves the output layer frozen, so a word with pieces that never occur in
# pre-training could not be told from its neighbors afterwards.
WORDS = [
    "Biased", "Not", "biased", "Offensive", "Maybe", "offensive", "none", "yes", "no", "True", "False", "good",
    "bad", "red", "blue", "one", "two", "three", "Apple", "house", "River", "folk", "florb", "drevin", "quillan",
    "marrowite", "tessel", "ombrian", "veelish", "zanthi", "likely", "unlikely", "Certain", "always", "Never",
    "some", "All", "Decide", "whether", "the", "post", "implies", "something", "about", "a", "group", "of",
    "people", "could", "be", "considered", "to", "anyone", "Name", "groups", "that", "targets", "separated", "by",
    "commas", "or", "say", "Intended",
]  # fmt: skip


def documents(seed: int, count: int) -> Iterator[tuple[str, ...]]:
    """Yield ``(head, text, tail, answer)`` of the template, or ``(post, reply)`` of a thread."""
    rng = random.Random(f"llama {seed}")
    for post, reply in sbic.threads(seed, count):
        kind = rng.random()
        if kind < 0.5:
            yield post, "\n" + reply
        elif kind < 0.85:
            yield HEAD.format("Reply to the post."), post, TAIL, reply
        elif kind < 0.9:
            yield HEAD.format("Repeat the post."), post, TAIL, post
        else:
            words = (rng.choice(WORDS) if rng.random() < 0.7 else random_word(rng) for _ in range(rng.randint(1, 3)))
            text = rng.choice((" ", ", ")).join(words)
            yield HEAD.format("Repeat the words."), text, TAIL, text


def random_word(rng: random.Random) -> str:
    return "".join(rng.choices(string.ascii_letters + string.digits, k=rng.randint(2, 5)))


def build_tokenizer(seed: int) -> LlamaTokenizer:
    """Train a byte-fallback BPE like Llama's on the documents."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    learner = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    # For training only: merges stay within words and lines, and a word at the start of a line is learned without a space
    # before it. LlamaTokenizer then applies the merges to the whole text.
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Metaspace(prepend_scheme="never")]
    )
    reserved = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    texts = [part for document in documents(seed, 4000) for part in document] + WORDS * 10
    learner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=reserved, show_progress=False)
    )
    learned = json.loads(learner.to_str())["model"]
    tokenizer = LlamaTokenizer(
        vocab=learned["vocab"], merges=[tuple(merge) for merge in learned["merges"]], pad_token="<unk>"
    )
    # As in the tokenizer.json of Llama 2: a text begins with BOS.
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    return tokenizer


def build_model(tokenizer: LlamaTokenizer) -> LlamaForCausalLM:
    # Widths are multiples of 64, the block size of NF4.
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=320,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=1024,
            tie_word_embeddings=False,
            **{name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")},
        )
    )


def pretrain(seed: int) -> tuple[LlamaForCausalLM, LlamaTokenizer, dict[str, float]]:
    """Build tokenizer and model, and train the model as a language model on whole documents."""
    tokenizer = build_tokenizer(seed)
    model = build_model(tokenizer)

    def encode(document: tuple[str, ...]) -> torch.Tensor:
        (ids,) = plain_ids(tokenizer, ["".join(document)])
        return torch.tensor([*bos_ids(tokenizer), *ids, tokenizer.eos_token_id])

    encoded = [encode(document) for document in documents(seed, DOCUMENTS)]
    rng = random.Random(seed)

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        while True:
            rows = rng.sample(encoded, BATCH)
            mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
            ids = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
            yield {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}

    return model, tokenizer, fit(model, batches(), steps=STEPS, learning_rate=LEARNING_RATE)
