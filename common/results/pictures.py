"""Pictures of records and findings: SVG text that takes a page's text color (light or dark), or PNG on white."""

from __future__ import annotations

import html
import io
import re
import textwrap
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from common.cli.errors import printable
from common.cli.extras import require
from common.results.finding import Curve, Growth, Measures, Points
from common.results.record import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Form = TypeVar("Form", str, bytes)
Finish = Callable[["Figure", str], Form]  # from a figure and its description to a picture: svg or png
Rows = Sequence[tuple[str, Mapping[str, Any]]]  # names and measures
INK = "#010203"  # placeholder for the page's text color
COLORS = ("#3f7fbf", "#d9822b", "#5a9e57", "#a05fb0")  # readable on white and on black


def svg(figure: Figure, description: str) -> str:
    """Render the figure as SVG text; screen readers read out ``description``."""
    text = laid_out_once(figure)
    text = "\n".join(map(printable, text[text.index("<svg") :].split("\n"))).replace(INK, "currentColor")
    # Keeps the ids of several pictures on one page apart.
    prefix = f"p{zlib.crc32((text + description).encode()):x}-"
    text = re.sub(r'(id="|url\(#|xlink:href="#)', lambda match: match[0] + prefix, text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    label = html.escape(printable(description), quote=True)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).strip()


