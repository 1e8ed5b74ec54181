"""An annotation that ends as a dataset on the Hub: its local file, the facts about it, its card, and the upload."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli.console import log
from common.cli.errors import UserError, file_name
from common.hub import card
from common.hub.package import check_leaks
from common.hub.table_download import parse_name
from common.hub.table_upload import Table, check_dataset, publish_table
from common.models.loading import hub_commit
from common.runtime.files import atomic_write, read_json
from common.runtime.project import MINIATURE, PROJECT, SOURCE
from sbic_llama.annotation.parts import AnnotationJob, digest_of

if TYPE_CHECKING:
    from sbic_llama.model.annotator import Adapter

FACTS = "annotation.json"
TEMPLATE = Path(__file__).parents[1] / "card" / "dataset.md.jinja"
SIZES = {
    10**3: "n<1K",
    10**4: "1K<n<10K",
    10**5: "10K<n<100K",
    10**6: "100K<n<1M",
    10**7: "1M<n<10M",
    10**8: "10M<n<100M",
}  # the Hub's words


def repository_of(output: str) -> str:
    """Return the repository of a name ``hf://datasets/user/out``."""
    parsed = parse_name(output)
    if parsed.revision or parsed.split:
        fix = f"use hf://datasets/{parsed.id}"
        raise UserError("a new dataset has no revision or split yet", key="--output", fix=fix)
    return parsed.id


def local_file(output: str) -> Path:
    """Return the file into which a dataset is annotated before it is uploaded."""
    return Path("output", "datasets", *repository_of(output).split("/"), "annotated.parquet")


def check(output: str, *, private: bool) -> None:
    """Check, before any work, that the annotation can be uploaded."""
    facts = local_file(output).with_name(FACTS)
    content = facts.read_bytes() if facts.is_file() else None
    check_dataset(repository_of(output), FACTS, content, private=private, option="--output")


def repository_in(folder: Path) -> str:
    """Return the id of the repository that a folder of the Hub's cache is a snapshot of."""
    return folder.resolve().parents[1].name.removeprefix("models--").replace("--", "/", 1)


def write_facts(
    job: AnnotationJob,
    adapters: Sequence[Adapter],
    columns: Mapping[str, type],
    *,
    prefix: str,
    quantization: str,
    precision: str,
    text_columns: Sequence[str],
    label_shares: Mapping[str, float],
    thresholds: Mapping[str, float],
) -> None:
    """Write what the card says beside the output; nothing in it is a path of this machine."""
    (file,) = job.files
    facts = {
        "dataset": job.dataset,
        "source": Path(file_name(file.path)).name,
        "digest": file.digest,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "rows": job.rows,
        "annotated": job.rows - file.problems,
        "adapters": [_described(adapter) for adapter in adapters],
        "of_miniature": any(adapter.description.of_miniature for adapter in adapters),
        "quantization": quantization,
        "precision": precision,
        "text_columns": list(text_columns),
        "label_shares": dict(label_shares),
        "review_thresholds": dict(thresholds),
        "problem": f"{prefix}problem",
        "columns": {
            name: {"str": "text", "float": "number", "bool": "yes or no"}[kind.__name__]
            for name, kind in columns.items()
        },
    }
    with atomic_write(job.output.with_name(FACTS)) as part:
        part.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _described(adapter: Adapter) -> dict[str, Any]:
    """Return which model answered: by its id on the Hub and commit, or by a folder's name and a digest of its files."""
    about = adapter.description
    base = about.base_model
    if about.base_revision is None and not base.startswith(MINIATURE):  # a folder
        base = Path(base).name
    known = {"feature": adapter.feature.name, "base_model": base, "base_revision": about.base_revision}
    if adapter.folder is None:
        return known | {"name": "the base model as it is, with a codebook", "revision": about.prompt_hash}
    commit = hub_commit(adapter.folder)
    named = repository_in(adapter.folder) if commit else adapter.folder.resolve().name
    return known | {"name": named, "revision": commit or digest_of(adapter)}


def publish(output: str, *, private: bool) -> None:
    """Upload a finished annotation with its card."""
    from huggingface_hub import DatasetCardData

    path, repo_id = local_file(output), repository_of(output)
    facts = read_json(dict[str, Any], path.with_name(FACTS), what="facts about an annotation")
    split = (parse_name(facts["dataset"]).split if facts["dataset"] else None) or "train"
    split = split if re.fullmatch(r"\w+", split) else "train"
    size = next((words for limit, words in SIZES.items() if facts["rows"] < limit), "100M<n<1B")
    head = DatasetCardData(
        annotations_creators=["machine-generated"],
        source_datasets=[parse_name(facts["dataset"]).id] if facts["dataset"] else None,
        size_categories=[size],
        task_categories=["text-classification"],
        pretty_name=repo_id.partition("/")[2],
    ).to_yaml()
    body = card.page(TEMPLATE, path.with_name(FACTS), facts=facts, project=PROJECT, source=SOURCE)
    files: dict[str, Path | bytes] = {
        card.CARD: f"---\n{head.strip()}\n---\n\n{body}".encode(),
        FACTS: path.with_name(FACTS).read_bytes(),
        f"data/{split}-00000-of-00001.parquet": path,
    }
    table = Table(files)
    check_leaks(table, path.parent)
    commit, new = publish_table(table, repo_id, FACTS, private=private)
    outcome = "published" if new else "already published, nothing was uploaded"
    log(f"{outcome}: hf://datasets/{repo_id}@{commit}; the local copy is {path}")
