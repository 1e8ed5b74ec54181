"""The Hub's rules for a card's metadata, as far as this project's cards can break them.

After huggingface.co/docs/hub: model-cards, repositories-licenses, and hub-docs' modelcard.md.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

LICENCES = [
    "afl-3.0",
    "agpl-3.0",
    "apache-2.0",
    "artistic-2.0",
    "bigscience-bloom-rail-1.0",
    "bigscience-openrail-m",
    "bsd",
    "bsd-2-clause",
    "bsd-3-clause",
    "bsl-1.0",
    "cc",
    "cc-by-2.0",
    "cc-by-3.0",
    "cc-by-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-4.0",
    "cc-by-nd-4.0",
    "cc-by-sa-3.0",
    "cc-by-sa-4.0",
    "cc0-1.0",
    "creativeml-openrail-m",
    "gemma",
    "gfdl",
    "gpl",
    "gpl-2.0",
    "gpl-3.0",
    "isc",
    "lgpl",
    "lgpl-2.1",
    "lgpl-3.0",
    "llama2",
    "llama3",
    "llama3.1",
    "llama3.2",
    "llama3.3",
    "mit",
    "mpl-2.0",
    "odbl",
    "openrail",
    "openrail++",
    "osl-3.0",
    "other",
    "unknown",
    "unlicense",
    "wtfpl",
    "zlib",
]
PIPELINE_TAGS = [
    "feature-extraction",
    "fill-mask",
    "question-answering",
    "sentence-similarity",
    "summarization",
    "table-question-answering",
    "text-classification",
    "text-generation",
    "text-ranking",
    "token-classification",
    "translation",
    "zero-shot-classification",
]
RELATIONS = ("adapter", "finetune", "merge", "quantized")
ID = re.compile(r"[\w.-]+/[\w.-]+")


def problems(readme: str) -> list[str]:
    """What the Hub would object to in a card's metadata; nothing where it is in order."""
    match = re.match(r"---\n(.*?)\n---\n", readme, re.DOTALL)
    if not match:
        return []
    try:
        metadata = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [f"bad YAML: {error}"]
    if not isinstance(metadata, dict):
        return ["the metadata must be an object"]
    found = []
    allowed = {"license": LICENCES, "pipeline_tag": PIPELINE_TAGS, "base_model_relation": RELATIONS}
    for key, values in allowed.items():
        if key in metadata and metadata[key] not in values:
            found.append(f'"{key}" must be one of {", ".join(values)}')
    for key in ("base_model", "datasets"):
        for value in _list(metadata.get(key)):
            if not isinstance(value, str) or not ID.fullmatch(value):
                found.append(f'"{key}" with value {value!r} is not valid: use a model or dataset id of the Hub')
    for key in ("tags", "metrics", "language"):
        if not all(isinstance(value, str) and value for value in _list(metadata.get(key))):
            found.append(f'"{key}" must be words')
    for number, model in enumerate(_list(metadata.get("model-index"))):
        found += [f'"model-index[{number}].{problem}' for problem in _model_problems(model)]
    return found


def _model_problems(model: Any) -> list[str]:
    if (
        not isinstance(model, dict)
        or not isinstance(model.get("name"), str)
        or not isinstance(model.get("results"), list)
    ):
        return ['name" and "results" are required']
    found = []
    for number, result in enumerate(model["results"]):
        where = f"results[{number}]"
        for part, keys in {"task": ("type",), "dataset": ("type", "name")}.items():
            found += [f'{where}.{part}.{key}" is required' for key in keys if not (result.get(part) or {}).get(key)]
        for metric in result.get("metrics") or [{}]:
            found += [f'{where}.metrics.{key}" is required' for key in ("type", "value") if metric.get(key) is None]
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
