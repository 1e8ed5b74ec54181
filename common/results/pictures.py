"""Pictures made from run records: as SVG text for a page, whose text colour they take, light or dark; or as PNG on white."""

from __future__ import annotations

import html
import io
import re
import textwrap
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from common.results.record import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Form = TypeVar("Form", str, bytes)
INK = "#010203"  # stands for the page's text colour until the SVG is finished
COLOURS = ("#3f7fbf", "#d9822b", "#5a9e57", "#a05fb0")  # readable on white and on black


def svg(figure: Figure, description: str) -> str:
    """The figure as SVG text; ``description`` is read out to those who can't see it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    # One page holds several pictures: without a prefix their ids would collide.
    prefix = f"p{zlib.crc32((text + description).encode()):x}-"
    text = re.sub(r'(id="|url\(#|xlink:href="#)', lambda match: match[0] + prefix, text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    label = html.escape(description, quote=True)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).strip()


def png(figure: Figure, description: str) -> bytes:
    """The figure as a PNG file; equal records give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", dpi=150, facecolor="white", metadata={"Software": None, "Description": description}
    )
    return buffer.getvalue()


def metric_bars(records: Sequence[RunRecord], metric: str, finish: Callable[[Figure, str], Form] = svg) -> Form:
    """One bar a record with its 95 % interval. The axis starts at 0, so lengths compare."""
    rows = [(record.title, record.metrics[metric]) for record in records if metric in record.metrics]
    name = metric.replace("_", " ").replace("f1", "F1")
    with _figure(height=0.8 + 0.42 * len(rows)) as (figure, axes):
        values, errors = _with_errors([measure for _, measure in rows])
        axes.barh(range(len(rows)), values, xerr=errors, color=COLOURS[0], ecolor=INK, capsize=3, height=0.62)
        return _finish_rows(figure, axes, rows, f"{name} (95 % interval)", name, finish)


def intervals(
    measures: Mapping[str, Mapping[str, Any]],
    metric: str,
    finish: Callable[[Figure, str], Form] = svg,
    *,
    reference: float | None = None,
    reference_name: str = "",
    differences: bool = False,
) -> Form:
    """One dot a measure with its 95 % interval, and a dashed line where a reference value lies.

    The axis runs from 0, or below, to 1; of ``differences`` it fits them, with a line at 0.
    """
    rows = list(measures.items())
    named = [(_wrapped(f"{name} (n\u00a0=\u00a0{measure['n']:,})"), measure) for name, measure in rows]
    written = sum(max(1.6, 1 + name.count("\n")) for name, _ in named)  # lines
    with _figure(height=0.9 + 0.19 * written + (0.2 if reference is not None else 0)) as (figure, axes):
        values, errors = _with_errors([measure for _, measure in rows])
        axes.errorbar(values, range(len(rows)), xerr=errors, fmt="o", color=COLOURS[0], ecolor=INK, capsize=3)
        if reference is not None:
            axes.axvline(reference, color=COLOURS[1], linestyle="--", label=f"{reference_name} ({reference:.3f})")
            figure.legend(frameon=False, loc="outside upper left")
        axes.grid(axis="x", alpha=0.25)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        if differences:
            axes.axvline(0, color=INK, linewidth=1)
            _rows_from_the_top(axes, named)
            axes.set_xlabel(f"{metric} (95 % interval)")
            return finish(figure, _in_words(metric, named, signed=True))
        return _finish_rows(figure, axes, named, f"{metric} (95 % interval)", metric, finish)


def curves(
    series: Mapping[str, Sequence[Sequence[float]]],
    x: str,
    y: str,
    finish: Callable[[Figure, str], Form] = svg,
    *,
    diagonal: bool = False,
) -> Form:
    """Lines through points, both axes from 0 to 1."""
    with _figure(width=5.2, height=4.0) as (figure, axes):
        if diagonal:
            axes.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1)
        for number, (name, points) in enumerate(series.items()):
            marker = "o" if len(points) <= 30 else None
            axes.plot(*zip(*points, strict=True), color=COLOURS[number % len(COLOURS)], marker=marker, label=name)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(alpha=0.25)
        figure.legend(frameon=False, loc="outside upper left", ncols=2)
        ends = "; ".join(
            f"{name} from ({points[0][0]:.2f}, {points[0][1]:.2f}) to ({points[-1][0]:.2f}, {points[-1][1]:.2f})"
            for name, points in series.items()
        )
        return finish(figure, f"{y} against {x}: {ends}")


