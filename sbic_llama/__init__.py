"""Annotate social media posts with QLoRA adapters: ``from sbic_llama import Annotator``."""

from __future__ import annotations

from typing import Any

__all__ = ["Annotator"]


def __getattr__(name: str) -> Any:
    # Imported on first use: it imports torch, which would slow down `--help`.
    if name == "Annotator":
        from sbic_llama.model.annotator import Annotator

        return Annotator
    raise AttributeError(name)
