"""One self-contained HTML page made from run records: ``python -m common.report --records FOLDER --output report.html``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.cli.arguments import option, parse
from common.cli.errors import UserError, run
from common.results.finding import FOLDER, read_findings
from common.results.record import read_record
from common.results.rendering import (
    by_task,
    lines,
    markdown_lines,
    of_task,
    sentence,
    table_lines,
    write_report,
)


@dataclass
class ReportArguments:
    """Prints the tables of a folder of run records, and makes one HTML page of them, and of the findings beside them, that needs no
    network."""

    records: Path = option(help="folder of run records (*.json)")
    output: Path | None = option(None, "page to write")
    title: str = option("Results", "heading of the page")
    markdown: bool = option(False, "print the tables as Markdown, as the READMEs show them")


def main() -> None:
    arguments = parse(
        ReportArguments,
        prog="python -m common.report",
        examples="  python -m common.report --records output/demo/records --output output/demo/report.html",
    )
    if not arguments.records.is_dir():
        raise UserError("no such folder", file=arguments.records, expected="a folder of run records")
    records = [read_record(path) for path in sorted(arguments.records.glob("*.json"))]
    if not records:
        raise UserError(
            "no run records", file=arguments.records, expected="*.json of an evaluation", fix="evaluate a model first"
        )
    found = read_findings(arguments.records / FOLDER)
    if arguments.output:
        write_report(records, arguments.output, arguments.title, found)
    for group in by_task(records):
        print("\n".join(markdown_lines(group) if arguments.markdown else table_lines(group)), end="\n\n")
        for finding in of_task(found, group[0].task):
            print(sentence(finding) if arguments.markdown else "\n".join(lines(finding, numbers=False)), end="\n\n")


if __name__ == "__main__":
    run(main)
