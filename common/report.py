"""Tables and a self-contained HTML page of run records: ``python -m common.report --records FOLDER --output report.html``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.cli.arguments import option, parse
from common.cli.console import log
from common.cli.errors import UserError, run
from common.cli.extras import require
from common.results.finding import FOLDER, read_findings
from common.results.record import read_record
from common.results.rendering import by_task, lines, markdown_lines, sentence, table_lines, write_report


@dataclass
class ReportArguments:
    """Print the tables of a folder of run records, and write an HTML page of them and the findings next to them. The page needs no
    network."""

    records: Path = option(help="folder of run records (*.json)")
    output: Path | None = option(None, "page to write (.html)", writes=(".html", ".htm"))
    title: str = option("Results", "heading of the page")
    markdown: bool = option(False, "print the tables as Markdown, like those in the READMEs")


def main() -> None:
    arguments = parse(
        ReportArguments,
        prog="python -m common.report",
        examples="  python -m common.report --records output/demo/records --output output/demo/report.html",
    )
    folder = arguments.records
    if not folder.is_dir():
        raise UserError("no such folder", file=folder, expected="a folder of run records")
    log(f"reading {folder}")
    records = [read_record(path) for path in sorted(folder.glob("*.json"))]
    if not records:
        raise UserError("no run records", file=folder, expected="*.json files", fix="evaluate a model first")
    findings = read_findings(folder / FOLDER)
    if arguments.output:
        require("plots")
        write_report(records, arguments.output, arguments.title, findings)
    for group in by_task(records):
        print("\n".join(markdown_lines(group) if arguments.markdown else table_lines(group)), end="\n\n")
        for finding in findings:
            if finding.task == group[0].task:
                text = sentence(finding) if arguments.markdown else "\n".join(lines(finding, numbers=False))
                print(text, end="\n\n")


if __name__ == "__main__":
    run(main)
