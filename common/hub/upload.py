"""Upload a package to the Hub in one commit, tag it, and continue after failures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from common.cli.console import log, stage
from common.cli.errors import UserError
from common.hub.package import ALLOWED, BINARY, RENDERED, Package, ask, matches
from common.results.record import TRAINING_FILE
from common.runtime.project import PROJECTS


def publish(package: Package, repo_id: str, *, private: bool, tag: str | None) -> tuple[str, bool]:
    """Commit the files that differ, then set the tag; return the commit that holds the package, and whether it is new.

    Files of an earlier publication that the package lacks are deleted in the same commit. Whenever it fails, the repository
    is unchanged or complete, and calling this again does only what is missing. Errors say what was done until then.
    """
    upload = Upload(package, repo_id, private=private, tag=tag)
    try:
        return ask(upload.run, repo_id), upload.new
    except UserError as error:
        if upload.commit and tag:
            error.problem = f"commit {upload.commit[:12]} is published, but not its tag {tag!r}: {error.problem}"
            error.fix = "repeat the command: it uploads nothing and sets the tag"
        raise


class Upload:
    """What one command does to a repository. It can run again after a failure with unknown effects."""

    def __init__(self, package: Package, repo_id: str, *, private: bool, tag: str | None):
        from huggingface_hub import HfApi

        self.api = HfApi()
        self.package, self.repo_id, self.private, self.tag = package, repo_id, private, tag
        self.start: str | None = None  # the last commit on main when the command began
        self.commit: str | None = None  # the commit that holds the package, once there is one
        self.new = False  # whether this command made it

    def run(self) -> str:
        """Do what is missing, and return the commit that holds the package."""
        self.api.create_repo(self.repo_id, private=self.private, exist_ok=True)
        info = self.api.model_info(self.repo_id)
        if self.private and not info.private:
            fix = "make it private on the Hub, or choose another name"
            raise UserError("the repository is public already", file=self.repo_id, fix=fix)
        head = str(info.sha)
        if self.start is None:
            self.start = head
            if info.private and not self.private:
                log(f"{self.repo_id} existed and stays private")
        tags = {tag.name: tag.target_commit for tag in self.api.list_repo_refs(self.repo_id).tags}
        if self.tag in tags:
            if not holds(self.files(tags[self.tag]), self.package):
                problem = f"the tag {self.tag!r} already marks another version"
                raise UserError(problem, key="--tag", expected="a new tag", fix="nothing was changed")
            return tags[self.tag]  # main may have moved on, and is left alone
        present = self.files(head)
        if holds(present, self.package):
            self.commit, self.new = head, head != self.start  # the response to our own commit may have been lost
        elif head != self.start:
            fix = "look at it on the Hub, then repeat the command"
            raise UserError("somebody else has committed in the meantime", file=self.repo_id, fix=fix)
        else:
            check_repository(self.api, self.repo_id, head, present)
            with stage(f"publishing to {self.repo_id}"):
                self.commit, self.new = self._commit(present), True
        if self.tag:
            self.api.create_tag(self.repo_id, tag=self.tag, revision=self.commit)
        return self.commit

    def files(self, revision: str) -> dict[str, Any]:
        """Return the Hub's entries of a revision's files, by path."""
        from huggingface_hub.hf_api import RepoFile

        entries = self.api.list_repo_tree(self.repo_id, recursive=True, revision=revision)
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

    def _commit(self, present: Collection[str]) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        additions = [CommitOperationAdd(path, content) for path, content in sorted(self.package.files.items())]
        for addition in additions:
            if matches(addition.path_in_repo, BINARY):
                # One at a time: the client uploads several in threads, and Ctrl-C would wait for the last of them.
                self.api.preupload_lfs_files(self.repo_id, [addition])
        obsolete = [path for path in present if path not in self.package.files and matches(path, (*ALLOWED, *RENDERED))]
        facts = self.package.trained.facts
        return self.api.create_commit(
            self.repo_id,
            [*additions, *map(CommitOperationDelete, obsolete)],
            commit_message=f"Publish {facts['kind']} trained on {facts['date']}",
            parent_commit=self.start,  # somebody else's commit in between is an error, and is not overwritten
        ).oid


def check_repository(api: Any, repo_id: str, commit: str, files: Collection[str]) -> None:
    """Refuse to replace files that this project did not publish."""
    if set(files) <= {".gitattributes"}:
        return
    ours = TRAINING_FILE in files
    if ours:
        path = Path(api.hf_hub_download(repo_id, TRAINING_FILE, revision=commit))
        try:
            ours = json.loads(path.read_text(encoding="utf-8"))["project"] in PROJECTS
        except (ValueError, KeyError, TypeError):
            ours = False
    if not ours:
        problem = "the repository has files that this project did not publish"
        expected = "a new or empty repository, or an earlier publication"
        raise UserError(problem, file=repo_id, expected=expected, fix="choose another --repo_id")


def holds(present: Mapping[str, Any], package: Package) -> bool:
    """Return whether a repository has exactly the package's files, byte for byte; files that are never published don't count."""
    from huggingface_hub.utils import sha

    if {path for path in present if matches(path, (*ALLOWED, *RENDERED))} != set(package.files):
        return False
    for path in package.files:
        data, entry = package.read(path), present[path]
        digest = hashlib.sha256(data).hexdigest() if entry.lfs else sha.git_hash(data)
        if digest != (entry.lfs.sha256 if entry.lfs else entry.blob_id):
            return False
    return True
