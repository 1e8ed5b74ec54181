"""Upload a package to the Hub in one commit, tag it, and continue after failures."""

from __future__ import annotations

import gc
import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from common.cli.console import log, stage
from common.cli.errors import UserError, shown
from common.cli.options import TrainingOptions
from common.hub.package import BINARY, Contents, Package, ask, check_access, check_base, matches
from common.models.retry import HubFailed
from common.results.record import TRAINING_FILE
from common.results.scoring import RECORD
from common.runtime import hardware
from common.runtime.files import loads
from common.runtime.processes import is_first
from common.runtime.project import PROJECTS

# Refuses to replace what a repository holds: called with the client, the repository, its last commit, and the files there.
Check = Callable[[Any, str, str, Mapping[str, Any]], None]
# Prefixes of what a launcher sets.
LAUNCHED = ("RANK", "LOCAL_", "WORLD_SIZE", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_", "ACCELERATE_")


def publish(
    package: Package, repo_id: str, *, private: bool, tag: str | None, overwrite: bool = False
) -> tuple[str, bool]:
    """Commit the files that differ, then set the tag; return the commit that holds the package, and whether it is new.

    Files of an earlier publication that the package lacks are deleted in the same commit. Whenever it fails, the repository
    is unchanged or complete, and calling this again does only what is missing. Errors say what was done until then. With
    ``overwrite``, anything may have been in the repository.
    """

    def check(api: Any, repo_id: str, head: str, present: Mapping[str, Any]) -> None:
        check_repository(api, repo_id, head, present, package.trained.facts)

    upload = Upload(package, repo_id, private=private, tag=tag, check=None if overwrite else check)
    try:
        return ask(upload.run, repo_id), upload.new
    except UserError as error:
        if upload.commit and tag:
            error.problem = f"commit {upload.commit[:12]} is published, but not its tag {tag!r}: {error.problem}"
            error.fix = "repeat the command: it uploads nothing and sets the tag"
        raise


class Upload:
    """What one command does to a repository. It can run again after a failure with unknown effects."""

    def __init__(
        self, package: Contents, repo_id: str, *, private: bool, tag: str | None = None, check: Check | None
    ) -> None:
        from huggingface_hub import HfApi

        self.api = HfApi()
        self.package, self.repo_id, self.private, self.tag = package, repo_id, private, tag
        self.check = check  # None where anything may be replaced
        self.start: str | None = None  # the last commit on main when the command began
        self.commit: str | None = None  # the commit that holds the package, once there is one
        self.new = False  # whether this command made it

    def run(self) -> str:
        """Do what is missing, and return the commit that holds the package."""
        kind = self.package.kind
        sdk = "gradio" if kind == "space" else None
        self.api.create_repo(self.repo_id, repo_type=kind, space_sdk=sdk, private=self.private, exist_ok=True)
        info = self.api.repo_info(self.repo_id, repo_type=kind)
        if self.private and not info.private:
            fix = "make it private on the Hub, or choose another name"
            raise UserError("the repository is public already", file=self.repo_id, fix=fix)
        head = str(info.sha)
        if self.start is None:
            self.start = head
            if info.private and not self.private:
                log(f"{self.repo_id} existed and stays private")
        refs = self.api.list_repo_refs(self.repo_id, repo_type=kind)
        tags = {tag.name: tag.target_commit for tag in refs.tags}
        if self.tag in tags:
            if not holds(files_at(self.api, self.repo_id, tags[self.tag], kind), self.package):
                problem = f"the tag {self.tag!r} already marks another version"
                raise UserError(problem, key="--tag", expected="a new tag", fix="nothing was changed")
            return tags[self.tag]  # main may have moved on, and is left alone
        present = files_at(self.api, self.repo_id, head, kind)
        if holds(present, self.package):
            self.commit, self.new = head, head != self.start  # the response to our own commit may have been lost
        elif head != self.start:
            fix = "look at it on the Hub, then repeat the command"
            raise UserError("somebody else has committed in the meantime", file=self.repo_id, fix=fix)
        else:
            if self.check:
                self.check(self.api, self.repo_id, head, present)
            with stage(f"publishing to {self.repo_id}"):
                self.commit, self.new = self._commit(present), True
        if self.tag:
            self.api.create_tag(self.repo_id, tag=self.tag, revision=self.commit, repo_type=kind)
        return self.commit

    def _commit(self, present: Mapping[str, Any]) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        additions = [CommitOperationAdd(path, content) for path, content in sorted(self.package.files.items())]
        for addition in additions:
            if matches(addition.path_in_repo, BINARY):
                # One at a time: the client uploads several in threads, and Ctrl-C would wait for the last of them.
                self.api.preupload_lfs_files(self.repo_id, [addition], repo_type=self.package.kind)
        obsolete = [path for path in present if path not in self.package.files and matches(path, self.package.owned)]
        return self.api.create_commit(
            self.repo_id,
            [*additions, *map(CommitOperationDelete, obsolete)],
            repo_type=self.package.kind,
            commit_message=self.package.title,
            parent_commit=self.start,  # somebody else's commit in between is an error, and is not overwritten
        ).oid


def files_at(api: Any, repo_id: str, revision: str, kind: str = "model") -> dict[str, Any]:
    """Return the Hub's entries of a revision's files, by path."""
    from huggingface_hub.hf_api import RepoFile

    entries = api.list_repo_tree(repo_id, recursive=True, revision=revision, repo_type=kind)
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def check_target(
    repo_id: str, facts: Mapping[str, Any], package: Package | None = None, tag: str | None = None
) -> None:
    """Check that the model of these facts may replace what is in a repository; it need not exist.

    Nothing is replaced if the files of ``package`` are there already, or if the repository has the tag.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi()

    def look() -> None:
        try:
            head = str(api.model_info(repo_id).sha)
        except RepositoryNotFoundError:
            return
        present = files_at(api, repo_id, head)
        tagged = tag and any(each.name == tag for each in api.list_repo_refs(repo_id).tags)
        if not tagged and (package is None or not holds(present, package)):
            check_repository(api, repo_id, head, present, facts)

    ask(look, repo_id)


def check_repository(api: Any, repo_id: str, head: str, present: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Refuse to replace what this project did not publish, another model, or changes since the last publication."""
    if set(present) <= {".gitattributes"}:
        return
    fix = "choose another --repo_id, or replace it with --overwrite (in a training, --hub_overwrite)"
    there = which_model(_published_facts(api, repo_id, head)) if TRAINING_FILE in present else {}
    if there.get("project") not in PROJECTS:
        problem = "the repository has files that this project did not publish"
        raise UserError(problem, file=repo_id, expected="a new or empty repository, or an earlier publication", fix=fix)
    for key, value in which_model(facts).items():
        if there[key] != value:
            problem = f"the repository holds another model: its {key} is {shown(there[key])}"
            raise UserError(problem, file=repo_id, expected=shown(value), fix=fix)
    check_unchanged(api, repo_id, head, present, Package)


def check_unchanged(api: Any, repo_id: str, head: str, present: Mapping[str, Any], contents: type[Contents]) -> None:
    """Refuse to replace what was changed on the Hub since the last publication of such contents."""
    in_training = " (in a training, --hub_overwrite)" if contents is Package else ""
    fix = f"keep a copy of what you need, then replace it with --overwrite{in_training}"
    commits = api.list_repo_commits(repo_id, revision=head, repo_type=contents.kind)
    last = next((commit.commit_id for commit in commits if contents.ours.match(commit.title)), None)
    if last is None:
        problem = "no commit of the repository is a publication, so changes made on the Hub cannot be told from it"
        raise UserError(problem, file=repo_id, fix=fix)
    before, now = (
        {(path, entry.blob_id) for path, entry in files.items() if matches(path, contents.owned)}
        for files in (files_at(api, repo_id, last, contents.kind), present)
    )
    if before != now:
        path, _ = min(before ^ now)
        problem = f"{path} was changed on the Hub since the last publication (commit {last[:12]})"
        raise UserError(problem, file=repo_id, fix=fix)


def which_model(facts: Any) -> dict[str, Any]:
    """Return what tells a model from others, of its training record; empty if that says too little."""
    try:
        base = facts["base"]["name"]
        return {key: facts.get(key) for key in ("project", "kind", "feature")} | {"base model": base}
    except (KeyError, TypeError, AttributeError):
        return {}


def _published_facts(api: Any, repo_id: str, commit: str) -> Any:
    path = Path(api.hf_hub_download(repo_id, TRAINING_FILE, revision=commit))
    try:
        return loads(path.read_bytes())
    except ValueError:
        return None


def holds(present: Mapping[str, Any], package: Contents) -> bool:
    """Return whether a repository has exactly the package's files, byte for byte; files that are never published don't count."""
    if {path for path in present if matches(path, package.owned)} != set(package.files):
        return False
    return all(is_same(present[path], content) for path, content in package.files.items())


def is_same(entry: Any, content: Path | bytes) -> bool:
    """Return whether an entry of the Hub has these bytes."""
    from huggingface_hub.utils import sha

    if entry.lfs is None:
        return entry.blob_id == sha.git_hash(content if isinstance(content, bytes) else content.read_bytes())
    if isinstance(content, bytes):
        return entry.lfs.sha256 == hashlib.sha256(content).hexdigest()
    with open(content, "rb") as file:
        return entry.lfs.sha256 == hashlib.file_digest(file, "sha256").hexdigest()


def check_publishing(options: TrainingOptions, facts: Mapping[str, Any]) -> None:
    """Check before hours of training that its result can be published, if ``push_to_hub`` is set.

    ``facts`` are those of its record that say which model it is.
    """
    if options.push_to_hub:
        check_base(facts["base"]["name"], facts["base"]["commit"])
        check_access(str(options.hub_model_id), facts["base"]["name"], facts["base"]["commit"], option="--hub_model_id")
        if not options.hub_overwrite:
            check_target(str(options.hub_model_id), facts)


def publish_if_asked(options: TrainingOptions, folder: Path, evaluate: Sequence[str], corpus: Sequence[str]) -> None:
    """Evaluate a finished run, unless that was done, and publish it, if ``push_to_hub`` is set; in one process only.

    Both steps are the commands that a user would type, in processes of their own, so that the model's memory is free.
    ``evaluate`` is the evaluation's module and arguments; ``corpus``, the arguments that name the corpus.
    """
    if not options.push_to_hub or not is_first():
        return
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    publish = ["common.hub", "publish", str(folder), "--repo_id", str(options.hub_model_id), *corpus]
    publish += ["--private"] * options.hub_private + ["--overwrite"] * options.hub_overwrite
    environment = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHED)}
    if "ACCELERATE_USE_CPU" in os.environ:
        environment["ACCELERATE_USE_CPU"] = os.environ["ACCELERATE_USE_CPU"]
    if hardware.device_type() == "cuda":  # one process uses one GPU
        environment["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
    for command in ([] if (folder / RECORD).is_file() else [[*evaluate, *corpus]]) + [publish]:
        log(f"python -m {shlex.join(command)}")
        if status := subprocess.run([sys.executable, "-m", *command], env=environment).returncode:
            kind = HubFailed if status == HubFailed.exit_status else UserError
            fix = f"repeat python -m {shlex.join(command)}"
            raise kind("the model is trained and saved, but this step failed", file=folder, fix=fix)
