"""The encoder of the jobs: a RoBERTa of the shape of MiniLM-L6 with weights of chance, and a classifier made from it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.alternating import finished, python
from benchmarks.cached import cached, product, tokenizer_files
from benchmarks.corpora import cut_snli
from benchmarks.setting import environment
from common.cli.console import quiet_libraries

SHAPE: dict[str, Any] = {
    "num_hidden_layers": 6,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
}
WIDTH, VOCABULARY = 384, 30_522  # both of MiniLM; a tokenizer with more tokens gets as many rows as it has tokens
PAIRS = 2048
FEW = (
    "--method",
    "full",
    "--num_train_epochs",
    2,
    "--evaluations",
    1,
    "--learning_rate",
    1e-4,
)  # at 5e-4 it may learn nothing


def base(tokenizer: str, width: int = WIDTH) -> Path:
    """The folder of the encoder, with its tokenizer."""
    shape = SHAPE | {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 32}

    def make(folder: Path) -> None:
        import torch
        from transformers import AutoTokenizer, RobertaConfig, RobertaForMaskedLM

        quiet_libraries()
        torch.manual_seed(0)
        loaded = AutoTokenizer.from_pretrained(tokenizer)
        ids = {key: getattr(loaded, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        rows = max(VOCABULARY, len(loaded))
        RobertaForMaskedLM(RobertaConfig(vocab_size=rows, **shape, **ids)).save_pretrained(folder)
        loaded.save_pretrained(folder)

    return cached("encoder", [shape, VOCABULARY, tokenizer_files(tokenizer)], make)


def made(of: tuple[str, int]) -> str:
    """:func:`base` of one argument, as a process of its own takes it."""
    return str(base(*of))


def classifier(encoder: Path, snli_dir: Path, cores: int) -> Path:
    """The folder of a classifier on it, trained by the product's command for some steps."""

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
            cut_snli(snli_dir, Path(scratch), train=PAIRS, dev=PAIRS // 8, by_words=True)
            words = ("--model_name_or_path", encoder, "--data_dir", scratch, "--output_dir", folder / "model", *FEW)
            finished("training the classifier", python("snli_roberta.train_full", *words), environment(cores))

    return cached("classifier", [str(encoder), list(map(str, FEW)), PAIRS, product()], make) / "model"