def laid_out_once(figure: Figure) -> str:
    """Return what ``savefig`` writes as SVG, which would draw the whole figure once more only to lay it out."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    FigureCanvasSVG(figure)
    figure.set_dpi(72)  # which SVG always has
    if (engine := figure.get_layout_engine()) is not None:
        with suppress(ValueError):  # as in Figure.draw: without room for a layout, there is none
            engine.execute(figure)
        figure.set_layout_engine(None)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def png(figure: Figure, description: str) -> bytes:
    """Render the figure as a PNG file; equal records give equal bytes."""
    buffer = io.BytesIO()
    metadata = {"Software": None, "Description": printable(description)}
    figure.savefig(buffer, format="png", dpi=150, facecolor="white", metadata=metadata)
    return buffer.getvalue()


def metric_bars(records: Sequence[RunRecord], metric: str, finish: Finish[Form] = svg) -> Form:
    """Draw a bar with its 95 % interval for each record, on an axis that starts at 0."""
    rows = [(record.title, record.metrics[metric]) for record in records if metric in record.metrics]
    name = metric.replace("_", " ").replace("f1", "F1")
    with _figure(height=0.8 + 0.42 * len(rows)) as (figure, axes):
        values, errors = _with_errors(rows)
        axes.barh(range(len(rows)), values, xerr=errors, color=COLORS[0], ecolor=INK, capsize=3, height=0.62)
        return _finish_rows(figure, axes, rows, name, finish)


def intervals(part: Measures, finish: Finish[Form] = svg) -> Form:
    """Draw a dot with its 95 % interval for each measure, and the reference as a dashed line.

    The axis runs from 0, or below, to 1; for differences it fits them, with a line at 0.
    """
    # Wrapped names leave room for the picture.
    rows = [
        ("\n".join(textwrap.wrap(f"{name} (n\u00a0=\u00a0{row['n']:,})", 36)), row) for name, row in part.rows.items()
    ]
    lines = sum(max(1.6, 1 + name.count("\n")) for name, _ in rows)
    with _figure(height=0.9 + 0.19 * lines + (0.2 if part.reference is not None else 0)) as (figure, axes):
        values, errors = _with_errors(rows)
        axes.errorbar(values, range(len(rows)), xerr=errors, fmt="o", color=COLORS[0], ecolor=INK, capsize=3)
        if part.reference is not None:
            label = f"{part.reference_name} ({part.reference:.3f})"
            axes.axvline(part.reference, color=COLORS[1], linestyle="--", label=label)
            _legend(figure)
        axes.grid(axis="x", alpha=0.25)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        if not part.differences:
            return _finish_rows(figure, axes, rows, part.metric, finish)
        axes.axvline(0, color=INK, linewidth=1)
        axes.locator_params(axis="x", nbins=6)  # the labels of small differences are long
        _rows_from_the_top(axes, rows, part.metric)
        return finish(figure, _in_words(part.metric, rows, "+.4f"))


def curves(part: Curve, finish: Finish[Form] = svg) -> Form:
    """Draw lines through points, with both axes from 0 to 1."""
    with _figure(width=5.2, height=4.0) as (figure, axes):
        if part.diagonal:
            axes.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1)
        for number, (name, places) in enumerate(part.series.items()):
            marker = "o" if len(places) <= 30 else None
            axes.plot(*zip(*places, strict=True), color=COLORS[number % len(COLORS)], marker=marker, label=name)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        _label(figure, axes, part)
        ends = "; ".join(
            f"{name} from ({places[0][0]:.2f}, {places[0][1]:.2f}) to ({places[-1][0]:.2f}, {places[-1][1]:.2f})"
            for name, places in part.series.items()
        )
        return finish(figure, f"{part.y} against {part.x}: {ends}")


def points(part: Points, finish: Finish[Form] = svg) -> Form:
    """Draw dots, joined by lines if asked; the vertical axis fits them, the horizontal one starts at 0.

    Series with the same name up to a comma ("LoRA, seed 33") share a color and differ in their markers.
    """
    with _figure(width=6.4, height=3.6 + 0.16 * len(part.series)) as (figure, axes):
        kinds: dict[str, list[str]] = {}
        for name, places in part.series.items():
            alike = kinds.setdefault(name.partition(",")[0], [])
            color = COLORS[list(kinds).index(name.partition(",")[0]) % len(COLORS)]
            marker, line = "os^Dv"[len(alike) % 5], ("-", "--", ":")[len(alike) % 3] if part.joined else ""
            alike.append(name)
            axes.plot(*zip(*places, strict=True), color=color, marker=marker, linestyle=line, label=name)
        axes.set_xlim(left=0)
        _label(figure, axes, part)
        words = (
            f"{name} "
            + ", ".join(f"({x:.4g}, {y:.4g})" for x, y in ([places[0], places[-1]] if part.joined else places))
            for name, places in part.series.items()
        )
        return finish(figure, f"{part.y} against {part.x}: {'; '.join(words)}")


def growth(part: Growth, finish: Finish[Form] = svg) -> Form:
    """Draw scores with their intervals by size on a logarithmic axis, and a fitted curve, dashed where nothing was measured."""
    with _figure(width=6.4, height=4.2) as (figure, axes):
        for number, (name, places) in enumerate(part.series.items()):
            sizes, values, low, high = zip(*places, strict=True)
            _, errors = _with_errors(
                [("", {"value": v, "ci95": ends}) for v, *ends in zip(values, low, high, strict=True)]
            )
            color = COLORS[number % len(COLORS)]
            line = "" if part.curve and not number else ":"  # the curve joins the first series
            axes.errorbar(sizes, values, yerr=errors, fmt="os^D"[number % 4] + line, color=color, capsize=3, label=name)
        measured = sorted({place[0] for places in part.series.values() for place in places})
        if part.curve:
            sizes, values, low, high = zip(*part.curve, strict=True)
            inside = sum(size <= measured[-1] for size in sizes)
            axes.fill_between(sizes, low, high, color=COLORS[0], alpha=0.15, linewidth=0)
            axes.plot(sizes[:inside], values[:inside], color=COLORS[0], label=part.curve_name)
            axes.plot(sizes[max(0, inside - 1) :], values[max(0, inside - 1) :], color=COLORS[0], linestyle="--")
        axes.set_xscale("log")
        ticks = [*measured, *(part.curve[-1][:1] if part.curve else ())]
        axes.set_xticks(ticks, [f"{size:,.0f}" for size in ticks], rotation=45)
        axes.minorticks_off()
        _label(figure, axes, part)
        words = (
            f"{name} " + ", ".join(f"{value:.3f} at {size:,.0f}" for size, value, *_ in places)
            for name, places in (part.series | ({part.curve_name: [part.curve[-1]]} if part.curve else {})).items()
        )
        return finish(figure, f"{part.y} against {part.x}: {'; '.join(words)}")


def confusion_heatmap(record: RunRecord, finish: Finish[Form] = svg) -> Form:
    """Draw a record's confusion matrix: rows are labels, columns predictions, shade is the share of the row, text the count."""
    size = len(record.labels)
    with _figure(width=2.6 + 0.9 * size, height=1.2 + 0.55 * size) as (figure, axes):
        shares = [[count / max(1, sum(row)) for count in row] for row in record.confusion]
        # Vector cells; imshow would embed a bitmap.
        axes.pcolormesh(range(size), range(size), shares, cmap="Blues", vmin=0, vmax=1, shading="nearest")
        axes.invert_yaxis()
        for i, row in enumerate(record.confusion):
            for j, count in enumerate(row):
                color = "white" if shares[i][j] > 0.5 else "black"  # by the cell's shade, not the page's background
                axes.text(j, i, f"{count:,}", ha="center", va="center", color=color)
        axes.set_xticks(range(size), record.labels)
        axes.set_yticks(range(size), record.labels)
        axes.set_xlabel("prediction")
        axes.set_ylabel("label")
        for spine in axes.spines.values():
            spine.set_visible(False)
        return finish(figure, f"Confusion matrix of {record.title}, rows are labels: {record.confusion}")


