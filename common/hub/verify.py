"""Verify that a published model answers as recorded: download it, run the code on its card, and compare."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.cli.console import bar, stage
from common.cli.errors import UserError, counted
from common.cli.options import TableOptions
from common.hub.card import CARD, Trained, read_trained
from common.hub.package import Package, Publication, publication_of
from common.models.adapters import check_adapter_config
from common.models.load_errors import loading
from common.models.loading import base_path, check_config, check_no_adapter, local_folder, read_config, require
from common.results.record import TRAINING_FILE, RunRecord
from common.results.scoring import RECORD, SEVERAL

TIE = 1e-2  # difference below which another precision, device or kernel may prefer the other answer
# How far a probability may be from the recorded one: at most, and on average over the items. Half precision changes single ones
# by hundredths, in both directions.
TOLERANCES = {"exact": (1e-3, 1e-3), "half": (0.1, 0.02)}
EXACT = {"fp32", "float32"}
# Runs the card's code as a user would, in its own process, then passes it one item after the other.
DRIVER = """
import contextlib, json, sys
source, items = json.load(sys.stdin)
card = {"__name__": "card"}
with contextlib.redirect_stdout(sys.stderr):
    exec(compile(source, "README.md", "exec"), card)
print(json.dumps(str(card["model"].dtype).removeprefix("torch.")), flush=True)
for item in items:
    print(json.dumps(card["annotate"](*item)), flush=True)
