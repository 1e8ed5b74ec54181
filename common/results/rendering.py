"""TODO docstring."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli.errors import UserError
from common.results import pictures
from common.results.finding import interval
from common.results.record import RunRecord
from common.runtime.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure
from common.cli.console import log
from common.results.finding import Curve, Finding, Form, Listing, Measures, Points
from common.results.checks import group_scores

# The first column of each is the headline, shown with its interval wherever there is room for one only.
# Recall weighted by support equals accuracy and macro recall equals balanced accuracy; both stand in published tables.
TEMPLATES = Path(__file__).parent / "templates"
CLASS_SCORES = (
    "accuracy",
    "balanced_accuracy",
    "precision/weighted",
    "recall/weighted",
    "f1/weighted",
    "precision/macro",
    "recall/macro",
    "f1/macro",
)

# Sets of groups: over all posts, over those with a group, and the telling apart of the two kinds of posts.
SET_SCORES = (
    "set_f1",
    "set_f1/targeted",
    "exact",
    "exact/targeted",
    "token_f1/targeted",
    "bleu2/targeted",
    "rouge_l/targeted",
    "precision/groups",
    "recall/groups",
    "f1/groups",
    "f1/none",
)

SHORT_SCORES = {"accuracy": ("balanced_accuracy", "f1/weighted", "f1/macro"), "set_f1": ("set_f1/targeted", "f1/none")}

WITH_INTERVAL = {"accuracy", "balanced_accuracy", "set_f1", "set_f1/targeted"}

LEGEND = {
    "accuracy": "P is precision, R recall. Weighted: the mean over the labels by how frequent they are; macro: each label alike. "
    "Balanced accuracy is macro recall.",
    "set_f1": "Set F1: of the groups that were named and those that people named, a post at a time. Targeted: over the posts of "
    "which people named a group. P, R and F1 of any group, and F1 of none: whether a group was named at all, whichever it was.",
}

BEST_BY = {"accuracy": "balanced_accuracy", "set_f1": "set_f1"}


def render(records: Sequence[RunRecord], title: str, found: Sequence[Finding] = ()) -> str:
    """The page as text. Records of one task make one section; they must be of the same scored items. Findings stand in the section
    of their task.

    Raises:
        UserError: No records, or records of one task that were scored on different items.
    """
    if not records:
        raise UserError("no run records", expected="at least one")
    tasks = {record.task for record in records}
    if strange := [finding for finding in found if finding.task not in tasks]:
        raise UserError(
            f"a finding of {strange[0].task!r}, of which there is no record",
            fix="evaluate that model into the same folder",
        )
    return page(
        TEMPLATES / "report.html.jinja",
        title=title,
        miniature=any(record.miniature for record in records),
        tasks=[_task(group, found) for group in by_task(records)],
        hardware={"gpus": [], **records[0].hardware},
        commit=records[0].commit,
        versions=records[0].versions,
    )


def page(template: Path, **values: object) -> str:
    """An HTML page that needs nothing but itself; its template extends ``page.html.jinja``."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(**values)


def write_report(records: Sequence[RunRecord], path: Path, title: str, found: Sequence[Finding] = ()) -> None:
    """Renders the page, writes it to ``path`` and says where it is."""
    page = render(records, title, found)
    with atomic_write(path) as part:
        part.write_text(page, encoding="utf-8")
    log(f"report: {path}")


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


def _task(records: list[RunRecord], found: Sequence[Finding]) -> dict[str, object]:
    from common.results import pictures

    first = records[0]
    columns = scores(first)
    best = max(records, key=lambda record: record.metrics[BEST_BY[columns[0]]]["value"])
    trained = [record for record in records if record.storage_bytes is not None]
    titles = {record.title for record in records}
    told = [one for one in [*map(group_scores, trained), *of_task(found, first.task)] if one]
    return {
        "name": first.task,
        "question": first.data["question"],
        "limits": first.data["limits"],
        "data": first.data,
        "n": first.metrics[columns[0]]["n"],
        "scores": columns,
        "legend": LEGEND[columns[0]],
        "heading": heading,
        "deviation": with_deviation,
        "seeds": round(sum(map(sum, best.confusion)) / first.metrics[columns[0]]["n"]) if _of_seeds(best) else None,
        "answer": answer(records),
        "records": records,
        "policy": first.policy,
        "costs": [(record.title, cost_cells(record)) for record in records if record.storage_bytes is not None],
        "best": best,
        "bars": pictures.metric_bars(records, BEST_BY[columns[0]]),
        "confusion": pictures.confusion_heatmap(best),
        "shares": pictures.class_shares(first.data["class_counts"]),
        "findings": [
            on_page(one) for one in sorted(told, key=lambda one: one.model in titles)
        ],  # of several models first
        "commands": list(dict.fromkeys(one.command for one in [*records, *of_task(found, first.task)])),
    }


