"""Let the miniature's invented people label a file: ``python -m sbic_llama.miniature.people to_label.xlsx --output labeled.xlsx``.

They stand in for the people of a real project, so that the whole loop of drawing, labeling and estimating can be tried out. With
``--posts``, the posts of the miniature's own question are written in the format of that file, such as Excel's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.cli.arguments import option, parse
from common.cli.console import log
from common.cli.errors import UserError, counted, run
from common.miniature.cache import SEED
from common.tables.reading import read_rows, text_of
from common.tables.writing import write_rows
from sbic_llama.miniature.other_files import TASK_COLUMNS, TASK_LABELED, TASK_ROUND, draw_task

QUESTION = "complaint"
MODULE = "sbic_llama.miniature.people"


@dataclass(kw_only=True)
class PeopleArguments:
    """Fills in the column "complaint" of a file that sbic_llama.sample wrote, as most of the invented people would."""

    to_label: tuple[str, ...] = option((), "file with the column of ids and an empty column of labels", positional=True)
    output: Path | None = option(None, "file for the labeled rows")
    posts: Path | None = option(None, "write the posts of the miniature's own question to this file instead")

    def __post_init__(self) -> None:
        if self.posts is None and (len(self.to_label) != 1 or self.output is None):
            raise UserError("nothing to do", expected="a file to label and --output, or --posts")


def labeled(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file with a label for each."""
    labels = {str(post["id"]): Counter(given.values()).most_common(1)[0][0] for post, given in draw_task(SEED)}
    rows = []
    for row in read_rows(path, ("id", QUESTION)):
        if (label := labels.get(text_of(row, "id") or "")) is None:
            raise row.error("no post of the miniature's", "id", expected="an id of its own question")
        rows.append(row.values | {QUESTION: label})
    return rows


def main() -> None:
    arguments = parse(
        PeopleArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} to_label.xlsx --output labeled.xlsx",
    )
    if arguments.posts is not None:
        posts = [post for post, _ in draw_task(SEED)][TASK_LABELED:-TASK_ROUND]
        write_rows(arguments.posts, [{column: post[column] for column in TASK_COLUMNS} for post in posts])
        log(f"{counted(len(posts), 'post')}: {arguments.posts}")
        return
    rows = labeled(Path(arguments.to_label[0]))
    write_rows(arguments.output, rows)
    log(f"{counted(len(rows), 'label')}: {arguments.output}")


if __name__ == "__main__":
    run(main)
