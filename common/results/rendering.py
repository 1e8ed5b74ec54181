"""Records and findings as text tables, Markdown and self-contained HTML pages."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli.console import bar, log
from common.cli.errors import UserError, printable
from common.results import pictures
from common.results.finding import Curve, Finding, Growth, Listing, Measures, Points, interval, templates_in
from common.results.pictures import Form
from common.results.record import RunRecord
from common.runtime.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATES = Path(__file__).parent / "templates"
# The first metric of each is the headline, shown with its interval if there is room for only one.
# Weighted recall equals accuracy and macro recall equals balanced accuracy; published tables show both.
CLASS_SCORES = (
    *("accuracy", "balanced_accuracy", "precision/weighted", "recall/weighted", "f1/weighted"),
    *("precision/macro", "recall/macro", "f1/macro"),
)
# Sets of names: all posts, those with a name, and telling the two apart. Sets of labels: all decisions, mean of labels.
SET_SCORES = (
    *(
        "set_f1",
        "set_f1/targeted",
        "exact",
        "exact/targeted",
        "f1/micro",
        "f1/macro",
        "token_f1/targeted",
        "bleu2/targeted",
        "rouge_l/targeted",
    ),
    *("precision/groups", "recall/groups", "f1/groups", "f1/none"),
)
SHORT_SCORES = {
    "accuracy": ("balanced_accuracy", "f1/weighted", "f1/macro"),
    "set_f1": ("set_f1/targeted", "f1/none", "f1/micro", "f1/macro"),
}
WITH_INTERVAL = {"accuracy", "balanced_accuracy", "set_f1", "set_f1/targeted"}
BEST_BY = {"accuracy": "balanced_accuracy", "set_f1": "set_f1"}
SHORT_NAMES = {
    **{"precision": "P", "recall": "R", "f1": "F1", "balanced_accuracy": "balanced acc", "set_f1": "set F1"},
    **{"exact": "exact set", "token_f1": "token F1", "bleu2": "BLEU-2", "rouge_l": "ROUGE-L"},
}
SILENT = 2.0  # seconds that pictures take before their progress is shown
MAX_ROWS = 20  # of a listing that is shown; the file has all


def in_markdown(text: str) -> str:
    """Return text that others wrote for a cell, a heading or a paragraph of Markdown."""
    return printable(text, markdown=True).strip()


def page(template: Path, **values: object) -> str:
    """Render a self-contained HTML page; its template extends ``page.html.jinja``."""
    return templates_in(template.parent, TEMPLATES, html=True).get_template(template.name).render(**values)


def render(records: Sequence[RunRecord], title: str, findings: Sequence[Finding] = ()) -> str:
    """Render a page with a section per task. Records of one task must be of the same items; findings join their task's section."""
    if not records:
        raise UserError("no run records", expected="at least one")
    tasks = {record.task for record in records}
    if strange := [finding for finding in findings if finding.task not in tasks]:
        raise UserError(
            f"a finding on {strange[0].task!r}, but no record of this task",
            fix="evaluate that model into the same folder",
        )
    return page(
        TEMPLATES / "report.html.jinja",
        title=title,
        miniature=any(record.miniature for record in records),
        tasks=[_task(group, findings) for group in by_task(records)],
        hardware={"gpus": [], **records[0].hardware},
        commit=records[0].commit,
        versions=records[0].versions,
        heading=heading,
        with_deviation=with_deviation,
        cost_cells=cost_cells,
    )


def write_report(records: Sequence[RunRecord], path: Path, title: str, findings: Sequence[Finding] = ()) -> None:
    """Render the page, write it to ``path`` and log the path."""
    text = render(records, title, findings)
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
    log(f"report: {path}")