"""


def verify(repo_id: str, revision: str | None, corpus: TableOptions, *, items: int) -> str:
    """Download a published model into an empty cache, run its card's code, and return how its answers compare with the record.

    The base model, which is large and not ours, may come from the user's cache. ``corpus`` says where to read the scored
    texts (default: where training read them); ``items``, how many to score, evenly spaced (0: all).
    """
    if Path(repo_id).is_dir():
        raise UserError("this is a folder", file=repo_id, expected="the id of a published model, as user/name")
    with tempfile.TemporaryDirectory(prefix="verify-") as cache:
        with stage(f"downloading {repo_id} into an empty cache"):
            folder = local_folder(repo_id, revision, cache_dir=Path(cache))
        trained, project = check_download(folder, repo_id)
        if trained.evaluation is None:
            raise UserError("published without an evaluation", file=repo_id, expected="its record and answers")
        snippet = project.snippet(trained, repo_id)
        # Only code that this project wrote is run, whatever the card in the repository says.
        if f"```python\n{snippet}\n```" not in (folder / CARD).read_text(encoding="utf-8", errors="replace"):
            problem = "the code on the card is not what this version of the project writes"
            fix = "use the version that published it, or publish it again"
            raise UserError(problem, file=f"{repo_id}/{CARD}", fix=fix)
        # The card reads the main branch; here its code reads the commit that was downloaded.
        code = re.sub(r'^(model_id, revision = "[^"]+"), "main"', rf'\1, "{folder.name}"', snippet, flags=re.M)
        link_base(trained, Path(cache))
        return _compared(trained, project, corpus, items, code, Path(cache), repo_id, commit=folder.name)


def verify_package(package: Package, repo_id: str, corpus: TableOptions, *, items: int) -> str:
    """Check before an upload what :func:`verify` checks after it, on the files that would be uploaded."""
    trained = package.trained
    with tempfile.TemporaryDirectory(prefix="verify-") as scratch:
        folder = Path(scratch) / "model"
        for name, content in package.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                path.symlink_to(content.resolve())
        link_base(trained, Path(scratch))
        place = f"model_id, revision = {json.dumps(str(folder))}, "
        snippet = package.project.snippet(trained, repo_id)
        code = re.sub(r'^model_id, revision = "[^"]+", ', lambda _: place, snippet, flags=re.M)
        return _compared(trained, package.project, corpus, items, code, Path(scratch), str(trained.folder))


def _compared(
    trained: Trained,
    project: Publication,
    corpus: TableOptions,
    items: int,
    code: str,
    cache: Path,
    name: str,
    commit: str | None = None,
) -> str:
    """Run the card's code on scored texts and return how its answers compare with the record."""
    evaluation = trained.evaluation
    assert evaluation is not None  # checked by both callers
    corpus = scored_corpus(trained, corpus)
    texts = project.inputs(trained, corpus)
    rows = [row for row in evaluation.scores if row["id"] in texts]
    if absent := len(evaluation.scores) - len(rows):
        problem = f"{absent:,} of {len(evaluation.scores):,} scored items are not in this corpus"
        place = corpus.data or corpus.data_dir or corpus.dataset_name or "the miniature"
        raise UserError(problem, file=place, fix="give the corpus on which the model was scored")
    step = max(1, len(rows) // items) if items else 1
    chosen = rows[::step][: items or None]
    with stage(f"scoring {counted(len(chosen), 'item')} with the card's code"):
        precision, *answers = _run(code, [texts[row["id"]] for row in chosen], cache, name)
    recorded = str(evaluation.record.policy.get("scored in", "an unknown precision"))
    return compare(chosen, answers, name, commit=commit, of=len(rows), precision=precision, recorded=recorded)


def check_download(folder: Path, repo_id: str) -> tuple[Trained, Publication]:
    """Check a downloaded repository, which may be anybody's, and read its records."""
    require(folder, CARD, repo_id)
    if not (folder / TRAINING_FILE).is_file():
        raise UserError(f"missing {TRAINING_FILE}", file=repo_id, expected="a model published by this project")
    trained = read_trained(folder)
    project = publication_of(trained)
    weights = {"full": "model.safetensors", "adapter": "adapter_model.safetensors"}[trained.facts["kind"]]
    for name in (*project.FILES, "tokenizer_config.json"):
        require(folder, name, repo_id)
    if not any(folder.glob(f"{Path(weights).stem}*.safetensors")):
        require(folder, weights, repo_id)
    if trained.facts["kind"] == "adapter":
        config = read_config(folder, "adapter_config.json", repo_id)
        base = base_path(str(config.get("base_model_name_or_path")))
        revision = None if Path(base).is_dir() else config.get("revision")
        check_adapter_config(config, str(config.get("task_type")), repo_id)
        check_no_adapter(base, revision)
        check_config(base, revision)
    check_config(str(folder), None)
    if trained.evaluation and (rows := trained.evaluation.scores):
        check_record(trained.evaluation.record, rows, repo_id)
    return trained, project


def check_record(record: RunRecord, rows: Sequence[dict[str, str]], repo_id: str) -> None:
    """Check that the accuracy on the card is that of the published answers."""
    if "accuracy" not in record.metrics:
        return
    accuracy, stated = sum(row["label"] == row["answer"] for row in rows) / len(rows), record.metrics["accuracy"]
    if abs(accuracy - stated["value"]) > 1e-9 or stated["n"] != len(rows):
        problem = f"the record states accuracy {stated['value']:.4f}, but its answers have {accuracy:.4f}"
        raise UserError(problem, file=f"{repo_id}/{RECORD}", fix="evaluate and publish it again")


def scored_corpus(trained: Trained, given: TableOptions) -> TableOptions:
    """Return the given corpus; else the Hub dataset of the training, or the miniature."""
    evaluation, settings = trained.evaluation, trained.facts["settings"]
    own = settings.get("codebook") is not None
    if own and given.data is None:
        problem = "verification needs the table with which the adapter was trained"
        fix = "give --data path/to/table.csv, or publish with --verify false"
        raise UserError(problem, key="--data", expected="that table", fix=fix)
    if not own and given.data is not None:
        problem = "the model was not trained with a codebook"
        raise UserError(problem, key="--data", expected="--data_dir or --dataset_name", fix="remove it")
    if not given.on_miniature or evaluation is None or evaluation.record.miniature:
        return given
    if not settings["dataset_name"]:
        problem = f"verification needs the texts of {evaluation.record.data['name']}"
        raise UserError(problem, key="--data_dir", expected="the folder of that corpus")
    return TableOptions(dataset_name=settings["dataset_name"], dataset_revision=settings["dataset_revision"])


def compare(
    rows: Sequence[dict[str, str]],
    answers: Sequence[Any],
    name: str,
    *,
    commit: str | None,
    of: int,
    precision: str,
    recorded: str,
) -> str:
    """Return how answers (``{label: probability}`` or ``[text, mean log-probability]``) compare; refuse other ones.

    Another label is refused unless it was nearly as probable. Probabilities must be the recorded ones, too: within
    :data:`TOLERANCES` for the less exact of the two precisions.
    """
    differences: list[float] = []
    ties, wrong = 0, []
    most, mean = TOLERANCES["exact" if {precision, recorded} <= EXACT else "half"]
    for row, answer in zip(rows, answers, strict=True):
        same, margin, difference = _difference(row, answer)
        if not (difference <= most and (same or margin <= TIE)):  # NaN is not below anything
            wrong.append(row["id"])
        ties += not same
        differences.append(difference)
    average = sum(differences) / max(1, len(differences))
    place = f"{name}@{commit[:12]}" if commit else name
    fix = f"{'publish' if commit else 'evaluate'} the model again, with the record of its own evaluation"
    if wrong:
        raise UserError(
            f"{len(wrong):,} of {len(rows):,} answers differ from the record, "
            f"beyond ties and {most} of a probability ({precision} now, {recorded} then); the first is that to item {wrong[0]}",
            file=place,
            fix=fix,
        )
    if average > mean:
        problem = f"probabilities differ from the record by {average:.3f} on average ({precision} now, {recorded} then)"
        raise UserError(problem, file=place, expected=f"at most {mean}", fix=fix)
    near = f", {ties:,} differ within {TIE} of a tie" if ties else ""
    which = f"commit {commit[:12]}" if commit else "before the upload"
    return (
        f"{len(rows) - ties:,} of {len(rows):,} answers match the record{near}; largest difference "
        f"{max(differences, default=0):.1e} (scored again in {precision}, recorded in {recorded}; {len(rows):,} of its "
        f"{of:,} items; {which})"
    )


def _difference(row: dict[str, str], answer: Any) -> tuple[bool, float, float]:
    """Return whether an answer is the recorded one, how close it was to being that, and the difference in probability.

    An answer is a probability for each label, or a text with one for each of several labels that may hold or with its mean
    log-probability. The probability of a generated answer is the geometric mean over its tokens; for another answer it says
    nothing.
    """
    if isinstance(answer, dict):
        before = {label: float(row[f"probability_{label}"]) for label in answer}
        label = max(answer, key=answer.__getitem__)
        finite = all(map(math.isfinite, answer.values()))
        difference = max(abs(answer[each] - before[each]) for each in answer) if finite else math.nan
        return label == row["answer"], abs(before[row["answer"]] - before[label]), difference
    text, mean = answer
    if isinstance(mean, dict):
        before = {label: float(row[f"{SEVERAL}{label}"]) for label in mean}
        finite = all(map(math.isfinite, mean.values()))
        difference = max(abs(mean[label] - before[label]) for label in mean) if finite else math.nan
        return _groups(text) == _groups(row["answer"]), difference, difference
    same, margin = _groups(text) == _groups(row["answer"]), float(row["margin"])
    if not math.isfinite(mean):
        return same, margin, math.nan
    return same, margin, abs(math.exp(mean) - math.exp(float(row["mean_log_probability"]))) if same else 0.0


def link_base(trained: Trained, cache: Path) -> None:
    """Link the base model in the user's cache, or its place there, into another cache."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import validate_repo_id

    name = trained.base["name"] or ""
    if trained.facts["kind"] == "full" or name.count("/") != 1:
        return
    with loading(name):  # a name may be anything
        validate_repo_id(name)
    own = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")
    with contextlib.suppress(OSError):  # a read-only cache: the base is downloaded into the other one
        own.mkdir(parents=True, exist_ok=True)
        (cache / own.name).symlink_to(own, target_is_directory=True)


def _groups(text: str) -> set[str]:
    return {" ".join(part.split()).casefold() for part in text.split(",") if part.strip()}


def _run(code: str, items: Sequence[tuple[str, ...]], cache: Path, repo_id: str) -> list[Any]:
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    answers: list[Any] = []
    with contextlib.ExitStack() as stack:
        given, errors = (stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _ in range(2))
        json.dump([code, items], given)
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", DRIVER],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            cwd=cache,  # where no file can shadow a package
            text=True,
        )
        try:
            with bar(len(items), "item", show=True) as progress:
                for line in process.stdout or ():
                    answers.append(json.loads(line))
                    progress.update(len(answers) > 1)
        finally:
            if sys.exc_info()[0] is not None:
                process.kill()
            process.wait()
        if len(answers) != len(items) + 1:
            errors.seek(0)
            lines = [line.strip() for line in errors.read().splitlines() if line.strip()] or ["no error message"]
            raise UserError(f"the code on the card fails: {lines[-1]}", file=f"{repo_id}/{CARD}")
    return answers
