"""Write a methods section: the words are in ``templates/methods.jinja``, the numbers come from records alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

from common.cli.errors import UserError, printable
from common.results.finding import FOLDER, KEPT, Finding, read_finding, read_findings
from common.results.record import RunRecord, read_record, training_facts
from common.results.scoring import RECORD
from common.runtime.run_folder import TRAINING_FILE
from common.stats.agreement import ALIKE, EVERYWHERE, PEOPLE
from sbic_llama.model.description import ANNOTATOR_FILE, AnnotatorFile
from sbic_llama.model.description import read as read_annotator

TEMPLATES = Path(__file__).parent / "templates"
SCORES = {"set_f1": "set F1", "balanced_accuracy": "balanced accuracy", "f1/macro": "macro F1", "accuracy": "accuracy"}
PEOPLE_AND_MACHINE, MACHINE = ": people and machine", ": machine alone, as if right"  # end the names of rows
Format = Literal["markdown", "latex"]
_LATEX = {
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"},
    **{"[": "{[}", "]": "{]}", "`": r"\textasciigrave{}", "'": r"\textquotesingle{}"},
    **{character: f"\\{character}" for character in "#$%&_{}"},
}


class Row(TypedDict):
    """A number of the section and where it comes from."""

    what: str
    value: str
    source: str


class Written(str):
    """Text that is written already: it must not be escaped again."""


@dataclass
class Records:
    """What was found under the paths of one command."""

    annotators: list[tuple[Path, AnnotatorFile]] = field(default_factory=list)
    trainings: list[tuple[Path, dict[str, Any]]] = field(default_factory=list)
    records: list[tuple[Path, RunRecord]] = field(default_factory=list)
    findings: list[tuple[Path, Finding]] = field(default_factory=list)

    def add(self, path: Path) -> None:
        """Read an adapter's folder, a folder of records and findings (as trust writes), or the file of a finding."""
        if not path.exists():
            raise UserError("no such file or folder", file=path, fix="check the path")
        if path.is_file():
            self.add_finding(path)
        elif (path / ANNOTATOR_FILE).is_file():
            self.add_adapter(path)
        else:
            folder = path / "records" if (path / "records").is_dir() else path
            files = sorted(folder.glob("*.json"))
            if not files:
                expected = "an adapter's folder, a trust page's, or the JSON file of a finding"
                raise UserError("no records", file=path, expected=expected)
            self.records += [(file, read_record(file)) for file in files]
            self.findings += [(file, read_finding(file)) for file in sorted((folder / FOLDER).glob("*.json"))]

    def add_adapter(self, folder: Path) -> None:
        self.annotators.append((folder / ANNOTATOR_FILE, read_annotator(folder / ANNOTATOR_FILE)))
        if (training := training_facts(folder)) is not None:
            self.trainings.append((folder / TRAINING_FILE, training))
        if (record := folder / RECORD).is_file():
            self.records.append((record, read_record(record)))
        self.findings += zip(sorted((folder / KEPT).glob("*.json")), read_findings(folder / KEPT), strict=True)

    def add_finding(self, path: Path) -> None:
        finding = read_finding(path)
        if finding.name not in READERS:
            expected = " or ".join(READERS)
            raise UserError(f"a finding on {finding.name}", file=path, expected=f"one on {expected}")
        self.findings.append((path, finding))

    @property
    def miniature(self) -> bool:
        """Return whether anything is about invented texts."""
        shown = [each for _, each in (*self.records, *self.findings)]
        return any(each.of_miniature for _, each in self.annotators) or any(each.miniature for each in shown)


