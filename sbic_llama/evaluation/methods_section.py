"""Write a methods section from records: the words are in ``templates/methods.jinja``, the numbers come from the records alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

from common.cli.errors import UserError, printable
from common.results.finding import KEPT, Finding, Measures, read_finding, read_findings
from common.results.record import Open, RunRecord, read_record
from common.runtime.files import read_json
from common.runtime.run_folder import TRAINING_FILE
from sbic_llama.model.description import ANNOTATOR_FILE, AnnotatorFile
from sbic_llama.model.description import read as read_annotator

TEMPLATES = Path(__file__).parent / "templates"
SCORES = {"f1/macro": "macro F1", "balanced_accuracy": "balanced accuracy", "accuracy": "accuracy", "set_f1": "set F1"}
Format = Literal["markdown", "latex"]

_LATEX = {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"},
    **{"[": "{[}", "]": "{]}", "`": r"\textasciigrave{}", "-": "{-}", "'": r"\textquotesingle{}"},
    **{character: f"\\{character}" for character in "#$%&_{}"},
}


class Training(Open):
    """What the section needs of ``training.json``."""

    settings: dict[str, Any]
    data: dict[str, Any]
    parameters: dict[str, int]
    seconds: float
    precision: str
    hardware: dict[str, Any]
    versions: dict[str, str]


class Row(TypedDict):
    """A number of the section and where it comes from."""

    what: str
    value: str
    source: str


@dataclass
class Records:
    """What was found under the paths of one command."""

    annotators: list[tuple[Path, AnnotatorFile]] = field(default_factory=list)
    trainings: list[tuple[Path, Training]] = field(default_factory=list)
    records: list[tuple[Path, RunRecord]] = field(default_factory=list)
    findings: list[tuple[Path, Finding]] = field(default_factory=list)

    def add(self, path: Path) -> None:
        """Read an adapter's folder, or the file of a finding; raise UserError if it is neither."""
        if not path.exists():
            raise UserError("no such file or folder", file=path, fix="check the path")
        if path.is_file():
            finding = read_finding(path)
            if finding.name not in READERS:
                expected = " or ".join(READERS)
                raise UserError(f"a finding on {finding.name}", file=path, expected=f"one on {expected}")
            self.findings.append((path, finding))
            return
        if not (path / ANNOTATOR_FILE).is_file():
            expected = "an adapter's folder, or the JSON file of a finding"
            raise UserError(f"no {ANNOTATOR_FILE}", file=path, expected=expected)
        self.annotators.append((path / ANNOTATOR_FILE, read_annotator(path / ANNOTATOR_FILE)))
        if (training := path / TRAINING_FILE).is_file():
            read = read_json(Training, training, what="a training record", fix="train the adapter again")
            self.trainings.append((training, read))
        if (record := path / "evaluation" / "record.json").is_file():
            self.records.append((record, read_record(record)))
        files = sorted((path / KEPT).glob("*.json"))
        self.findings += zip(files, read_findings(path / KEPT), strict=True)


def latex(value: object) -> str:
    """Return a value as text of a LaTeX document: nothing in it is a command."""
    return "".join(_LATEX.get(character, character) for character in " ".join(printable(str(value)).split()))


