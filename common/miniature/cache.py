"""Build the miniature's corpora on first use, and keep them in the user's cache under a hash of their generators."""

from __future__ import annotations

import hashlib
import inspect
import json
import pkgutil
import shutil
from pathlib import Path

from common.cli.errors import UserError
from common.runtime.files import atomic_folder
from common.runtime.project import miniature_cache

SEED = 0
MANIFEST = "manifest.json"
# Folder -> the function that writes it; by name only, because common imports neither project.
GENERATORS = {
    "SBIC.v2": "sbic_llama.miniature.sbic:write",
    "snli_1.0": "snli_roberta.miniature.snli:write",
    "hatecheck": "sbic_llama.miniature.other_files:write_hatecheck",
    "md_agreement": "sbic_llama.miniature.other_files:write_md_agreement",
    "chaosnli": "snli_roberta.miniature.challenge_sets:write_chaosnli",
    "hans": "snli_roberta.miniature.challenge_sets:write_hans",
    "breaking_nli": "snli_roberta.miniature.challenge_sets:write_breaking_nli",
    "own_file": "sbic_llama.miniature.other_files:write_own_file",
    "own_task": "sbic_llama.miniature.other_files:write_own_task",
}
# Modules that declare what the generators draw from: a change in them makes another miniature too.
DECLARATIONS = ("sbic_llama.data.corpus", "snli_roberta.adversarial.scenes", "snli_roberta.data.corpus")


def build() -> Path:
    """Return the folder with a corpus in each of :data:`GENERATORS`' folders, in the official file formats.

    The folder's name is a hash of the generators, so a changed generator makes a new one. A damaged folder is built again.
    Of several processes, one builds and the others wait.
    """
    from filelock import FileLock

    generators = {name: pkgutil.resolve_name(place) for name, place in GENERATORS.items()}
    modules = [*generators.values(), *map(pkgutil.resolve_name, DECLARATIONS)]
    sources = b"".join(Path(inspect.getfile(module)).read_bytes() for module in modules)
    folder = miniature_cache() / hashlib.sha256(sources + str(SEED).encode()).hexdigest()[:16]
    if _is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not _is_whole(folder):
                shutil.rmtree(folder, ignore_errors=True)
                with atomic_folder(folder) as part:
                    for name, write in generators.items():
                        (part / name).mkdir()
                        write(part / name, SEED)
                    (part / MANIFEST).write_text(json.dumps(_digests(part), indent=1), encoding="utf-8")
    except OSError as error:
        fix = "set XDG_CACHE_HOME to a writable folder"
        raise UserError(f"cannot be written: {error.strerror}", file=folder.parent, fix=fix) from error
    return folder


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _is_whole(folder: Path) -> bool:
    try:
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8")) == _digests(folder)
    except (OSError, ValueError):
        return False
