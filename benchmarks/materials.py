"""Corpora and models of the jobs. Corpora are cut to the size of a job; models are made once and kept in the user's cache.

The language model is a Llama of 58 M parameters that learns in minutes to answer by a common word of the post. The answers mean
nothing, but they end where real ones do and differ between posts, so agreement between two tools means something. The encoder is
a RoBERTa of the size of MiniLM-L6 with random weights.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, finished, python
from common.cli.console import log, quiet_libraries, stage
from common.cli.errors import UserError
from common.runtime.files import atomic_folder
from common.runtime.project import cache_folder
from common.tables.report import fingerprint
from common.tables.writing import write_rows
from sbic_llama.data.corpus import FILE_NAMES, Post, clean, labeled, load_splits
from sbic_llama.data.features import FEATURES, OFFENSIVE_YN
from snli_roberta.data.corpus import LABELS

LLAMA: dict[str, Any] = {
    "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8,
    "max_position_embeddings": 2048, "tie_word_embeddings": False,
}  # fmt: skip
LLAMA_VOCABULARY = 32_000
STEPS, BATCH, RATE, WARM_UP, LONGEST = 240, 16, 1e-3, 30, 96
ANSWERS = 3  # different answers per feature that the Llama learns, at most
SBIC, SNLI, TOKENIZER = "SBIC.v2.*.csv", "snli_1.0_*.jsonl", ("*.json", "*.txt", "*.model")  # patterns of files
TRAINED = ("hasBiasedImplication", "offensiveYN", "targetMinority")
# An adapter of a few steps answers as fast as one of many.
ADAPTER_OPTIONS: dict[str, Any] = {"max_steps": 4, "evaluations": 1, "learning_rate": 1e-4, "r": 16, "lora_alpha": 32}
# A pretrained model gives different answers only after some learning, without which agreement means nothing.
LEARNING = {"max_steps": 40, "learning_rate": 1e-3, "prompt": "study"}

ENCODER: dict[str, Any] = {"num_hidden_layers": 6, "max_position_embeddings": 514, "type_vocab_size": 1}
WIDTH, ENCODER_VOCABULARY = 384, 30_522  # MiniLM's; a larger tokenizer gets as many rows as it has tokens
PAIRS = 2048
# At a learning rate of 5e-4 it may learn nothing.
CLASSIFIER_OPTIONS = {"method": "full", "num_train_epochs": 2, "evaluations": 1, "learning_rate": 1e-4}

# ---- corpora


def cut_sbic(source: Path, target: Path, *, train: int, dev: int) -> list[Post]:
    """Write SBIC with ``train`` training posts and ``dev`` posts of each other split; return the training posts."""
    splits = load_splits(data_dir=source)
    target.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", train), ("dev", dev), ("test", dev)):
        chosen = [post.text for post in splits[name].posts if OFFENSIVE_YN.label_of(post) is not None][:count]
        if len(chosen) < count:
            raise UserError(f"{len(chosen):,} labeled {name} posts", file=source, expected=f"at least {count:,}")
        wanted, file_name = set(chosen), f"SBIC.v2.{FILE_NAMES[name]}.csv"
        with open(source / file_name, encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if clean(row["post"]) in wanted]
        write_rows(target / file_name, rows)
    return [post for post in load_splits(data_dir=target)["train"].posts if OFFENSIVE_YN.label_of(post) is not None]


def cut_snli(source: Path, target: Path, *, train: int, dev: int, by_words: bool = False) -> None:
    """Write SNLI with the first ``train`` labeled training pairs and the first ``dev`` of each other split.

    ``by_words`` replaces the labels by :func:`parts` of the hypotheses, which even a model without pretraining learns at once.
    """
    target.mkdir(parents=True, exist_ok=True)
    files: dict[Path, list[dict[str, str]]] = {}
    for name, count in (("train", train), ("dev", dev), ("test", dev)):
        path = source / f"snli_1.0_{name}.jsonl"
        kept = files[target / path.name] = []
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if row["gold_label"] in LABELS and row["sentence1"].strip() and row["sentence2"].strip():
                    kept.append(row)
                if len(kept) == count:
                    break
        if len(kept) < count:
            raise UserError(f"{len(kept):,} labeled pairs", file=path, expected=f"at least {count:,}")
    if by_words:  # the same words in all three files
        rows = [row for kept in files.values() for row in kept]
        for row, part in zip(rows, parts([row["sentence2"].split() for row in rows], len(LABELS)), strict=True):
            row["gold_label"] = LABELS[part]
    for path, kept in files.items():
        write_rows(path, kept)


def parts(texts: Sequence[Sequence[Hashable]], count: int) -> list[int]:
    """Divide texts, given as tokens or words, into ``count`` parts of about one size; return each text's part.

    The first part has one common token, the second has another one but not the first, and so on.
    """
    numbers, rest = [count - 1] * len(texts), list(range(len(texts)))
    for part in range(count - 1):
        within = Counter(token for i in rest for token in dict.fromkeys(texts[i]))
        cue = min(within, key=lambda token: abs(within[token] * (count - part) - len(rest)))
        for i in rest:
            if cue in texts[i]:
                numbers[i] = part
        rest = [i for i in rest if cue not in texts[i]]
    return numbers


# ---- cache


def cached(name: str, made_of: list[Any], make: Callable[[Path], None]) -> Path:
    """Return a folder filled by ``make``, now or in an earlier run with the same ``made_of``."""
    from filelock import FileLock

    folder = cache_folder("finetuning-benchmarks") / f"{name}-{fingerprint(made_of)}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fix = "set XDG_CACHE_HOME to a writable folder"
        raise UserError(f"not writable: {error.strerror}", file=folder.parent, fix=fix) from error
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            with stage(f"making {name} (once)"), atomic_folder(folder) as part:
                make(part)
    return folder


def digest(folder: str | Path, *patterns: str) -> str:
    """Return a hash of the contents of files."""
    paths = sorted(path for pattern in patterns for path in Path(folder).glob(pattern))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()[:16]


def product_code() -> str:
    """Return a hash of the product's code: what its commands make may change with it."""
    return digest(ROOT, *(f"{name}/**/*.py" for name in ("common", "sbic_llama", "snli_roberta")))


