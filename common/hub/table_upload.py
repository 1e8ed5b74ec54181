"""Upload a table with its card to a dataset repository of the Hub, in one commit that a repeated command completes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.cli.console import log, stage
from common.cli.errors import UserError
from common.hub.package import ask, check_access
from common.hub.upload import files_at

KIND = "dataset"
Files = Mapping[str, Path | bytes]  # by path in the repository


def check_dataset(repo_id: str, record: str, content: bytes | None, *, private: bool, option: str) -> None:
    """Check that this login may upload to a repository that is new, empty, or holds the file ``record`` with that content.

    ``option`` is the argument that names the repository.

    Raises:
        UserError: It may not, or the repository holds something else, or is public where ``private`` is asked for.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    check_access(repo_id, None, option=option)
    api = HfApi()

    def look() -> None:
        try:
            info = api.dataset_info(repo_id)
        except RepositoryNotFoundError:
            return
        _check_visibility(repo_id, info, private=private)
        files = {record: content} if content is not None else {}
        _check_content(repo_id, files_at(api, repo_id, str(info.sha), kind=KIND), files, record)

    ask(look, f"datasets/{repo_id}")


def publish_table(files: Files, repo_id: str, record: str, *, private: bool) -> tuple[str, bool]:
    """Commit the files that differ; return the commit that holds them all, and whether it is new.

    Whenever it fails, the repository is unchanged or complete, and calling this again does only what is missing.
    """
    upload = _Upload(files, repo_id, record, private=private)
    return ask(upload.run, f"datasets/{repo_id}"), upload.new


class _Upload:
    """What one command does to a repository. It can run again after a failure with unknown effects."""

    def __init__(self, files: Files, repo_id: str, record: str, *, private: bool):
        from huggingface_hub import HfApi

        self.api = HfApi()
        self.files, self.repo_id, self.record, self.private = files, repo_id, record, private
        self.start: str | None = None  # the last commit on main when the command began
        self.new = False  # whether this command made the commit

    def run(self) -> str:
        self.api.create_repo(self.repo_id, repo_type=KIND, private=self.private, exist_ok=True)
        info = self.api.dataset_info(self.repo_id)
        _check_visibility(self.repo_id, info, private=self.private)
        head = str(info.sha)
        if self.start is None:
            self.start = head
            if info.private and not self.private:
                log(f"{self.repo_id} existed and stays private")
        present = files_at(self.api, self.repo_id, head, kind=KIND)
        if all(path in present and _same(present[path], content) for path, content in self.files.items()):
            self.new = head != self.start  # the response to our own commit may have been lost
            return head
        if head != self.start:
            fix = "look at it on the Hub, then repeat the command"
            raise UserError("somebody else has committed in the meantime", file=f"datasets/{self.repo_id}", fix=fix)
        _check_content(self.repo_id, present, self.files, self.record)
        with stage(f"publishing to datasets/{self.repo_id}"):
            commit = self._commit()
        self.new = True
        return commit

    def _commit(self) -> str:
        from huggingface_hub import CommitOperationAdd

        additions = [CommitOperationAdd(path, content) for path, content in sorted(self.files.items())]
        # First the large files: what has arrived is not sent again.
        self.api.preupload_lfs_files(self.repo_id, [each for each in additions if _is_table(each)], repo_type=KIND)
        return self.api.create_commit(
            self.repo_id,
            additions,
            repo_type=KIND,
            commit_message="Publish annotations of a model",
            parent_commit=self.start,  # somebody else's commit in between is an error, and is not overwritten
        ).oid


def _is_table(addition: Any) -> bool:
    return addition.path_in_repo.endswith(".parquet")


def _check_visibility(repo_id: str, info: Any, *, private: bool) -> None:
    if private and not info.private:
        fix = "choose another name, make it private on the Hub, or add --public if everybody may read the posts"
        raise UserError("the repository is public already", file=f"datasets/{repo_id}", fix=fix)


def _check_content(repo_id: str, present: Mapping[str, Any], files: Files, record: str) -> None:
    """Refuse to touch what another run, or somebody else, has put into a repository."""
    if set(present) <= {".gitattributes"}:
        return
    if record in present and record in files and _same(present[record], files[record]):
        return
    what = "another annotation" if record in present else "files of others"
    fix = "choose another name, or delete its files on the Hub"
    raise UserError(f"the repository holds {what}", file=f"datasets/{repo_id}", expected="a new or empty one", fix=fix)


def _same(entry: Any, content: Path | bytes) -> bool:
    """Return whether the Hub has these bytes."""
    from huggingface_hub.utils import sha

    if entry.lfs is None:
        return entry.blob_id == sha.git_hash(content if isinstance(content, bytes) else content.read_bytes())
    if isinstance(content, bytes):
        return entry.lfs.sha256 == hashlib.sha256(content).hexdigest()
    with open(content, "rb") as file:
        return entry.lfs.sha256 == hashlib.file_digest(file, "sha256").hexdigest()
