"""The card of a published model: its text, metadata and pictures, all made from what training and evaluation recorded.

A value that is missing is an error; a section whose record is missing is left out. Nothing here depends on the day or the
machine, so the same folder gives the same card.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common.cli.errors import UserError, shown
from common.results import pictures, rendering
from common.results.evaluation import Evaluation, read_evaluation
from common.results.finding import group_scores
from common.results.rendering import drawn, markdown
from common.results.training_record import TRAINING_FILE, training_facts
from common.runtime.files import atomic_write
from common.runtime.project import PROJECT, SOURCE

CARD = "README.md"
SETTINGS = {
    "learning rate": "learning_rate",
    "epochs at most": "num_train_epochs",
    "steps at most": "max_steps",
    "share of warm-up": "warmup_ratio",
    "weight decay": "weight_decay",
    "optimizer": "optim",
    "tokens a post at most": "max_post_tokens",
    "tokens a pair at most": "max_length",
    "share of the training pairs": "train_fraction",
    "classes balanced": "balance_classes",
    "seed of the sample": "sample_seed",
    "seed": "seed",
}
OF_ADAPTERS = {
    "LoRA rank": "r",
    "LoRA alpha": "lora_alpha",
    "LoRA dropout": "lora_dropout",
    "LoRA on": "target_modules",
    "LoRA initialisation": "init_lora_weights",
    "rank-stabilised (rsLoRA)": "use_rslora",
    "weight-decomposed (DoRA)": "use_dora",
}


@dataclass(frozen=True)
class Trained:
    """A trained model's folder with what was recorded of it."""

    folder: Path
    facts: dict[str, Any]
    evaluation: Evaluation | None

    @property
    def base(self) -> dict[str, str | None]:
        """The base model's name, commit on the Hub, and licence."""
        return self.facts["base"]


def read_trained(folder: Path) -> Trained:
    """Reads a folder that a training wrote.

    Raises:
        UserError: It is none, or its records are damaged.
    """
    if not folder.is_dir():
        raise UserError("no such folder", file=folder, expected="the output folder of a finished training")
    facts = training_facts(folder)
    if facts is None:
        raise UserError(
            f"it has no {TRAINING_FILE}",
            file=folder,
            expected="the output folder of a finished training",
            fix="train first",
        )
    if facts["kind"] not in ("full", "adapter"):
        raise UserError(
            f"a model of kind {shown(facts['kind'])}", file=folder / TRAINING_FILE, expected="full or adapter"
        )
    return Trained(folder, facts, read_evaluation(folder))


@dataclass(frozen=True)
class Dataset:
    """The corpus as the Hub knows it: its id, its name, and what is asked of it. No id: the miniature."""

    id: str | None
    name: str
    task: str
    task_type: str = "text-classification"