# ---- models


def llama(sbic_dir: Path, tokenizer: str) -> Path:
    """Return the folder of the language model and its tokenizer; training it takes some minutes the first time."""
    data = digest(sbic_dir, SBIC)
    made_of = [LLAMA, LLAMA_VOCABULARY, STEPS, BATCH, RATE, WARM_UP, LONGEST, data, digest(tokenizer, *TOKENIZER)]
    return cached("llama", made_of, lambda folder: _train_llama(folder, sbic_dir, tokenizer))


def adapters(model: Path, sbic_dir: Path, *, pretrained: bool = False) -> dict[str, str]:
    """Return the folder of an adapter per feature, trained by the product's commands."""
    settings = ADAPTER_OPTIONS | (LEARNING if pretrained else {})

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            cut_sbic(sbic_dir, Path(scratch), train=settings["max_steps"] * BATCH, dev=32)
            for feature in TRAINED:
                options = {"model_name_or_path": model, "data_dir": scratch, "output_dir": folder, **settings}
                finished(f"training for {feature}", python("sbic_llama.train", feature=feature, **options))
                log(f"adapter for {feature} trained")

    folder = cached("adapters", [str(model), settings, product_code()], make)
    return {feature: str(folder / feature) for feature in TRAINED}


def encoder(tokenizer: str, width: int = WIDTH) -> Path:
    """Return the folder of the encoder and its tokenizer."""
    shape = ENCODER | {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 32}

    def make(folder: Path) -> None:
        import torch
        from transformers import AutoTokenizer, RobertaConfig, RobertaForMaskedLM

        quiet_libraries()
        torch.manual_seed(0)
        loaded = AutoTokenizer.from_pretrained(tokenizer)
        config = RobertaConfig(vocab_size=max(ENCODER_VOCABULARY, len(loaded)), **shape, **_special_ids(loaded))
        RobertaForMaskedLM(config).save_pretrained(folder)
        loaded.save_pretrained(folder)

    return cached("encoder", [shape, ENCODER_VOCABULARY, digest(tokenizer, *TOKENIZER)], make)


def classifier(base: Path, snli_dir: Path) -> Path:
    """Return the folder of a classifier, trained for some steps by the product's command."""

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            cut_snli(snli_dir, Path(scratch), train=PAIRS, dev=PAIRS // 8, by_words=True)
            options = {"model_name_or_path": base, "data_dir": scratch, "output_dir": folder / "model"}
            finished("training the classifier", python("snli_roberta.train_full", **options, **CLASSIFIER_OPTIONS))

    made_of = [str(base), CLASSIFIER_OPTIONS, PAIRS, product_code()]
    return cached("classifier", made_of, make) / "model"


def _special_ids(tokenizer: Any) -> dict[str, int]:
    return {key: getattr(tokenizer, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}


def _train_llama(folder: Path, sbic_dir: Path, name: str) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from common.models.quantization import load_tokenizer
    from common.runtime import hardware
    from sbic_llama.model.packing import answer_losses

    quiet_libraries()
    torch.manual_seed(0)
    tokenizer = load_tokenizer(name)
    rows = max(LLAMA_VOCABULARY, len(tokenizer))
    model = LlamaForCausalLM(LlamaConfig(vocab_size=rows, **LLAMA, **_special_ids(tokenizer)))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    losses = []
    for step, batch in enumerate(_batches(sbic_dir, tokenizer)):
        optimizer.param_groups[0]["lr"] = RATE * min((step + 1) / WARM_UP, 1) * (1 - 0.95 * step / STEPS)
        with torch.autocast("cpu", torch.bfloat16, enabled=hardware.cpu_has_bf16()):
            loss = answer_losses(model, batch).mean()
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
    """Return shuffled batches of all three features, packed as the product packs them."""
    from common.models.prompt import answer_ids
    from sbic_llama.data.encoding import encode
    from sbic_llama.model.packing import SharedInstruction
    from sbic_llama.training.trainer import TrainingRows

    train, draw = load_splits(data_dir=sbic_dir)["train"], random.Random(0)
    batches = []
    for feature in map(FEATURES.__getitem__, TRAINED):
        posts = labeled(train, feature.label_of)
        kinds = [text for text, _ in Counter(map(feature.target, posts)).most_common(ANSWERS)]
        encoded = encode(tokenizer, feature, [post.text for post in posts], max_post_tokens=LONGEST)
        cued = [kinds[part] for part in parts(encoded.prompts, len(kinds))]
        rows = TrainingRows(encoded, answer_ids(tokenizer, cued))
        pairs = zip(rows.input_ids, rows.labels, strict=True)
        examples = [{"input_ids": ids, "labels": labels} for ids, labels in pairs]
        packed = SharedInstruction(encoded.prefix_ids, tokenizer.pad_token_id, share=True)
        for _ in range(max(1, -(-STEPS * BATCH // (3 * len(examples))))):
            draw.shuffle(examples)
            batches += [packed(examples[i : i + BATCH]) for i in range(0, len(examples), BATCH)]
    draw.shuffle(batches)
    return batches[:STEPS]
