"""What the loopback Hub stores (blobs, commits, repositories), and the Hub's rules for a card's metadata.

The rules follow huggingface.co/docs/hub (model-cards, repositories-licenses) and hub-docs' modelcard.md, as far as this
project's cards can break them.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from typing import Any

import yaml

LICENSES = (
    *("afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bsd"),
    *("bsd-2-clause", "bsd-3-clause", "bsl-1.0", "cc", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-4.0"),
    *("cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "gemma", "gfdl"),
    *("creativeml-openrail-m", "gpl", "gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "llama2", "llama3"),
    *("llama3.1", "llama3.2", "llama3.3", "mit", "mpl-2.0", "odbl", "openrail", "openrail++", "osl-3.0", "other"),
    *("unknown", "unlicense", "wtfpl", "zlib"),
)
PIPELINE_TAGS = (
    *("feature-extraction", "fill-mask", "question-answering", "sentence-similarity", "summarization", "translation"),
    *("table-question-answering", "text-classification", "text-generation", "text-ranking", "token-classification"),
    "zero-shot-classification",
)
RELATIONS = ("adapter", "finetune", "merge", "quantized")
ID = re.compile(r"[\w.-]+/[\w.-]+")


class Answer(Exception):
    """A response with an error, raised where it is noticed."""

    def __init__(self, status: int, message: str, code: str = "", headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers or {}


@dataclass(frozen=True)
class Blob:
    """A file's content, with its ids in git (``oid``) and LFS (``sha256``)."""

    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def oid(self) -> str:
        stored = self.data
        if self.lfs:
            stored = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    def entry(self, path: str) -> dict[str, object]:
        """Return what the Hub lists about the file."""
        entry: dict[str, object] = {"type": "file", "path": path, "oid": self.oid, "size": len(self.data)}
        if self.lfs:
            entry["lfs"] = {"oid": self.sha256, "size": len(self.data), "pointerSize": 130}
        return entry


@dataclass(frozen=True)
class Commit:
    parent: str | None
    title: str
    files: dict[str, Blob]


@dataclass
class Repository:
    private: bool = False
    gated: bool = False  # everybody sees it; only its owner may read its files
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)  # by full name: refs/heads/main

    def add(self, ref: str, title: str, files: dict[str, Blob]) -> str:
        sha = secrets.token_hex(20)
        self.commits[sha] = Commit(self.refs.get(ref), title, files)
        self.refs[ref] = sha
        return sha

    def sha(self, revision: str) -> str:
        for name in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}"):
            if name in self.refs:
                return self.refs[name]
        if revision in self.commits:
            return revision
        raise Answer(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def files(self, revision: str = "main") -> dict[str, Blob]:
        """Return the files by path at a branch, tag or commit."""
        return self.commits[self.sha(revision)].files


def problems(readme: str) -> list[str]:
    """List what the Hub would reject in a card's metadata."""
    match = re.match(r"---\n(.*?)\n---\n", readme, re.DOTALL)
    if not match:
        return []
    try:
        metadata = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [f"bad YAML: {error}"]
    if not isinstance(metadata, dict):
        return ["the metadata must be an object"]
    wrong = []
    allowed = {"license": LICENSES, "pipeline_tag": PIPELINE_TAGS, "base_model_relation": RELATIONS}
    for key, values in allowed.items():
        if key in metadata and metadata[key] not in values:
            wrong.append(f'"{key}" must be one of {", ".join(values)}')
    for key in ("base_model", "datasets"):
        for value in _list(metadata.get(key)):
            if not isinstance(value, str) or not ID.fullmatch(value):
                wrong.append(f'"{key}" with value {value!r} is not valid: use a model or dataset id of the Hub')
    for key in ("tags", "metrics", "language"):
        if not all(isinstance(value, str) and value for value in _list(metadata.get(key))):
            wrong.append(f'"{key}" must be words')
    for number, model in enumerate(_list(metadata.get("model-index"))):
        wrong += [f'"model-index[{number}].{problem}' for problem in _model_problems(model)]
    return wrong


def _model_problems(model: Any) -> list[str]:
    if not isinstance(model, dict) or not isinstance(model.get("name"), str):
        return ['name" is required']
    if not isinstance(model.get("results"), list):
        return ['results" is required']
    wrong = []
    for number, result in enumerate(model["results"]):
        where = f"results[{number}]"
        for part, keys in {"task": ("type",), "dataset": ("type", "name")}.items():
            wrong += [f'{where}.{part}.{key}" is required' for key in keys if not (result.get(part) or {}).get(key)]
        for metric in result.get("metrics") or [{}]:
            wrong += [f'{where}.metrics.{key}" is required' for key in ("type", "value") if metric.get(key) is None]
    return wrong


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