class Writer:
    """Escapes what comes from records, and notes the numbers and works that the section uses."""

    def __init__(self, form: Format):
        self.form = form
        self.numbers: list[Row] = []
        self.cited: list[str] = []

    def escape(self, value: object) -> str:
        if isinstance(value, Written):
            return str(value)
        text = " ".join(printable(str(value)).split())
        if self.form == "latex":
            return "".join(_LATEX.get(character, character) for character in text)
        return re.sub(r"([\\`*_{}\[\]<>#|!&~$])", r"\\\1", text)

    def cite(self, *keys: str) -> Written:
        """Return a citation of works in ``templates/works.bib``, as LaTeX or Pandoc write it."""
        self.cited += [key for key in keys if key not in self.cited]
        if self.form == "latex":
            return Written(f"~\\cite{{{','.join(keys)}}}")
        return Written(f" [{'; '.join(f'@{key}' for key in keys)}]")

    def note(self, path: Path, **values: object) -> None:
        source = "/".join(part for part in path.parts[-4:] if part != path.anchor)
        rows = ((what.replace("_", " "), value) for what, value in values.items() if value is not None)
        self.numbers += [{"what": what, "value": grouped(value), "source": source} for what, value in rows]


def grouped(value: object) -> str:
    """Return a value as text, whole numbers with commas."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def share(value: float) -> str:
    """Format a number as papers do: two decimals, and no zero before the point if it is between -1 and 1."""
    text = f"{round(value, 2) + 0.0:.2f}"  # no -0
    return re.sub(r"^(-?)0\.", r"\1.", text)


def estimate(measure: Mapping[str, Any]) -> str:
    """Format a measure: ``.74, 95% CI [.70, .78]``."""
    low, high = measure["ci95"]
    return f"{share(measure['value'])}, 95% CI [{share(low)}, {share(high)}]"


def duration(seconds: float) -> str:
    """Format a time as papers do."""
    for unit, size in (("hour", 3600), ("minute", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}s"
    return f"{seconds:.0f} seconds"


def render(records: Records, form: Format) -> tuple[str, str]:
    """Return the section, as Markdown or LaTeX, and the BibTeX entries of what it cites."""
    import jinja2

    writer, loader = Writer(form), jinja2.FileSystemLoader(TEMPLATES)
    # Whatever is not a word of the template may come from strangers' files.
    rules = {"undefined": jinja2.StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = jinja2.Environment(loader=loader, finalize=writer.escape, autoescape=False, **rules)
    environment.globals |= {"cite": writer.cite}
    environment.filters |= {"grouped": grouped}
    about = {
        "annotators": [each for _, each in records.annotators],
        "trainings": [_training(path, each, writer) for path, each in records.trainings],
        "records": [_scores(path, each, writer) for path, each in records.records],
        **{name: _findings(name, records.findings, writer) for name in READERS},
        "miniature": records.miniature,
    }
    text = environment.get_template("methods.jinja").render(latex=form == "latex", numbers=writer.numbers, **about)
    lines = (re.sub(r" +", " ", line).strip() for line in text.splitlines())
    works = (TEMPLATES / "works.bib").read_text(encoding="utf-8").split("\n\n")
    entries = [work.strip() for work in works if work[work.find("{") + 1 : work.find(",")] in writer.cited]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n", "\n\n".join(entries) + "\n"


def _findings(name: str, findings: list[tuple[Path, Finding]], writer: Writer) -> list[dict[str, Any]]:
    """Return what the template needs of all findings of a name, whose facts are unchecked until here."""
    about = []
    for path, finding in findings:
        if finding.name == name:
            try:
                about.append(READERS[name](path, finding, writer))
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                raise UserError(f"incomplete facts on {name}", file=path, fix="run the check again") from error
    return about


def _training(path: Path, training: Mapping[str, Any], writer: Writer) -> dict[str, Any]:
    settings, hardware = training["settings"], training["hardware"]
    steps = settings["max_steps"] if settings.get("max_steps", -1) > 0 else None  # it wins over the epochs
    batch = settings.get("per_device_train_batch_size", 0) * settings.get("gradient_accumulation_steps", 1)
    numbers = {
        "labeled texts for training": training["data"].get("used"),
        "texts for validation": training["data"].get("validation"),
        "rank": settings.get("r"),
        "alpha": settings.get("lora_alpha"),
        "learning rate": settings.get("learning_rate"),
        "steps": steps,
        "epochs": None if steps else settings.get("num_train_epochs"),
        "batch size": batch or None,
        "seed": settings.get("seed"),
        "parameters": training["parameters"]["total"],
        "trained parameters": training["parameters"]["trainable"],
        "training time": duration(training["seconds"]),
    }
    writer.note(path, **numbers)
    machine = ", ".join(str(gpu["name"]) for gpu in hardware.get("gpus") or []) or hardware.get("cpu")
    named = ("torch", "transformers", "peft", "trl", "bitsandbytes")
    versions = ", ".join(f"{name} {training['versions'][name]}" for name in named if name in training["versions"])
    base = {"base_model": training["base"]["name"], "base_revision": training["base"]["commit"]}
    rest = base | {"precision": training["precision"], "machine": machine, "versions": versions}
    return {name.replace(" ", "_"): value for name, value in numbers.items()} | rest


def _scores(path: Path, record: RunRecord, writer: Writer) -> dict[str, Any]:
    scores = {title: record.metrics[name] for name, title in SCORES.items() if name in record.metrics}
    written = {title: estimate(measure) for title, measure in scores.items()}
    n = max(measure["n"] for measure in scores.values())
    drawn = record.policy.get("draw")
    writer.note(path, **written, texts=n, effective_sample_size=record.policy.get("effective sample size"))
    own_file = record.data["split"] == "posts with human labels"
    return {
        "data": record.data,
        "n": n,
        "scores": written,
        "title": record.title,
        "own_file": own_file,
        "drawn": drawn,
        "policy": record.policy,
    }


def _agreement(path: Path, finding: Finding, writer: Writer) -> dict[str, Any]:
    alpha = finding.facts["coefficients"].get("Krippendorff's alpha", {})
    among = alpha.get(PEOPLE)
    model = alpha.get(ALIKE if among else EVERYWHERE) or alpha.get(ALIKE)  # of the same items, if there are two
    tested = finding.facts.get("alternative_annotator_test") or {}
    annotators = tested.get("annotators") or []
    numbers = {
        "alpha, model and people": model and estimate(model),
        "alpha among people": among and estimate(among),
        "annotators tested": len(annotators) or None,
        "annotators won over": sum(bool(each["wins"]) for each in annotators) if annotators else None,
        "epsilon": tested["epsilon"] if annotators else None,
    }
    writer.note(path, **numbers)
    return {
        "model": numbers["alpha, model and people"],
        "people": numbers["alpha among people"],
        "wins": numbers["annotators won over"],
        "tested": len(annotators),
        "epsilon": numbers["epsilon"],
        "passed": tested.get("passed"),
    }


def _shares(path: Path, finding: Finding, writer: Writer) -> dict[str, Any]:
    rows = finding.parts[0].rows
    named = {
        name.removesuffix(PEOPLE_AND_MACHINE): row for name, row in rows.items() if name.endswith(PEOPLE_AND_MACHINE)
    }
    shares = [
        {"name": name, "corrected": estimate(row), "counted": share(rows[f"{name}{MACHINE}"]["value"])}
        for name, row in named.items()
    ]
    facts = finding.facts
    counts = {"texts": facts["posts"], "human labels": facts["human labels"]}
    counts["effective sample size"] = round(facts["effective sample size"]) if "strata" in facts else None
    writer.note(path, **counts, **{f"share of {each['name']}": each["corrected"] for each in shares})
    weighted = facts.get("strata")
    return {"shares": shares, "posts": counts["texts"], "labels": counts["human labels"], "strata": weighted} | {
        "effective": counts["effective sample size"],
        "of": facts["shares of"],
    }


def _coefficients(path: Path, finding: Finding, writer: Writer) -> dict[str, Any]:
    both, machine = (" (people and machine)", " (machine alone, as if right)")
    rows = finding.parts[0].rows
    named = [name.removesuffix(both) for name in rows if name.endswith(both)]
    terms = [(name, estimate(rows[name + both]), share(rows[name + machine]["value"])) for name in named]
    counts = {"posts": finding.facts["posts"], "labels": finding.facts["human labels"]}
    writer.note(path, **counts, **{f"coefficient of {name}": value for name, value, _ in terms})
    return {"terms": terms, "kind": finding.facts["kind"], "outcome": finding.facts["outcome"], **counts}


# Name of a finding → what the template needs of it.
READERS: dict[str, Callable[[Path, Finding, Writer], dict[str, Any]]] = {
    "agreement": _agreement,
    "prevalence": _shares,
    "regression": _coefficients,
}