def points(
    series: Mapping[str, Sequence[Sequence[float]]],
    x: str,
    y: str,
    finish: Callable[[Figure, str], Form] = svg,
    *,
    joined: bool = False,
) -> Form:
    """Dots; the vertical axis fits them, the horizontal one starts at 0. Joined ones get lines.

    Series whose names share what stands before a comma ("LoRA, seed 33") share a colour, and differ in their marks.
    """
    with _figure(width=6.4, height=3.6 + 0.16 * len(series)) as (figure, axes):
        kinds: dict[str, list[str]] = {}
        for name, places in series.items():
            kind = name.partition(",")[0]
            colour = list(kinds).index(kind) if kind in kinds else len(kinds)
            alike = kinds.setdefault(kind, [])
            mark, line = "os^Dv"[len(alike) % 5], ("-", "--", ":")[len(alike) % 3]
            alike.append(name)
            axes.plot(
                *zip(*places, strict=True),
                color=COLOURS[colour % len(COLOURS)],
                marker=mark,
                linestyle=line if joined else "",
                label=name,
            )
        axes.set_xlim(left=0)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(alpha=0.25)
        figure.legend(frameon=False, loc="outside upper left", ncols=2)
        told = {name: [places[0], places[-1]] if joined else places for name, places in series.items()}
        words = (
            f"{name} " + ", ".join(f"({across:.4g}, {up:.4g})" for across, up in places)
            for name, places in told.items()
        )
        return finish(figure, f"{y} against {x}: {'; '.join(words)}")


def _wrapped(name: str) -> str:
    """A row's name on lines short enough to leave the picture its place."""
    return "\n".join(textwrap.wrap(name, 36))


def _with_errors(measures: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[list[float]]]:
    """Values, and how far their intervals reach below and above. A bootstrap interval need not hold the value."""
    values = [measure["value"] for measure in measures]
    below = [max(0.0, value - measure["ci95"][0]) for value, measure in zip(values, measures, strict=True)]
    above = [max(0.0, measure["ci95"][1] - value) for value, measure in zip(values, measures, strict=True)]
    return values, [below, above]


def _finish_rows(
    figure: Figure,
    axes: Axes,
    rows: Sequence[tuple[str, Mapping[str, Any]]],
    label: str,
    name: str,
    finish: Callable[[Figure, str], Form],
) -> Form:
    """A row a measure from top to bottom, its value written behind its interval; the axis runs from 0, or below, to 1."""
    _rows_from_the_top(axes, rows)
    lowest = min(0.0, *(measure["ci95"][0] for _, measure in rows))
    axes.set_xlim(lowest, 1.12)
    axes.set_xticks([*([] if lowest == 0 else [-0.5] if lowest > -0.75 else [-1, -0.5]), 0, 0.25, 0.5, 0.75, 1])
    axes.set_xlabel(label)
    for place, (_, measure) in enumerate(rows):
        axes.text(max(measure["ci95"][1], measure["value"]) + 0.015, place, f"{measure['value']:.3f}", va="center")
    return finish(figure, _in_words(name, rows))


