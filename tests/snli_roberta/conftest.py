"""Tiny bases of many architectures and a corpus of a few pairs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def small_snli(miniature, tmp_path_factory) -> Path:
    """Return a folder of official files with a few of the miniature's pairs."""
    folder = tmp_path_factory.mktemp("small-snli")
    for name, count in {"train": 60, "dev": 24, "test": 24}.items():
        with open(miniature / "snli_1.0" / f"snli_1.0_{name}.jsonl", encoding="utf-8") as file:
            (folder / f"snli_1.0_{name}.jsonl").write_text("".join(itertools.islice(file, count)), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_base(small_snli, tmp_path_factory) -> Callable[[str], Path]:
    """``tiny_base("bert")``: the folder of a tiny random base, made once; tests must not change it."""
    from snli_roberta.data.corpus import load_split
    from tests.snli_roberta.model.tiny_bases import make

    root, made = tmp_path_factory.mktemp("bases"), {}
    pairs = load_split("train", data_dir=small_snli).pairs
    texts = [text for pair in pairs for text in (pair.premise, pair.hypothesis)]

    def base(name: str) -> Path:
        if name not in made:
            made[name] = make(root / name, name, texts)
        return made[name]

    return base
