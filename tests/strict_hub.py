"""A local Hub for tests: it fails on demand, lists commits, and rejects card metadata that the real Hub rejects.

The rules follow huggingface.co/docs/hub (model-cards, repositories-licenses) and hub-docs' modelcard.md, as far as this
project's cards can break them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from common.miniature.loopback_hub import TOKEN, USER, Answer, Handler, LocalHub

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


@dataclass
class Fault:
    """A failure to inject: requests that match fail ``times`` times (-1: always), after the first ``after`` of them."""

    pattern: re.Pattern[str]
    status: int
    times: int = 1
    after: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False  # close the connection without a response
    apply: bool = False  # do the work first, so that only the response is lost
    delay: float = 0.0  # seconds; with status 0 the request then succeeds
    dropped: threading.Event = field(default_factory=threading.Event)


class StrictHub(LocalHub):
    """The server; ``faults`` are failures to come."""

    def __init__(self) -> None:
        super().__init__(StrictHandler)
        self.faults: list[Fault] = []
        self.gated: set[str] = set()  # everybody sees these models; only their owner may read their files

    def add_model(self, id: str, folder: Path, *, gated: bool = False) -> None:
        super().add_model(id, folder)
        (self.gated.add if gated else self.gated.discard)(id)

    def fail(self, pattern: str, status: int = 500, **how: object) -> Fault:
        """Make requests fail that match ``pattern`` in their ``METHOD /path?query``; see :class:`Fault`."""
        self.faults.append(Fault(re.compile(pattern), status, **how))  # type: ignore[arg-type]
        return self.faults[-1]

    def due_fault(self, line: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.pattern.search(line):
                    if fault.after:
                        fault.after -= 1
                        continue
                    fault.times -= 1
                    return dataclasses.replace(fault)
        return None


class StrictHandler(Handler):
    """Answers the requests of one connection, or fails as told."""

    hub: StrictHub
    silent = False

    def respond(self, path: str) -> None:
        if fault := self.hub.due_fault(f"{self.command} {self.path}"):
            time.sleep(fault.delay)
            if fault.apply:
                self.silent = True
                with contextlib.suppress(Answer):  # an error response is lost too
                    super().respond(path)
                self.silent = False
            if fault.drop:
                self.close_connection = True
                fault.dropped.set()
                return
            if fault.status:
                raise Answer(fault.status, "Injected failure", headers=fault.headers)
        super().respond(path)

    def send(self, status: int, body: object = b"", headers: dict[str, str] | None = None) -> None:
        if not self.silent:
            super().send(status, body, headers)

    def resolve(self, kind: str | None, id: str, revision: str, path: str) -> None:
        self.repository(kind, id)
        if id in self.hub.gated and not (self.user() and self.token == TOKEN and id.split("/")[0] == USER):
            message = f"Access to model {id} is restricted and you are not in the authorized list."
            raise Answer(403 if self.user() else 401, message, "GatedRepo")
        super().resolve(kind, id, revision, path)

    def validate_yaml(self) -> None:
        request = json.loads(self.body)
        find = space_problems if request["repoType"] == "space" else problems
        errors = [{"message": problem} for problem in find(request["content"])]
        self.send(400 if errors else 200, {"errors": errors, "warnings": []})


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


def space_problems(readme: str) -> list[str]:
    """List what is wrong with the configuration of a Space that runs Python, by spaces-config-reference.md."""
    match = re.match(r"---\n(.*?)\n---\n", readme, re.DOTALL)
    metadata = yaml.safe_load(match[1]) if match else None
    if not isinstance(metadata, dict):
        return ["the configuration is missing"]
    rules = {
        "title": r".{1,100}",
        "sdk": "gradio",
        "sdk_version": r"\d+\.\d+\.\d+",
        "python_version": r"3\.\d+(\.\d+)?",
        "app_file": r"[\w.-]+\.py",
        "license": "|".join(map(re.escape, LICENSES)),
    }
    wrong = [
        key
        for key, rule in rules.items()
        if not re.fullmatch(rule, metadata[key] if isinstance(metadata.get(key), str) else "")
    ]
    wrong += ["models"] * (
        not all(isinstance(name, str) and ID.fullmatch(name) for name in _list(metadata.get("models")))
    )
    return [f'"{key}" is not valid' for key in wrong]


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