def _of_seeds(record: RunRecord) -> bool:
    """Whether its metrics are means over seeds, and its confusion counts their sums."""
    return any("sd" in metric for metric in record.metrics.values())


def answer(records: Sequence[RunRecord]) -> str:
    """The best trained model of a task beside the best of what it has to beat, in a sentence."""
    metric = BEST_BY[scores(records[0])[0]]
    name = metric.replace("balanced_accuracy", "balanced accuracy").replace("set_f1", "set F1")

    def best(found: list[RunRecord]) -> RunRecord:
        return max(found, key=lambda record: record.metrics[metric]["value"])

    trained = [record for record in records if record.storage_bytes is not None]
    controls = [record for record in records if record.storage_bytes is None]
    said = [f"{one.title}: {name} {with_interval(one, metric)}" for one in map(best, filter(None, (trained, controls)))]
    if not trained:
        return f"Of what a trained model has to beat, the best is {said[0]}."
    if not controls:
        return f"The best trained model is {said[0]}. Nothing stands beside it that it has to beat."
    (low, high), (least, most) = (best(found).metrics[metric]["ci95"] for found in (trained, controls))
    between = "it is better" if low > most else "it is worse" if high < least else "the intervals overlap"
    return f"The best trained model is {said[0]}. Of what it has to beat, the best is {said[1]}: {between}."


def on_page(finding: Finding) -> dict[str, object]:
    """A finding as ``finding.html.jinja`` takes it."""
    from common.results import pictures

    return {
        "title": f"{finding.title} ({finding.model})",
        "on": f"{finding.data['name']}, {finding.data['split']}" + (" (miniature)" if finding.miniature else ""),
        "summary": finding.summary,
        "pictures": drawn(finding, pictures.svg),
        "tables": tables(finding),
        "limits": finding.limits,
    }


def scores(record: RunRecord) -> tuple[str, ...]:
    """The metrics that a record's table shows, the headline first."""
    wanted = SET_SCORES if "set_f1" in record.metrics else CLASS_SCORES
    return tuple(metric for metric in wanted if metric in record.metrics)  # without a targeted post, none is scored


def table_lines(records: Sequence[RunRecord]) -> list[str]:
    """The records of one task as aligned text tables for a terminal: scores, then costs where something was trained."""
    first = records[0]
    note = " (miniature)" if first.miniature else ""
    width = max(len(record.title) for record in records)
    headline, *others = scores(first)
    wide = max(len(with_interval(record, headline)) for record in records)
    lines = [
        f"{first.task}{note}: {first.data['split']}, n = {first.metrics[headline]['n']:,}; "
        f"{heading(headline)} with its 95 % interval",
        f"{'':{width}}  {heading(headline):>{wide}}" + "".join(f"  {heading(metric):>15}" for metric in others),
    ]
    for record in records:
        cells = [f"  {with_deviation(record, metric):>15}" for metric in others]
        lines.append(f"{record.title:{width}}  {with_interval(record, headline):>{wide}}" + "".join(cells))
    costs = [(record.title, cost_cells(record)) for record in records if record.storage_bytes is not None]
    if costs:
        lines += ["", f"{'':{width}}" + "".join(f"  {name:>14}" for name in costs[0][1])]
        lines += [f"{title:{width}}" + "".join(f"  {cell:>14}" for cell in cells.values()) for title, cells in costs]
    return lines