def class_shares(splits: Mapping[str, Mapping[str, int]]) -> str:
    """Draw the class shares of several samples side by side: sample → class → count."""
    classes = list(next(iter(splits.values())))
    with _figure(height=1.2 + 0.32 * len(classes) * len(splits)) as (figure, axes):
        width = 0.8 / len(splits)
        for number, (name, counts) in enumerate(splits.items()):
            given = sum(counts.values())
            total = given or 1  # where a text may have several labels or none, nobody may have given one
            places = [place + number * width for place in range(len(classes))]
            label = f"{name} (n = {given:,})"
            axes.barh(places, [counts[c] / total for c in classes], width * 0.92, color=COLORS[number], label=label)
            for place, c in zip(places, classes, strict=True):
                axes.text(counts[c] / total + 0.008, place, f"{counts[c] / total:.1%}", va="center", fontsize=8)
        middle = 0.4 - width / 2
        axes.set_yticks([place + middle for place in range(len(classes))], classes)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel("share of labels")
        _legend(figure)
        described = (
            f"{name}: " + ", ".join(f"{c} {n:,}" for c, n in counts.items()) for name, counts in splits.items()
        )
        return svg(figure, f"Class shares. {'; '.join(described)}")


def learning_curve(log: Sequence[Mapping[str, Any]], metric: str, finish: Finish[Form] = svg) -> Form:
    """Draw training loss (left axis) and the validation score that chose the checkpoint (right axis) by step.

    ``log`` is Trainer's history: entries of ``step`` and ``loss``, or of ``step`` and ``eval_<metric>``.
    """
    training = [(entry["step"], entry["loss"]) for entry in log if "loss" in entry]
    validation = [(entry["step"], entry[f"eval_{metric}"]) for entry in log if f"eval_{metric}" in entry]
    name = f"validation {metric.replace('_', ' ')}"
    with _figure() as (figure, axes):
        if training:  # a run shorter than the logging interval has none
            axes.plot(*zip(*training, strict=True), color=COLORS[0], label="training loss")
        axes.set_xlabel("step")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylabel("training loss")
        axes.set_ylim(bottom=0)
        right = axes.twinx()
        right.spines["right"].set_visible(True)
        right.plot(*zip(*validation, strict=True), color=COLORS[1], marker="o", label=name)
        right.set_ylabel(name)
        _legend(figure)
        described = ", ".join(f"{value:.3f} at {step}" for step, value in validation)
        return finish(figure, f"Learning curve; {name}: {described}")


def _legend(figure: Figure) -> None:
    figure.legend(frameon=False, loc="outside upper left", ncols=2)  # of the figure: long names shrink the axes


def _label(figure: Figure, axes: Axes, part: Curve | Points | Growth) -> None:
    axes.set_xlabel(part.x)
    axes.set_ylabel(part.y)
    axes.grid(alpha=0.25)
    _legend(figure)


def _with_errors(rows: Rows) -> tuple[list[float], list[list[float]]]:
    """Return values, and how far their intervals extend below and above; a bootstrap interval may exclude the value."""
    values = [row["value"] for _, row in rows]
    ends = [row["ci95"] for _, row in rows]
    below = [max(0.0, value - low) for value, (low, _) in zip(values, ends, strict=True)]
    above = [max(0.0, high - value) for value, (_, high) in zip(values, ends, strict=True)]
    return values, [below, above]


def _finish_rows(figure: Figure, axes: Axes, rows: Rows, metric: str, finish: Finish[Form]) -> Form:
    """Write each measure's value behind its interval; the axis runs from 0, or below, to 1."""
    _rows_from_the_top(axes, rows, metric)
    lowest = min(0.0, *(row["ci95"][0] for _, row in rows))
    axes.set_xlim(lowest, 1.12)
    axes.set_xticks([*([] if lowest == 0 else [-0.5] if lowest > -0.75 else [-1, -0.5]), 0, 0.25, 0.5, 0.75, 1])
    for place, (_, row) in enumerate(rows):
        axes.text(max(row["ci95"][1], row["value"]) + 0.015, place, f"{row['value']:.3f}", va="center")
    return finish(figure, _in_words(metric, rows, ".3f"))


def _rows_from_the_top(axes: Axes, rows: Rows, metric: str) -> None:
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel(f"{metric} (95 % interval)")


def _in_words(metric: str, rows: Rows, form: str) -> str:
    """Describe the picture for screen readers."""
    return f"{metric}: " + ", ".join(f"{' '.join(name.split())} {row['value']:{form}}" for name, row in rows)


@contextmanager
def _figure(width: float = 7.2, height: float = 3.0) -> Iterator[tuple[Figure, Axes]]:
    require("plots")
    import matplotlib
    from matplotlib.figure import Figure

    style = {
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.fonttype": "none",  # text stays text: small, selectable, in the page's font
        "svg.hashsalt": "0",  # equal records, equal bytes
        "font.size": 10,
        "text.parse_math": False,  # a $ in a name is a $
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots()
