"""Collect the files of a trained model to publish, and check everything that could go wrong first."""

from __future__ import annotations

import abc
import fnmatch
import importlib
import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar, cast

from common.cli.console import log
from common.cli.errors import UserError, shown
from common.cli.options import TableOptions
from common.hub.card import CARD, Trained, read_trained
from common.models.load_errors import load_error
from common.models.loading import hub_commit, read_config
from common.models.retry import use_retrying_client, with_retries
from common.results.finding import KEPT
from common.results.record import TRAINING_FILE
from common.results.scoring import BASELINES, RECORD, SCORES
from common.runtime.project import MINIATURE, PROJECTS

VOCABULARY = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)  # a base's words, some of which look like paths
# What may be published of a model's folder; anything else stays there.
ALLOWED = (
    *("adapter_model.safetensors", "adapter_config.json", "annotator.json", "config.json", TRAINING_FILE),
    *("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    *(*VOCABULARY, "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *(RECORD, SCORES, f"{BASELINES}/*.json", f"{KEPT}/*.json"),
)
RENDERED = (CARD, "pictures/*.png", ".eval_results/*.yaml")  # files that belong to the card
BINARY = ("*.safetensors", "*.model", "*.png", "*.parquet")
# Where machines keep people's files. A path there is private whether or not it exists on this machine.
PRIVATE = re.compile("/(home|Users|root|mnt|media|scratch|gpfs|lustre|workspace|content|tmp|var|srv)/")

Result = TypeVar("Result")


class Publication(Protocol):
    """A project's ``publication`` module."""

    FILES: tuple[str, ...]  # required besides weights and tokenizer
    EVALUATE: str  # the command that evaluates a model, up to its folder

    # The card's files by path; the code on it, which defines `annotate`; and what that takes for each scored item, by id.
    def render(self, trained: Trained, repo_id: str) -> dict[str, bytes]: ...
    def snippet(self, trained: Trained, repo_id: str) -> str: ...
    def inputs(self, trained: Trained, corpus: TableOptions) -> dict[str, tuple[str, ...]]: ...

    PAGE: tuple[str, str]  # the command that opens a page to try models on, and the option that names them

    # Refuses models, ids on the Hub, that cannot be on one page.
    def check_page(self, names: Sequence[str]) -> None: ...


@dataclass(frozen=True)
class Contents(abc.ABC):
    """What a publication puts into a repository: files by path there, from a folder or rendered."""

    files: dict[str, Path | bytes]

    kind: ClassVar[str]  # of repository, as the Hub's client calls it
    owned: ClassVar[tuple[str, ...]]  # patterns of the files that publications write and delete; others stay
    ours: ClassVar[re.Pattern[str]]  # begins the title of each publication's commit

    @property
    @abc.abstractmethod
    def title(self) -> str:
        """Return the title of the commit."""

    def size(self, path: str) -> int:
        content = self.files[path]
        return len(content) if isinstance(content, bytes) else content.stat().st_size

    def read(self, path: str) -> bytes:
        content = self.files[path]
        return content if isinstance(content, bytes) else content.read_bytes()


@dataclass(frozen=True)
class Package(Contents):
    """A trained model's files: from its folder, or rendered for the card."""

    trained: Trained
    project: Publication

    kind = "model"
    owned = (*ALLOWED, *RENDERED)
    ours = re.compile("Publish (full|adapter) trained on ")

    @property
    def title(self) -> str:
        return f"Publish {self.trained.facts['kind']} trained on {self.trained.facts['date']}"


def publication_of(trained: Trained) -> Publication:
    """Import the publication module of the project that trained a model."""
    name = trained.facts["project"]
    if name not in PROJECTS:
        path = trained.folder / TRAINING_FILE
        raise UserError(f"trained by {shown(name)}", file=path, expected=" or ".join(PROJECTS))
    return cast(Publication, importlib.import_module(f"{name}.publication"))


def matches(path: str, patterns: Collection[str]) -> bool:
    return any(fnmatch.fnmatch(path, pattern) for pattern in patterns)


def prepare(folder: Path, repo_id: str) -> Package:
    """Collect and check the files and render the card, without writing anything or asking the Hub."""
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    files: dict[str, Path | bytes] = {name: path for name, path in paths.items() if matches(name, ALLOWED)}
    check_links(folder, files)
    trained = read_trained(folder)
    project = publication_of(trained)
    check_name(repo_id)
    check_base(trained.base["name"], trained.base["commit"])
    if trained.evaluation is None:
        raise UserError(f"missing {RECORD}", file=folder, fix=f"first run {project.EVALUATE} {folder}")
    missing = [name for name in (*project.FILES, "tokenizer_config.json") if name not in files]
    if not any(name.endswith(".safetensors") for name in files):
        missing.append("*.safetensors")
    if missing:
        raise UserError(f"missing {missing[0]}", file=folder, fix="train again into a new folder")
    if "adapter_config.json" in files:
        check_adapter_base(trained)
    package = Package(files | project.render(trained, repo_id), trained, project)
    check_leaks(package, package.trained.folder)
    log(f"{len(package.files)} files for {repo_id}:")
    for path in sorted(package.files):
        log(f"{package.size(path):>14,}  {path}")
    return package


def check_links(folder: Path, names: Iterable[str]) -> None:
    """Refuse symbolic links to files elsewhere, which may be anything; those of the Hub's cache lead to its own files."""
    own = [folder.resolve(), *([folder.resolve().parents[1] / "blobs"] if hub_commit(folder.resolve()) else [])]
    for name in names:
        target = (folder / name).resolve()
        if not any(target.is_relative_to(place) for place in own):
            problem, fix = f"a link to {shown(str(target), 200)}, outside of the model's folder", "copy the file here"
            raise UserError(problem, file=folder / name, expected="a file", fix=fix)


def check_base(name: str, commit: str | None) -> None:
    """Refuse a base model that is a local folder, unless it is one of the miniature's."""
    if commit is None and not name.startswith(MINIATURE):
        problem = f"the base model {shown(name)} is a folder on this machine, which others cannot get"
        fix = "train with --model_name_or_path user/name"
        raise UserError(problem, expected="a base model from the Hub", fix=fix)


def check_adapter_base(trained: Trained) -> None:
    """Refuse an adapter whose configuration, which everybody loads it by, names another base than its training."""
    config = read_config(trained.folder, "adapter_config.json", trained.folder)
    named = (config.get("base_model_name_or_path"), config.get("revision"))
    expected = (trained.base["name"], trained.base["commit"])
    if named != expected:
        problem, place = f"the base model is {shown(named[0])} at {shown(named[1])}", "adapter_config.json"
        expected_words = f"{shown(expected[0])} at {shown(expected[1])}, as in {TRAINING_FILE}"
        raise UserError(problem, file=trained.folder / place, expected=expected_words, fix="restore the file")


def check_leaks(contents: Contents, folder: Path) -> None:
    """Refuse text files, made from ``folder``, that contain a Hub token or a path of a machine."""
    from huggingface_hub import get_token

    token = get_token()
    own = {str(Path.home()), str(Path.cwd()), str(folder.resolve()), tempfile.gettempdir()} - {"/"}
    for name in contents.files:
        if matches(name, BINARY):
            continue
        text = contents.read(name).decode("utf-8", errors="replace")
        if (token and token in text) or re.search(r"\bhf_[A-Za-z0-9]{30,}", text):
            raise UserError("contains a Hub token", file=folder / name, fix="remove it, and revoke it on the Hub")
        if name in VOCABULARY:
            continue
        for path in re.findall(r"(?<![\w./~-])(?<!:/)/[\w.@+-]+(?:/[\w.@+ -]+)+", text):
            known = any(path.startswith(f"{start}/") or path == start for start in own)
            if known or PRIVATE.match(path) or os.path.exists(path):
                fix = "train again from Hub ids"
                raise UserError(f"contains a path of a machine, {path!r}", file=folder / name, fix=fix)


def check_name(repo_id: str, option: str | None = "--repo_id") -> None:
    """Refuse a repository name that the Hub would not accept; ``option`` is the argument that gives it, None if it has no name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
        legal = repo_id.count("/") == 1
    except HFValidationError:
        legal = False
    if not legal:
        expected = "user/name with letters, digits, -, _ and ., at most 96 characters"
        raise UserError(f"{repo_id!r} is not a repository name", key=option, expected=expected)


def check_tag(tag: str | None) -> None:
    """Refuse a tag that git would not accept, or that is the name of the branch."""
    if tag is not None and (
        not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", tag) or ".." in tag or tag.endswith(".lock") or tag == "main"
    ):
        raise UserError(f"{tag!r} is not a tag name", key="--tag", expected="letters, digits, ., - and _, such as v1")


def check_access(
    repo_id: str, base: str | None, commit: str | None = None, *, option: str | None = "--repo_id"
) -> None:
    """Check that this login may write to ``repo_id``, and that the Hub has the base model's commit."""
    from huggingface_hub import HfApi, get_token

    check_name(repo_id, option)
    if not get_token():
        raise UserError("no Hub token", fix="run `hf auth login` or set HF_TOKEN; it is never an argument")
    api = HfApi()
    me = ask(api.whoami, repo_id)
    access = (me.get("auth") or {}).get("accessToken") or {}
    if access.get("role") == "read":
        fix = "create a token with write access, then run `hf auth login`"
        raise UserError("the Hub token is read-only", fix=fix)
    names = [me["name"], *(org["name"] for org in me.get("orgs", []) if org.get("roleInOrg") != "read")]
    namespace = repo_id.partition("/")[0]
    if namespace not in names:
        raise UserError(f"this login may not write to {namespace!r}", key=option, expected=" or ".join(names))
    if base:
        ask(lambda: api.model_info(base, revision=commit), base, commit)


def ask(work: Callable[[], Result], name: str, revision: str | None = None) -> Result:
    """Call ``work``, which asks the Hub about ``name``, with retries; a refusal becomes a UserError."""
    import httpx2
    from huggingface_hub import is_offline_mode

    if is_offline_mode():
        raise UserError("publishing needs the Hub, and HF_HUB_OFFLINE is set", file=name, fix="unset HF_HUB_OFFLINE")
    use_retrying_client()
    try:
        return with_retries(work, name)
    except (OSError, ValueError, RuntimeError, httpx2.HTTPError) as error:
        raise load_error(name, error, revision) from error
