"""A package's way into a repository of the Hub: looked at, uploaded, committed, tagged; and again where the Hub fails."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from common.cli.console import log, stage
from common.cli.errors import UserError
from common.hub.package import ALLOWED, BINARY, RENDERED, Package, ask
from common.results.training_record import TRAINING_FILE
from common.runtime.project import PROJECTS


def publish(package: Package, repo_id: str, *, private: bool, tag: str | None) -> tuple[str, bool]:
    """One commit with the package's files, where they differ from what is there, then the tag.

    Returns:
        The commit that holds them, and whether it is new.

    Files of an earlier publication that the package no longer has are deleted in the same commit. Whatever fails, and whenever,
    the repository is as it was or complete, and the same package again does only what is missing.

    Raises:
        UserError: A public repository where a private one was asked for, one that holds something else, a tag of another version,
            somebody else's commit in between, or the Hub refuses. What happened until then is said.
        HubFailed: The Hub failed again and again. What happened until then is said.
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
    """What a command does to a repository. It can be run again after a failure, of which nobody knows what it has left.

    Attributes:
        found: The last commit on main when the command began.
        commit: The commit that holds the package, once one does.
        new: Whether this command made it.
    """

    def __init__(self, package: Package, repo_id: str, *, private: bool, tag: str | None):
        from huggingface_hub import HfApi

        self.api = HfApi()
        self.package, self.repo_id, self.private, self.tag = package, repo_id, private, tag
        self.found: str | None = None
        self.commit: str | None = None
        self.new = False

    def run(self) -> str:
        """Does what is missing, and returns the commit that holds the package."""
        self.api.create_repo(self.repo_id, private=self.private, exist_ok=True)
        info = self.api.model_info(self.repo_id)
        if self.private and not info.private:
            raise UserError(
                "it is public already", file=self.repo_id, fix="make it private on the Hub, or choose another name"
            )
        head = str(info.sha)
        if self.found is None:
            self.found = head
            if info.private and not self.private:
                log(f"{self.repo_id} existed already and stays private")
        tags = {one.name: one.target_commit for one in self.api.list_repo_refs(self.repo_id).tags}
        if self.tag in tags:
            if not holds(self.files(tags[self.tag]), self.package):
                raise UserError(
                    f"the tag {self.tag!r} stands for another version already",
                    key="--tag",
                    expected="a new tag",
                    fix="nothing was changed",
                )
            return tags[self.tag]  # main may have moved on since, and is left alone
        there = self.files(head)
        if holds(there, self.package):
            self.commit, self.new = head, head != self.found  # of our own commit the answer may have been lost
        elif head != self.found:
            raise UserError(
                "a commit has happened since, which is not ours", file=self.repo_id, fix="see what it is, then repeat"
            )
        else:
            check_repository(self.api, self.repo_id, head, there)
            with stage(f"publishing to {self.repo_id}"):
                self.commit, self.new = self._commit(there), True
        if self.tag:
            self.api.create_tag(self.repo_id, tag=self.tag, revision=self.commit)
        return self.commit

    def files(self, revision: str) -> dict[str, Any]:
        """Path → the Hub's entry of a file, at a revision."""
        from huggingface_hub.hf_api import RepoFile

        entries = self.api.list_repo_tree(self.repo_id, recursive=True, revision=revision)
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

    def _commit(self, there: Collection[str]) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        additions = [CommitOperationAdd(path, content) for path, content in sorted(self.package.files.items())]
        for addition in additions:
            if matches(addition.path_in_repo, BINARY):
                # One by one: several the client sends from threads, and Ctrl-C would wait until the last has its answer.
                self.api.preupload_lfs_files(self.repo_id, [addition])
        gone = [path for path in there if path not in self.package.files and matches(path, (*ALLOWED, *RENDERED))]
        facts = self.package.trained.facts
        return self.api.create_commit(
            self.repo_id,
            [*additions, *(CommitOperationDelete(path) for path in gone)],
            commit_message=f"Publish {facts['kind']} trained on {facts['date']}",
            parent_commit=self.found,  # somebody else's commit in between is an error, not undone
        ).oid


def check_repository(api: Any, repo_id: str, commit: str, files: Collection[str]) -> None:
    """Checks that a repository is empty, or was published by this project: nobody else's files are replaced.

    Raises:
        UserError: It holds something else.
    """
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
        raise UserError(
            "it holds something that this project did not publish",
            file=repo_id,
            expected="a new or empty repository, or one of an earlier publication",
            fix="choose another --repo_id",
        )


def holds(there: Mapping[str, Any], package: Package) -> bool:
    """Whether a repository's files are the package's, byte for byte, and no others that a publication makes."""
    from huggingface_hub.utils import sha

    if {path for path in there if matches(path, (*ALLOWED, *RENDERED))} != set(package.files):
        return False
    for path, content in package.files.items():
        data = content if isinstance(content, bytes) else content.read_bytes()
        entry = there[path]
        digest = hashlib.sha256(data).hexdigest() if entry.lfs else sha.git_hash(data)
        if digest != (entry.lfs.sha256 if entry.lfs else entry.blob_id):
            return False
    return True


def matches(path: str, patterns: Collection[str]) -> bool:
    """Whether a path is one of those that the patterns stand for."""
    return any(fnmatch.fnmatch(path, pattern) for pattern in patterns)
