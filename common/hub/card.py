"""Render the card of a trained model (text, metadata and pictures) from what training and evaluation recorded.

A missing value is an error; a section without a record is left out. Nothing depends on the day or the machine, so the same
folder gives the same card.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from common.cli.errors import UserError, counted, printable, shown
from common.results import pictures, rendering
from common.results.checks import group_scores
from common.results.record import TRAINING_FILE, training_facts
from common.results.rendering import drawn, markdown
from common.results.scoring import Evaluation, read_evaluation
from common.runtime.files import atomic_write
from common.runtime.project import DISTRIBUTION, PROJECT, SOURCE

if TYPE_CHECKING:
    from jinja2 import Environment

CARD = "README.md"


@dataclass(frozen=True)
class Trained:
    """A trained model's folder and its records."""

    folder: Path
    facts: dict[str, Any]  # training.json
    evaluation: Evaluation | None

    @property
    def base(self) -> dict[str, str | None]:
        """The base model's name, commit on the Hub, and license."""
        return self.facts["base"]


def read_trained(folder: Path) -> Trained:
    """Read the records in a training's output folder."""
    expected = "the output folder of a finished training"
    if not folder.is_dir():
        raise UserError("no such folder", file=folder, expected=expected)
    facts = training_facts(folder)
    if facts is None:
        raise UserError(f"missing {TRAINING_FILE}", file=folder, expected=expected, fix="train first")
    if facts["kind"] not in ("full", "adapter"):
        kind, path = shown(facts["kind"]), folder / TRAINING_FILE
        raise UserError(f"a model of kind {kind}", file=path, expected="full or adapter")
    return Trained(folder, facts, read_evaluation(folder))


@dataclass(frozen=True)
class Dataset:
    """The corpus as the Hub knows it."""

    id: str | None  # None for a corpus that the Hub does not have
    name: str
    task: str
    task_type: str = "text-classification"
    type: str = "miniature"  # without an id


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a project knows about its model that training did not record."""

    template: Path  # fills the blocks of card.md.jinja
    title: str
    library: str  # the Hub's library_name
    relation: str  # the Hub's base_model_relation
    pipeline_tag: str
    tags: Sequence[str]
    dataset: Dataset
    snippet: str  # code that loads and uses the model
    corpus_license: str
    method: str
    language: str | None = "en"  # None if unknown
    values: Mapping[str, Any] = field(default_factory=dict)  # for the project's own template


def render(trained: Trained, repo_id: str, content: Content) -> dict[str, bytes]:
    """Render a card's files by path: README.md, pictures/*.png and, for a corpus of the Hub, .eval_results/*.yaml."""
    _check_complete(trained)
    facts, evaluation = trained.facts, trained.evaluation
    files: dict[str, bytes] = {}
    values = _results(evaluation, content.dataset, files) if evaluation else {}
    metric = next(iter(facts["best"])).removeprefix("validation_")
    files["pictures/learning_curve.png"] = pictures.learning_curve(facts["log"], metric, pictures.png)
    template = environment(content.template.parent, trained.folder, markdown=True).get_template(content.template.name)
    body = template.render(
        card=content,
        repo_id=repo_id,
        project=PROJECT,
        source=SOURCE,
        install=f'pip install "{DISTRIBUTION} @ git+{SOURCE}"',
        base=trained.base,
        facts=facts,
        evaluation=evaluation,
        **values,
        **content.values,
    )
    head = _metadata(trained, repo_id, content)
    text = f"---\n{head.strip()}\n---\n\n{_without_blank_runs(body).strip()}\n"
    return {CARD: "\n".join(map(printable, text.split("\n"))).encode()} | files


def _check_complete(trained: Trained) -> None:
    for name, value in {
        "the base model's name": trained.base.get("name"),
        "the base model's license": trained.base.get("license"),
        "the commit of the code": trained.facts.get("commit"),
        "the date": trained.facts.get("date"),
    }.items():
        if not value:
            raise UserError(f"the card needs {name}", file=trained.folder / TRAINING_FILE, fix="train again")


