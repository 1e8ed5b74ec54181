"""What of a trained model is published, and what is checked before it is."""

from __future__ import annotations

import fnmatch
import gc
import importlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, cast

import torch

from common.cli.console import log
from common.cli.errors import UserError, shown
from common.cli.options import CorpusOptions, TrainingOptions
from common.hub.card import CARD, Trained, read_trained
from common.models.loading import load_error
from common.models.retry import HubFailed, use_retrying_client, with_retries
from common.results.finding import KEPT
from common.results.record import TRAINING_FILE
from common.results.scoring import EVALUATION, RECORD
from common.runtime import hardware
from common.runtime.processes import is_first
from common.runtime.project import MINIATURE, PROJECTS

# What of a model's folder may be published; whatever else lies there stays there.
ALLOWED = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "annotator.json",
    TRAINING_FILE,
    f"{EVALUATION}/record.json",
    f"{EVALUATION}/baselines/*.json",
    f"{EVALUATION}/scores.csv",
    f"{KEPT}/*.json",
)
RENDERED = (CARD, "pictures/*.png", ".eval_results/*.yaml")  # made by the card
VOCABULARY = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)  # a base's own words, some of which look like paths
BINARY = ("*.safetensors", "*.model", "*.png")
# Where machines keep people's files: a path there is somebody's, whether or not it is on this machine.
ROOTS = (
    "home",
    "Users",
    "root",
    "mnt",
    "media",
    "scratch",
    "gpfs",
    "lustre",
    "workspace",
    "content",
    "tmp",
    "var",
    "srv",
)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Package:
    """What is published: files by path in the repository, from the folder or made by the card."""

    trained: Trained
    project: Publication
    files: dict[str, Path | bytes]

    def size(self, path: str) -> int:
        """Bytes of a file."""
        content = self.files[path]
        return len(content) if isinstance(content, bytes) else content.stat().st_size


def prepare(folder: Path, repo_id: str) -> Package:
    """The files to publish, the card rendered; nothing is written and nobody asked.

    Raises:
        UserError: A file or record is missing, the base model is nobody else's to get, the card is incomplete, or a file would
            give away a token or a path of this machine.
    """
    trained = read_trained(folder)
    project = publication_of(trained)
    check_name(repo_id)
    check_base(trained.base["name"], trained.base["commit"])
    if trained.evaluation is None:
        raise UserError(f"it has no {RECORD}", file=folder, fix=f"first run {project.EVALUATE} {folder}")
    files: dict[str, Path | bytes] = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(fnmatch.fnmatch(path.relative_to(folder).as_posix(), p) for p in ALLOWED)
    }
    missing = [name for name in (*project.FILES, "tokenizer_config.json") if name not in files]
    if not any(name.endswith(".safetensors") for name in files):
        missing.append("*.safetensors")
    if missing:
        raise UserError(f"it has no {missing[0]}", file=folder, fix="train again into a new folder")
    files |= project.render(trained, repo_id)
    check_leaks(files, folder)
    return Package(trained, project, files)


def check_base(name: str, commit: str | None) -> None:
    """Checks that others can get the base model: it came from the Hub, or is one of the miniature's.

    Raises:
        UserError: It is a folder.
    """
    if commit is None and not name.startswith(MINIATURE):
        raise UserError(
            f"the base model {shown(name)} is a folder of this machine, where nobody else finds it",
            expected="a base model of the Hub",
            fix="train with --model_name_or_path user/name",
        )


def check_leaks(files: Mapping[str, Path | bytes], folder: Path) -> None:
    """Checks that no text to be published holds a Hub token or a path of this machine.

    Raises:
        UserError: One does.
    """
    from huggingface_hub import get_token

    token = get_token()
    here = {str(Path.home()), str(Path.cwd()), str(folder.resolve()), tempfile.gettempdir()} - {"/"}
    for name, content in files.items():
        if any(fnmatch.fnmatch(name, pattern) for pattern in BINARY):
            continue
        text = (content if isinstance(content, bytes) else content.read_bytes()).decode("utf-8", errors="replace")
        if (token and token in text) or re.search(r"\bhf_[A-Za-z0-9]{30,}", text):
            raise UserError(
                "it holds a Hub token", file=folder / name, fix="remove the token, and revoke it on the Hub"
            )
        if name in VOCABULARY:
            continue
        for path in re.findall(r"(?<![\w./~-])(?<!:/)/[\w.@+-]+(?:/[\w.@+ -]+)+", text):
            known = any(path.startswith(f"{start}/") or path == start for start in here)
            if known or path.split("/")[1] in ROOTS or os.path.exists(path):
                raise UserError(
                    f"it holds a path of a machine, {path!r}", file=folder / name, fix="train again from Hub ids"
                )


