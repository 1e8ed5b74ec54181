"""Proof that a published model answers as it was recorded: downloaded afresh, loaded by the code on its card, scored again."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cli.console import bar, stage
from common.cli.errors import UserError
from common.cli.options import CorpusOptions
from common.hub.card import CARD, Trained, read_trained
from common.hub.package import Publication, publication_of
from common.models.loading import base_path, check_config, loading, local_folder, read_config, require
from common.results.evaluation import RECORD
from common.results.record import RunRecord
from common.results.training_record import TRAINING_FILE

TIE = 1e-2  # as close are two answers between which another precision, device or kernel may choose the other
# Runs the card's code as a user would, in a process of its own, then hands it item after item.
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


@dataclass(frozen=True)
class Verification:
    """What came of it.

    Attributes:
        commit: The commit that was downloaded.
        items: How many items were scored again.
        of: How many the record has.
        largest: Largest difference of a probability, or of a mean log-probability, where the answers are the same.
        ties: Answers that differ, between two within :data:`TIE` of each other.
        precision: In which the card's code computed.
        recorded: In which the record says that it was scored.
    """

    commit: str
    items: int
    of: int
    largest: float
    ties: int
    precision: str
    recorded: str

    def line(self) -> str:
        """The finding in a sentence."""
        ties = f", {self.ties:,} between answers within {TIE} of each other" if self.ties else ""
        return (
            f"{self.items - self.ties:,} of {self.items:,} answers are those of the record{ties}; largest difference "
            f"{self.largest:.1e} (scored again in {self.precision}, recorded in {self.recorded}; "
            f"{self.items:,} of its {self.of:,} items; commit {self.commit[:12]})"
        )


def verify(repo_id: str, revision: str | None, corpus: CorpusOptions, *, items: int) -> Verification:
    """Downloads a published model into an empty cache, runs its card's code, and compares the answers with the record's.

    The base model comes from the user's own cache where it is there: it is somebody else's, and large.

    Args:
        repo_id: The model on the Hub.
        revision: Branch, tag or commit; by default the main branch.
        corpus: Where the scored texts are read from; by default where training read them.
        items: How many of the record's items to score again, evenly spaced; 0 for all.

    Raises:
        UserError: It can't be had, its card is not what this version would write, or an answer differs.
    """
    if Path(repo_id).is_dir():
        raise UserError("it is a folder", file=repo_id, expected="the id of a published model, as user/name")
    with tempfile.TemporaryDirectory(prefix="verify-") as cache:
        with stage(f"downloading {repo_id} into an empty cache"):
            folder = local_folder(repo_id, revision, cache_dir=Path(cache))
        trained, project = check_download(folder, repo_id)
        evaluation = trained.evaluation
        if evaluation is None:
            raise UserError("it was published without an evaluation", file=repo_id, expected="its record and answers")
        snippet = project.snippet(trained, repo_id)
        # Only code that this project wrote is run, whatever a repository's card holds.
        if f"```python\n{snippet}\n```" not in (folder / CARD).read_text(encoding="utf-8", errors="replace"):
            raise UserError(
                "the code on its card is not what this version of the project writes",
                file=f"{repo_id}/{CARD}",
                fix="use the version that published it, or publish it again",
            )
        corpus = scored_corpus(trained, corpus)
        texts = project.inputs(trained, corpus)
        recorded = [row for row in evaluation.scores if row["id"] in texts]
        if len(recorded) < len(evaluation.scores):
            raise UserError(
                f"{len(evaluation.scores) - len(recorded):,} of {len(evaluation.scores):,} scored items are not in this corpus",
                file=corpus.data_dir or corpus.dataset_name or "the miniature",
                fix="give the corpus that it was scored on",
            )
        step = max(1, len(recorded) // items) if items else 1
        chosen = recorded[::step][: items or None]
        # The card reads the main branch; here its code reads the commit that was downloaded.
        code = re.sub(r'^(model_id, revision = "[^"]+"), "main"', rf'\1, "{folder.name}"', snippet, flags=re.M)
        link_base(trained, Path(cache))
        with stage(f"scoring {len(chosen):,} items by the card's code"):
            precision, *answers = _run(code, [texts[row["id"]] for row in chosen], Path(cache), repo_id)
    recorded_in = str(evaluation.record.policy.get("scored in", "an unknown precision"))
    return compare(
        chosen, answers, repo_id, commit=folder.name, of=len(recorded), precision=precision, recorded=recorded_in
    )


def check_download(folder: Path, repo_id: str) -> tuple[Trained, Publication]:
    """Checks a downloaded repository, which may be anybody's, and reads its records.

    Raises:
        UserError: It is no model that this project published, or one with pickles for safetensors or with a kernel for code.
    """
    require(folder, CARD, repo_id)
    if not (folder / TRAINING_FILE).is_file():
        raise UserError(f"it has no {TRAINING_FILE}", file=repo_id, expected="a model that this project published")
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
        check_config(base, None if Path(base).is_dir() else config.get("revision"))
    check_config(str(folder), None)
    if trained.evaluation and (rows := trained.evaluation.scores):
        check_record(trained.evaluation.record, rows, repo_id)
    return trained, project


def check_record(record: RunRecord, rows: Sequence[dict[str, str]], repo_id: str) -> None:
    """Checks that the accuracy on the card is that of the published answers.

    Raises:
        UserError: It is not.
    """
    if "accuracy" not in record.metrics:
        return
    found = sum(row["label"] == row["answer"] for row in rows) / len(rows)
    if abs(found - record.metrics["accuracy"]["value"]) > 1e-9 or record.metrics["accuracy"]["n"] != len(rows):
        raise UserError(
            f"its record says accuracy {record.metrics['accuracy']['value']:.4f}, and its answers {found:.4f}",
            file=f"{repo_id}/{RECORD}",
            fix="evaluate and publish it again",
        )


def scored_corpus(trained: Trained, given: CorpusOptions) -> CorpusOptions:
    """The corpus that is given; else the Hub dataset that the training read, or the miniature.

    Raises:
        UserError: None is given, and the model was scored on files.
    """
    evaluation, settings = trained.evaluation, trained.facts["settings"]
    if not given.on_miniature or evaluation is None or evaluation.record.miniature:
        return given
    if not settings["dataset_name"]:
        raise UserError(
            f"the texts of {evaluation.record.data['name']} are needed to verify it",
            key="--data_dir",
            expected="its folder",
        )
    return CorpusOptions(dataset_name=settings["dataset_name"], dataset_revision=settings["dataset_revision"])


def compare(
    rows: Sequence[dict[str, str]],
    answers: Sequence[Any],
    repo_id: str,
    *,
    commit: str,
    of: int,
    precision: str,
    recorded: str,
) -> Verification:
    """Compares answers with the recorded rows: ``{label: probability}``, or ``[text, mean log-probability]``.

    Raises:
        UserError: An answer differs that was not near a tie.
    """
    largest, ties, wrong = 0.0, 0, []
    for row, answer in zip(rows, answers, strict=True):
        if isinstance(answer, dict):
            before = {label: float(row[f"probability_{label}"]) for label in answer}
            difference = max(abs(answer[label] - before[label]) for label in answer)
            label = max(answer, key=answer.__getitem__)
            same, margin = label == row["answer"], abs(before[row["answer"]] - before[label])
        else:
            text, mean = answer
            difference = abs(mean - float(row["mean_log_probability"]))
            margin = float(row["margin"])
            same = _words(text) == _words(row["answer"])
        if same and math.isfinite(difference):
            largest = max(largest, difference)
        if not same and math.isfinite(difference) and margin <= TIE:
            ties += 1
        elif not same or not math.isfinite(difference):
            wrong.append(row["id"])
    found = Verification(commit, len(rows), of, largest, ties, precision, recorded)
    if wrong:
        raise UserError(
            f"{len(wrong):,} of {len(rows):,} answers differ from the record's, beyond ties ({precision} now, {recorded} then), "
            f"the first of item {wrong[0]}",
            file=f"{repo_id}@{commit[:12]}",
            fix="publish the model again, with the record of its own evaluation",
        )
    return found


def link_base(trained: Trained, cache: Path) -> None:
    """Lets the base model in a cache be that of the user's own cache."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import validate_repo_id

    name = trained.base["name"] or ""
    if trained.facts["kind"] == "full" or name.count("/") != 1:
        return
    with loading(name):  # a name may be anything
        validate_repo_id(name)
    own = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")
    with contextlib.suppress(OSError):  # a cache that can't be written to: the base is fetched into the other one
        own.mkdir(parents=True, exist_ok=True)
        (cache / own.name).symlink_to(own, target_is_directory=True)


def _words(text: str) -> set[str]:
    return {" ".join(part.split()).casefold() for part in text.split(",") if part.strip()}


def _run(code: str, items: Sequence[tuple[str, ...]], cache: Path, repo_id: str) -> list[Any]:
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as said,
        tempfile.TemporaryFile("w+", encoding="utf-8") as given,
    ):
        json.dump([code, items], given)
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", DRIVER],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=said,
            env=environment,
            cwd=cache,  # not where a file's name could hide a package
            text=True,
        )
        answers = []
        try:
            with bar(len(items), "item", show=True) as done:
                for answer in _lines(process):
                    answers.append(answer)
                    done.update(len(answers) > 1)
        finally:
            if sys.exc_info()[0] is not None:
                process.kill()
            process.wait()
        if len(answers) != len(items) + 1:
            said.seek(0)
            last = [line.strip() for line in said.read().splitlines() if line.strip()] or ["it ended in silence"]
            raise UserError(f"the code on its card fails: {last[-1]}", file=f"{repo_id}/{CARD}")
    return answers


def _lines(process: subprocess.Popen[str]) -> Iterator[Any]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)
