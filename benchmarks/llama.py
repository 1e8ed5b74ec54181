"""The language model of the jobs: a Llama of 58 M parameters that has learnt to answer, and adapters on it.

Its weights are of no use: in the moment that it is trained it learns to answer by a common word that a post has or has not. So its
answers end where real ones do, and differ between posts: where two tools give the same ones, that says something.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.alternating import finished, python
from benchmarks.cached import cached, digest, product, tokenizer_files
from benchmarks.corpora import cut_sbic, parts
from benchmarks.setting import environment
from common.cli.console import log, quiet_libraries

SHAPE: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}
VOCABULARY = 32_000
STEPS, BATCH, RATE, WARM_UP, LONGEST = 120, 16, 1e-3, 30, 96
KINDS = 3  # different answers that it learns for a feature, at most
COMMANDS = {
    "hasBiasedImplication": "sbic_llama.train_has_biased_implication",
    "offensiveYN": "sbic_llama.train_offensive_yn",
    "targetMinority": "sbic_llama.train_target_minority",
}
# An adapter of a few steps answers as fast as one of many.
FEW = ("--max_steps", 4, "--evaluations", 1, "--learning_rate", 1e-4, "--r", 16, "--lora_alpha", 32)


def base(sbic_dir: Path, tokenizer: str) -> Path:
    """The folder of the model, with its tokenizer; some minutes of training the first time."""
    data = digest(list(sbic_dir.glob("SBIC.v2.*.csv")))
    made_of = [SHAPE, VOCABULARY, STEPS, BATCH, RATE, WARM_UP, LONGEST, data, tokenizer_files(tokenizer)]
    return cached("llama", made_of, lambda folder: _train(folder, sbic_dir, tokenizer))


def made(of: tuple[Path, str]) -> Path:
    """:func:`base` of one argument, as a process of its own takes it."""
    return base(*of)


def adapters(model: Path, sbic_dir: Path, cores: int) -> dict[str, str]:
    """Feature → the folder of an adapter on the model, trained by the product's command."""

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            cut_sbic(sbic_dir, Path(scratch), train=4 * BATCH, dev=32)
            for feature, command in COMMANDS.items():
                words = ("--model_name_or_path", model, "--data_dir", scratch, "--output_dir", folder, *FEW)
                finished(f"training for {feature}", python(command, *words), environment(cores))
                log(f"an adapter for {feature}")

    folder = cached("adapters", [str(model), list(map(str, FEW)), product()], make)
    return {feature: str(folder / feature) for feature in COMMANDS}


def _train(folder: Path, sbic_dir: Path, name: str) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from common.models.quantization import load_tokenizer
    from common.runtime import hardware

    quiet_libraries()
    torch.manual_seed(0)
    tokenizer = load_tokenizer(name)
    ids = {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=max(VOCABULARY, len(tokenizer)), **SHAPE, **ids))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    losses = []
    for step, batch in enumerate(_batches(sbic_dir, tokenizer)):
        optimizer.param_groups[0]["lr"] = RATE * min((step + 1) / WARM_UP, 1) * (1 - 0.95 * step / STEPS)
        labels = batch.pop("labels")[0, 1:]
        answers = (labels != -100).nonzero()[:, 0]
        with torch.autocast("cpu", torch.bfloat16, enabled=hardware.cpu_has_bf16()):
            logits = model(**batch, use_cache=False, logits_to_keep=answers).logits[0]
        loss = torch.nn.functional.cross_entropy(logits.float(), labels[answers])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % 40 == 0:
            log(f"step {step + 1} of {STEPS}, loss {sum(losses[-40:]) / 40:.2f}")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _batches(sbic_dir: Path, tokenizer: Any) -> list[dict[str, Any]]:
    """Batches of all three features, in an order of chance, as the product packs them."""
    from sbic_llama.data.corpus import labeled, load_splits
    from sbic_llama.data.encoding import answer_ids, encode
    from sbic_llama.data.features import FEATURES
    from sbic_llama.training.trainer import SharedInstruction, TrainingRows

    train, draw = load_splits(data_dir=sbic_dir)["train"], random.Random(0)
    batches = []
    for feature in map(FEATURES.__getitem__, COMMANDS):
        posts = labeled(train, feature.label_of)
        kinds = [text for text, _ in Counter(map(feature.target, posts)).most_common(KINDS)]
        encoded = encode(tokenizer, feature, [post.text for post in posts], max_post_tokens=LONGEST)
        cued = [kinds[part] for part in parts(encoded.post_ids, len(kinds))]
        rows = TrainingRows(encoded, answer_ids(tokenizer, cued))
        examples = [
            {"input_ids": ids, "labels": labels} for ids, labels in zip(rows.input_ids, rows.labels, strict=True)
        ]
        packed = SharedInstruction(encoded.prefix_ids, tokenizer.pad_token_id, share=True)
        for _ in range(max(1, -(-STEPS * BATCH // (3 * len(examples))))):
            draw.shuffle(examples)
            batches += [packed(examples[i : i + BATCH]) for i in range(0, len(examples), BATCH)]
    draw.shuffle(batches)
    return batches[:STEPS]