def _rows_from_the_top(axes: Axes, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    axes.set_yticks(range(len(rows)), [title for title, _ in rows])
    axes.invert_yaxis()


def _in_words(name: str, rows: Sequence[tuple[str, Mapping[str, Any]]], *, signed: bool = False) -> str:
    """What those hear who can't see the picture."""
    form = "+.4f" if signed else ".3f"
    return f"{name}: " + ", ".join(f"{' '.join(title.split())} {measure['value']:{form}}" for title, measure in rows)


def confusion_heatmap(record: RunRecord, finish: Callable[[Figure, str], Form] = svg) -> Form:
    """A record's confusion matrix: rows = labels, columns = predictions, shade = share of the row, text = count."""
    size = len(record.labels)
    with _figure(width=2.6 + 0.9 * size, height=1.2 + 0.55 * size) as (figure, axes):
        shares = [[count / max(1, sum(row)) for count in row] for row in record.confusion]
        # Vector cells; imshow would put a bitmap into the page.
        axes.pcolormesh(range(size), range(size), shares, cmap="Blues", vmin=0, vmax=1, shading="nearest")
        axes.invert_yaxis()
        for i, row in enumerate(record.confusion):
            for j, count in enumerate(row):
                # On the cell's own shade, not on the page's background.
                axes.text(
                    j, i, f"{count:,}", ha="center", va="center", color="white" if shares[i][j] > 0.5 else "black"
                )
        axes.set_xticks(range(size), record.labels)
        axes.set_yticks(range(size), record.labels)
        axes.set_xlabel("prediction")
        axes.set_ylabel("label")
        for spine in axes.spines.values():
            spine.set_visible(False)
        return finish(figure, f"Confusion matrix of {record.title}, rows are labels: {record.confusion}")


def class_shares(splits: Mapping[str, Mapping[str, int]]) -> str:
    """Class shares of several samples side by side: sample → class → count."""
    classes = list(next(iter(splits.values())))
    with _figure(height=1.2 + 0.32 * len(classes) * len(splits)) as (figure, axes):
        width = 0.8 / len(splits)
        for number, (name, counts) in enumerate(splits.items()):
            total = sum(counts.values())
            places = [place + number * width for place in range(len(classes))]
            label = f"{name} (n = {total:,})"
            axes.barh(places, [counts[c] / total for c in classes], width * 0.92, color=COLOURS[number], label=label)
            for place, c in zip(places, classes, strict=True):
                axes.text(counts[c] / total + 0.008, place, f"{counts[c] / total:.1%}", va="center", fontsize=8)
        middle = 0.4 - width / 2
        axes.set_yticks([place + middle for place in range(len(classes))], classes)
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_xlabel("share of items")
        figure.legend(frameon=False, loc="outside upper left", ncols=2)  # of the figure: axes shrink with long names
        alt = "; ".join(
            f"{name}: " + ", ".join(f"{c} {n:,}" for c, n in counts.items()) for name, counts in splits.items()
        )
        return svg(figure, f"Class shares. {alt}")


def learning_curve(log: Sequence[Mapping[str, Any]], metric: str, finish: Callable[[Figure, str], Form] = svg) -> Form:
    """Training loss (left axis) and the validation score that chose the checkpoint (right axis) against steps.

    ``log`` is Trainer's history: entries of ``step`` and ``loss``, or of ``step`` and ``eval_<metric>``.
    """
    training = [(entry["step"], entry["loss"]) for entry in log if "loss" in entry]
    validation = [(entry["step"], entry[f"eval_{metric}"]) for entry in log if f"eval_{metric}" in entry]
    name = f"validation {metric.replace('_', ' ')}"
    with _figure() as (figure, axes):
        if training:  # a run shorter than the logging interval has none to show
            axes.plot(*zip(*training, strict=True), color=COLOURS[0], label="training loss")
        axes.set_xlabel("step")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylabel("training loss")
        axes.set_ylim(bottom=0)
        right = axes.twinx()
        right.spines["right"].set_visible(True)
        right.plot(*zip(*validation, strict=True), color=COLOURS[1], marker="o", label=name)
        right.set_ylabel(name)
        figure.legend(frameon=False, loc="outside upper left", ncols=2)
        points = ", ".join(f"{value:.3f} at {step}" for step, value in validation)
        return finish(figure, f"Learning curve; {name}: {points}")


@contextmanager
def _figure(width: float = 7.2, height: float = 3.0) -> Iterator[tuple[Figure, Axes]]:
    import matplotlib
    from matplotlib.figure import Figure

    style = {
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
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
