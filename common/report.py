"""One self-contained HTML page made from run records: ``python -m common.report --records FOLDER --output report.html``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.arguments import option, parse
from common.errors import UserError, run
from common.files import written_aside
from common.records import RunRecord, read_record
from common.stages import say

HEADLINE_METRICS = ("balanced_accuracy", "accuracy", "f1/macro", "f1/weighted")


@dataclass
class ReportArguments:
    """Makes one HTML page, without a network, from a folder of run records, and prints its tables."""

    records: Path = option(help="folder of run records (*.json)")
    output: Path = option(help="page to write")
    title: str = option("Results", "heading of the page")


def render(records: Sequence[RunRecord], title: str) -> str:
    """The page as text. Records of one task make one section; they must be of the same scored items.

    Raises:
        UserError: No records, or records of one task that were scored on different items.
    """
    import jinja2

    if not records:
        raise UserError("no run records", expected="at least one")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja").render(
        title=title,
        miniature=any(record.miniature for record in records),
        tasks=[_task(group) for group in by_task(records)],
        hardware={"gpus": [], **records[0].hardware},
        commit=records[0].commit,
        versions=records[0].versions,
    )


def by_task(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Records grouped by task in order of first appearance.

    Raises:
        UserError: Two records of one task were scored on different items.
    """
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        first = groups.setdefault(record.task, [record])[0]
        if record is not first:
            if record.data["fingerprint"] != first.data["fingerprint"]:
                raise UserError(
                    f"{record.title!r} and {first.title!r} were scored on different items",
                    fix="compare records of the same split of the same data",
                )
            groups[record.task].append(record)
    return list(groups.values())


def _task(records: list[RunRecord]) -> dict[str, object]:
    from common import pictures

    first = records[0]
    best = max(records, key=lambda record: record.metrics[HEADLINE_METRICS[0]]["value"])
    return {
        "name": first.task,
        "question": first.data["question"],
        "limits": first.data["limits"],
        "data": first.data,
        "n": first.metrics["accuracy"]["n"],
        "metrics": HEADLINE_METRICS,
        "records": records,
        "policy": first.policy,
        "parameters": any(record.parameters for record in records),
        "seconds": any(record.seconds is not None for record in records),
        "best": best,
        "bars": pictures.metric_bars(records, HEADLINE_METRICS[0]),
        "confusion": pictures.confusion_heatmap(best),
        "shares": pictures.class_shares(first.data["class_counts"]),
        "commands": list(dict.fromkeys(record.command for record in records)),
    }


def table_lines(records: Sequence[RunRecord]) -> list[str]:
    """The records of one task as an aligned text table for a terminal."""
    first = records[0]
    note = " (miniature)" if first.miniature else ""
    width = max(len(record.title) for record in records)
    head = "  ".join(f"{metric.replace('_', ' '):>23}" for metric in HEADLINE_METRICS)
    lines = [
        f"{first.task}{note}: {first.data['split']}, n = {first.metrics['accuracy']['n']:,}",
        f"{'':{width}}  {head}",
    ]
    for record in records:
        cells = []
        for metric in HEADLINE_METRICS:
            low, high = record.metrics[metric]["ci95"]
            cells.append(f"{record.metrics[metric]['value']:>7.3f} [{low:.3f}, {high:.3f}]")
        lines.append(f"{record.title:{width}}  " + "  ".join(cells))
    return lines


def main() -> None:
    arguments = parse(
        ReportArguments,
        prog="python -m common.report",
        examples="  python -m common.report --records output/demo/records --output output/demo/report.html",
    )
    if not arguments.records.is_dir():
        raise UserError("no such folder", file=arguments.records, expected="a folder of run records")
    records = [read_record(path) for path in sorted(arguments.records.glob("*.json"))]
    page = render(records, arguments.title)
    with written_aside(arguments.output) as part:
        part.write_text(page, encoding="utf-8")
    for group in by_task(records):
        print("\n".join(table_lines(group)), end="\n\n")
    say(f"report: {arguments.output}")


if __name__ == "__main__":
    run(main)