def by_task(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Group records by task in order of appearance, and check that those of one task were scored on the same items."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        group = groups.setdefault(record.task, [])
        group.append(record)
        if record.data["fingerprint"] != group[0].data["fingerprint"]:
            raise UserError(
                f"{record.title!r} and {group[0].title!r} were scored on different items",
                fix="compare records of the same split of the same data",
            )
    return list(groups.values())


def _task(records: list[RunRecord], findings: Sequence[Finding]) -> dict[str, object]:
    """Return a task's section for ``report.html.jinja``."""
    from common.results.checks import group_scores

    first, columns, models = records[0], scores(records[0]), trained(records)
    best = max(records, key=lambda record: record.metrics[BEST_BY[columns[0]]]["value"])
    own = [finding for finding in findings if finding.task == first.task]
    titles = {record.title for record in records}
    # Those of several models first.
    ordered = [[finding for finding in own if (finding.model in titles) == single] for single in (False, True)]
    shown = itertools.chain(ordered[0], filter(None, map(group_scores, models)), ordered[1])
    count, on_pages = len(own) + sum(bool(record.by_group) for record in models), []
    with bar(count, "finding", show=True, title="drawing", delay=SILENT) as done:
        for finding in shown:
            on_pages.append(on_page(finding))
            done.update()
    n = first.metrics[columns[0]]["n"]
    over_seeds = any(
        "sd" in metric for metric in best.metrics.values()
    )  # means over seeds, and summed confusion counts
    return {
        "name": first.task,
        "data": first.data,
        "n": n,
        "scores": columns,
        "seeds": round(sum(map(sum, best.confusion)) / n) if over_seeds else None,
        "answer": answer(records),
        "records": records,
        "policy": first.policy,
        "trained": models,
        "best": best,
        "bars": pictures.metric_bars(records, BEST_BY[columns[0]]),
        "confusion": pictures.confusion_heatmap(best),
        "shares": pictures.class_shares(first.data["class_counts"]),
        "findings": on_pages,
        "commands": list(dict.fromkeys(each.command for each in [*records, *own])),
    }


def trained(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the records of trained models; the others are baselines."""
    return [record for record in records if record.storage_bytes is not None]


def answer(records: Sequence[RunRecord]) -> str:
    """Compare the best trained model of a task with its best baseline, in words."""
    metric = BEST_BY[scores(records[0])[0]]

    def best(chosen: list[RunRecord]) -> dict[str, Any] | None:
        if not chosen:
            return None
        record = max(chosen, key=lambda record: record.metrics[metric]["value"])
        return {**record.metrics[metric], "title": record.title, "score": with_interval(record, metric)}

    template = templates_in(TEMPLATES).get_template("answer.jinja")
    baselines = [record for record in records if record.storage_bytes is None]
    name = {"balanced_accuracy": "balanced accuracy", "set_f1": "set F1"}[metric]
    text = template.render(metric=name, trained=best(trained(records)), baseline=best(baselines))
    return " ".join(text.split())


def on_page(finding: Finding) -> dict[str, object]:
    """Return a finding for ``finding.html.jinja``."""
    return {
        "title": f"{finding.title} ({finding.model})",
        "on": f"{finding.data['name']}, {finding.data['split']}" + (" (miniature)" if finding.miniature else ""),
        "summary": finding.summary,
        "pictures": drawn(finding, pictures.svg),
        "tables": tables(finding),
        "limits": finding.limits,
    }


def scores(record: RunRecord) -> tuple[str, ...]:
    """Return the metrics for a record's table, the headline first."""
    wanted = SET_SCORES if "set_f1" in record.metrics else CLASS_SCORES
    return tuple(metric for metric in wanted if metric in record.metrics)  # some need a post that targets a group


def table_lines(records: Sequence[RunRecord]) -> list[str]:
    """Format the records of one task as text tables for a terminal: scores, then costs if something was trained."""
    first = records[0]
    headline, *others = scores(first)
    note = " (miniature)" if first.miniature else ""
    n = f"n = {first.metrics[headline]['n']:,}"
    rows = [["", heading(headline), *map(heading, others)]]
    for record in records:
        rows.append([record.title, with_interval(record, headline), *(with_deviation(record, name) for name in others)])
    lines = [f"{first.task}{note}: {first.data['split']}, {n}; {heading(headline)} with its 95 % interval"]
    lines += _aligned(rows, str.rjust)
    if models := trained(records):
        costs = [["", *cost_cells(models[0])], *([record.title, *cost_cells(record).values()] for record in models)]
        lines += ["", *_aligned(costs, str.rjust)]
    return [printable(line) for line in lines]


def _aligned(rows: Sequence[Sequence[str]], justify: Callable[[str, int], str]) -> list[str]:
    """Format rows as columns as wide as their cells, the first one left-justified."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(justify, row[1:], widths[1:])]).rstrip() for row in rows]


def markdown_lines(records: Sequence[RunRecord]) -> list[str]:
    """Format the records of one task as a Markdown table of the main scores and the costs."""
    first = records[0]
    headline = scores(first)[0]
    metrics = [headline, *(metric for metric in SHORT_SCORES[headline] if metric in first.metrics)]
    names = [heading(metric) + (" [95 %]" if metric in WITH_INTERVAL else "") for metric in metrics]
    rows = [["", *names, *cost_cells(first)]]
    for record in records:
        cells = [(with_interval if name in WITH_INTERVAL else with_deviation)(record, name) for name in metrics]
        rows.append([record.title, *cells, *cost_cells(record).values()])
    n = f"n = {first.metrics[headline]['n']:,}"
    head = f"{first.task} ({first.data['name']}, split {first.data['split']}, {n})"
    return [in_markdown(head), "", *_markdown_table(rows)]


def _markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = ["| " + " | ".join(map(in_markdown, row)) + " |" for row in rows]
    return [head, "|---" * len(rows[0]) + "|", *body]


def sentence(finding: Finding) -> str:
    """Format a finding's headline as a Markdown list item."""
    return f"- *{in_markdown(finding.title)}* {in_markdown(' '.join(finding.summary[:1]))}"


def with_interval(record: RunRecord, metric: str) -> str:
    """Format a metric as ``0.8009 [0.789, 0.812]``, over several seeds as ``0.8009 ± 0.0021 [0.789, 0.812]``."""
    low, high = record.metrics[metric]["ci95"]
    return f"{with_deviation(record, metric)} [{low:.3f}, {high:.3f}]"


def with_deviation(record: RunRecord, metric: str) -> str:
    """Format a metric as ``0.8009``, over several seeds with the standard deviation between them."""
    measure = record.metrics[metric]
    deviation = measure.get("sd")
    return f"{measure['value']:.4f}" + (f" ± {deviation:.4f}" if deviation is not None else "")


def heading(metric: str) -> str:
    """Format a metric's name as a column's heading: ``f1/macro`` → ``F1 macro``; weighted precision is ``P weighted``."""
    name, _, average = metric.partition("/")
    return f"{SHORT_NAMES.get(name, name)} {average.replace('groups', 'any group')}".strip()


def cost_cells(record: RunRecord) -> dict[str, str]:
    """Format what a model cost to train and costs to store; dashes for a baseline."""
    if record.storage_bytes is None:
        return dict.fromkeys(("trained", "of all", "peak memory", "training", "stored"), "–")
    trainable, total = record.parameters["trainable"], record.parameters["total"]
    memory = record.peak_memory_bytes.get("device", record.peak_memory_bytes["host"])
    return {
        "trained": f"{trainable:,}",
        "of all": f"{trainable / total:.2%}",
        "peak memory": f"{memory / 1e6:,.0f} MB",
        "training": "interrupted" if record.seconds is None else f"{record.seconds:,.1f} s",
        "stored": f"{record.storage_bytes / 1e6:,.2f} MB",
    }


def lines(finding: Finding, *, numbers: bool = True) -> list[str]:
    """Format a finding for a terminal: question and headline, then the details and tables unless ``numbers`` is false."""
    note = " (miniature)" if finding.miniature else ""
    text = [f"{finding.task}, {finding.model}{note}: {finding.title}"]
    text += [f"  {paragraph}" for paragraph in (finding.summary if numbers else finding.summary[:1])]
    for title, rows in tables(finding) if numbers else ():
        text += [f"  {title}", *(f"    {line}" for line in _aligned(rows, str.ljust))]
    return [printable(line) for line in text]


def show(findings: Iterable[Finding]) -> None:
    """Print findings with their numbers and limits."""
    for finding in findings:
        print("\n".join(lines(finding)))
        print(printable(f"  What this does not show: {finding.limits}"))


def tables(finding: Finding, most: int = MAX_ROWS) -> list[tuple[str, list[list[str]]]]:
    """Return title and rows of text, headings first, of each part that is a table. Long listings are cut, as their title says."""
    result = []
    for part in finding.parts:
        if isinstance(part, Measures):
            rows = [[name, f"{row['n']:,}", interval(row)] for name, row in part.rows.items()]
            result.append((part.title, [[part.of, "n", f"{part.metric} [95 %]"], *rows]))
        elif isinstance(part, Listing) and part.rows:
            title = part.title if len(part.rows) <= most else f"{part.title} (the first {most} of {len(part.rows):,})"
            result.append((title, [part.columns, *([_cell(cell) for cell in row] for row in part.rows[:most])]))
    return result


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def drawn(finding: Finding, finish: Callable[[Figure, str], Form]) -> list[tuple[str, Form]]:
    """Return title and picture of each part that is one: measures of at least two things, curves, points and growth."""
    draw = {Measures: pictures.intervals, Curve: pictures.curves, Points: pictures.points, Growth: pictures.growth}
    parts = [part for part in finding.parts if not (isinstance(part, Measures) and len(part.rows) < 2)]
    return [(part.title, draw[type(part)](part, finish)) for part in parts if type(part) in draw]


def markdown(finding: Finding, images: Sequence[tuple[str, str]]) -> str:
    """Format a finding as Markdown under a third-level heading; ``images`` are titles and paths of its pictures."""
    headline, *details = [*map(in_markdown, finding.summary)] or [""]
    text = [f"### {in_markdown(finding.title)}", headline]
    text += [f"![{in_markdown(title)}]({path})" for title, path in images]
    for title, rows in tables(finding):
        details += [f"{in_markdown(title)}:", "\n".join(_markdown_table(rows))]
    if finding.limits:
        details.append(f"What this does not show: {in_markdown(finding.limits)}")
    if details:
        text += ["<details><summary>The numbers</summary>", *details, "</details>"]
    return "\n\n".join(filter(None, text))
