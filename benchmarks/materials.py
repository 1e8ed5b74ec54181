"""Corpora and models of the jobs. Corpora are cut to the size of a job; models are made once and kept in the user's cache.

Adapters and the classifier are trained for some steps on real rows, so that their answers differ between rows and agreement
between two tools means something.
"""

from __future__ import annotations

import csv
import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, finished, python
from common.cli.console import log, quiet_libraries, stage
from common.cli.errors import UserError
from common.runtime.files import atomic_folder
from common.runtime.project import cache_folder
from common.tables.report import fingerprint
from common.tables.writing import write_rows
from sbic_llama.data.corpus import FILE_NAMES, Post, clean, load_splits
from sbic_llama.data.features import OFFENSIVE_YN
from snli_roberta.data.corpus import LABELS

BATCH = 16
SBIC, SNLI, TOKENIZER = "SBIC.v2.*.csv", "snli_1.0_*.jsonl", ("*.json", "*.txt", "*.model")  # patterns of files
TRAINED = ("hasBiasedImplication", "offensiveYN", "targetMinority")
ADAPTER_OPTIONS: dict[str, Any] = {
    "max_steps": 40, "evaluations": 1, "learning_rate": 1e-3, "r": 16, "lora_alpha": 32, "prompt": "study",
}  # fmt: skip
PAIRS = 2048
CLASSIFIER_OPTIONS = {"method": "full", "num_train_epochs": 2, "evaluations": 1, "learning_rate": 1e-4}
ENCODER: dict[str, Any] = {"num_hidden_layers": 6, "max_position_embeddings": 514, "type_vocab_size": 1}
ENCODER_VOCABULARY = 30_522  # MiniLM's; a larger tokenizer gets as many rows as it has tokens

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


def cut_snli(source: Path, target: Path, *, train: int, dev: int) -> None:
    """Write SNLI with the first ``train`` labeled training pairs and the first ``dev`` of each other split."""
    target.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", train), ("dev", dev), ("test", dev)):
        path, kept = source / f"snli_1.0_{name}.jsonl", []
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                if row["gold_label"] in LABELS and row["sentence1"].strip() and row["sentence2"].strip():
                    kept.append(row)
                if len(kept) == count:
                    break
        if len(kept) < count:
            raise UserError(f"{len(kept):,} labeled pairs", file=path, expected=f"at least {count:,}")
        write_rows(target / path.name, kept)


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


def adapters(model: str, sbic_dir: Path) -> dict[str, str]:
    """Return the folder of an adapter per feature, trained by the product's commands."""

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            cut_sbic(sbic_dir, Path(scratch), train=ADAPTER_OPTIONS["max_steps"] * BATCH, dev=32)
            for feature in TRAINED:
                options = {"model_name_or_path": model, "data_dir": scratch, "output_dir": folder, **ADAPTER_OPTIONS}
                finished(f"training for {feature}", python("sbic_llama.train", feature=feature, **options))
                log(f"adapter for {feature} trained")

    folder = cached("adapters", [model, digest(sbic_dir, SBIC), ADAPTER_OPTIONS, product_code()], make)
    return {feature: str(folder / feature) for feature in TRAINED}


def encoder(tokenizer: str, width: int) -> Path:
    """Return the folder of a RoBERTa with random weights and six layers, and a tokenizer."""
    shape = ENCODER | {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 32}

    def make(folder: Path) -> None:
        import torch
        from transformers import AutoTokenizer, RobertaConfig, RobertaForMaskedLM

        quiet_libraries()
        torch.manual_seed(0)
        loaded = AutoTokenizer.from_pretrained(tokenizer)
        special = {key: getattr(loaded, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        config = RobertaConfig(vocab_size=max(ENCODER_VOCABULARY, len(loaded)), **shape, **special)
        RobertaForMaskedLM(config).save_pretrained(folder)
        loaded.save_pretrained(folder)

    return cached("encoder", [shape, ENCODER_VOCABULARY, digest(tokenizer, *TOKENIZER)], make)


def classifier(base: str, snli_dir: Path) -> str:
    """Return the folder of a classifier, trained for some steps by the product's command."""

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            cut_snli(snli_dir, Path(scratch), train=PAIRS, dev=PAIRS // 8)
            options = {"model_name_or_path": base, "data_dir": scratch, "output_dir": folder / "model"}
            finished("training the classifier", python("snli_roberta.train_full", **options, **CLASSIFIER_OPTIONS))

    made_of = [base, digest(snli_dir, SNLI), CLASSIFIER_OPTIONS, PAIRS, product_code()]
    return str(cached("classifier", made_of, make) / "model")
