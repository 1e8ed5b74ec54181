"""Models that are made once and kept in the user's cache, under what they are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.setting import ROOT
from common.cli.console import stage
from common.cli.errors import UserError
from common.runtime.files import atomic_folder
from common.runtime.project import cache_folder
from common.tables.report import fingerprint


def cached(name: str, made_of: list[Any], make: Callable[[Path], None]) -> Path:
    """The folder that ``make`` filled, now or on an earlier run with the same ``made_of``.

    Raises:
        UserError: The cache folder can't be written to.
    """
    from filelock import FileLock

    folder = cache_folder("finetuning-benchmarks") / f"{name}-{fingerprint(made_of)}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"can't be written: {error.strerror}", file=folder.parent, fix="set XDG_CACHE_HOME to a folder that can"
        ) from error
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            with stage(f"making {name} (once)"), atomic_folder(folder) as part:
                make(part)
    return folder


def digest(paths: list[Path]) -> str:
    """What tells the content of files from another's."""
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sorted(paths))).hexdigest()[:16]


def product() -> str:
    """The product's own code: what its commands make may change with it."""
    return digest([path for name in ("common", "sbic_llama", "snli_roberta") for path in (ROOT / name).rglob("*.py")])


def tokenizer_files(folder: str) -> str:
    """A tokenizer's content."""
    return digest([p for p in Path(folder).iterdir() if p.suffix in (".json", ".txt", ".model") and p.is_file()])