def render(
    trained: Trained,
    template: Path,
    *,
    repo_id: str,
    title: str,
    library: str,
    relation: str,
    pipeline_tag: str,
    tags: Sequence[str],
    dataset: Dataset,
    snippet: str,
    corpus_licence: str,
    method: str,
    data_line: str,
    **context: Any,
) -> dict[str, bytes]:
    """The card's files by path: ``README.md``, ``pictures/*.png``, and ``.eval_results/*.yaml`` for a corpus of the Hub.

    Args:
        trained: The model.
        template: The kind's own template; it fills the blocks of ``card.md.jinja``.
        repo_id: Where it is, or will be, published.
        title: Heading.
        library: The Hub's ``library_name``.
        relation: The Hub's ``base_model_relation``.
        pipeline_tag: The Hub's name of the task.
        tags: Further words to find it by.
        dataset: The corpus.
        snippet: Code that loads the model and uses it, as printed.
        corpus_licence: The corpus's licence in words.
        method: How it was trained, in a few words.
        data_line: What was read, dropped and used, in a sentence.
        context: What only the kind's template reads.

    Raises:
        UserError: A value is missing.
    """
    from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

    def present(value: Any) -> Any:
        if value is None:
            raise UserError("the card lacks a value", file=trained.folder, fix="train and evaluate again")
        return value

    facts, evaluation = trained.facts, trained.evaluation
    for name, value in {
        "the base model's name": trained.base.get("name"),
        "the base model's licence": trained.base.get("license"),
        "the commit of the code": facts.get("commit"),
        "the date": facts.get("date"),
    }.items():
        if not value:
            raise UserError(f"the card lacks {name}", file=trained.folder / TRAINING_FILE, fix="train again")
    files: dict[str, bytes] = {}
    if evaluation:
        headline = rendering.scores(evaluation.record)[0]
        everything = [*evaluation.baselines, evaluation.record]
        rendering.by_task(everything)  # baselines of other items can't stand beside it
        context |= {
            "table": "\n".join(rendering.markdown_lines(everything)),
            "baselines": "; ".join(record.title for record in evaluation.baselines),
            "averages": AVERAGES[headline],
            "per_label": _per_label(evaluation) if headline == "accuracy" else "",
            "trust": _trust(evaluation, files),
            "limits": evaluation.record.data["limits"],
        }
        files["pictures/scores.png"] = pictures.metric_bars(everything, rendering.BEST_BY[headline], pictures.png)
        files["pictures/confusion.png"] = pictures.confusion_heatmap(evaluation.record, pictures.png)
        if dataset.id and not evaluation.record.miniature:
            files[f".eval_results/{dataset.task}.yaml"] = _eval_results(evaluation, dataset, headline)
    metric = next(iter(facts["best"])).removeprefix("validation_")
    files["pictures/learning_curve.png"] = pictures.learning_curve(facts["log"], metric, pictures.png)

    environment = Environment(
        loader=ChoiceLoader([FileSystemLoader(template.parent), FileSystemLoader(Path(__file__).parent / "templates")]),
        undefined=StrictUndefined,
        finalize=present,
        autoescape=False,  # the output is Markdown
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    body = environment.get_template(template.name).render(
        title=title,
        repo_id=repo_id,
        project=PROJECT,
        source=SOURCE,
        base=trained.base,
        facts=facts,
        evaluation=evaluation,
        corpus=dataset.name,
        corpus_licence=corpus_licence,
        method=method,
        snippet=snippet.strip(),
        data_line=data_line,
        hyperparameters=hyperparameters(facts),
        best_line=_best_line(facts),
        hardware_line=_hardware_line(facts),
        link=lambda name: f"[{name}](https://huggingface.co/{name})",
        **context,
    )
    head = _metadata(trained, repo_id, library, relation, pipeline_tag, tags, dataset)
    return {CARD: f"---\n{head.strip()}\n---\n\n{_tidied(body).strip()}\n".encode()} | files


def _tidied(markdown: str) -> str:
    """The text with one empty line where the template left several; code is left as it is."""
    parts = markdown.split("```")
    parts[::2] = [re.sub(r"[ \t]*\n([ \t]*\n)+", "\n\n", part) for part in parts[::2]]
    return "```".join(parts)


def code(template: Path, **values: Any) -> str:
    """The code that a card shows, from its template."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(template.parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template.name).render(**values).strip()


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Writes a card's files into a folder."""
    for name, content in files.items():
        with atomic_write(folder / name) as part:
            part.write_bytes(content)


def hyperparameters(facts: Mapping[str, Any]) -> dict[str, str]:
    """A run's settings as the card shows them; what its kind does not have is left out."""
    settings = facts["settings"]
    batch = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"] * facts["processes"]
    shown = {"items a step": f"{batch:,}", "computed in": facts["precision"]}
    for name, key in (SETTINGS | (OF_ADAPTERS if facts["kind"] == "adapter" else {})).items():
        value = settings.get(key)
        if value is not None and (key, value) != ("max_steps", -1):
            shown[name] = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return shown


AVERAGES = {
    "accuracy": "Weighted averages weigh classes by their number of items, macro averages weigh them equally; balanced "
    "accuracy is the mean recall.",
    "set_f1": "Set F1 compares the two sets of groups, a post at a time; targeted posts are those whose annotators named a "
    "group.",
}


def _trust(evaluation: Evaluation, files: dict[str, bytes]) -> list[str]:
    """The findings as Markdown; their pictures are added to ``files``."""
    texts = []
    for finding in filter(None, [group_scores(evaluation.record), *evaluation.findings]):
        images = []
        for number, (title, picture) in enumerate(drawn(finding, pictures.png), 1):
            path = f"pictures/{finding.name}-{number}.png"
            files[path] = picture
            images.append((title, path))
        texts.append(markdown(finding, images))
    return texts


def _per_label(evaluation: Evaluation) -> str:
    record = evaluation.record
    lines = ["| label | n | precision | recall | F1 |", "|---|---|---|---|---|"]
    for label in record.labels:
        cells = [rendering.with_interval(record, f"{metric}/{label}") for metric in ("precision", "recall", "f1")]
        lines.append(f"| {label} | {record.metrics[f'recall/{label}']['n']:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _best_line(facts: Mapping[str, Any]) -> str:
    (name, value), (_, step) = facts["best"].items()
    continued = " The run was stopped and continued; its time is not known." if facts["continued"] else ""
    return (
        f"The checkpoint of step {step:,} was kept: {name.replace('_', ' ')} {value:.4f}. "
        f"Trained {facts['parameters']['trainable']:,} of {facts['parameters']['total']:,} parameters.{continued}"
    )


def _hardware_line(facts: Mapping[str, Any]) -> str:
    hardware, memory = facts["hardware"], facts["peak_memory_bytes"]
    gpus = [gpu["name"] for gpu in hardware.get("gpus", [])]
    where = ", ".join(gpus) if gpus else f"{hardware['cpu']}, {hardware['threads']} thread(s)"
    spent = "" if facts["continued"] else f"{facts['seconds']:,.0f} s of training on "
    kind = "GPU" if "device" in memory else "host"
    return (
        f"{spent}{where}, {facts['processes']} process(es); peak {kind} memory "
        f"{memory.get('device', memory['host']) / 1e6:,.0f} MB; finished {facts['date']}."
    )


def _metadata(
    trained: Trained,
    repo_id: str,
    library: str,
    relation: str,
    pipeline_tag: str,
    tags: Sequence[str],
    dataset: Dataset,
) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    evaluation, results = trained.evaluation, []
    if evaluation:
        record = evaluation.record
        for metric in rendering.scores(record):
            kind = metric.partition("/")[0]
            results.append(
                EvalResult(
                    task_type=dataset.task_type,
                    task_name=record.task,
                    dataset_type=dataset.id or "miniature",
                    dataset_name=dataset.name,
                    dataset_split=record.data["split"],
                    metric_type="f1" if kind == "set_f1" else kind,
                    metric_name=f"{rendering.heading(metric)} (n = {record.metrics[metric]['n']:,})",
                    metric_value=round(record.metrics[metric]["value"], 4),
                )
            )
    data = ModelCardData(
        language="en",
        license=trained.base["license"],
        library_name=library,
        pipeline_tag=pipeline_tag,
        base_model=trained.base["name"],
        base_model_relation=relation,
        datasets=[dataset.id] if dataset.id else None,
        metrics=sorted({result.metric_type for result in results}) or None,
        tags=list(tags),
        model_name=repo_id.partition("/")[2],
        eval_results=results or None,
    )
    return data.to_yaml()


def _eval_results(evaluation: Evaluation, dataset: Dataset, headline: str) -> bytes:
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    metric = evaluation.record.metrics[headline]
    low, high = metric["ci95"]
    entry = EvalResultEntry(
        dataset_id=str(dataset.id),
        task_id=dataset.task,
        value=round(metric["value"], 4),
        notes=f"{rendering.heading(headline)}, {evaluation.record.data['split']} split, n = {metric['n']:,}, "
        f"95 % interval [{low:.4f}, {high:.4f}]",
    )
    return yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False).encode()