def markdown(value: object) -> str:
    """Return a value as text of a Markdown document: nothing in it is markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|!&~$])", r"\\\1", " ".join(printable(str(value)).split()))


def share(value: float) -> str:
    """Format a number as papers do: two decimals, and no zero before the point if it is between -1 and 1."""
    text = f"{round(value, 2) + 0.0:.2f}"  # no -0
    return re.sub(r"^(-?)0\.", r"\1.", text)


def estimate(measure: Mapping[str, Any]) -> str:
    """Format a measure: ``.74, 95% CI [.70, .78]``."""
    low, high = measure["ci95"]
    return f"{share(measure['value'])}, 95% CI [{share(low)}, {share(high)}]"


def render(records: Records, written_as: Format) -> str:
    """Return the section and its table of sources as Markdown or LaTeX."""
    import jinja2

    escape: Callable[[object], str] = {"markdown": markdown, "latex": latex}[written_as]
    loader = jinja2.FileSystemLoader(TEMPLATES)
    # Whatever is not a word of the template may come from strangers' files.
    rules = {"undefined": jinja2.StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = jinja2.Environment(loader=loader, finalize=escape, autoescape=False, **rules)
    numbers: list[Row] = []
    about = {
        "annotators": [each for _, each in records.annotators],
        "trainings": [_training(path, each, numbers) for path, each in records.trainings],
        "records": [_scores(path, each, numbers) for path, each in records.records],
        **{f"{name}s": _findings(name, records.findings, numbers) for name in READERS},
    }
    text = environment.get_template("methods.jinja").render(latex=written_as == "latex", numbers=numbers, **about)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _note(numbers: list[Row], path: Path, **values: object) -> None:
    source = "/".join(path.parts[-3:])
    numbers += [
        {"what": what.replace("_", " "), "value": str(value), "source": source} for what, value in values.items()
    ]


def _findings(name: str, findings: list[tuple[Path, Finding]], numbers: list[Row]) -> list[dict[str, Any]]:
    """Return what the template needs of all findings of a name, whose facts are unchecked until here."""
    about = []
    for path, finding in findings:
        if finding.name == name:
            try:
                about.append(READERS[name](path, finding, numbers))
            except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
                fix = "run the check again"
                raise UserError(f"incomplete facts on {name}", file=path, fix=fix) from error
    return about


def _training(path: Path, training: Training, numbers: list[Row]) -> dict[str, Any]:
    names = ("r", "lora_alpha", "learning_rate", "num_train_epochs", "seed", "per_device_train_batch_size")
    settings = {name: training["settings"][name] for name in names if training["settings"].get(name) is not None}
    if training["settings"].get("max_steps", -1) > 0:  # it wins over the epochs
        settings["max_steps"] = training["settings"]["max_steps"]
        settings.pop("num_train_epochs", None)
    cost = {"used": training["data"].get("used"), "seconds": training["seconds"], **training["parameters"]}
    _note(numbers, path, **settings, **{name: value for name, value in cost.items() if value is not None})
    hardware = training["hardware"]
    machine = ", ".join(str(gpu["name"]) for gpu in hardware.get("gpus") or []) or hardware.get("cpu")
    versions = ", ".join(f"{name} {version}" for name, version in training["versions"].items())
    return {"settings": settings, **cost, "precision": training["precision"], "machine": machine, "versions": versions}


def _scores(path: Path, record: RunRecord, numbers: list[Row]) -> dict[str, Any]:
    scores = {title: record.metrics[name] for name, title in SCORES.items() if name in record.metrics}
    written = {title: estimate(measure) for title, measure in scores.items()}
    n = max(measure["n"] for measure in scores.values())
    _note(numbers, path, **written, test_posts=n)
    return {"task": record.task, "data": record.data, "n": n, "scores": written}


def _agreement(path: Path, finding: Finding, numbers: list[Row]) -> dict[str, Any]:
    coefficients = [
        (f"{title}, {name}", estimate(measure))
        for title, rows in finding.facts.get("coefficients", {}).items()
        for name, measure in rows.items()
    ]
    tested = finding.facts.get("alternative_annotator_test") or {}
    annotators = tested.get("annotators") or []
    wins = sum(bool(each["wins"]) for each in annotators)
    _note(numbers, path, **dict(coefficients))
    if annotators:
        _note(numbers, path, annotators_won=wins, annotators_tested=len(annotators), epsilon=tested["epsilon"])
    epsilon = tested.get("epsilon")
    return {"coefficients": coefficients, "wins": wins, "tested": len(annotators), "epsilon": epsilon}


def _shares(path: Path, finding: Finding, numbers: list[Row]) -> dict[str, Any]:
    first = next(part for part in finding.parts if isinstance(part, Measures))
    rows = [(name, estimate(measure)) for name, measure in first.rows.items()]
    posts, labels = finding.facts["posts"], finding.facts["human labels"]
    _note(numbers, path, posts=posts, human_labels=labels, **dict(rows))
    return {"task": finding.task, "rows": rows, "posts": posts, "labels": labels, "of": finding.facts["shares of"]}


READERS = {"agreement": _agreement, "prevalence": _shares}  # name of a finding → what the template needs of it
