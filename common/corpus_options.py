"""The arguments that name a corpus in both projects: a folder of official files, a Hub dataset, or neither: the miniature."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.arguments import option
from common.errors import UserError


@dataclass(kw_only=True)
class CorpusOptions:
    """Where a corpus is read from; each project adds how."""

    data_dir: Path | None = option(
        None, "folder of the official files; without a corpus, the miniature", instead_of="dataset_name"
    )
    dataset_name: str | None = option(None, "Hub dataset instead", instead_of="data_dir")
    dataset_revision: str | None = option(None, "its branch, tag or commit")

    def __post_init__(self) -> None:
        if self.data_dir is not None and self.dataset_name is not None:
            raise UserError(
                "two corpora were given", key="data_dir", expected="data_dir or dataset_name", fix="drop one"
            )
        if self.data_dir is not None and not Path(self.data_dir).is_dir():
            raise UserError("no such folder", file=self.data_dir, expected="the corpus's official files")

    def words(self) -> list[str]:
        """The arguments that name this corpus, for another command; the miniature needs none."""
        given = {
            "data_dir": self.data_dir,
            "dataset_name": self.dataset_name,
            "dataset_revision": self.dataset_revision,
        }
        return [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]

    @property
    def on_miniature(self) -> bool:
        return self.data_dir is None and self.dataset_name is None

    def folder(self, name: str) -> Path | None:
        """``data_dir``, or the miniature's corpus of that name; None where a Hub dataset is meant."""
        if not self.on_miniature:
            return self.data_dir
        from common.miniature import corpora

        return corpora.build() / name
