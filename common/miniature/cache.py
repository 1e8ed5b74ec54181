"""The miniature's corpora on disk: built on first use in a moment, kept in the user's cache under their content's hash."""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
from pathlib import Path

from common.cli.errors import UserError
from common.runtime.files import atomic_folder
from common.runtime.project import miniature_cache

SEED = 0
MANIFEST = "manifest.json"
# Folder of the miniature -> the project's module that writes it. By name only: common imports neither project.
GENERATORS = {
    "SBIC.v2": "sbic_llama.miniature.sbic",
    "snli_1.0": "snli_roberta.miniature.snli",
    "hatecheck": "sbic_llama.miniature.hatecheck",
    "md_agreement": "sbic_llama.miniature.md_agreement",
    "chaosnli": "snli_roberta.miniature.chaosnli",
    "hans": "snli_roberta.miniature.hans",
    "breaking_nli": "snli_roberta.miniature.breaking_nli",
    "own_file": "sbic_llama.miniature.own_file",
}


def build() -> Path:
    """Returns the folder that holds ``SBIC.v2/``, ``snli_1.0/``, ``hatecheck/``, ``md_agreement/``, ``chaosnli/``, ``hans/`` and
    ``breaking_nli/``, in the official file formats, and ``own_file/``.

    The folder's name is a hash of the generators, so a changed generator makes a new one. A folder whose files are not
    what was written is built again. Several processes may ask at once: one builds, the others wait.

    Raises:
        UserError: The cache folder can't be written to.
    """
    from filelock import FileLock

    generators = {name: importlib.import_module(module) for name, module in GENERATORS.items()}
    sources = b"".join(Path(module.__file__).read_bytes() for module in generators.values())
    folder = miniature_cache() / hashlib.sha256(sources + str(SEED).encode()).hexdigest()[:16]
    if _is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not _is_whole(folder):
                shutil.rmtree(folder, ignore_errors=True)
                with atomic_folder(folder) as part:
                    for name, generator in generators.items():
                        (part / name).mkdir()
                        generator.write(part / name, SEED)
                    (part / MANIFEST).write_text(json.dumps(_digests(part), indent=1), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"can't be written: {error.strerror}", file=folder.parent, fix="set XDG_CACHE_HOME to a folder that can"
        ) from error
    return folder


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _is_whole(folder: Path) -> bool:
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8")) == _digests(folder)
    except (OSError, ValueError):
        return False
