"""Which texts an adapter was trained on, as digests beside it, so that nobody measures it on them unawares."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from common.runtime.files import atomic_write
from sbic_llama.data.corpus import normalized

FILE = (
    "trained_texts.txt"  # stays on this machine: who has a text could find out from its digest that it was trained on
)


def digest(text: str) -> str:
    """Return the digest of a text, whatever its case and spaces."""
    return hashlib.sha256(normalized(text).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def write(folder: Path, texts: Iterable[str]) -> None:
    """Write the digests of an adapter's training and validation texts, in an order that says nothing."""
    with atomic_write(folder / FILE) as part:
        part.write_text("".join(f"{each}\n" for each in sorted(set(map(digest, texts)))), encoding="ascii")


def read(folder: Path | None) -> frozenset[str]:
    """Return the digests; none where they are not known, as for an adapter from the Hub."""
    path = folder and folder / FILE
    return frozenset(path.read_text(encoding="ascii").split()) if path and path.is_file() else frozenset()