def check_name(repo_id: str) -> None:
    """Checks that the Hub would take the name.

    Raises:
        UserError: It would not.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
        legal = repo_id.count("/") == 1
    except HFValidationError:
        legal = False
    if not legal:
        raise UserError(
            f"{repo_id!r} is no name of a repository",
            key="--repo_id",
            expected="user/name of letters, digits, -, _ and ., at most 96 characters",
        )


def check_tag(tag: str | None) -> None:
    """Checks that git would take a tag's name, and that it is not that of a branch.

    Raises:
        UserError: It would not.
    """
    if tag is not None and (
        not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", tag) or ".." in tag or tag.endswith(".lock") or tag == "main"
    ):
        raise UserError(f"{tag!r} is no name of a tag", key="--tag", expected="letters, digits, ., - and _, as v1")


def check_access(repo_id: str, base: str | None) -> None:
    """Checks that this login may write to ``repo_id``, and that the Hub has the base model.

    Raises:
        UserError: A name that the Hub would refuse, no token or one that can't write, another's namespace, or an unknown base.
    """
    from huggingface_hub import HfApi, get_token

    check_name(repo_id)
    if not get_token():
        raise UserError("no Hub token", fix="run `hf auth login` or set HF_TOKEN; it is never an argument")
    api = HfApi()
    me = ask(api.whoami, repo_id)
    access = (me.get("auth") or {}).get("accessToken") or {}
    if access.get("role") == "read":
        raise UserError("the Hub token may only read", fix="make a token with the role write, then `hf auth login`")
    names = [me["name"], *(org["name"] for org in me.get("orgs", []) if org.get("roleInOrg") != "read")]
    namespace = repo_id.partition("/")[0]
    if namespace not in names:
        raise UserError(f"this login may not write to {namespace!r}", key="--repo_id", expected=" or ".join(names))
    if base:
        ask(lambda: api.model_info(base), base)


def ask(work: Callable[[], Result], name: str) -> Result:
    """``work()``, which asks the Hub about ``name``, with_retries.

    Raises:
        UserError: The Hub refuses.
        HubFailed: The Hub failed again and again.
    """
    import httpx2

    use_retrying_client()
    try:
        return with_retries(work, name)
    except (OSError, ValueError, RuntimeError, httpx2.HTTPError) as error:
        raise load_error(name, error) from error


class Publication(Protocol):
    """A project's ``publication`` module.

    Attributes:
        FILES: What its models can't do without, besides weights and tokenizer.
        EVALUATE: The command that evaluates one of them, up to the folder.
    """

    FILES: tuple[str, ...]
    EVALUATE: str

    def render(self, trained: Trained, repo_id: str) -> dict[str, bytes]:
        """The card's files by path."""

    def snippet(self, trained: Trained, repo_id: str) -> str:
        """The code on the card; it defines ``annotate``."""

    def inputs(self, trained: Trained, corpus: CorpusOptions) -> dict[str, tuple[str, ...]]:
        """The scored items by id: what ``annotate`` takes."""


def publication_of(trained: Trained) -> Publication:
    """The project's module that knows a trained model.

    Raises:
        UserError: No project of this repository trained it.
    """
    name = trained.facts["project"]
    if name not in PROJECTS:
        raise UserError(
            f"trained by {shown(name)}", file=trained.folder / TRAINING_FILE, expected=" or ".join(PROJECTS)
        )
    return cast(Publication, importlib.import_module(f"{name}.publication"))


def check_publishing(options: TrainingOptions, base: str, commit: str | None) -> None:
    """Checks before hours of training that what comes of them can be published, where that is asked for.

    Raises:
        UserError: See :mod:`common.hub.package`.
    """
    if options.push_to_hub:
        from common.hub.package import check_access, check_base

        check_base(base, commit)
        check_access(str(options.hub_model_id), base)


def publish_if_asked(options: TrainingOptions, folder: Path, evaluate: Sequence[str], corpus: Sequence[str]) -> None:
    """Where that is asked for, scores a finished run unless it was scored before, and publishes it; from one process only.

    Both are the commands that a user would type, in processes of their own: the trained model's memory is free again.

    Args:
        options: The run's.
        folder: The run's folder.
        evaluate: Module and arguments of the evaluation.
        corpus: The arguments that name the corpus.

    Raises:
        UserError: One of them failed; it has said why.
        HubFailed: It was the Hub that failed.
    """
    if not options.push_to_hub or not is_first():
        return
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    publish = ["common.hub", "publish", str(folder), "--repo_id", str(options.hub_model_id), *corpus]
    publish += ["--private"] if options.hub_private else []
    launched = ("RANK", "LOCAL_", "WORLD_SIZE", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_", "ACCELERATE_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(launched) or k == "ACCELERATE_USE_CPU"}
    if hardware.device_type() == "cuda":  # one process is for one GPU
        environment["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    for command in ([] if (folder / RECORD).is_file() else [[*evaluate, *corpus]]) + [publish]:
        log(f"python -m {shlex.join(command)}")
        if status := subprocess.run([sys.executable, "-m", *command], env=environment).returncode:
            kind = HubFailed if status == HubFailed.exit_status else UserError
            raise kind(
                "the model is trained and saved, but this failed",
                file=folder,
                fix=f"repeat python -m {shlex.join(command)}",
            )
