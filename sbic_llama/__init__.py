"""Annotating social media posts with QLoRA adapters: ``from sbic_llama import Annotator``."""

from __future__ import annotations

from typing import Any

__all__ = ["Annotator"]


def __getattr__(name: str) -> Any:
    # Not imported before it is asked for: it brings torch, and `--help` must not.
    if name == "Annotator":
        from sbic_llama.model.annotator import Annotator

        return Annotator
    raise AttributeError(name)
