"""Write drawn rows for people to label, as a table or in the format of a labeling tool."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

from common.cli.errors import UserError
from common.runtime.files import atomic_write
from common.tables.reading import table_format
from common.tables.writing import json_text, write_rows
from sbic_llama.data.features import Feature
from sbic_llama.data.groups import split_groups
from sbic_llama.data.texts import TextColumns

Tool = Literal["table", "label_studio", "prodigy", "doccano"]
CONFIG = "labeling_config.xml"  # beside tasks of Label Studio: the page on which people label
ENDINGS: dict[Tool, str] = {"label_studio": ".json", "prodigy": ".jsonl", "doccano": ".jsonl"}


def check_ending(path: Path, tool: Tool) -> None:
    """Check that a file is named as its format asks."""
    if tool == "table":
        table_format(path, writing=True)
    elif path.suffix != ENDINGS[tool]:
        raise UserError("the wrong ending for this tool", file=path, expected=ENDINGS[tool])


def write_tasks(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    texts: TextColumns,
    features: Sequence[Feature],
    tool: Tool,
    *,
    prefix: str,
    keep: Container[str],
) -> None:
    """Write rows to a file.

    Columns that begin with ``prefix`` are a model's answers, shown to people, except for those to ``keep``.
    """
    if tool == "table":
        empty = dict.fromkeys(feature.name for feature in features)
        write_rows(path, [{**row, **{name: row.get(name) for name in empty}} for row in rows])
        return
    if tool == "label_studio":
        tasks = [json_text(_task(row, texts, features, prefix, keep)) for row in rows]
        with atomic_write(path) as part:
            part.write_text("[\n" + ",\n".join(tasks) + "\n]\n", encoding="utf-8")
        with atomic_write(path.with_name(CONFIG)) as part:
            part.write_text(config(texts, features), encoding="utf-8")
        return
    (feature,) = features
    with atomic_write(path) as part:
        lines = [json_text(_line(row, texts, feature, tool)) for row in rows]
        part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _task(
    row: Mapping[str, Any], texts: TextColumns, features: Sequence[Feature], prefix: str, keep: Container[str]
) -> dict[str, Any]:
    """Return a task of Label Studio, with the model's answers as predictions if the row has them."""
    results = []
    for feature in features:
        if (answer := row.get(f"{prefix}{feature.name}")) is not None:
            chosen = split_groups(answer) if not feature.classifies else [answer]
            kind, key = ("choices", "choices") if feature.branches else ("textarea", "text")
            value = {key: list(chosen) if feature.branches else [answer]}
            results.append({"from_name": feature.name, "to_name": _name(texts, 0), "type": kind, "value": value})
    data = {name: value for name, value in row.items() if not results or name in keep or not name.startswith(prefix)}
    return {"data": data, **({"predictions": [{"model_version": "model", "result": results}]} if results else {})}


def _name(texts: TextColumns, number: int) -> str:
    return f"text{number or ''}"


def config(texts: TextColumns, features: Sequence[Feature]) -> str:
    """Return Label Studio's labeling configuration for these questions."""
    lines = ["<View>"]
    for number, column in enumerate(texts.columns):
        if texts.names:
            lines.append(f"  <Header value={quoteattr(texts.names[number])}/>")
        lines.append(f"  <Text name={quoteattr(_name(texts, number))} value={quoteattr('$' + column)}/>")
    for feature in features:
        lines.append(f"  <Header value={quoteattr(feature.question)}/>")
        name = f"name={quoteattr(feature.name)} toName={quoteattr(_name(texts, 0))}"
        if not feature.branches:
            lines.append(f"  <TextArea {name} placeholder={quoteattr('names separated by commas, or none')}/>")
            continue
        several = "multiple" if feature.choices else "single"
        required = "false" if feature.choices else "true"
        lines.append(f'  <Choices {name} choice="{several}" required="{required}">')
        definitions = feature.codebook.labels if feature.codebook else {}
        for label in feature.labels or feature.choices:
            hint = f" hint={quoteattr(definitions[label])}" if definitions.get(label) else ""
            lines.append(f"    <Choice value={quoteattr(label)}{hint}/>")
        lines.append("  </Choices>")
    return "\n".join([*lines, "</View>", ""])


def _line(row: Mapping[str, Any], texts: TextColumns, feature: Feature, tool: Tool) -> dict[str, Any]:
    """Return a task of Prodigy or doccano. Both show one text; the row's other columns come back as metadata."""
    text = {"text": texts.read(row)}
    others = {name: value for name, value in row.items() if name != "text" or name not in texts.columns}
    if tool == "doccano":
        return {**text, **others, "label": []}
    labels = feature.labels or feature.choices
    options = {"options": [{"id": label, "text": label} for label in labels]} if labels else {}
    return {**text, **options, "meta": others}
