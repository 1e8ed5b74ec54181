"""Upload a table with its card to a dataset repository of the Hub, in one commit that a repeated command completes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from common.cli.errors import UserError
from common.hub.card import CARD
from common.hub.package import Contents, ask, check_access
from common.hub.upload import Upload, files_at, is_same

KIND = "dataset"


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
        present = files_at(api, repo_id, str(info.sha), kind=KIND)
        if content is None or record not in present or not is_same(present[record], content):
            _check_content(repo_id, present, record)

    ask(look, f"datasets/{repo_id}")


class Table(Contents):
    """A table with its card, and a file that says which run made it."""

    kind = KIND
    owned = (CARD, "*.json", "data/*.parquet")
    ours = re.compile("Publish annotations of a model")
    title = "Publish annotations of a model"


def publish_table(table: Table, repo_id: str, record: str, *, private: bool) -> tuple[str, bool]:
    """Commit a table unless the repository has it; return the commit that holds it, and whether it is new.

    Whenever it fails, the repository is unchanged or complete, and calling this again does only what is missing. What its owner
    has written into the card since stays.
    """
    from huggingface_hub import HfApi

    def check(api: Any, repo_id: str, head: str, present: Mapping[str, Any]) -> None:
        _check_content(repo_id, present, record)

    upload = Upload(table, repo_id, private=private, check=check)

    def run() -> str:
        return _published(HfApi(), table, repo_id, private=private) or upload.run()

    return ask(run, f"datasets/{repo_id}"), upload.new


def _published(api: Any, table: Table, repo_id: str, *, private: bool) -> str | None:
    """Return the last commit of a repository that has all files, and the table as it is here; None if there is none."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        info = api.dataset_info(repo_id)
    except RepositoryNotFoundError:
        return None
    _check_visibility(repo_id, info, private=private)
    present = files_at(api, repo_id, str(info.sha), kind=KIND)
    complete = all(
        path in present and (path == CARD or is_same(present[path], table.files[path])) for path in table.files
    )
    return str(info.sha) if complete else None


def _check_visibility(repo_id: str, info: Any, *, private: bool) -> None:
    if private and not info.private:
        fix = "choose another name, make it private on the Hub, or add --public if everybody may read the posts"
        raise UserError("the repository is public already", file=f"datasets/{repo_id}", fix=fix)


def _check_content(repo_id: str, present: Mapping[str, Any], record: str) -> None:
    """Refuse to touch what another run, or somebody else, has put into a repository."""
    if not set(present) <= {".gitattributes"}:
        what = "another annotation" if record in present else "files of others"
        fix = "choose another name, or delete its files on the Hub"
        raise UserError(
            f"the repository holds {what}", file=f"datasets/{repo_id}", expected="a new or empty one", fix=fix
        )