def _results(evaluation: Evaluation, dataset: Dataset, files: dict[str, bytes]) -> dict[str, Any]:
    """Return the template's values on an evaluation, and add its pictures and metadata to ``files``."""
    record = evaluation.record
    headline = rendering.scores(record)[0]
    records = [*evaluation.baselines, record]
    rendering.by_task(records)  # refuses baselines of other items
    files["pictures/scores.png"] = pictures.metric_bars(records, rendering.BEST_BY[headline], pictures.png)
    files["pictures/confusion.png"] = pictures.confusion_heatmap(record, pictures.png)
    if dataset.id and not record.miniature:
        files[f".eval_results/{dataset.task}.yaml"] = _eval_results(evaluation, dataset, headline)
    trust = []
    for finding in filter(None, [group_scores(record), *evaluation.findings]):
        images = []
        for number, (title, picture) in enumerate(drawn(finding, pictures.png), 1):
            images.append((title, path := f"pictures/{finding.name}-{number}.png"))
            files[path] = picture
        trust.append(markdown(finding, images))
    table = "\n".join(rendering.markdown_lines(records))
    return {"headline": headline, "table": table, "trust": trust, "interval": rendering.with_interval}


def environment(folder: Path, model: Path, *, markdown: bool) -> Environment:
    """Return the environment of a card's Markdown, or of the code on it.

    In Markdown, values are text that others wrote, unless they are marked ``safe``; in its code blocks use the filter ``code``.
    """
    from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def present(value: Any) -> Any:
        if value is None:
            raise UserError("the card needs a value that was not recorded", file=model, fix="train and evaluate again")
        others = markdown and isinstance(value, str) and not isinstance(value, Markup)
        return printable(value, markdown=True) if others else value

    environment = Environment(
        loader=ChoiceLoader([FileSystemLoader(folder), FileSystemLoader(Path(__file__).parent / "templates")]),
        undefined=StrictUndefined,
        finalize=present,
        autoescape=False,  # the output is Markdown, or Python
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": "{:,}".format, "counted": counted}
    environment.filters["code"] = lambda text: Markup(printable(str(text)).replace("`", " "))
    return environment


def page(template: Path, place: Path, **values: Any) -> str:
    """Render a card that is no model's, without metadata; ``place`` is named where a value is missing."""
    body = environment(template.parent, place, markdown=True).get_template(template.name).render(**values)
    return "\n".join(map(printable, _without_blank_runs(body).strip().split("\n"))) + "\n"


def _without_blank_runs(text: str) -> str:
    """Collapse the blank lines that the template leaves, but not in code."""
    parts = text.split("```")
    parts[::2] = [re.sub(r"[ \t]*\n([ \t]*\n)+", "\n\n", part) for part in parts[::2]]
    return "```".join(parts)


def code(template: Path, model: Path, **values: Any) -> str:
    """Render the code that the card of a model's folder shows."""
    return environment(template.parent, model, markdown=False).get_template(template.name).render(**values).strip()


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Write a card's files into a folder."""
    for name, content in files.items():
        with atomic_write(folder / name) as part:
            part.write_bytes(content)


def _metadata(trained: Trained, repo_id: str, content: Content) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    record, dataset, results = trained.evaluation and trained.evaluation.record, content.dataset, []
    for metric in rendering.scores(record) if record else ():
        kind = metric.partition("/")[0]
        result = EvalResult(
            task_type=dataset.task_type,
            task_name=record.task,
            dataset_type=dataset.id or dataset.type,
            dataset_name=dataset.name,
            dataset_split=record.data["split"],
            metric_type="f1" if kind == "set_f1" else kind,
            metric_name=f"{rendering.heading(metric)} (n = {record.metrics[metric]['n']:,})",
            metric_value=round(record.metrics[metric]["value"], 4),
        )
        results.append(result)
    data = ModelCardData(
        language=content.language,
        license=trained.base["license"],
        library_name=content.library,
        pipeline_tag=content.pipeline_tag,
        base_model=trained.base["name"],
        base_model_relation=content.relation,
        datasets=[dataset.id] if dataset.id else None,
        metrics=sorted({result.metric_type for result in results}) or None,
        tags=list(content.tags),
        model_name=repo_id.partition("/")[2],
        eval_results=results or None,
    )
    return data.to_yaml()


def _eval_results(evaluation: Evaluation, dataset: Dataset, headline: str) -> bytes:
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    metric = evaluation.record.metrics[headline]
    name, split, (low, high) = rendering.heading(headline), evaluation.record.data["split"], metric["ci95"]
    entry = EvalResultEntry(
        dataset_id=str(dataset.id),
        task_id=dataset.task,
        value=round(metric["value"], 4),
        notes=f"{name}, {split} split, n = {metric['n']:,}, 95 % interval [{low:.4f}, {high:.4f}]",
    )
    return yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False).encode()
