"""Publishing a trained model to the Hub: everything is checked first, then one commit, then a tag."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.card import CARD, Trained, read_trained
from common.errors import UserError, shown
from common.evaluation import EVALUATION, RECORD
from common.findings import KEPT
from common.loading import MINIATURE, unloadable
from common.projects import PROJECTS, Publication, publication_of
from common.stages import say, stage
from common.training_file import TRAINING_FILE

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
    with asking(repo_id):
        me = api.whoami()
    access = (me.get("auth") or {}).get("accessToken") or {}
    if access.get("role") == "read":
        raise UserError("the Hub token may only read", fix="make a token with the role write, then `hf auth login`")
    names = [me["name"], *(org["name"] for org in me.get("orgs", []) if org.get("roleInOrg") != "read")]
    namespace = repo_id.partition("/")[0]
    if namespace not in names:
        raise UserError(f"this login may not write to {namespace!r}", key="--repo_id", expected=" or ".join(names))
    if base:
        with asking(base):
            api.model_info(base)


def publish(package: Package, repo_id: str, *, private: bool, tag: str | None) -> tuple[str, bool]:
    """One commit with the package's files, where they differ from what is there, then the tag.

    Returns:
        The commit that holds them, and whether it is new.

    Files of an earlier publication that the package no longer has are deleted in the same commit. The same package again
    changes nothing and uploads nothing.

    Raises:
        UserError: A public repository where a private one was asked for, one that holds something else, a tag of another version;
            the Hub refuses, or can't be reached. What happened until then is said.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    with asking(repo_id):
        api.create_repo(repo_id, private=private, exist_ok=True)
        info = api.model_info(repo_id)
        before = str(info.sha)
        if private and not info.private:
            raise UserError(
                "it is public already", file=repo_id, fix="make it private on the Hub, or choose another name"
            )
        if info.private and not private:
            say(f"{repo_id} existed already and stays private")
        tags = {one.name: one.target_commit for one in api.list_repo_refs(repo_id).tags}
        if tag in tags:
            if not _same(api, repo_id, package, tags[tag]):
                raise UserError(
                    f"the tag {tag!r} stands for another version already",
                    key="--tag",
                    expected="a new tag",
                    fix="nothing was changed",
                )
            return tags[tag], False  # main may have moved on since, and is left alone
        there = api.list_repo_files(repo_id, revision=before)
        check_repository(api, repo_id, before, there)
        operations: list[Any] = [
            CommitOperationAdd(path_in_repo=path, path_or_fileobj=content)
            for path, content in sorted(package.files.items())
        ]
        operations += [
            CommitOperationDelete(path_in_repo=path) for path in there if path not in package.files and _ours(path)
        ]
        with stage(f"publishing to {repo_id}"):
            title = f"Publish {package.trained.facts['kind']} trained on {package.trained.facts['date']}"
            # Made for the state that was looked at: somebody else's commit in between is an error, not undone.
            commit = api.create_commit(repo_id, operations, commit_message=title, parent_commit=before).oid
    if tag:
        try:
            with asking(repo_id):
                api.create_tag(repo_id, tag=tag, revision=commit)
        except UserError as error:
            error.problem = f"commit {commit[:12]} is published, but not its tag {tag!r}: {error.problem}"
            error.fix = "repeat the command: it uploads nothing and sets the tag"
            raise
    return commit, commit != before


def check_repository(api: Any, repo_id: str, commit: str, files: Collection[str]) -> None:
    """Checks that a repository is empty, or was published by this project: nobody else's files are replaced.

    Raises:
        UserError: It holds something else.
    """
    from huggingface_hub.errors import EntryNotFoundError

    if set(files) <= {".gitattributes"}:
        return
    try:
        facts = json.loads(
            Path(api.hf_hub_download(repo_id, TRAINING_FILE, revision=commit)).read_text(encoding="utf-8")
        )
        ours = facts["project"] in PROJECTS
    except (OSError, ValueError, KeyError, TypeError, EntryNotFoundError):
        ours = False
    if not ours:
        raise UserError(
            "it holds something that this project did not publish",
            file=repo_id,
            expected="a new or empty repository, or one of an earlier publication",
            fix="choose another --repo_id",
        )


def _ours(path: str) -> bool:
    return any(fnmatch.fnmatch(path, pattern) for pattern in (*ALLOWED, *RENDERED))


def _same(api: Any, repo_id: str, package: Package, revision: str) -> bool:
    """Whether a revision holds the package's files and no others of ours."""
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils import sha

    there = {
        e.path: e for e in api.list_repo_tree(repo_id, recursive=True, revision=revision) if isinstance(e, RepoFile)
    }
    if {path for path in there if _ours(path)} != set(package.files):
        return False
    for path, content in package.files.items():
        data = content if isinstance(content, bytes) else content.read_bytes()
        entry = there[path]
        digest = hashlib.sha256(data).hexdigest() if entry.lfs else sha.git_hash(data)
        if digest != (entry.lfs.sha256 if entry.lfs else entry.blob_id):
            return False
    return True


@contextlib.contextmanager
def asking(name: str) -> Iterator[None]:
    """Turns what the Hub's client raises in the block into the user's error about ``name``."""
    import httpx2

    try:
        yield
    except (OSError, ValueError, httpx2.HTTPError) as error:
        raise unloadable(name, error) from error