def markdown_lines(records: Sequence[RunRecord]) -> list[str]:
    """The records of one task as a Markdown table: the main scores, and the costs."""
    first = records[0]
    headline = scores(first)[0]
    metrics = [headline, *SHORT_SCORES[headline]]
    names = [heading(metric) + (" [95 %]" if metric in WITH_INTERVAL else "") for metric in metrics]
    columns = [*names, *cost_cells(first)]
    lines = [
        f"{first.task} ({first.data['name']}, split {first.data['split']}, n = {first.metrics[headline]['n']:,})",
        "",
        "| | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for record in records:
        cells = [
            with_interval(record, metric) if metric in WITH_INTERVAL else with_deviation(record, metric)
            for metric in metrics
        ]
        lines.append(f"| {record.title} | " + " | ".join([*cells, *cost_cells(record).values()]) + " |")
    return lines


def sentence(finding: Finding) -> str:
    """A finding as a Markdown list item, its numbers in words."""
    return plain(f"- *{finding.title}* {' '.join(finding.summary)}")


def with_interval(record: RunRecord, metric: str) -> str:
    """A metric as ``0.8009 [0.789, 0.812]``; of several seeds as ``0.8009 ± 0.0021 [0.789, 0.812]``."""
    low, high = record.metrics[metric]["ci95"]
    return f"{with_deviation(record, metric)} [{low:.3f}, {high:.3f}]"


def with_deviation(record: RunRecord, metric: str) -> str:
    """A metric as ``0.8009``; of several seeds the mean and the standard deviation between them."""
    found = record.metrics[metric]
    deviation = found.get("sd")
    return f"{found['value']:.4f}" + (f" ± {deviation:.4f}" if deviation is not None else "")


def heading(metric: str) -> str:
    """A metric's name as it heads a column: ``f1/macro`` → ``F1 macro``; weighted precision is ``P weighted``."""
    short = {
        "precision": "P",
        "recall": "R",
        "f1": "F1",
        "balanced_accuracy": "balanced acc",
        "set_f1": "set F1",
        "exact": "exact set",
        "token_f1": "token F1",
        "bleu2": "BLEU-2",
        "rouge_l": "ROUGE-L",
    }
    name, _, average = metric.partition("/")
    average = average.replace("groups", "any group")
    return f"{short.get(name, name)} {average}".strip()


def cost_cells(record: RunRecord) -> dict[str, str]:
    """What a model cost to train and costs to store, ready to print; a control's are dashes."""
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


MOST_ROWS = 20  # of a listing on a page; the file has them all


def lines(finding: Finding, *, numbers: bool = True) -> list[str]:
    """A finding for a terminal: its sentences, then its tables unless only sentences are wanted."""
    note = " (miniature)" if finding.miniature else ""
    found = [f"{finding.task}, {finding.model}{note}: {finding.title}", *(f"  {line}" for line in finding.summary)]
    for title, rows in tables(finding) if numbers else ():
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        found += [f"  {title}"]
        found += [
            "    " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
    return [
        "".join(c if c.isprintable() else " " for c in line) for line in found
    ]  # names may hold a terminal's escapes


def show(found: Iterable[Finding]) -> None:
    """Prints findings with their numbers, and what they do not show."""
    for finding in found:
        print("\n".join(lines(finding)))
        print(f"  What this does not show: {finding.limits}")


def tables(finding: Finding, most: int = MOST_ROWS) -> list[tuple[str, list[list[str]]]]:
    """Title and rows of text, the heading first, of each part that is a table. Long listings are cut, and say so."""
    found = []
    for part in finding.parts:
        if isinstance(part, Measures):
            rows = [[part.of, "n", f"{part.metric} [95 %]"]]
            rows += [[name, f"{row['n']:,}", interval(row)] for name, row in part.rows.items()]
            found.append((part.title, rows))
        elif isinstance(part, Listing) and part.rows:
            title = part.title if len(part.rows) <= most else f"{part.title} (the first {most} of {len(part.rows):,})"
            found.append((title, [part.columns, *([_cell(cell) for cell in row] for row in part.rows[:most])]))
    return found


def drawn(finding: Finding, finish: Callable[[Figure, str], Form]) -> list[tuple[str, Form]]:
    """Title and picture of each part that is one: measures of at least two things, curves, and points."""
    found: list[tuple[str, Form]] = []
    for part in finding.parts:
        if isinstance(part, Measures) and len(part.rows) > 1:
            picture = pictures.intervals(
                part.rows,
                part.metric,
                finish,
                reference=part.reference,
                reference_name=part.reference_name,
                differences=part.differences,
            )
            found.append((part.title, picture))
        elif isinstance(part, Curve):
            found.append((part.title, pictures.curves(part.series, part.x, part.y, finish, diagonal=part.diagonal)))
        elif isinstance(part, Points):
            found.append((part.title, pictures.points(part.series, part.x, part.y, finish, joined=part.joined)))
    return found


def markdown(finding: Finding, images: Sequence[tuple[str, str]]) -> str:
    """A finding as Markdown under a heading of the third level.

    Args:
        finding: The finding.
        images: Title and path of each of its pictures.
    """
    found = [f"### {plain(finding.title)}", " ".join(map(plain, finding.summary))]
    for title, (head, *rows) in tables(finding):
        found.append(f"{plain(title)}:")
        body = ["| " + " | ".join(map(plain, row)) + " |" for row in (head, *rows)]
        found.append("\n".join([body[0], "|---" * len(head) + "|", *body[1:]]))
    found += [f"![{plain(title)}]({path})" for title, path in images]
    if finding.limits:
        found.append(f"What this does not show: {plain(finding.limits)}")
    return "\n\n".join(filter(None, found))


def plain(text: str) -> str:
    """A text that may be a corpus's own, so that it can't break a table or be markup; ``<`` before a space is none."""
    return re.sub(r"[|`>]|<(?! )", " ", "".join(c if c.isprintable() else " " for c in text)).replace("](", "] (")


def of_task(findings: Iterable[Finding], task: str) -> list[Finding]:
    """The findings that belong to a task's records."""
    return [finding for finding in findings if finding.task == task]


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
